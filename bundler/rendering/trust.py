"""What ``bundle trust`` shows."""

from __future__ import annotations

from typing import Any

from bundler.clock import rfc3339
from bundler.isolated import KnownAnchor
from schemas.render import Output


def anchor(out: Output, known: KnownAnchor) -> None:
    """``bundle trust init``."""
    out.line(f"trusted  {known.anchor.name}")
    out.line(f"root     {known.anchor.fingerprint.hex}")
    out.result(_anchor(known))


def anchors(out: Output, known: list[KnownAnchor]) -> None:
    """``bundle trust show``."""
    for each in known:
        out.line(f"{each.anchor.name}  pinned {rfc3339(each.anchor.added)}")
        out.fields([("pinned root", each.anchor.fingerprint.hex)], indent=1)
        rows = ((f"  {role}", v, expires) for role, (v, expires) in each.roles.items())
        out.table(("  ROLE", "VERSION", "EXPIRES"), rows, right=("VERSION",))
    if not known:
        out.note("No publisher is trusted here yet; see `bundle trust init --help`.")
    out.result([_anchor(each) for each in known])


def unpinned(out: Output, known: KnownAnchor, *, dry_run: bool) -> None:
    """``bundle trust remove``."""
    verb = "would forget" if dry_run else "forgot"
    out.line(f"{verb}  {known.anchor.name}")
    out.line(f"root  {known.anchor.fingerprint.hex}")
    out.result({**_anchor(known), "removed": not dry_run})


def _anchor(known: KnownAnchor) -> dict[str, Any]:
    return {
        "name": known.anchor.name,
        "fingerprint": str(known.anchor.fingerprint),
        "added": rfc3339(known.anchor.added),
        "roles": {
            role: {"version": version, "expires": expires}
            for role, (version, expires) in known.roles.items()
        },
    }
