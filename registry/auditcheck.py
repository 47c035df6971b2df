"""Does the audit log still say what its tree says that it said? What differs is named.

The tree keeps the hash of every entry as it was written. So an entry that was changed, removed,
inserted or moved in the log alone is found by its index. A forger who rewrites the tree as well is
found by signed checkpoints, which are the caller's business: ``reached`` is told every root.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from registry import merkle
from registry.auditlog import AuditLog
from schemas import limits

CHANGED: Final = "changed"
REMOVED: Final = "removed"
INSERTED: Final = "inserted"
MOVED: Final = "moved"
TREE: Final = "tree"

# Called with a size and the tree of that many entries.
Reached = Callable[[int, merkle.Peaks], None]

# Called with every entry that is as it was: its index and document.
Visit = Callable[[int, bytes], None]

_Row = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it was.

    Attributes:
        kind: One of this module's words, or the caller's.
        index: Of the first entry that it is about; what was inserted has the place where it lies.
        last: Of the last; of what was moved, where it lies now.
        what: For people.
    """

    kind: str
    index: int
    last: int
    what: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of it.

    Attributes:
        size: Entries that the tree has.
        root: Of the tree, computed anew from its leaves.
        findings: In order; empty where log and tree agree.
        more: How many further ones there were.
    """

    size: int
    root: bytes
    findings: tuple[Finding, ...]
    more: int = 0


def check(log: AuditLog, reached: Reached, visit: Visit) -> Checked:
    """Read the whole log and its tree once, in constant memory.

    Args:
        log: Of one state; see :meth:`Catalogue.view`.
        reached: Told each size from 1 on with its tree. It must not keep the tree.
        visit: Given each sound entry.
    """
    found = _Findings()
    nodes = log.node_count
    size = _whole(nodes)
    if merkle.stored_nodes(size) != nodes:
        found.add(TREE, size, size, b"", "the tree ends in the middle of an entry")
    tree = _Tree(log.nodes(), size, found, reached)
    _compare(_entries(log.rows()), tree.leaves(), found, visit, limits.AUDIT_WINDOW)
    if (ever := log.ever) > max(size, log.last_row):
        text = f"the last {ever - size} entries of {ever} are gone, with their part of the tree"
        found.add(REMOVED, size, ever - 1, b"", text)
    return Checked(size, tree.peaks.root(), found.merged(), found.more)


def _whole(nodes: int) -> int:
    """The largest tree that so many nodes hold."""
    size = nodes // 2
    while merkle.stored_nodes(size + 1) <= nodes:
        size += 1
    return size


class _Findings:
    """What was found, before what belongs together is put together."""

    def __init__(self) -> None:
        self._found: list[tuple[Finding, bytes]] = []
        self.more = 0

    def add(self, kind: str, index: int, last: int, leaf: bytes, what: str = "") -> None:
        if len(self._found) < limits.AUDIT_FINDINGS:
            self._found.append((Finding(kind, index, last, what), leaf))
        else:
            self.more += 1

    def merged(self) -> tuple[Finding, ...]:
        """Removed here and inserted there is moved; neighbours that are gone are one finding."""
        pairs = self._pairs()
        taken = set(pairs.values())
        result: list[Finding] = []
        for number, (each, _) in enumerate(self._found):
            finding = each
            if number in taken:
                continue
            if number in pairs:
                place = self._found[pairs[number]][0].index
                text = f"entry {each.index} was moved: it lies at place {place}"
                finding = Finding(MOVED, each.index, place, text)
            before = result[-1] if result else None
            if (
                before is not None
                and before.kind == finding.kind == REMOVED
                and not finding.what
                and before.last + 1 == finding.index
            ):
                result[-1] = Finding(REMOVED, before.index, finding.last, "")
            else:
                result.append(finding)
        return tuple(_worded(finding) for finding in result)

    def _pairs(self) -> dict[int, int]:
        """What was removed, and the same entry inserted elsewhere: each one once."""
        inserted: dict[bytes, deque[int]] = {}
        for number, (finding, leaf) in enumerate(self._found):
            if finding.kind == INSERTED:
                inserted.setdefault(leaf, deque()).append(number)
        return {
            number: inserted[leaf].popleft()
            for number, (finding, leaf) in enumerate(self._found)
            if finding.kind == REMOVED and inserted.get(leaf)
        }


def _worded(finding: Finding) -> Finding:
    if finding.what:
        return finding
    first, last = finding.index, finding.last
    text = {
        CHANGED: f"entry {first} was changed",
        INSERTED: f"an entry was inserted at place {first}",
        REMOVED: f"entry {first} was removed"
        if first == last
        else f"entries {first} to {last} were removed",
    }[finding.kind]
    return Finding(finding.kind, first, last, text)


class _Tree:
    """Reads the stored nodes in order, and recomputes each from those below it."""

    def __init__(
        self, nodes: Iterator[_Row], size: int, found: _Findings, reached: Reached
    ) -> None:
        self._nodes = nodes
        self._next = next(nodes, None)
        self._size = size
        self._found = found
        self._reached = reached
        self.peaks = merkle.Peaks()

    def leaves(self) -> Iterator[_Row]:
        """Index and hash of every entry as it was written."""
        for index in range(self._size):
            start = merkle.stored_nodes(index)
            leaf = self._take(start)
            if leaf is None:
                text = f"the tree has lost the hash of entry {index}"
                self._found.add(TREE, index, index, b"", text)
                leaf = merkle.EMPTY
            yield index, leaf
            fresh = self.peaks.append(leaf)
            for level, wanted in enumerate(fresh[1:], 1):
                if self._take(start + level) != wanted:
                    first = index + 1 - (1 << level)
                    text = f"the tree's node over entries {first} to {index} is wrong"
                    self._found.add(TREE, first, index, b"", text)
            self._reached(index + 1, self.peaks)

    def _take(self, position: int) -> bytes | None:
        if self._next is None or self._next[0] != position:
            return None
        found = self._next[1]
        self._next = next(self._nodes, None)
        return found


class _Ahead:
    """Rows that can be looked at before they are taken."""

    def __init__(self, rows: Iterable[tuple[int, bytes, bytes]], window: int) -> None:
        self._rows = iter(rows)
        self._window = window
        self._waiting: deque[tuple[int, bytes, bytes]] = deque()

    def look(self) -> tuple[int, bytes, bytes] | None:
        if not self._waiting:
            self._waiting.extend(islice(self._rows, 1))
        return self._waiting[0] if self._waiting else None

    def take(self) -> None:
        self._waiting.popleft()

    def find(self, leaf: bytes) -> int | None:
        """How far ahead a hash lies, if not too far."""
        self._waiting.extend(islice(self._rows, self._window - len(self._waiting)))
        return next((n for n, row in enumerate(self._waiting) if row[1] == leaf), None)


def _entries(rows: Iterable[_Row]) -> Iterator[tuple[int, bytes, bytes]]:
    for number, document in rows:
        yield number, merkle.leaf_hash(document), document


def _compare(
    entries: Iterator[tuple[int, bytes, bytes]],
    leaves: Iterator[_Row],
    found: _Findings,
    visit: Visit,
    window: int,
) -> None:
    """Lay what is in the log beside what was; say where they part and meet again."""
    log = _Ahead(entries, window)
    tree = _Ahead(((index, leaf, b"") for index, leaf in leaves), window)
    while (there := log.look()) and (then := tree.look()):
        row, leaf, document = there
        index, wanted, _ = then
        if leaf == wanted:
            visit(index, document)
            log.take()
            tree.take()
            continue
        gone, new = tree.find(leaf), log.find(wanted)
        if gone is not None and (new is None or gone <= new):
            _drop(tree, gone, found)
        elif new is not None:
            for _ in range(new):
                _insert(log, found)
        elif row - 1 > index:
            _drop(tree, row - 1 - index, found)
        else:
            found.add(CHANGED, index, index, leaf)
            log.take()
            tree.take()
    while tree.look():
        _drop(tree, 1, found)
    while log.look():
        _insert(log, found)


def _drop(tree: _Ahead, count: int, found: _Findings) -> None:
    for _ in range(count):
        if (then := tree.look()) is not None:
            found.add(REMOVED, then[0], then[0], then[1])
            tree.take()


def _insert(log: _Ahead, found: _Findings) -> None:
    there = log.look()
    if there is not None:
        found.add(INSERTED, there[0] - 1, there[0] - 1, there[1])
        log.take()
