"""What ``bundle inventory`` shows."""

from __future__ import annotations

import shutil

from bundler.clock import rfc3339
from bundler.inventory import Inventory, WantList
from bundler.reports import Exported
from schemas.render import Output, bytes_text, complain


def believed(out: Output, report: Inventory | WantList, *, known: bool) -> None:
    """Which site ``bundle create`` goes by."""
    out.note(f"for the site {report.site.hex}, as of {rfc3339(report.time)}")
    if not known:
        out.note("Compare this with what the site told you, or give --site; whoever made the file")
        out.note("can make the bundle lack something over there, and nothing worse.")


def exported_inventory(out: Output, result: Exported, *, codes: bool) -> None:
    """``bundle inventory export``."""
    if codes:
        _codes(out, result.data)
    elif result.path is None and not result.pictures:
        out.text(result.data.decode("ascii"), end="")
    if result.path is not None:
        out.line(f"wrote  {result.path} ({bytes_text(len(result.data))})")
    if result.pictures:
        out.line(f"wrote  {len(result.pictures)} QR codes into {result.pictures[0].parent}")
    out.note(f"This site's key: {result.inventory.site.hex}")
    out.note("Tell the connected side this fingerprint by another way, once.")
    out.result(
        {
            **result.inventory.listing(),
            "path": None if result.path is None else str(result.path),
            "pictures": [str(path) for path in result.pictures],
        }
    )


def _codes(out: Output, data: bytes) -> None:
    """One code after another, as large as the terminal takes."""
    from bundler.inventory import qr

    columns, rows = shutil.get_terminal_size()
    frames = qr.frames(data, version=qr.version_for(columns, rows - 2))
    for number, frame in enumerate(frames, 1):
        out.pictures(qr.terminal(frame))
        out.line(f"QR code {number} of {len(frames)}")
        if out.interactive and number < len(frames):
            complain("Scan it, then press Enter.")
            input()


def report(out: Output, result: Inventory | WantList) -> None:
    """``bundle inventory show`` and ``join``."""
    held = isinstance(result, Inventory)
    out.fields(
        [
            ("what", "inventory: what a site holds" if held else "want-list: what a site lacks"),
            ("site", result.site.hex),
            ("time", rfc3339(result.time)),
            ("bundle", "" if isinstance(result, Inventory) else str(result.sequence)),
            ("blobs", f"{len(result.blobs)}, {bytes_text(result.total)}"),
        ]
    )
    if isinstance(result, Inventory):
        for model in result.models:
            out.line(f"model  {model.reference}  {model.manifest.short}")
    rows = ((digest.hex, size) for digest, size in sorted(result.blobs.items()))
    out.table(("BLOB", "BYTES"), rows, right=("BYTES",))
    out.note("The signature is right; compare the site's key with what the site told you.")
    out.result(result.listing())
