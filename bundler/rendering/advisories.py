"""What is withdrawn, shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bundler.advisories.applying import Applied
from bundler.advisories.lists import Entry
from schemas.render import Output


def withdrawn(out: Output, entry: Entry, *, dry_run: bool) -> None:
    """``bundle withdraw``."""
    _line(out, entry)
    if dry_run:
        out.note("Nothing was signed.")
    else:
        out.note(
            "Every bundle from now on says so; `bundle create --advisories-only` sends it alone."
        )
    out.result({**entry.document(), "signed": not dry_run})


def listed(out: Output, entries: Sequence[Entry]) -> None:
    """``bundle withdraw --list``, and of what a bundle carries."""
    for entry in entries:
        _line(out, entry)
    if not entries:
        out.note("Nothing was withdrawn.")
    out.result([entry.document() for entry in entries])


def applied(out: Output, result: Applied | None) -> None:
    """What an import or a verification found withdrawn."""
    if result is None:
        return
    for name, each in result.found.items():
        verb = "REFUSED" if name in result.refused else each.action.word
        out.line(f"{verb:<11} {name}  {each.line()}")
    if result.news and result.carried is not None:
        out.line(f"withdrawals {result.news} new of {len(result.carried.entries)}")
    for name, each in result.installed.items():
        out.line(f"here is     {name}  {each.line()}")


def document(result: Applied | None) -> dict[str, Any]:
    """For scripts."""
    if result is None:
        return {}
    return {
        "entries": len(result.carried.entries) if result.carried is not None else 0,
        "new": result.news,
        "models": [{"name": str(name), **each.document()} for name, each in result.found.items()],
        "installed": [
            {"name": str(name), **each.document()} for name, each in result.installed.items()
        ],
        "refused": [str(name) for name in result.refused],
    }


def _line(out: Output, entry: Entry) -> None:
    out.line(
        f"{entry.number:>4}  {entry.at:%Y-%m-%d}  {entry.action.word:<10}"
        f" {entry.subject or entry.digests[0].short}  {entry.reason}"
    )
    for digest in entry.digests:
        out.line(f"      {digest}")
