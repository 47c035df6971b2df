"""What the ``bundle`` command shows, for people and for scripts."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bundler.clock import rfc3339
from bundler.create import Created
from bundler.importer import Imported, Verified
from bundler.inventory import Inventory, WantList
from bundler.isolated import Ask, KnownAnchor
from bundler.media import MediaCheck, Verdict
from bundler.reports import Exported
from bundler.trust.publisher import Publisher
from bundler.upkeep import Repaired
from schemas.errors import ContentMismatch, IncompleteBundle
from schemas.render import Output, bytes_text, complain

_EXTENTS_SHOWN: Final = 20


def ask_for_stick(paths: Sequence[Path]) -> Ask:
    """Asks a person at the terminal for the next stick."""
    folders = sorted({path if path.is_dir() else path.parent for path in paths})

    def ask(error: IncompleteBundle) -> Sequence[Path] | None:
        complain(f"{error.what} ({error.why}).")
        complain("Put in the next stick and press Enter, type its folder, or q to go on later.")
        try:
            answer = input("> ").strip()
        except EOFError:
            return None
        if answer == "q":
            return None
        return [Path(answer)] if answer else folders

    return ask


def created(out: Output, result: Created, checked: MediaCheck | None = None) -> None:
    """``bundle create``."""
    descriptor = result.descriptor
    for model in descriptor.models:
        out.line(f"signed   {model.reference}  {model.manifest.digest.short}")
    out.line(f"wrote    {result.path} ({bytes_text(result.size)}), bundle {descriptor.sequence}")
    for path in result.volumes:
        out.line(f"volume   {path} ({bytes_text(path.stat().st_size)})")
    out.line(f"root     {result.fingerprint.hex}")
    out.note("Tell the far side this root's fingerprint by another way than the stick.")
    out.result(
        {
            "path": str(result.path),
            "bytes": result.size,
            "volumes": [str(path) for path in result.volumes],
            "id": descriptor.id,
            "sequence": descriptor.sequence,
            "rootFingerprint": str(result.fingerprint),
            "models": _models(descriptor.models),
            **({} if checked is None else {"media": checked.document()}),
        }
    )
    if checked is not None:
        _media(out, checked)


def checked_media(out: Output, result: MediaCheck) -> None:
    """``bundle check-media``."""
    out.result(result.document())
    _media(out, result)


def _media(out: Output, result: MediaCheck) -> None:
    """Show a check of media.

    Raises:
        ContentMismatch: Something is wrong with it.
    """
    for file in result.files:
        how = "not there" if file.method is None else f"{bytes_text(file.checked)} compared"
        out.line(f"{'ok ' if file.ok else 'BAD'}  {file.name}  {how}")
        for bad in file.bad[:_EXTENTS_SHOWN]:
            out.line(f"     bytes {bad.offset} to {bad.offset + bad.length}: {bad.kind}")
        if len(file.bad) > _EXTENTS_SHOWN:
            out.line(f"     and {len(file.bad) - _EXTENTS_SHOWN} more")
    if not result.ok:
        raise ContentMismatch(
            "the medium does not hold what was written",
            why=f"{result.verdict}: {result.why}",
            hint="Throw it away"
            if result.verdict is Verdict.FAKE_CAPACITY
            else "Copy the bad files again; if it comes back, take another medium",
        )
    out.line("read back: every byte is as it was written")


def repaired(out: Output, result: Repaired, *, dry_run: bool) -> None:
    """``bundle repair``."""
    damage = result.damage
    for number, count in damage.files.items():
        out.line(
            f"damaged  {damage.names[number]}  {count} of {damage.table.blocks(number)} blocks"
        )
    for path in result.written:
        out.line(f"wrote    {path}")
    if not damage.count:
        out.line("nothing is damaged")
    elif dry_run:
        out.line("all of it can be repaired")
    for name in result.left:
        out.note(f"{name} is damaged, and left so: the bundle is whole without it")
    out.result({**damage.document(), "written": [str(path) for path in result.written]})


def verified(out: Output, result: Verified) -> None:
    """``bundle verify``."""
    _show(out, result)
    out.line("verified: every signature and every byte; nothing was installed")
    out.result(_document(result))


def imported(out: Output, result: Imported) -> None:
    """``bundle import``."""
    _show(out, result.verified)
    blobs = result.receipt["blobs"]
    out.line(
        f"installed {blobs['added']} blobs ({bytes_text(blobs['bytesAdded'])}),"
        f" {blobs['reused']} were there; receipt {result.receipt['id'][:12]}"
    )
    if result.waiting:
        out.line(f"waiting for the rest of the volumes: {', '.join(result.waiting)}")
    out.result(
        {
            **_document(result.verified),
            "receipt": result.receipt,
            "waiting": list(result.waiting),
        }
    )


def publisher(out: Output, result: Publisher) -> None:
    """``bundle keys``."""
    out.fields(
        [
            ("publisher", result.name),
            ("signs for", ", ".join(result.namespaces)),
            ("fingerprint", result.fingerprint.hex),
        ]
    )
    out.note("Next: `bundle keys root -o root.json`; tell its fingerprint by another way.")
    out.result(
        {
            "name": result.name,
            "namespaces": list(result.namespaces),
            "rootFingerprint": str(result.fingerprint),
        }
    )


def exported_root(out: Output, result: Publisher, path: Path) -> None:
    """``bundle keys root``."""
    out.line(f"wrote        {path}")
    out.line(f"fingerprint  {result.fingerprint.hex}")
    out.result({"path": str(path), "rootFingerprint": str(result.fingerprint)})


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


def _show(out: Output, result: Verified) -> None:
    descriptor, trust = result.descriptor, result.trust
    out.fields(
        [
            ("bundle", f"{descriptor.sequence} of {descriptor.publisher}, {descriptor.issued_at}"),
            ("trusted as", f"{trust.new_state.anchor}, root version {trust.versions['root']}"),
            ("judged at", f"{rfc3339(trust.reference_time)} ({_clock(trust.time_verdict)})"),
        ]
    )
    for model in result.models:
        reference, digest = model.bundled.reference, model.bundled.manifest.digest
        out.line(f"model       {reference}  {digest.short}  signed by {model.signer}")


def _clock(verdict: str) -> str:
    return "this machine's clock" if verdict == "clock" else "the clock here is behind; not used"


def _document(result: Verified) -> dict[str, Any]:
    trust = result.trust
    return {
        "bundle": {
            "id": result.descriptor.id,
            "sequence": result.descriptor.sequence,
            "issuedAt": result.descriptor.issued_at,
            "publisher": result.descriptor.publisher,
            "bytes": sum(entry.stored_size for entry in result.descriptor.contents),
        },
        "anchor": trust.new_state.anchor,
        "versions": dict(trust.versions),
        "expires": {role: rfc3339(moment) for role, moment in trust.expires.items()},
        "referenceTime": rfc3339(trust.reference_time),
        "timeVerdict": trust.time_verdict,
        "models": [
            {**entry, "signer": model.signer}
            for model in result.models  # of the bundle's, those that were asked for and are here
            for entry in _models([model.bundled])
        ],
    }


def _models(models: Any) -> list[dict[str, Any]]:
    return [
        {"name": str(model.reference), "manifest": str(model.manifest.digest)} for model in models
    ]


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
