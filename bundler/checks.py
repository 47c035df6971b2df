"""What signed documents must say of one another, checked before a large blob is read.

A signature proves who wrote a document, not that it makes sense: publishers err, keys are stolen.
Everything here is a pure function of documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from bundler.contents import IDENTITY, Entry, closure
from bundler.descriptor import BundleDescriptor
from registry import oci
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from schemas import limits
from schemas.errors import MalformedArchive, MalformedDocument, OutsideClosure

FROM_PUBLISHER: Final = "Get the bundle again from its publisher"
_PATH_CHARS: Final = 255
_FILE_NAMES: Final = (oci.FILEPATH, oci.TITLE)
_WEIGHT_KIND: Final = "application/vnd.cncf.model.weight.v1."


def check_model(manifest: Manifest) -> tuple[Descriptor, ...]:
    """See that a manifest is a model as ModelPack has it, with weight files that can be checked.

    Returns:
        The weight layers.

    Raises:
        MalformedDocument: It is something else, or has file names that could lead a tool astray
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
        if layer.media_type.startswith(_WEIGHT_KIND) and layer.media_type != oci.WEIGHT_RAW:
            raise MalformedDocument(
                "a model of the bundle has weights that cannot be checked", why=layer.media_type
            )
    check_file_names([layer.annotations.get(oci.FILEPATH) for layer in manifest.layers])
    weights = tuple(layer for layer in manifest.layers if layer.media_type == oci.WEIGHT_RAW)
    if not weights:
        raise MalformedDocument("a model of the bundle has no weight files")
    return weights


def check_file_names(names: Sequence[str | None]) -> None:
    """See that the files of one model can lie in one folder, whatever system that is on.

    Args:
        names: Paths in that folder; None for what unpacks nowhere.

    Raises:
        MalformedDocument: Two have one name but for its case, or one is the folder of another.
    """
    folded = [name.casefold() for name in names if name is not None]
    folders = {
        "/".join(parts[:depth])
        for parts in (name.split("/") for name in folded)
        for depth in range(1, len(parts))
    }
    twice = [name for name, count in Counter(folded).items() if count > 1 or name in folders]
    if twice:
        raise MalformedDocument("two files of a model have one name", why=repr(twice[0][:120]))


def is_plain_path(text: str) -> bool:
    """Whether a file name is relative, printable and stays below where it is put."""
    if not text.isprintable() or "\\" in text or len(text) > _PATH_CHARS:
        return False
    return not any(part in ("", ".", "..") for part in text.split("/"))


def check_uses(
    manifests: Mapping[Digest, Manifest], referrers: Mapping[Digest, Manifest] | None = None
) -> frozenset[Digest]:
    """See that no blob is used as two of manifest, config and layer: each is checked as one kind.

    What belongs to referrers is of kinds of its own.

    Returns:
        The models' configs.

    Raises:
        MalformedDocument: One is.
    """
    others = referrers or {}
    configs = frozenset(manifest.config.digest for manifest in manifests.values())
    layers = frozenset(layer.digest for item in manifests.values() for layer in item.layers)
    beside = frozenset(blob.digest for item in others.values() for blob in item.blobs)
    seen: set[Digest] = set()
    for kind in (frozenset(manifests), frozenset(others), configs, beside, layers):
        if twice := seen & kind:
            raise MalformedDocument(
                f"blob {min(twice).short} is used as two kinds of blob",
                why="only one of manifest, config and layer can be checked",
            )
        seen |= kind
    return configs


def check_closure(
    descriptor: BundleDescriptor,
    manifests: Mapping[Digest, Manifest],
    referrers: Mapping[Digest, Manifest] | None = None,
) -> tuple[Entry, ...]:
    """See that contents and required blobs are the models' closure, exactly.

    Returns:
        What follows the manifests and those of referrers.

    Raises:
        OutsideClosure: Too much, too little, or in another order; or a manifest or a config is
            required of the far side, which never happens.
        MalformedDocument: A blob is declared with two sizes.
    """
    models, others = descriptor.models, referrers or {}
    wanted = closure(
        ((model.manifest, manifests[model.manifest.digest]) for model in models),
        ((each, others[each.digest]) for model in models for each in model.referrers),
    )
    sizes = {blob.digest: blob.size for blob in wanted}
    small = {manifest.config.digest for manifest in manifests.values()}
    small |= {blob.digest for manifest in others.values() for blob in manifest.blobs}
    small |= manifests.keys() | others.keys()
    bases = {base for entry in descriptor.contents for base in entry.bases}
    for digest, size in descriptor.requires:
        known = sizes.get(digest, size if digest in bases else None)
        if known != size or digest in small:
            raise OutsideClosure(
                f"the bundle requires blob {digest.short} without need", hint=FROM_PUBLISHER
            )
    required = {digest for digest, _ in descriptor.requires}
    carried = [(blob.digest, blob.size) for blob in wanted if blob.digest not in required]
    if [(entry.digest, entry.size) for entry in descriptor.contents] != carried:
        raise OutsideClosure(
            "the bundle's contents are not what its models consist of",
            why=_difference(descriptor.contents, carried),
            hint=FROM_PUBLISHER,
        )
    return descriptor.contents[len(manifests) + len(others) :]


def _difference(found: Sequence[Entry], wanted: Sequence[tuple[Digest, int]]) -> str:
    sizes = dict(wanted)
    for entry in found:
        if entry.digest not in sizes:
            return f"blob {entry.digest.short} belongs to no model"
        if entry.size != sizes[entry.digest]:
            return (
                f"blob {entry.digest.short} is listed with {entry.size} bytes"
                f" where a model says {sizes[entry.digest]}"
            )
    missing = sizes.keys() - {entry.digest for entry in found}
    if missing:
        return f"blob {min(missing).short} is missing"
    return "they are in another order"


def check_volumes(descriptor: BundleDescriptor, large: Sequence[Entry]) -> None:
    """See that the volumes hold every segment of every large entry, in order, each once.

    Raises:
        MalformedDocument: They do not.
    """
    listed = [
        (part.entry.digest, number)
        for parts in descriptor.volumes
        for part in parts
        for number in range(part.first, part.first + part.count)
    ]
    wanted = [(entry.digest, number) for entry in large for number in range(len(entry.parts))]
    if listed != wanted:
        raise MalformedDocument(
            "the bundle's volumes do not hold what it consists of, in order", hint=FROM_PUBLISHER
        )


def check_order(descriptor: BundleDescriptor) -> tuple[Entry, ...]:
    """See that the contents begin with the models' manifests and those of their referrers.

    Both in the models' order, each once.

    Returns:
        These.

    Raises:
        MalformedArchive: They do not, or are more than are read into memory.
    """
    models = descriptor.models
    ordered = [m.manifest for m in models] + [each for m in models for each in m.referrers]
    wanted = list(dict.fromkeys((item.digest, item.size) for item in ordered))
    head = descriptor.contents[: len(wanted)]
    found = [(entry.digest, entry.size) for entry in head if entry.encoding == IDENTITY]
    if found != wanted:
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
