"""What ``audit`` and ``receipt`` do, behind one function each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bundler.clock import now
from bundler.evidence import auditing, checkpoints, exporting, proofs, receipts, witness
from bundler.evidence.auditing import Audit
from bundler.evidence.checkpoints import Head
from bundler.evidence.exporting import Told
from bundler.evidence.proofs import Proven
from bundler.evidence.witness import Countersigned
from bundler.files import check_output, read_bounded, write_file
from bundler.trust import dsse
from bundler.trust.fingerprint import parse_fingerprint
from bundler.trust.site import site_key
from registry.digest import Digest
from registry.records import ImportRecord
from registry.store import Store
from schemas import limits, strictjson
from schemas.errors import (
    AuditBroken,
    ContentError,
    MalformedDocument,
    NotFound,
    TrustError,
    UsageError,
)

_WITNESSED: Final = "witnessed"  # folder under the publisher's


@dataclass(frozen=True, slots=True)
class Written:
    """A file that leaves the site.

    Attributes:
        data: Its bytes; ASCII.
        path: Where it was written; None where it was only to be shown.
    """

    data: bytes
    path: Path | None


@dataclass(frozen=True, slots=True)
class Kept:
    """A receipt of this site.

    Attributes:
        record: As the catalogue keeps it.
        document: Parsed; ``receipt.v1`` or ``receipt.v2``.
    """

    record: ImportRecord
    document: dict[str, Any]


@contextmanager
def _carried() -> Iterator[None]:
    """Whatever is wrong with a file that was carried: say what to do next."""
    try:
        yield
    except (ContentError, TrustError) as error:
        if error.hint:
            raise
        hint = "Carry the file again; if it stays so, ask whoever made it"
        raise type(error)(error.what, why=error.why, hint=hint) from error


def fingerprint(text: str | None) -> Digest | None:
    """A fingerprint, as typed."""
    return None if text is None else parse_fingerprint(text)


# -- the isolated side ----------------------------------------------------------------------------


def verify_log(home: Path, against: Sequence[Path], former: Sequence[str]) -> Audit:
    """See :func:`bundler.evidence.auditing.audit`; ``against`` are files that hold checkpoints."""
    heads = [read_head(path) for path in against]
    with Store.open(home, create=False) as store:
        return auditing.audit(store, heads, [parse_fingerprint(text) for text in former])


def broken(audit: Audit) -> AuditBroken:
    """The error with which a log that is not sound is told of."""
    return AuditBroken(
        "the audit log is not what it was",
        why="; ".join(finding.what for finding in audit.findings[:3]),
        hint="Keep a copy of the store as it is, and find out who had access to it",
    )


def entries(home: Path, first: int | None, count: int) -> tuple[int, list[dict[str, Any]]]:
    """Entries of the log; the index of the first, and each as a document.

    Args:
        home: The store.
        first: Index of the first; None for the last ``count`` ones.
        count: How many at most.
    """
    with Store.open(home, create=False) as store, store.catalogue.view():
        log = store.catalogue.audit
        size = log.last_row
        start = max(0, size - count) if first is None else max(0, first)
        rows = log.rows(start, start + count)
        return start, [
            {"index": row - 1, **strictjson.parse_object(d, what="entry", max_bytes=limits.MIB)}
            for row, d in rows
        ]


def export_log(
    home: Path, output: Path | None, *, first: int, full: bool, overwrite: bool
) -> Written:
    """See :func:`bundler.evidence.exporting.export`."""
    return _written(
        home,
        output,
        lambda store: exporting.export(store, now(), first=first, full=full),
        overwrite=overwrite,
    )


def export_checkpoint(
    home: Path, output: Path | None, *, since: int | None, overwrite: bool
) -> Written:
    """See :func:`bundler.evidence.exporting.export_checkpoint`."""
    return _written(
        home,
        output,
        lambda store: exporting.export_checkpoint(store, now(), since),
        overwrite=overwrite,
    )


def prove(
    home: Path,
    index: int | None,
    since: int | None,
    output: Path | None,
    *,
    entry: bool,
    overwrite: bool,
) -> Written:
    """A proof about one entry, or that the log continues an earlier one.

    Raises:
        UsageError: Both are asked for, or none.
    """
    if (index is None) == (since is None):
        raise UsageError("say what to prove", hint="Give an entry's index, or --since SIZE")

    def made(store: Store) -> bytes:
        exporting.make_checkpoint(store)
        if since is not None:
            return proofs.prove_continuation(store, since)
        return proofs.prove_entry(store, index or 0, entry=entry)

    return _written(home, output, made, overwrite=overwrite)


def import_countersignature(home: Path, path: Path) -> Countersigned:
    """Keep a countersignature that came by itself.

    Raises:
        MalformedDocument, BadSignature, FingerprintMismatch: It is not for this site.
        AuditBroken: The log is not what was countersigned; the proof of that is kept.
    """
    found = read_countersignature(path)
    with _carried(), Store.open(home, create=False) as store:
        key = site_key(home, create=False)
        with store.lock(), store.catalogue.transaction() as tx:
            wrong = witness.take_in(tx, store, found, key.public)
    if wrong:
        raise AuditBroken(
            "the audit log is not what was countersigned",
            why=wrong,
            hint="See: sealift audit verify",
        )
    return found


def kept_receipts(home: Path) -> list[Kept]:
    """Every receipt of this site, the newest first."""
    with Store.open(home, create=False) as store:
        return [_kept(record) for record in store.catalogue.receipts()]


def kept_receipt(home: Path, beginning: str) -> Kept:
    """The receipt whose id begins so.

    Raises:
        NotFound, InvalidName: None, or several.
    """
    with Store.open(home, create=False) as store:
        return _kept(store.catalogue.receipt(beginning))


def export_receipt(home: Path, beginning: str, output: Path | None, *, overwrite: bool) -> Written:
    """A receipt as a file that leaves the site."""
    return _written(
        home,
        output,
        lambda store: receipts.exported(store.catalogue.receipt(beginning)),
        overwrite=overwrite,
    )


def _kept(record: ImportRecord) -> Kept:
    document = strictjson.parse_object(
        record.receipt, what="receipt", max_bytes=limits.DESCRIPTOR_BYTES
    )
    return Kept(record, document)


def _written(
    home: Path, output: Path | None, make: Callable[[Store], bytes], *, overwrite: bool
) -> Written:
    if output is not None:
        check_output(output, overwrite=overwrite)
    with Store.open(home, create=False) as store:
        data = make(store)
    if output is not None:
        write_file(output, data)
    return Written(data, output)


# -- the connected side ---------------------------------------------------------------------------


def verify_receipt(path: Path, site: Digest | None) -> dict[str, Any]:
    """See :func:`bundler.evidence.receipts.read`."""
    with _carried():
        return receipts.read(read_bounded(path, limits.REPORT_BYTES), site)


def read_export(path: Path, site: Digest | None) -> Told:
    """See :func:`bundler.evidence.exporting.read_export`."""
    with _carried():
        return exporting.read_export(read_bounded(path, limits.REPORT_BYTES), site)


def verify_proof(path: Path, site: Digest | None) -> Proven:
    """See :func:`bundler.evidence.proofs.verify`."""
    with _carried():
        return proofs.verify(read_bounded(path, limits.PROOF_BYTES), site)


def countersign(
    workspace: Path,
    path: Path,
    key: Path | None,
    output: Path,
    passphrase: Callable[[], bytes],
    *,
    site: Digest | None,
    overwrite: bool,
) -> Countersigned:
    """See :func:`bundler.evidence.witness.countersign`.

    Args:
        workspace: The publisher's folder; remembers what was countersigned.
        path: The site's checkpoint file.
        key: The witness's private key; None for the publisher's own key of bundles.
        output: Where the countersignature goes.
        passphrase: Opens the key.
        site: Fingerprint of the site's key.
        overwrite: Whether a file may be there already.
    """
    check_output(output, overwrite=overwrite)
    data = read_bounded(path, limits.REPORT_BYTES)
    with _carried():
        exporting.read_checkpoint(data, site)  # before anybody is asked for a passphrase
    chosen = key if key is not None else workspace / "keys" / "bundle.pem"
    if not chosen.is_file():
        raise NotFound(f"there is no key {chosen}", hint="Give --key FILE")
    signer = dsse.load_key(chosen, passphrase())
    signed = witness.countersign(workspace / _WITNESSED, data, signer, site)
    write_file(output, signed.to_bytes())
    return signed


def read_countersignature(path: Path) -> Countersigned:
    """A countersignature's file, for a bundle to carry; the witness's signature is checked.

    Raises:
        MalformedDocument, BadSignature: It is none, or a wrong one.
    """
    with _carried():
        return Countersigned.from_bytes(read_bounded(path, limits.NOTE_BYTES * 2))


def told(written: Written) -> Told:
    """What an export that was just made tells, as its receiver will see it."""
    return exporting.read_export(written.data)


def read_head(path: Path) -> Head:
    """The checkpoint in a file of any kind that holds one; its signatures are for others to check.

    Raises:
        MalformedDocument: It holds none.
    """
    with _carried():
        return _head(path, read_bounded(path, limits.REPORT_BYTES))


def _head(path: Path, data: bytes) -> Head:
    if not data.lstrip().startswith(b"{"):
        return checkpoints.read(data)
    document = strictjson.parse_object(data, what="the checkpoint", max_bytes=limits.REPORT_BYTES)
    if "payload" in document:
        head, _ = exporting.read_checkpoint(data)
        return head
    text = document.get("note", document.get("checkpoint"))
    if not isinstance(text, str):
        raise MalformedDocument(f"{path.name} holds no checkpoint")
    return checkpoints.read(text.encode())


def shown(data: bytes) -> Any:
    """A JSON file's content, for ``--json``."""
    return json.loads(data)
