"""What signed documents must say of one another, checked before a large blob is read.

A signature proves who wrote a document, not that it makes sense: publishers err, keys are stolen.
Everything here is a pure function of documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from bundler.descriptor import BundleDescriptor, Member, closure
from registry import oci
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from schemas import limits
from schemas.errors import MalformedArchive, MalformedDocument, OutsideClosure

FROM_PUBLISHER: Final = "Get the bundle again from its publisher"
_PATH_CHARS: Final = 255
_FILE_NAMES: Final = (oci.FILEPATH, oci.TITLE)


def check_model(manifest: Manifest) -> Descriptor:
    """See that a manifest is a model as ModelPack has it, with one weight file.

    Returns:
        The weight layer.

    Raises:
        MalformedDocument: It is something else, or has a file name that could lead a tool astray
            which unpacks the model elsewhere.
    """
    if manifest.artifact_type != oci.MODEL_ARTIFACT:
        raise MalformedDocument("a manifest in the bundle is no model", why="its artifactType")
    if manifest.config.media_type != oci.MODEL_CONFIG:
        raise MalformedDocument(
            "a manifest in the bundle has no model config", why=manifest.config.media_type
        )
    for layer in manifest.layers:
        for name in (layer.annotations.get(key) for key in _FILE_NAMES):
            if name is not None and not is_plain_path(name):
                raise MalformedDocument("a layer has an unsafe file name", why=repr(name[:120]))
    weights = [layer for layer in manifest.layers if layer.media_type == oci.WEIGHT_RAW]
    if len(weights) != 1:
        raise MalformedDocument(
            "a model of the bundle cannot be served",
            why=f"it has {len(weights)} weight files where one is supported",
        )
    return weights[0]


def is_plain_path(text: str) -> bool:
    """Whether a file name is relative, printable and stays below where it is put."""
    if not text.isprintable() or "\\" in text or len(text) > _PATH_CHARS:
        return False
    return not any(part in ("", ".", "..") for part in text.split("/"))


def check_uses(manifests: Mapping[Digest, Manifest]) -> frozenset[Digest]:
    """See that no blob is used as two of manifest, config and layer: each is checked as one kind.

    Returns:
        The configs.

    Raises:
        MalformedDocument: One is.
    """
    configs = frozenset(manifest.config.digest for manifest in manifests.values())
    layers = {layer.digest for manifest in manifests.values() for layer in manifest.layers}
    twice = (configs & manifests.keys()) | (layers & manifests.keys()) | (layers & configs)
    if twice:
        raise MalformedDocument(
            f"blob {min(twice).short} is used as two kinds of blob",
            why="only one of manifest, config and layer can be checked",
        )
    return configs


def check_closure(
    descriptor: BundleDescriptor, manifests: Mapping[Digest, Manifest]
) -> tuple[Member, ...]:
    """See that the contents are the models' closure, exactly.

    Returns:
        What follows the manifests.

    Raises:
        OutsideClosure: Too much, too little, or in another order.
        MalformedDocument: A blob is declared with two sizes.
    """
    models = descriptor.models
    wanted = closure((model.manifest, manifests[model.manifest.digest]) for model in models)
    if descriptor.contents != wanted:
        raise OutsideClosure(
            "the bundle's contents are not what its models consist of",
            why=_difference(descriptor.contents, wanted),
            hint=FROM_PUBLISHER,
        )
    return wanted[len(manifests) :]


def _difference(found: Sequence[Member], wanted: Sequence[Member]) -> str:
    sizes = {member.digest: member.size for member in wanted}
    for member in found:
        if member.digest not in sizes:
            return f"blob {member.digest.short} belongs to no model"
        if member.size != sizes[member.digest]:
            return (
                f"blob {member.digest.short} is listed with {member.size} bytes"
                f" where a model says {sizes[member.digest]}"
            )
    missing = sizes.keys() - {member.digest for member in found}
    if missing:
        return f"blob {min(missing).short} is missing"
    return "they are in another order"


def check_order(descriptor: BundleDescriptor) -> tuple[Member, ...]:
    """See that the contents begin with the models' manifests, in their order, each once.

    Returns:
        These.

    Raises:
        MalformedArchive: They do not, or are more than are read into memory.
    """
    wanted = list(dict.fromkeys((m.manifest.digest, m.manifest.size) for m in descriptor.models))
    head = descriptor.contents[: len(wanted)]
    if [(member.digest, member.size) for member in head] != wanted:
        raise MalformedArchive(
            "the bundle's contents are not in order",
            why="they do not begin with the models' manifests",
            hint=FROM_PUBLISHER,
        )
    total = sum(member.size for member in head)
    if total > limits.INDEX_BYTES:
        raise MalformedArchive(
            "the bundle's manifests are too large", why=f"{total} > {limits.INDEX_BYTES} bytes"
        )
    return head


def check_custom(
    name: str, signed: Mapping[str, str | int], computed: Mapping[str, str | int]
) -> None:
    """See that what was signed about a model is what its manifest says.

    Raises:
        OutsideClosure: A field is missing or differs.
    """
    for key, value in computed.items():
        if signed.get(key) != value:
            raise OutsideClosure(
                f"what was signed about {name} does not fit its manifest",
                why=f"{key} was signed as {signed.get(key, 'nothing')!r} and is {value!r}",
                hint=FROM_PUBLISHER,
            )
