"""What ``bundle trust explain`` shows: words and a tree, in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, Final

from bundler.clock import rfc3339
from bundler.explaining import Explanation, State
from bundler.trust.chart import ChartedRole
from bundler.trust.fingerprint import in_groups
from schemas.render import Output, bytes_text, one_line

_WIDTH: Final = 80
_MODELS: Final = 20
_BLOBS: Final = 12
_SIGNS: Final = {State.HOLDS: "holds  ", State.FAILED: "FAILED ", State.NOT_RUN: "not run"}


def explained(out: Output, found: Explanation) -> None:
    """``bundle trust explain``."""
    for line in lines(found):
        out.line(line)
    out.result(document(found))


def lines(found: Explanation) -> Iterator[str]:
    """All of it, for people."""
    yield from _verdict(found)
    yield ""
    yield "Who signs what" + ("" if found.believed else ", as it says itself")
    yield from _tree(found)
    yield ""
    yield "What was checked"
    for check in found.checks:
        yield from _wrap(f" {check.number}  {_SIGNS[check.state]}  ", check.words)
    if found.checks[-1].state is State.NOT_RUN and found.believed:
        yield from _wrap(
            "    ", "The payload was not read: give --full. An import reads it in any case."
        )
    yield ""
    yield "What would have to happen for this bundle to be a lie"
    for lie in found.lies:
        yield from _wrap(" - ", lie)


def _verdict(found: Explanation) -> Iterator[str]:
    yield from _wrap("", f"Bundle {found.sequence} of {found.publisher!r}, as it says itself.")
    if found.doubt is not None:
        why = f": {found.doubt.why}" if found.doubt.why else ""
        yield from _wrap("", f"It is NOT believed: {found.doubt.what}{why}.")
        if found.doubt.hint:
            yield from _wrap("", f"{found.doubt.hint}.")
    if found.anchor is not None:
        if found.doubt is None:
            yield from _wrap("", f"It is believed as {found.anchor.name}'s, on this root:")
        yield from _wrap(" ", in_groups(found.anchor.fingerprint))
        yield from _wrap(
            " ",
            f"root v{found.pinned}, pinned on {found.anchor.added:%Y-%m-%d}; the bundle brings"
            f" roots up to v{max(found.chart.roots)}, each signed by the keys of the one before",
        )
    yield from _wrap("", f"Time: {found.time.words()}.")
    yield from _wrap("", f"Policy: {found.policy.source}, {found.policy.digest.short}.")
    if found.refused is not None:
        why = f": {found.refused.why}" if found.refused.why else ""
        yield from _wrap("", f"That policy keeps it out: {found.refused.what}{why}.")
    for line in found.withdrawn[:_MODELS]:
        yield from _wrap("", f"Withdrawn: {line}.")
    if len(found.withdrawn) > _MODELS:
        yield f"Withdrawn: and {len(found.withdrawn) - _MODELS} more."


def _tree(found: Explanation) -> Iterator[str]:
    root = found.chart.roles["root"]
    yield from _wrap("", _role(root), "|  ")
    yield from _below(found, root, "")


def _below(found: Explanation, parent: ChartedRole, bar: str) -> Iterator[str]:
    children: list[Any] = [*found.chart.children(parent.role)]
    mine = [model for model in found.models if model.role == parent.role and model.role]
    children += mine[:_MODELS]
    if parent.role == "bundle":
        children.append("the description of this bundle: models, digests, sizes, order")
    if len(mine) > _MODELS:
        children.append(f"and {len(mine) - _MODELS} more models")
    for number, child in enumerate(children, 1):
        last = number == len(children)
        here, below = bar + ("`- " if last else "|- "), bar + ("   " if last else "|  ")
        if isinstance(child, str):
            yield from _wrap(here, child, below)
        elif isinstance(child, ChartedRole):
            yield from _wrap(here, _role(child), below)
            yield from _below(found, child, below)
        else:
            yield from _wrap(here, f"{child.name}  manifest {child.manifest.short}", below)
            for name, digest, size in child.blobs[:_BLOBS]:
                text = f"{one_line(name)[:40]}  {digest.short}  {bytes_text(size)}"
                yield from _wrap(f"{below}   ", text)
            if len(child.blobs) > _BLOBS:
                yield f"{below}   and {len(child.blobs) - _BLOBS} more files"


def _role(role: ChartedRole) -> str:
    signed = ", ".join(keyid[:8] for keyid in role.signers) or "nobody"
    return (
        f"{role.role} v{role.version}, until {role.expires:%Y-%m-%d}: {role.threshold} of"
        f" {len(role.keyids)} must sign; signed by {signed}"
    )


def _wrap(first: str, text: str, rest: str | None = None) -> list[str]:
    return textwrap.wrap(
        one_line(text),
        _WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first) if rest is None else rest,
        break_on_hyphens=False,
    )


def document(found: Explanation) -> dict[str, Any]:
    """All of it, for scripts."""
    doubt, refused, anchor = found.doubt, found.refused, found.anchor
    return {
        "believed": found.believed,
        "payloadRead": found.checks[-1].state is State.HOLDS,
        "error": None if doubt is None else doubt.document(),
        "sequence": found.sequence,
        "publisher": found.publisher,
        "anchor": None
        if anchor is None
        else {
            "name": anchor.name,
            "fingerprint": str(anchor.fingerprint),
            "rootVersion": found.pinned,
        },
        "roots": list(found.chart.roots),
        "time": {"taken": rfc3339(found.time.time), "verdict": found.time.verdict},
        "policy": {
            "source": found.policy.source,
            "digest": str(found.policy.digest),
            "refused": None if refused is None else refused.document(),
        },
        "withdrawn": list(found.withdrawn),
        "roles": [
            {
                "role": each.role,
                "parent": each.parent or None,
                "version": each.version,
                "expires": rfc3339(each.expires),
                "threshold": each.threshold,
                "keys": list(each.keyids),
                "signedBy": list(each.signers),
                "paths": list(each.paths),
                "targets": each.targets,
            }
            for each in found.chart.roles.values()
        ],
        "models": [
            {
                "name": each.name,
                "target": each.target,
                "role": each.role or None,
                "manifest": str(each.manifest),
                "blobs": [
                    {"name": name, "digest": str(digest), "size": size}
                    for name, digest, size in each.blobs
                ],
            }
            for each in found.models
        ],
        "checks": [
            {"number": each.number, "check": each.words, "state": each.state.value}
            for each in found.checks
        ],
        "lies": list(found.lies),
    }
