"""What ``audit`` and ``bundle receipt`` show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bundler.evidence.auditing import Audit
from bundler.evidence.coding import decode
from bundler.evidence.exporting import Told, load_event
from bundler.evidence.proofs import Proven
from bundler.evidence.witness import Countersigned
from bundler.evidencing import Kept, Written, shown
from schemas.render import Output, bytes_text

_ORDER: Final = (
    "id",
    "verdict",
    "warnings",
    "time",
    "bundle",
    "previous",
    "models",
    "waiting",
    "blobs",
    "media",
    "operators",
    "policy",
    "withdrawals",
    "trust",
    "log",
    "site",
    "host",
    "tool",
)


def audit(out: Output, result: Audit) -> None:
    """``audit verify``."""
    out.fields(
        [
            ("site", "" if result.site is None else result.site.hex),
            ("entries", str(result.size)),
            ("root", result.root.hex()),
            ("checkpoints", f"{result.checkpoints} of this site fit"),
            ("receipts", f"{result.receipts} fit"),
            ("countersigned", f"the first {result.countersigned} entries"),
        ]
    )
    for finding in result.findings:
        out.line(f"WRONG  {finding.what}")
    if result.more:
        out.line(f"and {result.more} more")
    if not result.findings:
        out.line("verified: every entry is as it was written")
        if result.countersigned < result.size:
            out.note("Who has this site's key could have rewritten what is not countersigned.")
    out.result(result.document())


def entries(out: Output, first: int, found: Sequence[dict[str, Any]]) -> None:
    """``audit show``."""
    out.table(("INDEX", "TIME", "WHO", "WHAT", "OUTCOME", "ON"), map(_row, found), right=("INDEX",))
    if not found:
        out.note("The audit log has no such entries.")
    out.result({"first": first, "entries": list(found)})


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    time = entry.get("reference", entry["at"])
    return (
        entry["index"],
        time,
        entry["actor"],
        entry["action"],
        entry["outcome"],
        entry["subject"],
    )


def told(out: Output, result: Told) -> None:
    """``audit show --file``."""
    out.fields([("site", result.site.hex), ("time", result.time), ("entries", str(result.size))])
    rows = [
        (
            result.first + number,
            entry.get("reference", entry["at"]),
            entry["action"],
            entry["outcome"],
            load_event(decode(entry["entry"]))["subject"] if "entry" in entry else "",
        )
        for number, entry in enumerate(result.entries)
    ]
    out.table(("INDEX", "TIME", "WHAT", "OUTCOME", "ON"), rows, right=("INDEX",))
    out.note("The entries make the root that the site signed. Compare its key with what it told.")
    out.result(
        {
            "site": result.site.hex,
            "time": result.time,
            "first": result.first,
            "size": result.size,
            "root": result.root.hex(),
            "entries": list(result.entries),
        }
    )


def written(out: Output, result: Written) -> None:
    """Any file that leaves the site."""
    if result.path is None:
        out.text(result.data.decode("ascii"), end="")
    else:
        out.line(f"wrote  {result.path} ({bytes_text(len(result.data))})")
    out.result(
        {
            "path": None if result.path is None else str(result.path),
            "bytes": len(result.data),
            "content": shown(result.data),
        }
    )


def proven(out: Output, result: Proven, *, known: bool) -> None:
    """``audit verify-proof``."""
    out.fields([("site", result.site.hex), ("root", result.root.hex())])
    if result.index is not None:
        out.line(f"proven: entry {result.index} is in the log of {result.size} entries")
    else:
        out.line(f"proven: the log of {result.size} entries continues that of {result.since}")
    entry = None if result.entry is None else load_event(result.entry)
    if entry is not None:
        out.fields([(name, str(value)) for name, value in entry.items()])
    compare_site(out, result.site.hex, known=known)
    out.result(
        {
            "site": result.site.hex,
            "size": result.size,
            "root": result.root.hex(),
            "index": result.index,
            "since": result.since,
            "entry": entry,
            "hashes": result.hashes,
        }
    )


def countersigned(out: Output, result: Countersigned, path: Path | None) -> None:
    """``audit countersign`` and ``audit import-countersignature``."""
    out.fields([("site", result.head.site.hex), ("witness", result.witness.hex)])
    verb = "countersigned" if path is not None else "kept"
    out.line(f"{verb}  the first {result.head.size} entries")
    if path is not None:
        out.line(f"wrote  {path}")
    out.result(
        {
            "site": result.head.site.hex,
            "witness": result.witness.hex,
            "size": result.head.size,
            "root": result.head.root.hex(),
            "path": None if path is None else str(path),
        }
    )


def receipts(out: Output, found: Sequence[Kept]) -> None:
    """``bundle receipt list``."""
    rows = []
    for each in found:
        record = each.record
        verdict = record.verdict
        if isinstance(each.document["verdict"], dict):
            verdict = each.document["verdict"].get("code", verdict)
        bundle = f"{record.sequence} of {record.publisher}" if record.bundle else "unknown"
        time = each.document["time"]["reference"]
        rows.append((record.id[:12], time, verdict, bundle, "yes" if record.signature else "no"))
    out.table(("RECEIPT", "TIME", "VERDICT", "BUNDLE", "SIGNED"), rows)
    if not rows:
        out.note("Nothing was imported here yet.")
    out.result([each.document for each in found])


def receipt(out: Output, document: dict[str, Any]) -> None:
    """``bundle receipt show`` and ``verify``."""
    for name in sorted(document, key=_place):
        value = document[name]
        if isinstance(value, dict):
            out.line(name)
            out.fields([(key, _brief(each)) for key, each in value.items()], indent=1)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            out.line(name)
            for each in value:
                out.line("  " + "  ".join(_brief(part) for part in each.values()))
        else:
            out.fields([(name, _brief(value))])
    out.result(document)


def _place(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


def _brief(value: object) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{key} {_brief(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_brief, value))
    return str(value)


def compare_site(out: Output, site: str, *, known: bool) -> None:
    """Whose signature it is, and what that means."""
    if known:
        out.note("It is of the site that you named.")
    else:
        out.note(f"Signed by {site}: compare that with what the site told you, or give --site.")
