"""``sealift fit``: what a model takes of memory, and what would fit. Nothing is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from schemas.cli import JsonFlag, Output
from schemas.errors import DoesNotFit, UsageError

if TYPE_CHECKING:
    from runtime.fit import Estimate, Room, Shape
    from runtime.messages import WorkerSpec

TYPES: Final = ("f16", "q8_0", "q4_0")
_CONTEXTS: Final = (2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144)
_SEQUENCES: Final = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Fit:
    """What was found out.

    Attributes:
        name: Of the model.
        shape: Its measures.
        spec: How it would be loaded.
        need: What it would take so.
        room: What there is; None where the kernel does not tell.
        free: Of it, what a model may take.
        contexts: Type of cache to the longest context that fits.
        sequences: Type of cache to the most requests at once that fit.
        rows: Context, and the estimates for 1, 2, 4, 8 and 16 requests at once.
    """

    name: str
    shape: Shape
    spec: WorkerSpec
    need: Estimate
    room: Room | None
    free: int | None
    contexts: dict[str, int]
    sequences: dict[str, int]
    rows: tuple[tuple[int, tuple[int, ...]], ...]

    @property
    def fits(self) -> bool:
        """Whether it fits as asked for; true where the kernel tells nothing."""
        return self.free is None or self.need.total <= self.free

    def document(self) -> dict[str, Any]:
        """For JSON."""
        room = None
        if self.room is not None:
            room = {"available": self.room.bytes, "free": self.free, "limit": self.room.limit}
        return {
            "name": self.name,
            "architecture": self.shape.architecture,
            "trained_context": self.shape.trained,
            "context": self.spec.context_length,
            "parallel": self.spec.num_parallel,
            "kv_type": self.spec.kv_type,
            "gpu_layers": self.spec.num_gpu,
            "need": self.need.document(),
            "memory": room,
            "fits": self.fits,
            "longest_context": self.contexts,
            "most_parallel": self.sequences,
            "totals": [
                {"context": context, "parallel": count, "total": total}
                for context, totals in self.rows
                for count, total in zip(_SEQUENCES, totals, strict=True)
            ],
        }


def fit(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model in the store, or a .gguf file.")
    ],
    *,
    ctx: Annotated[
        int | None, typer.Option("--ctx", metavar="TOKENS", help="Context of each request.")
    ] = None,
    parallel: Annotated[
        int | None, typer.Option("--parallel", metavar="N", help="Requests at once.")
    ] = None,
    kv_type: Annotated[
        str | None, typer.Option("--kv-type", metavar="TYPE", help="Of the cache: f16, q8_0, q4_0.")
    ] = None,
    gpu_layers: Annotated[
        int | None, typer.Option("--gpu-layers", metavar="N", help="Layers on accelerators.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Tell how much memory a model takes, and what fits here. Nothing is loaded."""
    from runtime.cli import render_fit

    output = Output(json=json)
    found = _examine(model, ctx, parallel, kv_type, gpu_layers)
    render_fit.page(output, found, _SEQUENCES)
    output.result(found.document())
    if not found.fits:
        raise typer.Exit(DoesNotFit.exit_code)


def _examine(
    model: str,
    context: int | None,
    parallel: int | None,
    kv_type: str | None,
    gpu_layers: int | None,
) -> Fit:
    from dataclasses import replace

    from runtime.fit import Meter, estimate, longest_context, most_sequences, offloads, placed
    from runtime.models import DEFAULT_CONTEXT, base_spec
    from schemas import limits
    from schemas.settings import load

    settings = load().serve
    name, shape = _shape(model)
    most = shape.trained or limits.CONTEXT_TOKENS
    spec = replace(
        base_spec(settings),
        context_length=_within(
            "--ctx", context or min(settings.context_length or DEFAULT_CONTEXT, most), most
        ),
        num_parallel=_within("--parallel", parallel or settings.num_parallel, limits.NUM_PARALLEL),
        kv_type=kv_type or settings.kv_cache_type,
    )
    if spec.kv_type not in TYPES:
        raise UsageError(f"{spec.kv_type[:40]!r} is no type of cache", hint="Use f16, q8_0 or q4_0")
    asked = gpu_layers is not None
    spec = replace(spec, num_gpu=gpu_layers if gpu_layers is not None else spec.num_gpu)
    spec = placed(spec, offloads=asked or offloads())
    with Meter() as meter:
        room = meter.room()
    free = None if room is None else max(room.bytes - limits.MEMORY_RESERVE_BYTES, 0)
    if room is not None and free is not None and 0 < settings.max_memory * limits.MIB < free:
        free = settings.max_memory * limits.MIB
        room = replace(room, limit="the setting max_memory")
    by_type = {} if free is None else {kind: replace(spec, kv_type=kind) for kind in TYPES}
    return Fit(
        name=name,
        shape=shape,
        spec=spec,
        need=estimate(shape, spec),
        room=room,
        free=free,
        contexts={kind: longest_context(shape, s, free or 0, most) for kind, s in by_type.items()},
        sequences={kind: most_sequences(shape, s, free or 0) for kind, s in by_type.items()},
        rows=tuple(
            (tokens, tuple(estimate(shape, _with(spec, tokens, n)).total for n in _SEQUENCES))
            for tokens in _contexts(most, spec.context_length)
        ),
    )


def _with(spec: WorkerSpec, context: int, sequences: int) -> WorkerSpec:
    from dataclasses import replace

    return replace(spec, context_length=context, num_parallel=sequences)


def _contexts(most: int, asked: int) -> list[int]:
    """The lengths that the table shows: usual ones, the trained one, and what was asked for."""
    return sorted({*(n for n in _CONTEXTS if n < most), min(most, max(_CONTEXTS)), asked})


def _within(option: str, value: int, most: int) -> int:
    if not 1 <= value <= most:
        raise UsageError(f"{option} must be between 1 and {most}")
    return value


def _shape(model: str) -> tuple[str, Shape]:
    from pathlib import Path

    from registry.gguf import read_header_file
    from runtime.fit import shape_at, shape_of

    path = Path(model)
    if model.endswith(".gguf") and path.is_file():
        return path.name, shape_of(read_header_file(path))
    from registry.reference import Reference
    from runtime.cli.models import open_store
    from runtime.models import Models

    reference = Reference.from_user(model)
    with open_store() as store:
        found = Models(store).get(reference)
        return found.name, shape_at(str(found.weights), str(found.projector or ""))
