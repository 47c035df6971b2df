"""The audit log as it is stored: entries, the Merkle tree over them, and notes about its root.

Entry number ``index`` (from 0 on) is row ``index + 1``. Appending, a root and a proof take a
logarithmic number of reads; nothing here has a key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from registry import merkle
from registry.records import Checkpoint
from schemas.errors import NotFound, StoreDamaged

# Runs a query and gives its rows.
Query = Callable[..., Iterable[tuple[Any, ...]]]

_PAGE: Final = 1000  # rows read at once
_ADVICE: Final = "Run sealift audit verify"


class AuditLog:
    """Reads the log through one connection; see :meth:`Catalogue.view` for one state of it.

    Args:
        query: Runs SQL on that connection.
    """

    def __init__(self, query: Query) -> None:
        self._query = query

    # -- the tree -------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many entries the tree has.

        Raises:
            StoreDamaged: No tree has as many nodes as are stored.
        """
        size = merkle.tree_size(self.node_count)
        if size is None:
            raise StoreDamaged(
                "the tree over the audit log is torn", why=f"{self.node_count} nodes", hint=_ADVICE
            )
        return size

    @property
    def node_count(self) -> int:
        """How many nodes the tree should have, by the last one."""
        ((last,),) = self._query("SELECT coalesce(max(position), -1) FROM audit_nodes")
        return int(last) + 1

    def root(self, size: int | None = None) -> bytes:
        """The root of the first ``size`` entries; None for all.

        Raises:
            NotFound: The log is shorter.
            StoreDamaged: A node is missing.
        """
        return merkle.root(self._within(size), self.node)

    def peaks(self, size: int | None = None) -> merkle.Peaks:
        """What it takes to go on from the first ``size`` entries; raises as :meth:`root`."""
        return merkle.Peaks.stored(self._within(size), self.node)

    def leaf(self, index: int) -> bytes:
        """The stored hash of one entry; raises as :meth:`root`."""
        if index < 0:
            raise NotFound(f"the audit log has no entry {index}")
        self._within(index + 1)
        return self.node(merkle.position(0, index))

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """The audit path of an entry in the first ``size`` ones (RFC 6962 §2.1.1).

        Raises:
            NotFound: There is no such entry, or the log is shorter.
            StoreDamaged: A node is missing.
        """
        size = self._within(size)
        if not 0 <= index < size:
            raise NotFound(f"the audit log has no entry {index}", why=f"it has {size}")
        return merkle.inclusion(index, size, self.node)

    def consistency(self, old: int, size: int | None = None) -> list[bytes]:
        """That the log of ``size`` entries continues that of ``old`` ones (RFC 6962 §2.1.2).

        Raises:
            NotFound: The log is shorter, or ``old`` is no size before ``size``.
            StoreDamaged: A node is missing.
        """
        size = self._within(size)
        if not 1 <= old <= size:
            raise NotFound(
                f"nothing can be proven about a log of {old} entries", why=f"this one has {size}"
            )
        return merkle.consistency(old, size, self.node)

    def _within(self, size: int | None) -> int:
        there = self.size
        if size is None:
            return there
        if not 0 <= size <= there:
            raise NotFound(f"the audit log has no {size} entries", why=f"it has {there}")
        return size

    def node(self, position: int) -> bytes:
        """A stored hash (:func:`registry.merkle.position`).

        Raises:
            StoreDamaged: It is missing.
        """
        rows = list(self._query("SELECT hash FROM audit_nodes WHERE position = ?", position))
        if not rows:
            raise StoreDamaged(
                "the tree over the audit log has a hole", why=f"at node {position}", hint=_ADVICE
            )
        found: bytes = rows[0][0]
        return found

    # -- rows -----------------------------------------------------------------------------------

    def rows(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Row number and document of the entries from ``start`` on, in order, as they lie there.

        Args:
            start: Index of the first.
            end: Behind the last; None for all.
        """
        sql = "SELECT seq, document FROM audit_log WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
        return self._pages(sql, start, 2**62 if end is None else end)

    def nodes(self) -> Iterator[tuple[int, bytes]]:
        """Position and hash of every stored node, in order."""
        sql = (
            "SELECT position, hash FROM audit_nodes WHERE position > ? AND position <= ?"
            " ORDER BY position LIMIT ?"
        )
        return self._pages(sql, -1, 2**62)

    def _pages(self, sql: str, after: int, last: int) -> Iterator[tuple[int, bytes]]:
        while True:
            page = list(self._query(sql, after, last, _PAGE))
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1][0]

    @property
    def last_row(self) -> int:
        """The highest row number among the entries; 0 for none."""
        ((last,),) = self._query("SELECT coalesce(max(seq), 0) FROM audit_log")
        return int(last)

    @property
    def ever(self) -> int:
        """How many entries there ever were, by SQLite's own count."""
        rows = list(self._query("SELECT seq FROM sqlite_sequence WHERE name = 'audit_log'"))
        return int(rows[0][0]) if rows else 0

    def checkpoints(self) -> Iterator[Checkpoint]:
        """All notes about the log, by size."""
        sql = (
            "SELECT size, signer, root, own, public, note FROM audit_checkpoints"
            " WHERE (size, signer, root) > (?, ?, ?) ORDER BY size, signer, root LIMIT ?"
        )
        after: tuple[int, str, bytes] = (-1, "", b"")
        while True:
            page = list(self._query(sql, *after, _PAGE))
            for size, signer, root, own, public, note in page:
                yield Checkpoint(size, root, signer, bool(own), public, note)
            if len(page) < _PAGE:
                return
            after = page[-1][:3]

    def has_checkpoint(self, checkpoint: Checkpoint) -> bool:
        """Whether there is one of this size, signer and root."""
        sql = "SELECT 1 FROM audit_checkpoints WHERE size = ? AND signer = ? AND root = ?"
        return bool(list(self._query(sql, checkpoint.size, checkpoint.signer, checkpoint.root)))

    def has_own_checkpoint(self, size: int) -> bool:
        """Whether the site signed the log at this size."""
        sql = "SELECT 1 FROM audit_checkpoints WHERE size = ? AND own = 1 LIMIT 1"
        return bool(list(self._query(sql, size)))

    def newest_checkpoint(self, *, own: bool) -> Checkpoint | None:
        """The one of the longest log: by this site, or by somebody who countersigned it."""
        rows = list(
            self._query(
                "SELECT size, signer, root, own, public, note FROM audit_checkpoints"
                " WHERE own = ? ORDER BY size DESC LIMIT 1",
                int(own),
            )
        )
        if not rows:
            return None
        size, signer, root, _, public, note = rows[0]
        return Checkpoint(size, root, signer, own, public, note)


def append(query: Query, at: int, document: bytes) -> int:
    """Append an entry and what it completes of the tree, in the caller's transaction.

    Args:
        query: Runs SQL inside it.
        at: Microseconds since 1970.
        document: The entry.

    Returns:
        The entry's index.

    Raises:
        StoreDamaged: Log and tree do not fit together.
    """
    log = AuditLog(query)
    size = log.size
    query("INSERT INTO audit_log (seq, at, document) VALUES (?, ?, ?)", size + 1, at, document)
    _store(query, size, merkle.completed(size, merkle.leaf_hash(document), log.node))
    return size


def take_in(query: Query) -> None:
    """Build the tree over entries from before there was one; for the migration."""
    peaks = merkle.Peaks()
    for _, document in AuditLog(query).rows():
        _store(query, peaks.size, peaks.append(merkle.leaf_hash(document)))


def _store(query: Query, size: int, fresh: Iterable[bytes]) -> None:
    start = merkle.stored_nodes(size)
    for offset, found in enumerate(fresh):
        query("INSERT INTO audit_nodes VALUES (?, ?)", start + offset, found)
