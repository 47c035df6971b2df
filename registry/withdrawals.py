"""What may no longer be served: by the word of its publisher, or of this site.

A publisher's list is enforced only on what came under that publisher's root, so nobody can take
another's models away. Where several publishers brought the same manifest, what one of them
withdraws is a warning: the others still stand for it, and the site has a deny list of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any, Final

from registry.database import from_microseconds, microseconds
from registry.digest import Digest
from schemas.errors import InvalidName, ModelWithdrawn, NotFound, RollbackDetected

Query = Callable[..., Iterable[tuple[Any, ...]]]
"""Runs a statement with its values."""

SITE: Final = ""
"""The source of what this site itself denies; publishers' sources are their roots' fingerprints."""


class Action(IntEnum):
    """What a withdrawal asks for; the higher is the stricter."""

    NONE = 0
    WARN = 1
    QUARANTINE = 2
    BLOCK = 3

    @property
    def word(self) -> str:
        """As documents and commands write it."""
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> Action:
        """The action of this name.

        Raises:
            InvalidName: There is none.
        """
        found = next((action for action in cls if action.word == text), None)
        if found is None:
            raise InvalidName(
                f"{text[:40]!r} is no action", hint="Give block, quarantine, warn or none"
            )
        return found


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Why a model is not served, or served with a warning.

    Attributes:
        digest: The manifest or blob that was named.
        action: What holds here, and may be less than what was asked for.
        reason: In the words of who withdrew it; one line.
        source: Fingerprint of the publisher's root as text, or :data:`SITE`.
        publisher: What this site calls the publisher; empty where it is not trusted any more.
        number: Of the advisory, from 1; 0 for a site's own.
        at: UTC.
    """

    digest: Digest
    action: Action
    reason: str
    source: str
    publisher: str
    number: int
    at: datetime

    @property
    def stops(self) -> bool:
        """Whether the model must not be loaded or given out."""
        return self.action >= Action.QUARANTINE

    @property
    def by(self) -> str:
        """Who said so, for people."""
        return "this site" if self.source == SITE else self.publisher or "a former publisher"

    def line(self) -> str:
        """For people: what, who, why."""
        words = {
            Action.BLOCK: "withdrawn",
            Action.QUARANTINE: "in quarantine",
            Action.WARN: "warned of",
        }
        if self.source == SITE:
            words[Action.BLOCK] = "denied"
        number = f" (advisory {self.number})" if self.number else ""
        return f"{words.get(self.action, 'cleared')} by {self.by}{number}: {self.reason}"

    def document(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "action": self.action.word,
            "by": "site" if self.source == SITE else self.publisher,
            "source": self.source,
            "advisory": self.number,
            "digest": str(self.digest),
            "reason": self.reason,
            "at": self.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def refusal(self, name: str) -> ModelWithdrawn:
        """The error for whoever asks for the model."""
        hint = (
            "Look at it, then `sealift quarantine release`, or `sealift rm`"
            if self.action is Action.QUARANTINE
            else "Remove it from the deny list, or take another model"
            if self.source == SITE
            else "Take another version of it"
        )
        return ModelWithdrawn(f"model '{name}' is not served", why=self.line(), hint=hint)


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """One digest that a publisher's list names, as the list has it last."""

    digest: Digest
    action: Action
    reason: str
    number: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Denied:
    """One entry of the site's deny list.

    Attributes:
        digest: Of a manifest or blob.
        label: What it was called when it was denied; may be empty.
        reason: One line.
        actor: Who did it.
        at: UTC.
    """

    digest: Digest
    label: str
    reason: str
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class AcceptedList:
    """The list of a publisher that this site goes by.

    Attributes:
        version: Of the role's metadata that signed it.
        entries: How many it has.
        document: Its bytes.
    """

    version: int
    entries: int
    document: bytes


class Withdrawals:
    """Reads what is withdrawn, through one connection.

    Args:
        query: Runs SQL on it.
    """

    def __init__(self, query: Query) -> None:
        self._query = query

    def of(
        self,
        manifest: Digest,
        blobs: Iterable[Digest] = (),
        *,
        voucher: Digest | None = None,
        about: Digest | None = None,
        news: Sequence[Withdrawn] = (),
    ) -> Withdrawal | None:
        """The strictest withdrawal of a model, or of one that it was made from at this site.

        Args:
            manifest: Of the model; need not be in the store.
            blobs: What it consists of; those of a model in the store are known.
            voucher: Root of a publisher that is about to bring it, beside those that did.
            about: Root of the publisher whose news these are, where it brings nothing.
            news: What that publisher says now of these digests; counts instead of what it said.
        """
        if not news and not list(self._query(_ANYTHING)):
            return None  # of most sites, and asked for every request
        own = self._query("SELECT digest FROM manifest_blobs WHERE manifest = ?", str(manifest))
        digests = {*blobs, *(Digest.parse(row[0]) for row in own)}
        found = self._judge(manifest, digests, voucher=voucher, about=about, news=news)
        if voucher is None:  # who vouches for it from now on need not vouch for what it came from
            of_bases = (
                self._judge(base, digests, about=about, news=news, released=manifest)
                for base in self.bases(manifest)
            )
            found = max(filter(None, (found, *of_bases)), key=_strictness, default=None)
        return found

    def bases(self, manifest: Digest) -> tuple[Digest, ...]:
        """What a model was made from at this site, and that from, and so on."""
        rows = self._query(_BASES + " WHERE manifest = ?", str(manifest))
        return tuple(Digest.parse(row[1]) for row in rows)

    def trusted(self, manifest: Digest) -> bool:
        """Whether a publisher that this site trusts now has signed it."""
        return any(self._vouchers(manifest).values())

    def vouched(self, manifest: Digest) -> bool:
        """Whether some publisher's bundle brought it."""
        return bool(self._vouchers(manifest))

    def _judge(
        self,
        manifest: Digest,
        blobs: Iterable[Digest],
        *,
        voucher: Digest | None = None,
        about: Digest | None = None,
        news: Sequence[Withdrawn] = (),
        released: Digest | None = None,
    ) -> Withdrawal | None:
        """Without a look at what it was made from; ``released`` counts as its own release."""
        asked = json.dumps(sorted({str(manifest), *map(str, blobs)}))
        rows = [
            *self._query(_DENIED, asked),
            *self._query(_WITHDRAWN, json.dumps([str(manifest), str(released)]), asked),
        ]
        speaker = about or voucher
        if speaker is not None and news:
            named = {str(each.digest) for each in news}
            rows = [row for row in rows if (row[3], row[0] in named) != (str(speaker), True)]
            rows += self._news(speaker, news)
        if not rows:
            return None
        vouchers = self._vouchers(manifest) | ({str(voucher): True} if voucher else {})
        found = (_judged(row, vouchers) for row in rows)
        return max(filter(None, found), key=_strictness, default=None)

    def _news(self, source: Digest, news: Sequence[Withdrawn]) -> list[tuple[Any, ...]]:
        rows = self._query("SELECT name FROM trust_anchors WHERE fingerprint = ?", str(source))
        name = next((row[0] for row in rows), "")
        return [
            (
                str(each.digest),
                each.action,
                each.reason,
                str(source),
                name,
                each.number,
                microseconds(each.at),
            )
            for each in news
            if each.action
        ]

    def all(self) -> dict[Digest, Withdrawal]:
        """Every model in the store that something is withdrawn of."""
        rows = [
            *self._query(
                "SELECT manifest FROM manifest_blobs WHERE digest IN"
                " (SELECT digest FROM denied UNION SELECT digest FROM withdrawals)"
                " UNION SELECT digest FROM manifests WHERE digest IN"
                " (SELECT digest FROM denied UNION SELECT digest FROM withdrawals)"
            ),
            *self._query(_BASES),
        ]
        found = {digest: self.of(digest) for digest in {Digest.parse(row[0]) for row in rows}}
        return {digest: each for digest, each in found.items() if each is not None}

    def accepted(self, source: Digest) -> AcceptedList | None:
        """The list that a publisher's last accepted bundle carried."""
        rows = self._query(
            "SELECT version, entries, document FROM advisory_lists WHERE source = ?", str(source)
        )
        return next((AcceptedList(*row) for row in rows), None)

    def denied(self) -> list[Denied]:
        """The site's own deny list, the oldest first."""
        rows = self._query(
            "SELECT digest, label, reason, actor, at FROM denied ORDER BY at, digest"
        )
        return [
            Denied(Digest.parse(d), label, reason, actor, from_microseconds(at))
            for d, label, reason, actor, at in rows
        ]

    def _vouchers(self, manifest: Digest) -> dict[str, bool]:
        """Who brought a manifest, and whether they are still trusted."""
        rows = self._query(
            "SELECT source, EXISTS (SELECT 1 FROM trust_anchors WHERE fingerprint = source)"
            " FROM vouchers WHERE manifest = ?",
            str(manifest),
        )
        return {source: bool(pinned) for source, pinned in rows}


_ANYTHING: Final = (
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM denied) OR EXISTS (SELECT 1 FROM withdrawals)"
)
_DENIED: Final = (
    "SELECT digest, 3, reason, '', '', 0, at FROM denied"
    " WHERE digest IN (SELECT value FROM json_each(?))"
)
# What was released is a warning still, until a later advisory names the same again.
_WITHDRAWN: Final = """
    SELECT w.digest,
           CASE WHEN r.manifest IS NULL THEN w.action ELSE min(w.action, 1) END,
           w.reason, w.source,
           coalesce((SELECT name FROM trust_anchors WHERE fingerprint = w.source LIMIT 1), ''),
           w.number, w.at
      FROM withdrawals AS w
      LEFT JOIN releases AS r
        ON r.source = w.source AND r.number = w.number
       AND r.manifest IN (SELECT value FROM json_each(?))
     WHERE w.digest IN (SELECT value FROM json_each(?)) AND w.action > 0
"""

# Models made at this site: their facts tell what from.
_BASES: Final = """
    SELECT f.manifest, b.value FROM model_facts AS f
      JOIN json_each(CAST(f.document AS TEXT), '$.made.bases') AS b
"""


def _strictness(found: Withdrawal) -> Action:
    return found.action


def _judged(row: Sequence[Any], vouchers: Mapping[str, bool]) -> Withdrawal | None:
    """What a row means for a model for which these publishers stand."""
    digest, action, reason, source, publisher, number, at = row
    if source != SITE:
        if source not in vouchers:
            return None
        if any(pinned for other, pinned in vouchers.items() if other != source):
            action = min(action, Action.WARN)
    return Withdrawal(
        Digest.parse(digest),
        Action(action),
        reason,
        source,
        publisher,
        number,
        from_microseconds(at),
    )


class WithdrawalWriter:
    """Writes what is withdrawn, in an open transaction.

    Args:
        execute: Runs SQL in it.
        at: Its one time, in microseconds.
    """

    def __init__(self, execute: Query, at: int) -> None:
        self._execute = execute
        self._at = at

    def vouch(self, manifest: Digest, source: Digest) -> None:
        """Note under whose root a manifest came."""
        self._execute(
            "INSERT INTO vouchers VALUES (?, ?) ON CONFLICT DO NOTHING", str(manifest), str(source)
        )

    def accept(
        self, source: Digest, accepted: AcceptedList, last: Mapping[Digest, Withdrawn]
    ) -> None:
        """Go by a newer list of a publisher.

        Args:
            source: Fingerprint of the publisher's root.
            accepted: Verified, and no step back.
            last: What it says of each digest.

        Raises:
            RollbackDetected: It has fewer entries than the one before.
        """
        before = Withdrawals(self._execute).accepted(source)
        if before is not None and before.entries > accepted.entries:
            raise RollbackDetected(
                "the list of withdrawals has become shorter",
                why=f"{accepted.entries} entries, this site has {before.entries}",
            )
        self._execute(
            "INSERT INTO advisory_lists VALUES (?, ?, ?, ?) ON CONFLICT (source) DO UPDATE SET"
            " version = excluded.version, entries = excluded.entries,"
            " document = excluded.document",
            str(source),
            accepted.version,
            accepted.entries,
            accepted.document,
        )
        self._execute("DELETE FROM withdrawals WHERE source = ?", str(source))
        for digest, each in last.items():
            self._execute(
                "INSERT INTO withdrawals VALUES (?, ?, ?, ?, ?, ?)",
                str(digest),
                str(source),
                each.number,
                int(each.action),
                each.reason,
                microseconds(each.at),
            )

    def deny(self, digest: Digest, label: str, reason: str, actor: str) -> None:
        """Put a digest on the site's own list; again replaces the reason."""
        self._execute(
            "INSERT INTO denied VALUES (?, ?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE SET"
            " label = excluded.label, reason = excluded.reason, actor = excluded.actor,"
            " at = excluded.at",
            str(digest),
            label,
            reason,
            actor,
            self._at,
        )

    def allow(self, digest: Digest) -> None:
        """Take a digest off the site's own list.

        Raises:
            NotFound: It is not on it.
        """
        rows = self._execute("DELETE FROM denied WHERE digest = ? RETURNING digest", str(digest))
        if not list(rows):
            raise NotFound(
                f"{digest.short} is not on the deny list", hint="See `sealift deny list`"
            )

    def release(self, manifest: Digest, source: str, number: int, reason: str, actor: str) -> None:
        """Let a model out of the quarantine that one advisory put it in."""
        self._execute(
            "INSERT INTO releases VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            str(manifest),
            source,
            number,
            reason,
            actor,
            self._at,
        )
