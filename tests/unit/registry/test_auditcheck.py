"""An audit log that somebody edited: what was done is named, by index."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import auditcheck, merkle
from registry.auditlog import AuditLog, append

TRIGGERS = ("audit_log_keeps", "audit_log_stays", "audit_nodes_keep", "audit_nodes_stay")
MIGRATIONS = Path(auditcheck.__file__).with_name("migrations")


class Log:
    """A log with its tree in memory, and the means to break in."""

    def __init__(self, count: int) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        for script in sorted(MIGRATIONS.glob("*.sql")):
            self.connection.executescript(script.read_text(encoding="utf-8"))
        for number in range(count):
            append(self.query, 0, str(number).encode())
        for trigger in TRIGGERS:
            self.connection.execute(f"DROP TRIGGER {trigger}")

    def query(self, sql: str, *values: object) -> sqlite3.Cursor:
        return self.connection.execute(sql, values)

    def renumber(self, entries: Sequence[bytes]) -> None:
        """Let the log have these entries and no gap; the tree stays as it is."""
        self.query("DELETE FROM audit_log")
        self.connection.executemany(
            "INSERT INTO audit_log (seq, at, document) VALUES (?, 0, ?)",
            enumerate(entries, 1),
        )

    def check(self) -> auditcheck.Checked:
        return auditcheck.check(AuditLog(self.query), lambda *_: None, lambda *_: None)

    def found(self) -> list[tuple[str, int, int]]:
        return [(f.kind, f.index, f.last) for f in self.check().findings]


@pytest.fixture
def log() -> Iterator[Log]:
    opened = Log(40)
    with closing(opened.connection):
        yield opened


def entries(count: int = 40) -> list[bytes]:
    return [str(number).encode() for number in range(count)]


def test_a_sound_log(log: Log) -> None:
    sizes: list[tuple[int, bytes]] = []
    visited: list[tuple[int, bytes]] = []
    checked = auditcheck.check(
        AuditLog(log.query),
        lambda size, peaks: sizes.append((size, peaks.root())),
        lambda *entry: visited.append(entry),
    )
    assert checked.findings == ()
    assert visited == list(enumerate(entries()))
    assert sizes[-1] == (40, checked.root)
    assert [size for size, _ in sizes] == list(range(1, 41))
    peaks = merkle.Peaks()
    for entry, (_, root) in zip(entries(), sizes, strict=True):
        peaks.append(merkle.leaf_hash(entry))
        assert peaks.root() == root


def test_an_empty_log() -> None:
    assert Log(0).check() == auditcheck.Checked(0, merkle.EMPTY, ())


def test_a_changed_entry(log: Log) -> None:
    log.query("UPDATE audit_log SET document = x'00' WHERE seq = 8")
    assert log.found() == [("changed", 7, 7)]
    assert log.check().findings[0].what == "entry 7 was changed"


def test_two_changed_neighbours(log: Log) -> None:
    log.query("UPDATE audit_log SET document = x'00' WHERE seq IN (8, 9)")
    assert log.found() == [("changed", 7, 7), ("changed", 8, 8)]


@pytest.mark.parametrize("seq", [1, 8, 40])
def test_a_removed_entry(log: Log, seq: int) -> None:
    log.query("DELETE FROM audit_log WHERE seq = ?", seq)
    assert log.found() == [("removed", seq - 1, seq - 1)]


def test_removed_and_closed_up(log: Log) -> None:
    kept = entries()
    del kept[10:13]
    log.renumber(kept)
    assert log.found() == [("removed", 10, 12)]
    assert log.check().findings[0].what == "entries 10 to 12 were removed"


def test_removed_and_the_next_one_changed(log: Log) -> None:
    log.query("DELETE FROM audit_log WHERE seq = 8")
    log.query("UPDATE audit_log SET document = x'00' WHERE seq = 9")
    assert log.found() == [("removed", 7, 7), ("changed", 8, 8)]


@pytest.mark.parametrize("place", [0, 10, 40])
def test_an_inserted_entry(log: Log, place: int) -> None:
    kept = entries()
    kept.insert(place, b"forged")
    log.renumber(kept)
    assert log.found() == [("inserted", place, place)]


def test_exchanged_neighbours(log: Log) -> None:
    kept = entries()
    kept[5], kept[6] = kept[6], kept[5]
    log.renumber(kept)
    assert log.found() == [("moved", 5, 6)]


def test_an_entry_moved_far(log: Log) -> None:
    kept = entries()
    kept.insert(30, kept.pop(5))
    log.renumber(kept)
    assert log.found() == [("moved", 5, 30)]
    assert log.check().findings[0].what == "entry 5 was moved: it lies at place 30"


def test_the_tail_removed_from_the_log_alone(log: Log) -> None:
    log.query("DELETE FROM audit_log WHERE seq > 35")
    assert log.found() == [("removed", 35, 39)]


def test_the_tail_removed_from_log_and_tree(log: Log) -> None:
    log.query("DELETE FROM audit_log WHERE seq > 35")
    log.query("DELETE FROM audit_nodes WHERE position >= ?", merkle.stored_nodes(35))
    assert log.found() == [("removed", 35, 39)]
    assert "the last 5 entries of 40 are gone" in log.check().findings[0].what


def test_a_changed_leaf_of_the_tree(log: Log) -> None:
    log.query(
        "UPDATE audit_nodes SET hash = zeroblob(32) WHERE position = ?", merkle.position(0, 7)
    )
    assert ("changed", 7, 7) in log.found()
    assert ("tree", 6, 7) in log.found()


def test_a_changed_node_of_the_tree(log: Log) -> None:
    log.query(
        "UPDATE audit_nodes SET hash = zeroblob(32) WHERE position = ?", merkle.position(3, 1)
    )
    assert log.found() == [("tree", 8, 15)]


def test_a_hole_in_the_tree(log: Log) -> None:
    log.query("DELETE FROM audit_nodes WHERE position = ?", merkle.position(0, 9))
    assert ("tree", 9, 9) in log.found()


def test_a_torn_tree(log: Log) -> None:
    log.query("DELETE FROM audit_nodes WHERE position > ?", merkle.position(0, 15))
    assert ("tree", 15, 15) in log.found() or ("tree", 16, 16) in log.found()


def test_findings_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.limits.AUDIT_FINDINGS", 5)
    log = Log(20)
    log.query("UPDATE audit_log SET document = x'00'")
    checked = log.check()
    assert len(checked.findings) == 5
    assert checked.more == 15


@settings(max_examples=60)
@given(st.integers(1, 30), st.data())
def test_any_edit_of_the_log_is_found_and_the_first_place_named(
    count: int, data: st.DataObject
) -> None:
    before = entries(count)
    after = data.draw(
        st.lists(st.sampled_from([*before, b"forged"]), max_size=count + 3).filter(
            lambda drawn: drawn != before
        )
    )
    log = Log(count)
    log.renumber(after)
    found = log.check().findings
    first = next(
        (n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b),
        min(len(before), len(after)),
    )
    assert found
    assert min(min(finding.index, finding.last) for finding in found) == first
