"""New models out of ones that are here, or out of a file that was uploaded: ``/api/create``.

What comes of it is this site's own: signed by nobody, and marked as made here. No weights are
copied; a new model is a manifest and a few small layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from registry import oci
from registry.database import rfc3339
from registry.digest import Digest
from registry.gguf import read_header_file
from registry.modelpack import config_bytes, file_descriptor
from registry.oci import Descriptor, Manifest
from registry.parts import ADAPTER_FILE, Part, layers_of, weights_of
from registry.records import ModelRecord
from registry.reference import Reference
from registry.staging import StagingArea
from registry.store import Store, actor
from registry.weights import GGUF, WeightFacts, format_of, gguf_facts, together
from runtime.messages import Message
from runtime.models import Models
from runtime.parts import NO_PARTS, Parts, write_parts
from runtime.provenance import KEY, Made
from runtime.quantizing import check_source
from schemas import limits
from schemas.errors import InvalidName, NotFound, UnsupportedRequest, UsageError

MODEL_FILE: Final = "model.gguf"  # what weights are called that came without a file's name
_PROJECTOR_FILE: Final = "mmproj.gguf"
ONE_FILE: Final = "only a model in one GGUF file, and a projector with it, can be served"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a new model is to be.

    Attributes:
        reference: Its name.
        base: The model that it is made from, if it is.
        weights: Else the blob with its weights,
        file: and how the file was called,
        more: and the same of a projector's, or of the model's if the first was the projector.
        adapter: A blob with a LoRA adapter; None keeps the base's.
        template: Replaces; None keeps the base's. So do the next.
        system: Replaces.
        parameters: Added to the base's; the same name replaces.
        messages: Replace.
        licenses: Added.
        quantize: The type that the weights are to be brought to; None keeps them as they are.
        quantized: The blob with what came of that.
    """

    reference: Reference
    base: Reference | None = None
    weights: Digest | None = None
    file: str = MODEL_FILE
    more: tuple[tuple[str, Digest], ...] = ()
    adapter: Digest | None = None
    template: str | None = None
    system: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    messages: tuple[Message, ...] | None = None
    licenses: tuple[str, ...] = ()
    quantize: str | None = None
    quantized: Digest | None = None

    def __post_init__(self) -> None:
        if self.reference.host is not None or self.reference.digest is not None:
            raise InvalidName(f"{self.reference} cannot name a new model")

    def over(self, inherited: Parts) -> Parts:
        """What the new model has beside its weights."""
        return Parts(
            template=inherited.template if self.template is None else self.template,
            system=inherited.system if self.system is None else self.system,
            parameters={**inherited.parameters, **self.parameters},
            messages=inherited.messages if self.messages is None else self.messages,
            licenses=(*inherited.licenses, *self.licenses),
        )


@dataclass(frozen=True, slots=True)
class _Origin:
    """Weights, a projector behind them if there is one, an adapter, and what is known of them."""

    files: tuple[Descriptor, ...]
    facts: Mapping[str, Any]
    name: str
    parts: Parts = NO_PARTS
    base: ModelRecord | None = None
    adapter: Descriptor | None = None
    unquantized: Digest | None = None

    @property
    def weights(self) -> int:
        """Which of the files has the weights; the other one is a projector."""
        sees = self.facts.get("projector")
        return int(sees is not None and sees["file"] == 0)

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """All layers that are there already."""
        return self.files if self.adapter is None else (*self.files, self.adapter)


def make(store: Store, recipe: Recipe) -> list[str]:
    """Make a model.

    Returns:
        What was done, in Ollama's words: the statuses of ``/api/create``.

    Raises:
        NotFound: There is no such base.
        UsageError: There is no such blob.
        ModelWithdrawn: The base was taken back.
        UnsupportedRequest, MalformedModel: The weights are not a GGUF file that can be served.
        AlreadyExists: The name is that of a model that a publisher signed.
    """
    origin = _origin(store, recipe)
    statuses = [] if recipe.base else ["parsing GGUF"]
    if recipe.quantized is not None:
        origin = _quantized(store, origin, recipe.quantized)
    if recipe.adapter is not None:
        origin = replace(origin, adapter=_adapter(store, recipe.adapter, origin))
        statuses.append("creating adapter layer")
    written = write_parts(recipe.over(origin.parts))
    layers = (*origin.blobs, *(layer for layer, _ in written))
    config = config_bytes(origin.facts, GGUF, recipe.reference.tag, layers)
    manifest = Manifest(
        config=Descriptor.for_bytes(oci.MODEL_CONFIG, config),
        layers=layers,
        artifact_type=oci.MODEL_ARTIFACT,
        annotations=_annotations(origin),
    )
    for layer in layers:
        known = "using existing" if store.blobs.has(layer.digest) else "creating new"
        statuses.append(f"{known} layer {layer.digest}")
    made = Made(
        "created" if recipe.base else "uploaded",
        origin.name,
        actor(),
        rfc3339(datetime.now(UTC)),
        _bases(store, origin),
    )
    with store.blobs.stage() as area:
        for file in origin.blobs:
            if not area.claim(file.digest, file.size):
                raise NotFound(f"blob {file.digest.short} is gone")
        for data in (config, *(data for _, data in written)):
            area.add_bytes(data)
        facts = {key: value for key, value in origin.facts.items() if key != KEY}
        settle(store, area, recipe.reference, manifest.to_bytes(), made.within(facts))
    return [*statuses, "writing manifest", "success"]


def to_quantize(store: Store, recipe: Recipe) -> tuple[Digest, str] | None:
    """What has to be quantized first for a model that :func:`make` is to make.

    Returns:
        The blob with the weights, and their type; None if the recipe does not ask for it, or they
        are of that type already.

    Raises:
        SealiftError: As :func:`make`, or the weights are quantized already.
    """
    if recipe.quantize is None:
        return None
    origin = _origin(store, recipe)
    kind = str(origin.facts.get("quantization"))
    check_source(kind)
    return None if kind == recipe.quantize else (origin.files[origin.weights].digest, kind)


def settle(
    store: Store,
    area: StagingArea,
    reference: Reference,
    manifest_bytes: bytes,
    facts: Mapping[str, Any],
    media_type: str = oci.IMAGE_MANIFEST,
) -> None:
    """Give a model its name, in one transaction with its audit event.

    Args:
        store: Its lock is held meanwhile.
        area: All blobs of the model wait here, but the manifest.
        reference: The name.
        manifest_bytes: Exactly.
        facts: With how it came here among them.
        media_type: Of the manifest.

    Raises:
        AlreadyExists: The name is that of a model that a publisher signed.
    """
    manifest = Manifest.parse(manifest_bytes, media_type=media_type)
    whole = Descriptor.for_bytes(media_type, manifest_bytes)
    made = Made.of(facts)
    with store.lock():
        store.check_name(reference, whole.digest)
        signed = store.catalogue.withdrawals.vouched(whole.digest)
        area.add_bytes(manifest_bytes)
        area.install()
        with store.catalogue.transaction() as tx:
            for blob in manifest.blobs:
                tx.put_blob(blob)
            # Of what a bundle brought as well, more is known than what is learnt here.
            tx.put_manifest(reference.repository, whole, manifest, None if signed else facts)
            tx.set_tag(reference, whole.digest)
            detail = {"manifest": str(whole.digest), "from": made.source if made else ""}
            how = "pull" if made and made.how == "pulled" else "create"
            tx.add_audit_event(store.audit_event(f"model.{how}", str(reference), detail))


def signed_with(store: Store, weights: Digest) -> list[Digest]:
    """The manifests of models with these weights that a publisher signed."""
    withdrawals = store.catalogue.withdrawals
    return [each for each in store.catalogue.manifests_with(weights) if withdrawals.vouched(each)]


def _origin(store: Store, recipe: Recipe) -> _Origin:
    return _from_model(store, recipe.base) if recipe.base else _from_file(store, recipe)


def _quantized(store: Store, origin: _Origin, digest: Digest) -> _Origin:
    """The same with other weights; what the engine wrote is looked at like what a client sent."""
    header = read_header_file(store.blobs.path(digest))
    old = origin.files[origin.weights]
    new = _file(replace(old, digest=digest, size=store.blobs.size(digest)), MODEL_FILE)
    files = [new if file is old else file for file in origin.files]
    facts = {**origin.facts, "quantization": header.quantization}
    return replace(origin, files=tuple(files), facts=facts, unquantized=old.digest)


def _from_model(store: Store, reference: Reference) -> _Origin:
    record = store.catalogue.resolve(reference)
    if record is None:
        raise NotFound(f"model '{reference.shortest}' not found")
    withdrawal = store.withdrawal_of(record.descriptor.digest)
    if withdrawal is not None and withdrawal.stops:
        raise withdrawal.refusal(reference.shortest)
    found = weights_of(record.manifest.layers, record.facts)
    if found is None or format_of(record.facts) != GGUF:
        raise UnsupportedRequest(
            f"nothing can be made from model '{reference.shortest}'",
            why="it is not a single GGUF file, which is all that the engine here runs",
        )
    files = [_file(found[0], MODEL_FILE)]
    facts = dict(record.facts)
    if found[1] is not None:
        files.append(_file(found[1], _PROJECTOR_FILE))
        facts["projector"] = {**facts["projector"], "file": 1}
    parts = replace(Models(store).parts(record), foreign=False)
    adapters = layers_of(record.manifest.layers, Part.ADAPTER)
    adapter = _adapter_layer(adapters[-1].digest, adapters[-1].size) if adapters else None
    return _Origin(tuple(files), facts, record.reference.shortest, parts, record, adapter)


def _adapter(store: Store, digest: Digest, origin: _Origin) -> Descriptor:
    """The layer of an adapter that was uploaded."""
    if not store.blobs.has(digest):
        raise UsageError(f"blob not found for the adapter (digest {digest})")
    header = read_header_file(store.blobs.path(digest), adapter=True)
    if header.text("general.architecture") != origin.facts.get("architecture"):
        raise UnsupportedRequest(
            "the adapter does not fit the model",
            why=f"it is for {header.text('general.architecture')}, "
            f"the model is {origin.facts.get('architecture')}",
        )
    return _adapter_layer(digest, store.blobs.size(digest))


def _adapter_layer(digest: Digest, size: int) -> Descriptor:
    return file_descriptor(oci.WEIGHT_RAW, digest, size, ADAPTER_FILE)


def _file(layer: Descriptor, name: str) -> Descriptor:
    """A weight file as ModelPack names it, whatever manifest it comes from."""
    name = layer.annotations.get(oci.FILEPATH) or name
    return file_descriptor(oci.WEIGHT_RAW, layer.digest, layer.size, name)


def _from_file(store: Store, recipe: Recipe) -> _Origin:
    if recipe.weights is None:
        raise UsageError("neither 'from' or 'files' was specified")
    files: list[Descriptor] = []
    known: list[WeightFacts] = []
    for name, digest in ((recipe.file, recipe.weights), *recipe.more):
        if not store.blobs.has(digest):
            raise UsageError(f"blob not found for {name} (digest {digest})")
        known.append(gguf_facts(read_header_file(store.blobs.path(digest), projectors=True)))
        files.append(file_descriptor(oci.WEIGHT_RAW, digest, store.blobs.size(digest), name))
    facts = together(known)
    if recipe.more and facts.projector is None:
        raise UnsupportedRequest(ONE_FILE)
    return _Origin(tuple(files), facts.document(), recipe.file)


def _annotations(origin: _Origin) -> dict[str, str]:
    if origin.base is None:
        return {}
    return {oci.BASE_DIGEST: str(origin.base.descriptor.digest), oci.BASE_NAME: origin.name}


def _bases(store: Store, origin: _Origin) -> tuple[Digest, ...]:
    """Whose withdrawal holds for what is made: the base, its own, and who signed these weights."""
    sources = [file.digest for file in origin.blobs]
    if origin.unquantized is not None:
        sources.append(origin.unquantized)
    found = {digest for source in sources for digest in signed_with(store, source)}
    if origin.base is not None:
        base = origin.base.descriptor.digest
        found |= {base, *store.catalogue.withdrawals.bases(base)}
    if len(found) > limits.BASES:
        raise UnsupportedRequest(
            f"{origin.name} was made from too many models", why=f"over {limits.BASES}"
        )
    return tuple(sorted(found))
