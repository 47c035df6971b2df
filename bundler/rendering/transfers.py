"""What ``create``, ``import``, ``verify`` and the media verbs show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bundler.clock import rfc3339
from bundler.create import Created
from bundler.importer import Imported, Verified
from bundler.isolated import Ask
from bundler.media import MediaCheck, Verdict
from bundler.rendering import advisories, scanning
from bundler.scanning import Finding
from bundler.trust.clock import CLOCK
from bundler.trust.verifier import VerifiedTrust
from bundler.upkeep import Repaired
from registry.reference import Reference
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
    scanning.findings(out, result.findings)
    out.line(f"wrote    {result.path} ({bytes_text(result.size)}), bundle {descriptor.sequence}")
    for path in result.volumes:
        out.line(f"volume   {path} ({bytes_text(path.stat().st_size)})")
    out.line(f"until    {rfc3339(result.expires)}")
    out.line(f"root     {result.fingerprint.hex}")
    if unsigned := [each for each in descriptor.models if len(each.referrers) < 2]:
        have = "model has" if len(unsigned) == 1 else "models have"
        out.note(
            f"{len(unsigned)} {have} no signature for other tools:"
            " no P-256 key of the publisher is at hand"
        )
    out.note("Tell the far side this root's fingerprint by another way than the stick.")
    out.result(
        {
            "path": str(result.path),
            "bytes": result.size,
            "volumes": [str(path) for path in result.volumes],
            "id": descriptor.id,
            "sequence": descriptor.sequence,
            "rootFingerprint": str(result.fingerprint),
            "expires": rfc3339(result.expires),
            "models": _models(descriptor.models),
            "findings": scanning.document(result.findings),
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
    for name in result.misshapen:
        out.line(f"changed  {name}  its blocks are right, what lies around them is not")
    for path in result.written:
        out.line(f"wrote    {path}")
    if not damage.count and not result.misshapen:
        out.line("nothing is damaged")
    elif dry_run:
        out.line("all of it can be repaired")
    out.result(
        {
            **damage.document(),
            "misshapen": list(result.misshapen),
            "written": [str(path) for path in result.written],
        }
    )


def verified(out: Output, result: Verified) -> None:
    """``bundle verify``."""
    _show(out, result)
    out.line("verified: every signature and every byte; nothing was installed")
    out.result(_document(result))
    if result.applied is not None:
        result.applied.check()


def imported(out: Output, result: Imported) -> None:
    """``bundle import``."""
    _show(out, result.verified)
    blobs = result.receipt["blobs"]
    out.line(
        f"installed {blobs['added']} blobs ({bytes_text(blobs['bytesAdded'])}),"
        f" {blobs['reused']} were there; receipt {result.receipt['id'][:12]}"
    )
    if result.mended:
        numbers = ", ".join(map(str, result.mended))
        out.line(f"mended    volumes {numbers}: lost or damaged, made again from the parity")
    for text in result.receipt.get("warnings", ()):
        out.warn(text)
    if result.waiting:
        out.line(f"waiting for the rest of the volumes: {', '.join(result.waiting)}")
    out.result(
        {
            **_document(result.verified),
            "receipt": result.receipt,
            "waiting": list(result.waiting),
            "mended": list(result.mended),
        }
    )
    if result.verified.applied is not None:
        result.verified.applied.check()


def _show(out: Output, result: Verified) -> None:
    descriptor, trust = result.descriptor, result.trust
    out.fields(
        [
            ("bundle", f"{descriptor.sequence} of {descriptor.publisher}, {descriptor.issued_at}"),
            ("trusted as", f"{trust.new_state.anchor}, root version {trust.versions['root']}"),
            ("judged at", f"{rfc3339(trust.reference_time)} ({_clock(trust)})"),
        ]
    )
    for late in result.overrides.stale:
        out.line(f"late        {late.role} v{late.version}, {late.days} days ({late.how})")
    if result.overrides.reason:
        out.line(f"because     {result.overrides.reason}")
    for model in result.models:
        reference, digest = model.bundled.reference, model.bundled.manifest.digest
        out.line(f"model       {reference}  {digest.short}  signed by {model.signer}")
    scanning.findings(out, _findings(result))
    advisories.applied(out, result.applied)


def _findings(result: Verified) -> dict[Reference, tuple[Finding, ...]]:
    return {model.bundled.reference: model.findings for model in result.models}


def _clock(trust: VerifiedTrust) -> str:
    if trust.time_verdict == CLOCK:
        return "this machine's clock"
    return f"the clock is behind: {rfc3339(trust.clock)}"


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
        "findings": scanning.document(_findings(result)),
        "withdrawals": advisories.document(result.applied),
    }


def _models(models: Any) -> list[dict[str, Any]]:
    return [
        {"name": str(model.reference), "manifest": str(model.manifest.digest)} for model in models
    ]
