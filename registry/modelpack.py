"""CNCF ModelPack (model-spec v0.0.7): the config of a model, and its files as layers.

Both are functions of the files alone, so the same ones give the same digests on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from registry import oci
from registry.digest import Digest
from registry.oci import Descriptor
from schemas import documents, strictjson
from schemas.documents import Kind

_EPOCH: Final = "1970-01-01T00:00:00Z"
_GGUF: Final = "gguf"


def file_descriptor(media_type: str, digest: Digest, size: int, name: str) -> Descriptor:
    """A layer that is one raw file.

    Args:
        media_type: One of :data:`registry.oci.LAYER_KINDS`.
        digest: Of the file.
        size: In bytes.
        name: A relative path with slashes.
    """
    metadata = strictjson.dumps(
        {
            "name": name.rpartition("/")[2],
            "mode": 0o644,
            "uid": 0,
            "gid": 0,
            "size": size,
            "mtime": _EPOCH,
            "typeflag": ord("0"),
        }
    ).decode()
    annotations = {oci.FILEPATH: name, oci.FILE_METADATA: metadata, oci.TITLE: name}
    return Descriptor(media_type, digest, size, annotations)


def file_layer(media_type: str, data: bytes, name: str) -> Descriptor:
    """The same of bytes at hand."""
    return file_descriptor(media_type, Digest.of(data), len(data), name)


def config_bytes(
    facts: Mapping[str, Any], form: str, version: str, layers: Iterable[Descriptor]
) -> bytes:
    """A model's config.

    Args:
        facts: As :class:`registry.gguf.ModelFacts` has them.
        form: ``gguf``, ``safetensors`` or ``mixed``.
        version: The model's tag.
        layers: Its files.
    """
    licence = facts.get("license")
    document = {
        "descriptor": _present(
            name=facts.get("name"),
            family=facts.get("architecture"),
            version=version,
            title=facts.get("name"),
            licenses=[spdx(licence)] if licence else None,
        ),
        "config": _present(
            architecture=facts.get("architecture"),
            format=form,
            paramSize=facts.get("size_label"),
            capabilities=_capabilities(facts.get("capabilities") or ()),
            **{"quantization" if form == _GGUF else "precision": facts.get("quantization")},
        ),
        "modelfs": {"type": "layers", "diffIds": [str(layer.digest) for layer in layers]},
    }
    return documents.dump(Kind.MODEL_CONFIG, document)


def spdx(name: str) -> str:
    """A licence as SPDX writes it: ``mit`` → ``MIT``, ``gemma`` → ``LicenseRef-gemma``.

    Model hubs write SPDX ids in lower case, and names of their own beside them.
    """
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        return str(canonicalize_license_expression(name))
    except InvalidLicenseExpression:
        return "LicenseRef-" + re.sub(r"[^A-Za-z0-9.-]+", "-", name)


def _capabilities(names: Iterable[str]) -> dict[str, Any]:
    found = tuple(names)
    if not found:  # only a GGUF file tells
        return {}
    return {
        "inputTypes": ["text", *(["image"] if "vision" in found else [])],
        "outputTypes": ["embedding" if "embedding" in found else "text"],
        "toolUsage": "tools" in found,
    }


def _present(**fields: object) -> dict[str, Any]:
    """What is unknown is left out, never guessed."""
    return {key: value for key, value in fields.items() if value}
