"""Bills of materials, CycloneDX 1.6: one per model and one per bundle (ECMA-424, "ML-BOM").

The same model gives the same bytes on every machine and every day: no time, no host, no version of
this tool, and a serial number derived from the manifest's digest. What is not known is left out and
named under ``sealift:unknown``; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote
from uuid import NAMESPACE_URL, UUID, uuid5

from bundler.attestations.statements import files
from bundler.descriptor import BundledModel
from bundler.modelpack import PackedModel, spdx
from registry.digest import Digest
from registry.gguf import Upstream
from registry.oci import Manifest
from schemas import documents
from schemas.documents import Kind
from schemas.errors import OutsideClosure
from schemas.version import TOOL

_SERIAL: Final = "https://sealift.example/bom/"  # a name space; nothing lies there
_UNKNOWN: Final = "sealift:unknown"


def model_bom(model: PackedModel) -> dict[str, Any]:
    """The bill of materials of a model, as a document."""
    manifest = model.descriptor.digest
    component = _component(model)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": _serial(manifest, str(model.source.reference)),
        "version": 1,
        "metadata": {"tools": _tools(), "component": component},
        "compositions": [
            {"aggregate": "complete", "assemblies": [str(manifest)]},
            {"aggregate": "unknown", "dependencies": [str(manifest)]},
        ],
    }


def bundle_bom(
    bundle: str,
    issued_at: str,
    publisher: str,
    models: Sequence[tuple[BundledModel, Manifest, bytes | None]],
) -> bytes:
    """The bill of materials of a bundle: its models, each with a link to its own.

    Args:
        bundle: Id of the bundle.
        issued_at: When it was.
        publisher: Who made it, for people.
        models: With their manifests, and their own bills where they have one.
    """
    return documents.dump(
        Kind.BUNDLE_BOM,
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": f"urn:uuid:{UUID(bundle)}",
            "version": 1,
            "metadata": {
                "timestamp": issued_at,
                "tools": _tools(),
                "supplier": {"name": publisher},
                "component": {"type": "file", "bom-ref": bundle, "name": f"bundle {bundle}"},
            },
            "components": [_listed(*each) for each in models],
        },
    )


def check_model_bom(data: bytes, manifest: Digest, model: Manifest) -> None:
    """See that a bill of materials is of this model, and names its files.

    Raises:
        MalformedDocument: It is none.
        OutsideClosure: It is of another model.
    """
    check_model_document(documents.load(Kind.MODEL_BOM, data), manifest, model)


def check_model_document(document: Any, manifest: Digest, model: Manifest) -> None:
    """As :func:`check_model_bom`, of one that was parsed."""
    documents.validate(Kind.MODEL_BOM, document)
    component = document["metadata"]["component"]
    listed = {each["name"]: each["hashes"][0]["content"] for each in component["components"]}
    if component["bom-ref"] != str(manifest) or listed != {
        name: digest.hex for name, digest in files(model).items()
    }:
        raise OutsideClosure("a bill of materials is not of the model that it came with")


def check_bundle_bom(data: bytes, bundle: str, models: Mapping[str, Digest]) -> None:
    """See that a bundle's bill of materials lists its models, and no others.

    Args:
        data: The document.
        bundle: Id of the bundle.
        models: Names of its models to the digests of their manifests.

    Raises:
        MalformedDocument: It is none.
        OutsideClosure: It is of another bundle, or lists other models.
    """
    document = documents.load(Kind.BUNDLE_BOM, data)
    listed = {
        f"{each['group']}/{each['name']}:{each['version']}": each["bom-ref"]
        for each in document["components"]
    }
    wanted = {name: f"{name}@{manifest}" for name, manifest in models.items()}
    if document["serialNumber"] != f"urn:uuid:{UUID(bundle)}" or listed != wanted:
        raise OutsideClosure("the bundle's bill of materials is not of what it holds")


def _component(model: PackedModel) -> dict[str, Any]:
    source = model.source
    reference, origin = source.reference, source.provenance
    manifest = model.descriptor.digest
    ancestors = [_ancestor(each) for each in origin.base_models]
    licences = _licences(model)
    described: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": str(manifest),
        "group": reference.namespace,
        "name": reference.name,
        "version": reference.tag,
        "purl": _purl(reference.name, reference.tag, manifest),
        **_hashes(model.manifest),
        "modelCard": {"modelParameters": _parameters(model)},
        "components": [
            {"type": "file", "name": name, "hashes": [_hash(digest)]}
            for name, digest in files(model.manifest).items()
        ],
        "properties": _properties(model, known=(bool(licences), bool(ancestors))),
    }
    optional: dict[str, Any] = {
        "description": source.facts.name,
        "authors": [{"name": origin.author}] if origin.author else None,
        "supplier": {"name": origin.organization} if origin.organization else None,
        "licenses": licences,
        "pedigree": {"ancestors": ancestors} if ancestors else None,
        "externalReferences": _references(model),
    }
    return described | {key: value for key, value in optional.items() if value}


def _parameters(model: PackedModel) -> dict[str, Any]:
    facts = model.source.facts
    found: dict[str, Any] = {}
    if facts.architecture:
        found["modelArchitecture"] = facts.architecture
    if facts.capabilities:  # only a GGUF file tells
        embedding = "embedding" in facts.capabilities
        found["task"] = "feature-extraction" if embedding else "text-generation"
        found["inputs"] = [{"format": "text"}]
        found["outputs"] = [{"format": "embedding" if embedding else "text"}]
    if model.source.provenance.datasets:
        found["datasets"] = [_dataset(each) for each in model.source.provenance.datasets]
    return found


def _properties(model: PackedModel, *, known: tuple[bool, bool]) -> list[dict[str, str]]:
    source = model.source
    facts, origin = source.facts, source.provenance
    licence, pedigree = known
    unknown = {
        "licence": licence,
        "pedigree": pedigree,
        "source": bool(origin.addresses),
        "datasets": bool(origin.datasets),
        "architecture": bool(facts.architecture),
        "quantization": bool(facts.quantization),
    }
    pairs = {
        "sealift:format": source.found.format,
        "sealift:quantization": facts.quantization,
        "sealift:parameters": str(facts.parameters or ""),
        "sealift:contextLength": str(facts.context_length or ""),
        "sealift:finetune": origin.finetune,
        "sealift:quantizedBy": origin.quantized_by,
        "sealift:upstreamVersion": origin.version,
        "sealift:chatTemplateSha256": facts.chat_template_sha256 or "",
    }
    found = [{"name": name, "value": value} for name, value in pairs.items() if value]
    return found + [{"name": _UNKNOWN, "value": what} for what, told in unknown.items() if not told]


def _licences(model: PackedModel) -> list[dict[str, Any]]:
    """An SPDX expression where the file's word is one; else its name, as it stands there."""
    declared, origin = model.source.facts.license, model.source.provenance
    if not declared:
        return []
    expression = spdx(declared)
    if not expression.startswith("LicenseRef-"):
        return [{"expression": expression, "acknowledgement": "declared"}]
    licence = {"name": origin.license_name or declared, "acknowledgement": "declared"}
    if origin.license_address:
        licence["url"] = origin.license_address
    return [{"license": licence}]


def _references(model: PackedModel) -> list[dict[str, str]]:
    addresses = model.source.provenance.addresses
    return [{"type": "distribution", "url": address} for address in addresses]


def _ancestor(base: Upstream) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "machine-learning-model", "name": base.name}
    if base.version:
        found["version"] = base.version
    if base.organization:
        found["supplier"] = {"name": base.organization}
    if base.address:
        found["externalReferences"] = [{"type": "distribution", "url": base.address}]
    return found


def _dataset(data: Upstream) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "dataset", "name": data.name}
    if data.address:
        found["contents"] = {"url": data.address}
    return found


def _listed(model: BundledModel, manifest: Manifest, bom: bytes | None) -> dict[str, Any]:
    reference = model.reference
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"{reference}@{model.manifest.digest}",
        "group": reference.namespace,
        "name": reference.name,
        "version": reference.tag,
        "purl": _purl(reference.name, reference.tag, model.manifest.digest),
        **_hashes(manifest),
    }
    if bom is not None:
        serial = _serial(model.manifest.digest, str(reference)).removeprefix("urn:uuid:")
        link = {
            "type": "bom",
            "url": f"urn:cdx:{serial}/1",
            "hashes": [_hash(Digest.of(bom))],
        }
        found["externalReferences"] = [link]
    return found


def _hashes(manifest: Manifest) -> dict[str, Any]:
    """Of a model in one file, that file's; of others each file has its own."""
    found = files(manifest)
    return {"hashes": [_hash(*found.values())]} if len(found) == 1 else {}


def _tools() -> dict[str, Any]:
    return {"components": [{"type": "application", "name": TOOL}]}


def _serial(manifest: Digest, name: str) -> str:
    return f"urn:uuid:{uuid5(NAMESPACE_URL, f'{_SERIAL}{name}@{manifest}')}"


def _purl(name: str, tag: str, manifest: Digest) -> str:
    return f"pkg:oci/{name}@{quote(str(manifest), safe='')}?tag={quote(tag, safe='')}"


def _hash(digest: Digest) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest.hex}
