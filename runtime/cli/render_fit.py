"""How ``sealift fit`` shows what it found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from schemas.render import Output, bytes_text

if TYPE_CHECKING:
    from runtime.cli.fit import Fit


def page(output: Output, found: Fit, sequences: Sequence[int]) -> None:
    """The whole page: what it takes, what there is, what would fit."""
    spec, need, shape = found.spec, found.need, found.shape
    trained = f", trained for {shape.trained} tokens" if shape.trained else ""
    output.line(f"{found.name}: {shape.architecture}{trained}")
    output.line()
    asked = f"{spec.num_parallel} x {spec.context_length} tokens, {spec.kv_type}"
    rows: list[tuple[str, object]] = [
        ("weights", bytes_text(need.weights)),
        ("projector", bytes_text(need.projector) if need.projector else None),
        ("cache", f"{bytes_text(need.cache)}  ({asked})"),
        ("buffers", bytes_text(need.compute)),
        ("process", bytes_text(need.process)),
        ("old prompts", bytes_text(need.prompts) if need.prompts else None),
        ("together", bytes_text(need.total)),
    ]
    if need.device:
        rows.append(("on accelerators", bytes_text(need.device)))
    if found.room is not None and found.free is not None:
        rows.append(("free", f"{bytes_text(found.free)}  ({found.room.limit})"))
    output.fields(rows, indent=2)
    output.line()
    output.line(_verdict(found))
    output.line()
    _table(output, found, sequences)
    _most(output, found)


def _verdict(found: Fit) -> str:
    if found.free is None:
        return "The kernel does not tell how much memory there is."
    if found.fits:
        return "It fits."
    return f"IT DOES NOT FIT: {bytes_text(found.need.total - found.free)} are missing."


def _table(output: Output, found: Fit, sequences: Sequence[int]) -> None:
    """Memory by context and requests at once; in brackets what does not fit."""
    head = ("CONTEXT", *(f"{n} AT ONCE" if n > 1 else "1" for n in sequences))
    rows = (
        (context, *(_cell(total, found.free) for total in totals)) for context, totals in found.rows
    )
    output.table(head, rows)
    if any(total > found.free for _, row in found.rows for total in row if found.free is not None):
        output.line("(In brackets: does not fit.)")


def _cell(total: int, free: int | None) -> str:
    text = bytes_text(total)
    return text if free is None or total <= free else f"({text})"


def _most(output: Output, found: Fit) -> None:
    if not found.contexts:
        return
    output.line()
    spec = found.spec
    rows = [
        (kind, found.contexts[kind] or "none", found.sequences[kind] or "none")
        for kind in found.contexts
    ]
    at_once = f"CONTEXT, {spec.num_parallel} AT ONCE"
    output.table(("CACHE", f"LONGEST {at_once}", f"MOST AT ONCE, {spec.context_length} EACH"), rows)
