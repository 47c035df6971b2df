"""What may no longer be served, and who may say so."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from registry.database import connect
from registry.digest import Digest
from registry.oci import Descriptor
from registry.reference import Reference
from registry.store import Store
from registry.withdrawals import AcceptedList, Action, Withdrawn
from schemas.errors import InvalidName, ModelWithdrawn, NotFound, RollbackDetected
from tests.store_models import tiny

ACME, EVIL, GONE = Digest.of(b"acme"), Digest.of(b"evil"), Digest.of(b"gone")
NAME = Reference.parse("acme/tiny:1")
AT = datetime(2026, 12, 1, tzinfo=UTC)
MODEL = tiny()
MANIFEST = MODEL.descriptor.digest
WEIGHTS = MODEL.manifest.layers[0].digest


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """One model, brought by acme; evil is trusted too."""
    with Store.open(tmp_path / "home") as store:
        with store.catalogue.transaction() as tx:
            tx.add_anchor("acme", ACME)
            tx.add_anchor("evil", EVIL)
            tx.put_blob(MODEL.descriptor)
            for blob in MODEL.manifest.blobs:
                tx.put_blob(Descriptor(blob.media_type, blob.digest, blob.size))
            tx.put_manifest(NAME.repository, MODEL.descriptor, MODEL.manifest, {})
            tx.set_tag(NAME, MANIFEST)
            tx.withdrawals.vouch(MANIFEST, ACME)
        yield store


def publish(
    store: Store, source: Digest, action: Action, digest: Digest = MANIFEST, number: int = 1
) -> None:
    last = {digest: Withdrawn(digest, action, "it lies", number, AT)}
    with store.catalogue.transaction() as tx:
        tx.withdrawals.accept(source, AcceptedList(number, number, b"{}"), last)


def action(store: Store) -> Action | None:
    found = store.withdrawal_of(MANIFEST)
    return None if found is None else found.action


@pytest.mark.parametrize("digest", [MANIFEST, WEIGHTS])
@pytest.mark.parametrize("asked", [Action.WARN, Action.QUARANTINE, Action.BLOCK])
def test_a_publisher_withdraws_what_it_brought(store: Store, digest: Digest, asked: Action) -> None:
    assert action(store) is None
    publish(store, ACME, asked, digest)
    found = store.withdrawal_of(MANIFEST)
    assert found is not None
    assert (found.action, found.publisher, found.digest, found.at) == (asked, "acme", digest, AT)
    assert found.stops is (asked is not Action.WARN)
    assert "acme (advisory 1): it lies" in found.line()
    assert store.catalogue.withdrawals.all() == {MANIFEST: found}


def test_nobody_withdraws_what_another_brought(store: Store) -> None:
    publish(store, EVIL, Action.BLOCK)
    assert action(store) is None
    assert store.catalogue.withdrawals.all() == {}


def test_what_several_brought_is_only_warned_of(store: Store) -> None:
    with store.catalogue.transaction() as tx:
        tx.withdrawals.vouch(MANIFEST, EVIL)
    publish(store, EVIL, Action.BLOCK)
    assert action(store) is Action.WARN


def test_a_publisher_no_longer_trusted_protects_nothing(store: Store) -> None:
    with store.catalogue.transaction() as tx:
        tx.withdrawals.vouch(MANIFEST, GONE)
    publish(store, ACME, Action.BLOCK)
    assert action(store) is Action.BLOCK


def test_the_word_of_a_publisher_outlives_the_trust_in_it(store: Store) -> None:
    publish(store, ACME, Action.BLOCK)
    with store.catalogue.transaction() as tx:
        tx.remove_anchor("acme")
    found = store.withdrawal_of(MANIFEST)
    assert found is not None
    assert found.stops
    assert found.by == "a former publisher"
    store.release(NAME, "nobody can take it back any more")
    assert action(store) is Action.WARN


def test_an_entry_is_taken_back_by_a_later_one(store: Store) -> None:
    publish(store, ACME, Action.BLOCK)
    publish(store, ACME, Action.NONE, number=2)
    assert action(store) is None


def test_a_list_never_gets_shorter(store: Store) -> None:
    publish(store, ACME, Action.BLOCK, number=2)
    with pytest.raises(RollbackDetected):
        publish(store, ACME, Action.NONE, number=1)
    assert action(store) is Action.BLOCK
    connection = connect(store.home / "catalog.db", create=False)
    for sql in ("UPDATE advisory_lists SET entries = 1", "DELETE FROM advisory_lists"):
        with pytest.raises(sqlite3.IntegrityError, match="only grows"):
            connection.execute(sql)
    connection.close()


def test_quarantine_ends_by_release_until_the_next_advisory(store: Store) -> None:
    with pytest.raises(NotFound):
        store.release(NAME, "for fun")
    publish(store, ACME, Action.QUARANTINE)
    assert store.release(NAME, "looked at it").action is Action.QUARANTINE
    assert action(store) is Action.WARN
    publish(store, ACME, Action.QUARANTINE, number=2)
    assert action(store) is Action.QUARANTINE
    assert [e.event["action"] for e in store.catalogue.audit_events()] == ["quarantine.release"]


def test_a_block_is_not_released(store: Store) -> None:
    publish(store, ACME, Action.BLOCK)
    with pytest.raises(ModelWithdrawn):
        store.release(NAME, "please")


@pytest.mark.parametrize("digest", [MANIFEST, WEIGHTS])
def test_the_site_denies_and_allows(store: Store, digest: Digest) -> None:
    store.deny(digest, "acme/tiny:1", "not here")
    found = store.withdrawal_of(MANIFEST)
    assert found is not None
    assert found.action is Action.BLOCK
    assert found.line() == "denied by this site: not here"
    with pytest.raises(ModelWithdrawn):
        store.release(NAME, "please")
    assert [(d.digest, d.reason) for d in store.catalogue.withdrawals.denied()] == [
        (digest, "not here")
    ]
    store.allow(digest, "was wrong")
    assert action(store) is None
    with pytest.raises(NotFound):
        store.allow(digest, "again")
    actions = [entry.event["action"] for entry in store.catalogue.audit_events()]
    assert actions == ["deny.add", "deny.remove"]


def test_the_strictest_word_counts(store: Store) -> None:
    publish(store, ACME, Action.WARN)
    store.deny(WEIGHTS, "", "not here")
    assert action(store) is Action.BLOCK


def test_a_model_about_to_come_is_judged_by_what_it_holds(store: Store) -> None:
    withdrawals = store.catalogue.withdrawals
    publish(store, ACME, Action.BLOCK, WEIGHTS)
    other = Digest.of(b"relabelled")
    assert withdrawals.of(other) is None
    assert withdrawals.of(other, [WEIGHTS]) is None
    found = withdrawals.of(other, [WEIGHTS], voucher=ACME)
    assert found is not None
    assert found.action is Action.BLOCK


def test_words_for_actions() -> None:
    assert [Action.parse(action.word) for action in Action] == list(Action)
    with pytest.raises(InvalidName):
        Action.parse("explode")
