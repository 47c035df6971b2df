"""The list of withdrawals: one document per publisher, which only ever grows.

Its sequence is the number of its entries. A newer list begins with the older one, entry by entry,
so nothing that was ever withdrawn can be left out; what was withdrawn by mistake is taken back by
a further entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from bundler.clock import parse_rfc3339, rfc3339
from registry.digest import Digest
from registry.withdrawals import Action, Withdrawn
from schemas import documents, limits
from schemas.documents import Kind
from schemas.errors import MalformedDocument, NotFound, UsageError

REASON_CHARS: Final = 500
_SUBJECT_CHARS: Final = 400


@dataclass(frozen=True, slots=True)
class Entry:
    """One withdrawal, or the end of one.

    Attributes:
        number: From 1, in order.
        at: When it was said, UTC.
        action: What sites should do; ``NONE`` takes earlier entries about these digests back.
        digests: Of manifests and blobs.
        subject: What it was called; for people.
        reason: One line.
    """

    number: int
    at: datetime
    action: Action
    digests: tuple[Digest, ...]
    subject: str
    reason: str

    def document(self) -> dict[str, Any]:
        """As the list has it."""
        return {
            "number": self.number,
            "at": rfc3339(self.at),
            "action": self.action.word,
            "digests": [str(digest) for digest in self.digests],
            "subject": self.subject,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class WithdrawnList:
    """A publisher's list.

    Attributes:
        entries: In order.
        data: Its exact bytes, as they are signed.
    """

    entries: tuple[Entry, ...]
    data: bytes = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> WithdrawnList:
        """Read a list, strictly.

        Raises:
            MalformedDocument: It is not in the one form that it has.
        """
        document = documents.load(Kind.WITHDRAWN, data)
        entries = tuple(_entry(item) for item in document["entries"])
        if [entry.number for entry in entries] != list(range(1, len(entries) + 1)):
            raise MalformedDocument("the withdrawals are not numbered from 1 on")
        if _to_bytes(entries) != data:
            raise MalformedDocument(
                "the list of withdrawals is not in its one form", why="spaces, order or escapes"
            )
        return cls(entries, data)

    def last(self) -> dict[Digest, Withdrawn]:
        """What it says of each digest that it names: the last entry counts."""
        return {
            digest: Withdrawn(digest, entry.action, entry.reason, entry.number, entry.at)
            for entry in self.entries
            for digest in entry.digests
        }

    def continues(self, other: WithdrawnList) -> bool:
        """Whether it begins with the other."""
        return self.entries[: len(other.entries)] == other.entries


def appended(
    data: bytes | None,
    *,
    at: datetime,
    action: Action,
    digests: Sequence[Digest],
    subject: str,
    reason: str,
) -> WithdrawnList:
    """The next list.

    Args:
        data: The list so far; None before the first.
        at: Now.
        action: What sites should do.
        digests: Of manifests and blobs.
        subject: What it is called.
        reason: In a line; every site will read it.

    Raises:
        NotFound: An end of what was never withdrawn.
        UsageError: The list is full, or the reason or the digests are none.
    """
    before = WithdrawnList.parse(data).entries if data is not None else ()
    check_reason(reason)
    if action is Action.NONE:
        known = {digest for entry in before for digest in entry.digests}
        if missing := [digest for digest in digests if digest not in known]:
            raise NotFound(f"{missing[0].short} was never withdrawn", hint="See --list")
    if len(before) >= limits.WITHDRAWN_ENTRIES:
        raise UsageError("the list of withdrawals is full", why=f"it has {len(before)} entries")
    unique = tuple(dict.fromkeys(digests))
    entry = Entry(len(before) + 1, at, action, unique, subject[:_SUBJECT_CHARS], reason)
    entries = (*before, entry)
    return WithdrawnList.parse(_to_bytes(entries))


def check_reason(reason: str) -> None:
    """See that a reason is one printable line.

    Raises:
        UsageError: It is not.
    """
    if not reason.strip() or not reason.isprintable() or len(reason) > REASON_CHARS:
        raise UsageError(
            "the reason is not one printable line",
            why=f"at most {REASON_CHARS} characters",
            hint="Say with --reason why, for those who will miss the model",
        )


def _entry(item: dict[str, Any]) -> Entry:
    if not item["reason"].isprintable() or not item["subject"].isprintable():
        raise MalformedDocument("a withdrawal has characters that do not show")
    try:
        at = parse_rfc3339(item["at"])
    except ValueError as error:
        raise MalformedDocument("a withdrawal has no time", why=str(error)) from None
    return Entry(
        item["number"],
        at,
        Action.parse(item["action"]),
        tuple(map(Digest.parse, item["digests"])),
        item["subject"],
        item["reason"],
    )


def _to_bytes(entries: Sequence[Entry]) -> bytes:
    return documents.dump(
        Kind.WITHDRAWN,
        {"schemaVersion": 1, "entries": [entry.document() for entry in entries]},
    )
