"""What ``bundle trust`` shows and asks."""

from __future__ import annotations

from typing import Any

from bundler.clock import rfc3339
from bundler.setting_time import SetTime
from bundler.trust.fingerprint import in_groups, parse_fingerprint
from bundler.trusting import KnownAnchor
from schemas.errors import UsageError
from schemas.render import Output


def ask_card(out: Output, fingerprint: str | None, least: int | None) -> tuple[str, int]:
    """What stands on the publisher's paper; asked for at the terminal where it was not given.

    Raises:
        UsageError: It was not given, and nobody can be asked; or it is no number.
        InvalidName: What was typed is no fingerprint.
    """
    if fingerprint is not None:
        return fingerprint, least or 0
    if out.json or not out.interactive:
        raise UsageError(
            "no fingerprint was given",
            hint="Give --fingerprint SHA256 from the publisher's paper, or run it on a terminal",
        )
    try:
        text = input("Fingerprint on the publisher's paper: ")
        parse_fingerprint(text)  # before the next question: a slip is told where it was made
        if least is None:
            number = input("Timestamp version on the same paper (Enter if there is none): ").strip()
            if number and not (number.isascii() and number.isdigit() and len(number) < 10):
                raise UsageError(f"{number[:40]!r} is no version", hint="Type its digits")
            least = int(number or 0)
    except EOFError:
        raise UsageError("no fingerprint was typed", hint="Run it again") from None
    return text, least


def anchor(out: Output, known: KnownAnchor) -> None:
    """``bundle trust init``."""
    out.line(f"trusted  {known.anchor.name}")
    out.line(f"root     {known.anchor.fingerprint.hex}")
    if known.least_timestamp:
        out.line(f"first    timestamp v{known.least_timestamp} or newer")
    out.result(_anchor(known))


def anchors(out: Output, known: list[KnownAnchor]) -> None:
    """``bundle trust show``."""
    for each in known:
        out.line(f"{each.anchor.name}  pinned {rfc3339(each.anchor.added)}")
        out.fields(
            [
                ("pinned root", in_groups(each.anchor.fingerprint)),
                ("brings", ", ".join(each.namespaces)),
                ("first import", _least(each)),
                ("stale", _stale(each)),
            ],
            indent=1,
        )
        rows = ((f"  {role}", v, expires) for role, (v, expires) in each.roles.items())
        out.table(("  ROLE", "VERSION", "EXPIRES"), rows, right=("VERSION",))
    _nobody(out, known)
    out.result([_anchor(each) for each in known])


def anchor_list(out: Output, known: list[KnownAnchor]) -> None:
    """``bundle trust list``."""
    rows = (
        (
            each.anchor.name,
            each.anchor.fingerprint.short,
            each.roles["root"][0],
            each.roles.get("timestamp", ("-", ""))[0],
            _stale(each) or ("no" if "timestamp" in each.roles else "-"),
            ", ".join(each.namespaces) or "-",
        )
        for each in known
    )
    if known:
        out.table(("NAME", "PINNED", "ROOT", "TIMESTAMP", "STALE", "BRINGS"), rows)
    _nobody(out, known)
    out.result([_anchor(each) for each in known])


def unpinned(out: Output, known: KnownAnchor, *, dry_run: bool) -> None:
    """``bundle trust remove``."""
    verb = "would forget" if dry_run else "forgot"
    out.line(f"{verb}  {known.anchor.name}")
    out.line(f"root  {known.anchor.fingerprint.hex}")
    out.result({**_anchor(known), "removed": not dry_run})


def time_set(out: Output, result: SetTime) -> None:
    """``bundle trust set-time``."""
    out.fields(
        [
            ("clock here", rfc3339(result.clock)),
            ("floor was", rfc3339(result.before)),
            ("floor is" if result.done else "would be", rfc3339(result.after)),
            ("never below", rfc3339(result.lowest)),
        ]
    )
    out.result(
        {
            "clock": rfc3339(result.clock),
            "before": rfc3339(result.before),
            "after": rfc3339(result.after),
            "lowest": rfc3339(result.lowest),
            "done": result.done,
        }
    )


def _nobody(out: Output, known: list[KnownAnchor]) -> None:
    if not known:
        out.note("No publisher is trusted here yet; see `bundle trust init --help`.")


def _least(known: KnownAnchor) -> str:
    return f"timestamp v{known.least_timestamp} or newer" if known.least_timestamp else ""


def _stale(known: KnownAnchor) -> str:
    if known.stale_days is None:
        return ""
    return "today" if not known.stale_days else f"{known.stale_days} days"


def _anchor(known: KnownAnchor) -> dict[str, Any]:
    return {
        "name": known.anchor.name,
        "fingerprint": str(known.anchor.fingerprint),
        "added": rfc3339(known.anchor.added),
        "leastTimestamp": known.least_timestamp,
        "namespaces": list(known.namespaces),
        "staleDays": known.stale_days,
        "roles": {
            role: {"version": version, "expires": expires}
            for role, (version, expires) in known.roles.items()
        },
    }
