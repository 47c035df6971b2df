"""The runtime's read view of the catalogue: which models can be served, what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from registry.digest import Digest
from registry.parts import Part, layers_of, weights_of
from registry.records import ModelRecord
from registry.reference import Reference
from registry.store import Store
from registry.weights import GGUF, format_of
from registry.withdrawals import Withdrawal
from runtime.messages import Message, WorkerSpec
from runtime.options import NO_OPTIONS, Options
from runtime.parts import NO_PARTS, Parts, read_parts
from runtime.provenance import Made
from schemas import limits
from schemas.errors import NotFound, SealiftError, UnsupportedRequest
from schemas.settings import Serve

DEFAULT_CONTEXT: Final = 4096  # Ollama's, where neither the request nor the settings say more
NO_SPEC: Final = WorkerSpec("")


def base_spec(settings: Serve) -> WorkerSpec:
    """What the settings say of how every model is loaded; it names no model yet."""
    return WorkerSpec(
        "",
        num_gpu=settings.num_gpu,
        kv_type=settings.kv_cache_type,
        flash_attention=settings.flash_attention,
        main_gpu=settings.main_gpu,
        split_mode=settings.split_mode,
        tensor_split=settings.tensor_split,
        prompt_cache=settings.prompt_cache * limits.MIB,
    )


@dataclass(frozen=True, slots=True)
class Model:
    """One name in the catalogue that the runtime can load.

    Attributes:
        reference: Its name.
        digest: Of its manifest; two names with one digest are one model.
        weights: The GGUF file in the blob store.
        size: Bytes of config and layers.
        modified: When the name was last set, UTC.
        facts: What the importer learnt from the GGUF (:class:`registry.gguf.ModelFacts` as JSON).
        options: Sampling and loading parameters that came with the model.
        system: System text that came with the model.
        template: A Jinja template that came with the model and replaces the GGUF's own.
        messages: Turns that came with the model and precede every conversation.
        license: Its licence texts or names.
        withdrawal: Why it is not served, or served with a warning; None for nearly all.
        made: How it came here without a bundle; None for what a bundle brought.
        projector: What makes embeddings of pictures for it, in the blob store; None if it is blind.
        adapter: What changes its weights (LoRA), in the blob store; None for nearly all.
        foreign_template: Whether it came with a Go template that is not in force.
    """

    reference: Reference
    digest: Digest
    weights: Path
    size: int
    modified: datetime
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)
    options: Options = NO_OPTIONS
    system: str = ""
    template: str | None = None
    messages: tuple[Message, ...] = ()
    license: str = ""
    withdrawal: Withdrawal | None = None
    made: Made | None = None
    foreign_template: bool = False
    projector: Path | None = None
    adapter: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", MappingProxyType(dict(self.facts)))

    @property
    def name(self) -> str:
        """As Ollama prints it."""
        return self.reference.shortest

    @property
    def files(self) -> tuple[Path, ...]:
        """All that a worker loads."""
        found = (self.weights, self.projector, self.adapter)
        return tuple(path for path in found if path is not None)

    @property
    def capabilities(self) -> tuple[str, ...]:
        """``completion``, ``insert``, ``tools``, ``thinking``, ``embedding``, ``vision``."""
        return tuple(self.facts.get("capabilities") or ("completion",))

    @property
    def trained_context(self) -> int:
        """Tokens that the model was trained for; 0 if it does not say."""
        return int(self.facts.get("context_length") or 0)

    def worker_spec(
        self,
        options: Options,
        *,
        context: int,
        parallel: int,
        threads: int,
        base: WorkerSpec = NO_SPEC,
    ) -> WorkerSpec:
        """How a worker loads this model for a request.

        Args:
            options: The request's; the model's own hold where they are silent.
            context: Tokens, where neither says; 0 means :data:`DEFAULT_CONTEXT`.
            parallel: Sequences decoded together.
            threads: Where neither says.
            base: What holds for all models (:func:`base_spec`).
        """
        wanted = options.over(self.options).runner
        tokens = wanted.get("num_ctx") or context or DEFAULT_CONTEXT
        if self.trained_context:
            tokens = min(tokens, self.trained_context)
        plain = replace(base, model_path=str(self.weights))
        return replace(
            plain,
            context_length=max(tokens, limits.LEAST_CONTEXT_TOKENS),
            num_parallel=parallel,
            num_threads=wanted.get("num_thread") or threads,
            num_batch=wanted.get("num_batch") or plain.num_batch,
            num_gpu=wanted.get("num_gpu", plain.num_gpu),
            main_gpu=max(wanted.get("main_gpu", plain.main_gpu), 0),
            template=self.template,
            projector_path=str(self.projector or ""),
            adapter_path=str(self.adapter or ""),
        )


class Models:
    """Looks models up. Every call touches the disk: run it in a thread, not in the event loop.

    Args:
        store: The open store; several threads may use it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> list[Model]:
        """Every model that can be loaded, the newest first; other artifacts are left out."""
        records = self._store.catalogue.models()
        withdrawn = self._store.catalogue.withdrawals.all()
        found = (self._model(record, self._whole_parts(record)) for record in records)
        return [
            replace(model, withdrawal=withdrawn.get(model.digest))
            for model in found
            if model is not None
        ]

    def get(self, reference: Reference) -> Model:
        """One model.

        Raises:
            NotFound: No such name.
            UnsupportedRequest: The name stands for something that is no GGUF model in one file.
        """
        record = self._store.catalogue.resolve(reference)
        if record is None:
            raise NotFound(f"model '{reference.shortest}' not found")
        model = self._model(record, self.parts(record))
        if model is None:
            raise UnsupportedRequest(
                f"model '{reference.shortest}' cannot be served",
                why="it is not a single GGUF file, with a projector and an adapter at most, which "
                "is all that the engine here runs",
            )
        return replace(model, withdrawal=self._store.withdrawal_of(model.digest))

    def parts(self, record: ModelRecord) -> Parts:
        """What came with a model beside its weights.

        Raises:
            SealiftError: It does not parse, or rotted.
        """
        return read_parts(self._store.blobs, record.manifest.layers)

    def _whole_parts(self, record: ModelRecord) -> Parts:
        """The same for a list, in which a damaged model stands too; serving it will fail."""
        try:
            return self.parts(record)
        except SealiftError:
            return NO_PARTS

    def _model(self, record: ModelRecord, parts: Parts) -> Model | None:
        facts = dict(record.facts)
        found = weights_of(record.manifest.layers, facts)
        if found is None or format_of(facts) != GGUF:
            return None
        weights, projector = found
        adapters = layers_of(record.manifest.layers, Part.ADAPTER)
        if len(adapters) > 1:
            return None
        own = tuple(facts.get("capabilities") or ("completion",))
        facts["capabilities"] = parts.capabilities(own)
        return Model(
            reference=record.reference,
            digest=record.descriptor.digest,
            weights=self._store.blobs.path(weights.digest),
            projector=self._store.blobs.path(projector.digest) if projector else None,
            adapter=self._store.blobs.path(adapters[0].digest) if adapters else None,
            size=record.size,
            modified=record.modified,
            facts=facts,
            options=parts.options,
            system=parts.system,
            template=parts.template,
            messages=parts.messages,
            license="\n\n".join(parts.licenses) or facts.get("license") or "",
            made=Made.of(facts),
            foreign_template=parts.foreign,
        )
