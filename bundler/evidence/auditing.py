"""``audit verify``: is the audit log what it was, and what was ever signed about it?

Three layers. The tree keeps the hash of each entry as it was written, so an edit of the log alone
is named to the entry (:mod:`registry.auditcheck`). Checkpoints that the site signed show whether
the tree itself was rewritten, and between which of them. Whoever has the site's key can sign those
anew; countersigned checkpoints, or one that was carried out earlier (``--against``), show that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bundler.evidence import checkpoints
from bundler.evidence.checkpoints import Head
from bundler.evidence.receipts import TYPE
from bundler.trust.site import Signed, SiteKey, check, site_key
from registry import merkle
from registry.auditcheck import Checked, Finding
from registry.auditcheck import check as check_log
from registry.digest import Digest
from registry.records import Checkpoint
from registry.store import Store
from schemas import documents, limits
from schemas.documents import Kind
from schemas.errors import NotFound, SealiftError, UsageError

REWRITTEN: Final = "rewritten"
CHECKPOINT: Final = "checkpoint"
RECEIPT: Final = "receipt"

_IMPORT: Final = b'"action":"import"'


@dataclass(frozen=True, slots=True)
class Audit:
    """What an examination of the log brought to light.

    Attributes:
        site: Fingerprint of the site's key; None where it has none yet.
        size: Entries.
        root: Of the tree over them.
        checkpoints: How many of the site's own fit.
        countersigned: Entries that the longest countersigned checkpoint covers; 0 for none.
        receipts: How many fit their entries.
        findings: What is wrong; empty where all is well.
        more: How many further findings there were.
    """

    site: Digest | None
    size: int
    root: bytes
    checkpoints: int
    countersigned: int
    receipts: int
    findings: tuple[Finding, ...]
    more: int = 0

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "site": None if self.site is None else self.site.hex,
            "size": self.size,
            "root": self.root.hex(),
            "checkpoints": self.checkpoints,
            "countersigned": self.countersigned,
            "receipts": self.receipts,
            "findings": [
                {"kind": f.kind, "first": f.index, "last": f.last, "what": f.what}
                for f in self.findings
            ],
            "more": self.more,
        }


def audit(store: Store, against: Sequence[Head] = (), former: Sequence[Digest] = ()) -> Audit:
    """Recompute everything and compare it with everything that was signed.

    Memory does not grow with the log.

    Args:
        store: Of the site.
        against: Checkpoints that were carried out earlier; their signatures are checked here.
        former: Fingerprints of keys that this site had before.

    Raises:
        KeyUnavailable, StoreDamaged, StorageFailure: It cannot be read at all.
    """
    try:
        key = site_key(store.home, create=False)
    except NotFound:
        key = None
    with store.catalogue.view():
        return _Examination(store, key, against, frozenset(former)).run()


class _Examination:
    """One pass over the log."""

    def __init__(
        self,
        store: Store,
        key: SiteKey | None,
        against: Sequence[Head],
        former: frozenset[Digest],
    ) -> None:
        self._catalogue = store.catalogue
        self._log = store.catalogue.audit
        self._key = key
        self._former = former
        self._found: list[Finding] = []
        self._more = 0
        self._marks = _merged(self._log.checkpoints(), against)
        self._next = next(self._marks, None)
        self._good = {True: 0, False: 0}  # whether by the site itself: the last size that fits
        self._fit = self._countersigned = self._receipts = 0
        self._rewritten = 0

    def run(self) -> Audit:
        self._reached(0, merkle.Peaks())
        checked = check_log(self._log, self._reached, self._visit)
        self._beyond(checked)
        self._count_receipts()
        if self._rewritten > 1:
            text = f"{self._rewritten - 1} later checkpoints do not fit either"
            self._add(CHECKPOINT, checked.size, checked.size, text)
        return Audit(
            self._key.fingerprint if self._key is not None else None,
            checked.size,
            checked.root,
            self._fit,
            self._countersigned,
            self._receipts,
            (*checked.findings, *self._found),
            checked.more + self._more,
        )

    def _add(self, kind: str, first: int, last: int, what: str) -> None:
        if len(self._found) < limits.AUDIT_FINDINGS:
            self._found.append(Finding(kind, first, last, what))
        else:
            self._more += 1

    # -- checkpoints ----------------------------------------------------------------------------

    def _reached(self, size: int, peaks: merkle.Peaks) -> None:
        while self._next is not None and self._next[0] == size:
            _, mark = self._next
            self._next = next(self._marks, None)
            if self._signed(mark):
                self._compare(mark, size, peaks.root())

    def _compare(self, mark: Checkpoint | Head, size: int, root: bytes) -> None:
        own = isinstance(mark, Checkpoint) and mark.own
        if mark.root != root:
            if not self._rewritten:
                # Whoever could rewrite the log may have signed anew; nobody outside did.
                first = max(self._good.values()) if own else self._good[False]
                last = max(size - 1, first)
                where = f"entry {first}" if first == last else f"one of entries {first} to {last}"
                text = (
                    f"{where} was rewritten, and the tree with it: {_who(mark)} of {size} entries"
                    " has another root"
                )
                self._add(REWRITTEN, first, last, text)
            self._rewritten += 1
            return
        self._good[own] = size
        if own:
            self._fit += 1
        elif isinstance(mark, Checkpoint):
            self._countersigned = size

    def _signed(self, mark: Checkpoint | Head) -> bool:
        """See that a checkpoint is by whom it says, and says what its row says."""
        try:
            head = mark if isinstance(mark, Head) else checkpoints.read(mark.note)
            if isinstance(mark, Head) or not mark.own:
                if self._key is None:
                    return self._bad(mark, "is of a site whose key is gone")
                if head.site not in self._former:
                    head.check_site(self._key.public)
            if isinstance(mark, Checkpoint):
                if (head.size, head.root) != (mark.size, mark.root):
                    return self._bad(mark, "contradicts the row that it is kept in")
                if not mark.own:
                    head.check_witness(mark.public)
                else:
                    head.check_site(mark.public)
                    ours = self._key.fingerprint if self._key is not None else None
                    if head.site != ours and head.site not in self._former:
                        return self._bad(mark, f"is signed by another key, {head.site.hex}")
        except SealiftError as error:
            return self._bad(mark, f"does not verify ({error.what})")
        return True

    def _bad(self, mark: Checkpoint | Head, what: str) -> bool:
        self._add(CHECKPOINT, mark.size, mark.size, f"{_who(mark)} of {mark.size} entries {what}")
        return False

    def _beyond(self, checked: Checked) -> None:
        """Checkpoints of more entries than there are."""
        while self._next is not None:
            size, mark = self._next
            self._next = next(self._marks, None)
            if self._signed(mark):
                text = (
                    f"the last {size - checked.size} entries are gone: {_who(mark)} tells of {size}"
                )
                self._add("removed", checked.size, size - 1, text)

    # -- receipts -------------------------------------------------------------------------------

    def _visit(self, index: int, document: bytes) -> None:
        if _IMPORT not in document:
            return
        try:
            event = documents.load(Kind.AUDIT_EVENT, document)
        except SealiftError:
            return  # from before receipts were signed
        detail = event.get("detail", {})
        if event["action"] != "import" or not {"receipt", "digest"} <= detail.keys():
            return
        wrong = self._wrong_receipt(str(detail["receipt"]), detail["digest"])
        if wrong:
            self._add(RECEIPT, index, index, f"the receipt of entry {index} {wrong}")
        else:
            self._receipts += 1
        if not self._log.has_own_checkpoint(index + 1):
            text = f"the checkpoint that was made with entry {index} is gone"
            self._add(CHECKPOINT, index, index, text)

    def _wrong_receipt(self, receipt: str, digest: str) -> str:
        try:
            record = self._catalogue.receipt(receipt)
        except UsageError:
            return "is gone"
        if str(Digest.of(record.receipt)) != digest:
            return "was changed"
        try:
            check(Signed(record.receipt, TYPE, record.public, record.signature))
        except SealiftError:
            return "has a wrong signature"
        signer = Digest.of(record.public)
        ours = self._key.fingerprint if self._key is not None else None
        if signer != ours and signer not in self._former:
            return f"is signed by another key, {signer.hex}"
        return ""

    def _count_receipts(self) -> None:
        for receipt in self._catalogue.unlogged_receipts():
            text = f"receipt {receipt} is in no entry of the log"
            self._add(RECEIPT, 0, 0, text)


def _merged(
    kept: Iterable[Checkpoint], against: Iterable[Head]
) -> Iterator[tuple[int, Checkpoint | Head]]:
    """All checkpoints by size."""
    given = sorted(against, key=lambda head: head.size)
    at = 0
    for mark in kept:
        while at < len(given) and given[at].size <= mark.size:
            yield given[at].size, given[at]
            at += 1
        yield mark.size, mark
    yield from ((head.size, head) for head in given[at:])


def _who(mark: Checkpoint | Head) -> str:
    if isinstance(mark, Head):
        return "the given checkpoint"
    return "the site's checkpoint" if mark.own else "the countersigned checkpoint"
