"""What a site decides by itself, in the catalogue: namespaces, least versions, the lowered floor."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from registry import database
from registry.catalogue import Catalogue, TrustState
from registry.digest import Digest
from schemas.errors import AlreadyExists, SealiftError

PIN, OTHER = Digest.of(b"root 1"), Digest.of(b"another")
NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    with Catalogue.open(tmp_path / "catalog.db") as opened:
        yield opened


def test_a_namespace_is_whose_it_was_first(catalogue: Catalogue) -> None:
    with catalogue.transaction() as tx:
        assert tx.claim_namespace("acme", PIN) == PIN
        assert tx.claim_namespace("acme", OTHER) == PIN
    assert catalogue.namespaces() == {"acme": PIN}


def test_released_namespaces_are_free_again(catalogue: Catalogue) -> None:
    with catalogue.transaction() as tx:
        for name in ("b", "a"):
            tx.claim_namespace(name, PIN)
        tx.claim_namespace("c", OTHER)
        assert tx.release_namespaces(PIN) == ["a", "b"]
        assert tx.claim_namespace("a", OTHER) == OTHER
    assert catalogue.namespaces() == {"a": OTHER, "c": OTHER}


def test_the_least_version_is_kept_and_dropped_with_the_state(catalogue: Catalogue) -> None:
    state = TrustState("acme", PIN, {1: b"root 1"}, {}, least_timestamp=7)
    with catalogue.transaction() as tx:
        tx.add_anchor("acme", PIN)
        tx.set_trust("acme", state)
    assert catalogue.trust("acme") == state
    later = replace(state, metadata={"timestamp": b"t"}, least_timestamp=0)
    with catalogue.transaction() as tx:
        tx.set_trust("acme", later)
    assert catalogue.trust("acme") == later


def test_only_a_counted_change_lowers_the_floor(catalogue: Catalogue) -> None:
    with catalogue.transaction() as tx:
        tx.set_clock_floor(NOON)
    with catalogue.transaction() as tx:
        tx.set_clock_floor(NOON - timedelta(days=1))
    assert catalogue.clock_floor() == NOON
    with catalogue.transaction() as tx:
        tx.lower_clock_floor(NOON - timedelta(days=1))
    assert catalogue.clock_floor() == NOON - timedelta(days=1)
    for change in ("reference_time = 0", "reference_time = 0, lowered = 0"):
        with pytest.raises(sqlite3.IntegrityError, match="cannot sink"):
            catalogue._connection.execute(f"UPDATE clock_floor SET {change}")  # noqa: S608


def test_the_latest_signed_time_is_kept(catalogue: Catalogue) -> None:
    assert catalogue.signed_time() is None
    for signed, expected in [
        (None, None),
        (NOON, NOON),
        (NOON - timedelta(days=1), NOON),
        (None, NOON),
    ]:
        with catalogue.transaction() as tx:
            tx.set_clock_floor(NOON, signed)
        assert catalogue.signed_time() == expected


def test_an_approval_is_used_once(catalogue: Catalogue) -> None:
    assert not catalogue.request_used("r")
    with catalogue.transaction() as tx:
        tx.use_request("r")
    assert catalogue.request_used("r")

    def again() -> None:
        with catalogue.transaction() as tx:
            tx.use_request("r")

    with pytest.raises(AlreadyExists) as caught:
        again()
    assert isinstance(caught.value, SealiftError)
    assert caught.value.hint


def test_what_was_imported_before_belongs_to_whom_it_came_from(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(database.migrations()[0].read_text(encoding="utf-8"))
        connection.execute("PRAGMA user_version = 1")
        connection.execute(f"PRAGMA application_id = {database.APPLICATION_ID}")
        for name, pin in (("one", PIN), ("two", OTHER)):
            connection.execute("INSERT INTO trust_anchors VALUES (?, ?, 0)", (name, str(pin)))
        imports = [("a", 3, "two", ["acme/x:1"]), ("b", 1, "one", ["acme/x:1", "library/y:2"])]
        for number, at, anchor, names in imports:
            document = {"trust": {"anchor": anchor}, "models": [{"name": n} for n in names]}
            connection.execute(
                "INSERT INTO imports VALUES (?, 'b', 'p', 1, 'accepted', ?)", (number, at)
            )
            data = json.dumps(document).encode()
            connection.execute("INSERT INTO receipts VALUES (?, ?, ?)", (number, number, data))
        connection.commit()
    with Catalogue.open(path) as catalogue:
        assert catalogue.namespaces() == {"acme": PIN, "library": PIN}
