"""The audit log as it is stored: one tree with its entries, whatever happens around it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from registry import database, merkle
from registry.catalogue import Catalogue
from registry.records import Checkpoint
from registry.store import Store
from schemas import documents, strictjson
from schemas.documents import Kind
from schemas.errors import NotFound, StoreDamaged


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    with Catalogue.open(tmp_path / "catalog.db") as opened:
        yield opened


def event(subject: str) -> dict[str, Any]:
    return Store.audit_event("test.event", subject, {})


def fill(catalogue: Catalogue, count: int) -> None:
    with catalogue.transaction() as tx:
        for number in range(count):
            tx.add_audit_event(event(str(number)))


def computed(catalogue: Catalogue, size: int | None = None) -> merkle.Peaks:
    """The tree, from the entries alone."""
    peaks = merkle.Peaks()
    for _, document in catalogue.audit.rows(0, size):
        peaks.append(merkle.leaf_hash(document))
    return peaks


def test_an_empty_log(catalogue: Catalogue) -> None:
    assert catalogue.audit.size == 0
    assert catalogue.audit.root() == merkle.EMPTY
    assert catalogue.audit.newest_checkpoint(own=True) is None


def test_every_append_keeps_tree_and_entries_together(catalogue: Catalogue) -> None:
    for number in range(70):
        with catalogue.transaction() as tx:
            assert tx.add_audit_event(event(str(number))) == number
            assert tx.audit.size == number + 1
        assert catalogue.audit.size == number + 1
        assert catalogue.audit.root() == computed(catalogue).root()
    for size in range(71):
        assert catalogue.audit.root(size) == computed(catalogue, size).root()
    assert len(list(catalogue.audit.nodes())) == merkle.stored_nodes(70)


def test_an_abandoned_transaction_leaves_neither(catalogue: Catalogue) -> None:
    fill(catalogue, 3)
    root = catalogue.audit.root()

    def abandon() -> None:
        with catalogue.transaction() as tx:
            tx.add_audit_event(event("lost"))
            raise KeyError

    with pytest.raises(KeyError):
        abandon()
    assert (catalogue.audit.size, catalogue.audit.root()) == (3, root)
    fill(catalogue, 1)
    assert catalogue.audit.ever == catalogue.audit.size == 4


def test_proofs_of_the_stored_tree(catalogue: Catalogue) -> None:
    fill(catalogue, 37)
    log = catalogue.audit
    root, old = log.root(), log.root(20)
    assert merkle.includes(log.leaf(11), 11, 37, log.inclusion(11), root)
    assert merkle.includes(log.leaf(11), 11, 20, log.inclusion(11, 20), old)
    assert merkle.continues(20, 37, log.consistency(20), old, root)
    for wrong in (-1, 37):
        with pytest.raises(NotFound):
            log.inclusion(wrong)
    for sizes in ((0, 37), (38, 37), (3, 38)):
        with pytest.raises(NotFound):
            log.consistency(*sizes)


def test_nothing_in_it_can_be_changed_by_accident(catalogue: Catalogue) -> None:
    fill(catalogue, 3)
    with catalogue.transaction() as tx:
        tx.add_checkpoint(Checkpoint(3, tx.audit.root(), "s", True, b"key", b"note"))
    for sql in (
        "DELETE FROM audit_log",
        "UPDATE audit_log SET seq = 7",
        "DELETE FROM audit_nodes",
        "UPDATE audit_nodes SET position = 7",
        "DELETE FROM audit_checkpoints",
        "UPDATE audit_checkpoints SET size = 7",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="only grows"):
            catalogue._connection.execute(sql)


def test_checkpoints_come_back_by_size(catalogue: Catalogue) -> None:
    kept = [
        Checkpoint(size, bytes([size]) * 32, signer, signer == "b", b"key", b"note")
        for size in (1, 2)
        for signer in ("a", "b")
    ]
    with catalogue.transaction() as tx:
        for each in [*reversed(kept), *kept]:
            tx.add_checkpoint(each)
    assert list(catalogue.audit.checkpoints()) == kept
    assert catalogue.audit.newest_checkpoint(own=True) == kept[3]
    assert catalogue.audit.newest_checkpoint(own=False) == kept[2]


def test_reference_time_is_never_before_the_floor(catalogue: Catalogue) -> None:
    floor = datetime(2199, 5, 6, 7, 8, 9, tzinfo=UTC)
    with catalogue.transaction() as tx:
        tx.add_audit_event(event("before"))
        tx.set_clock_floor(floor)
        tx.add_audit_event(event("after"))
    before, after = (entry.event for entry in catalogue.audit_events())
    assert before["reference"] == before["at"]
    assert after["reference"] == "2199-05-06T07:08:09Z" > after["at"]


def test_a_log_from_before_the_tree_is_taken_in_order(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    connection = sqlite3.connect(path)
    scripts = database.migrations()
    older = [script for script in scripts if script.stem < "0003"]
    for script in older:
        connection.executescript(script.read_text(encoding="utf-8"))
    events = [
        {
            "schemaVersion": 1,
            "at": "2030-01-01T00:00:00Z",
            "actor": "root",
            "action": "gc",
            "subject": f"{number}",
            "outcome": "done",
        }
        for number in range(2500)
    ]
    rows = [(documents.dump(Kind.AUDIT_EVENT_V1, each),) for each in events]
    connection.executemany("INSERT INTO audit_log (at, document) VALUES (0, ?)", rows)
    connection.execute(f"PRAGMA user_version = {len(older)}")
    connection.execute(f"PRAGMA application_id = {database.APPLICATION_ID}")
    connection.commit()
    connection.close()
    with Catalogue.open(path) as catalogue:
        assert catalogue.audit.size == len(events)
        assert catalogue.audit.root() == computed(catalogue).root()
        found = [
            strictjson.parse_object(d, what="", max_bytes=999) for _, d in catalogue.audit.rows()
        ]
        assert found == events
        fill(catalogue, 1)
        assert catalogue.audit.root() == computed(catalogue).root()


def test_threads_and_handles_append_one_after_another(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"

    def work(name: str) -> None:
        with Catalogue.open(path) as catalogue:
            for number in range(20):
                with catalogue.transaction() as tx:
                    tx.add_audit_event(event(f"{name} {number}"))

    Catalogue.open(path).close()
    threads = [threading.Thread(target=work, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Catalogue.open(path) as catalogue:
        assert catalogue.audit.size == 80
        assert catalogue.audit.root() == computed(catalogue).root()


def test_a_view_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    with Catalogue.open(path) as reader, Catalogue.open(path) as writer:
        fill(writer, 3)
        with reader.view():
            assert reader.audit.size == 3
            fill(writer, 2)
            assert reader.audit.size == 3
        assert reader.audit.size == 5


@pytest.mark.parametrize("position", [0, 2, 4])
def test_a_torn_tree_is_named_and_not_built_upon(tmp_path: Path, position: int) -> None:
    path = tmp_path / "catalog.db"
    with Catalogue.open(path) as catalogue:
        fill(catalogue, 4)  # 7 nodes
    connection = sqlite3.connect(path)
    connection.execute("DROP TRIGGER audit_nodes_stay")
    connection.execute("DELETE FROM audit_nodes WHERE position >= ?", (position + 1,))
    connection.commit()
    connection.close()
    with Catalogue.open(path) as catalogue:
        with pytest.raises((StoreDamaged, sqlite3.IntegrityError)):
            fill(catalogue, 1)
        assert len(list(catalogue.audit.rows())) == 4
