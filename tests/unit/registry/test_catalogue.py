"""The catalogue: models, trust, evidence; one transaction or nothing."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import oci
from registry.catalogue import Catalogue, TrustState
from registry.database import from_microseconds, microseconds
from registry.digest import Digest
from registry.oci import Descriptor
from registry.records import SignedReceipt
from registry.reference import Reference
from registry.transaction import Transaction
from schemas import documents, limits
from schemas.documents import Kind
from schemas.errors import (
    AlreadyExists,
    ContentMismatch,
    InvalidName,
    MalformedDocument,
    NotFound,
    SealiftError,
    StorageFailure,
    StoreBusy,
    StoreDamaged,
    TrustMissing,
    UsageError,
)
from tests.store_models import TinyModel, tiny

NAME = Reference.parse("acme/tiny:1")
PIN = Digest.of(b"root 1")
STATE = TrustState(
    "acme",
    PIN,
    {1: b"root 1", 2: b"root 2"},
    {"timestamp": b"t", "snapshot": b"s", "targets": b"x"},
)


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    with Catalogue.open(tmp_path / "catalog.db") as opened:
        yield opened


def put(
    tx: Transaction, model: TinyModel, name: Reference = NAME, facts: dict[str, Any] | None = None
) -> None:
    for blob in model.manifest.blobs:
        tx.put_blob(blob)
    tx.put_manifest(name.repository, model.descriptor, model.manifest, facts)
    tx.set_tag(name, model.descriptor.digest)


def rows(catalogue: Catalogue) -> dict[str, list[Any]]:
    """All that is in all tables."""
    connection = catalogue._connection
    tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    return {
        name: connection.execute(f'SELECT * FROM "{name}" ORDER BY 1').fetchall()  # noqa: S608
        for (name,) in tables
    }


# -- models -------------------------------------------------------------------------------------


def test_a_model_comes_back_whole(catalogue: Catalogue) -> None:
    model = tiny()
    facts = {"arch": "llama", "n": 5, "eps": 0.5, "list": [None, True]}
    with catalogue.transaction() as tx:
        put(tx, model, facts=facts)
        at = tx.time
    record = catalogue.resolve(NAME)
    assert record is not None
    assert record.reference == NAME
    assert record.manifest == model.manifest
    assert record.descriptor.digest == model.descriptor.digest
    assert record.descriptor.size == len(model.manifest.to_bytes())
    assert record.descriptor.media_type == oci.IMAGE_MANIFEST
    assert record.descriptor.artifact_type == oci.MODEL_ARTIFACT
    assert record.size == len(model.weights) + len(model.config)
    assert record.facts == facts
    assert record.created == record.modified == at
    assert catalogue.models() == [record]
    with pytest.raises(TypeError):
        record.facts["arch"] = "x"  # type: ignore[index]  # that is the point


def test_resolving_by_digest_and_with_a_host(catalogue: Catalogue) -> None:
    one, two = tiny(1), tiny(2)
    with catalogue.transaction() as tx:
        put(tx, one)
    with catalogue.transaction() as tx:
        put(tx, two)
    digest = one.descriptor.digest

    def found(text: str) -> Digest | None:
        record = catalogue.resolve(Reference.parse(text))
        return record.descriptor.digest if record else None

    assert found("acme/tiny:1") == two.descriptor.digest
    assert found(f"acme/tiny:1@{digest}") == digest
    assert found(f"acme/tiny@{digest}") == digest
    assert found("mirror.example/acme/tiny:1") == two.descriptor.digest
    assert found("acme/tiny:2") is None
    assert found(f"acme/other@{digest}") is None
    assert found(f"acme/tiny@{Digest.of(b'no')}") is None


def test_models_are_listed_newest_first(catalogue: Catalogue) -> None:
    for number, name in enumerate(["b:1", "a:1", "c:1", "a:2", "b:1"]):
        with catalogue.transaction() as tx:
            put(tx, tiny(number), Reference.parse(name))
    names = [record.reference.shortest for record in catalogue.models()]
    assert names == ["b:1", "a:2", "c:1", "a:1"]


def test_an_unnamed_manifest_is_no_model(catalogue: Catalogue) -> None:
    model = tiny()
    with catalogue.transaction() as tx:
        put(tx, model)
        tx.remove_tag(NAME)
    assert catalogue.models() == []
    assert catalogue.resolve(NAME) is None


def test_a_blob_listed_twice_counts_once(catalogue: Catalogue) -> None:
    model = TinyModel(b"same", b"same")
    with catalogue.transaction() as tx:
        put(tx, model)
    record = catalogue.resolve(NAME)
    assert record is not None
    assert record.size == 4


def test_putting_again_changes_nothing_but_facts(catalogue: Catalogue) -> None:
    with catalogue.transaction() as tx:
        put(tx, tiny(), facts={"a": 1})
    with catalogue.transaction() as tx:
        put(tx, tiny())
    record = catalogue.resolve(NAME)
    assert record is not None
    assert record.facts == {"a": 1}
    with catalogue.transaction() as tx:
        put(tx, tiny(), facts={"b": 2})
    record = catalogue.resolve(NAME)
    assert record is not None
    assert record.facts == {"b": 2}
    assert record.modified > record.created


def test_a_manifest_needs_its_blobs(catalogue: Catalogue) -> None:
    model = tiny()
    with pytest.raises(NotFound, match="is not in the store"), catalogue.transaction() as tx:
        tx.put_manifest("acme/tiny", model.descriptor, model.manifest, None)
    assert not any(rows(catalogue).values())


def test_a_tag_needs_its_manifest_in_the_repository(catalogue: Catalogue) -> None:
    with catalogue.transaction() as tx:
        put(tx, tiny())
    before = rows(catalogue)
    with pytest.raises(NotFound), catalogue.transaction() as tx:
        tx.set_tag(Reference.parse("acme/other:1"), tiny().descriptor.digest)
    with (
        pytest.raises(NotFound, match="model 'acme/tiny:2' not found"),
        catalogue.transaction() as tx,
    ):
        tx.remove_tag(Reference.parse("acme/tiny:2"))
    assert rows(catalogue) == before


def test_one_digest_has_one_size(catalogue: Catalogue) -> None:
    digest = Digest.of(b"x")
    with catalogue.transaction() as tx:
        tx.put_blob(Descriptor("text/plain", digest, 1))
        tx.put_blob(Descriptor("text/other", digest, 1))
        with pytest.raises(ContentMismatch):
            tx.put_blob(Descriptor("text/plain", digest, 2))


def test_a_blob_that_was_forgotten_is_not_remembered(catalogue: Catalogue) -> None:
    model = tiny()
    with catalogue.transaction() as tx:
        for blob in model.manifest.blobs:
            tx.put_blob(blob)
        tx.forget([], [blob.digest for blob in model.manifest.blobs])
        with pytest.raises(NotFound, match="is not in the store"):
            tx.put_manifest("acme/tiny", model.descriptor, model.manifest, None)


def test_a_manifest_that_lies_about_a_size(catalogue: Catalogue) -> None:
    model = tiny()
    with catalogue.transaction() as tx:
        for blob in model.manifest.blobs:
            tx.put_blob(Descriptor(blob.media_type, blob.digest, blob.size + 1))
    with pytest.raises(ContentMismatch), catalogue.transaction() as tx:
        tx.put_manifest("acme/tiny", model.descriptor, model.manifest, None)


@pytest.mark.parametrize(
    "facts", [{"a": float("nan")}, {"a": b"bytes"}, {"a": "x" * limits.CONFIG_BYTES}]
)
def test_facts_must_be_json(catalogue: Catalogue, facts: dict[str, Any]) -> None:
    with pytest.raises(MalformedDocument), catalogue.transaction() as tx:
        put(tx, tiny(), facts=facts)


def test_referrers(catalogue: Catalogue) -> None:
    model = tiny(1)
    note = TinyModel(b"note", subject=model.descriptor)
    with catalogue.transaction() as tx:
        put(tx, model)
        put(tx, note, Reference.parse("acme/tiny:note"))
    assert catalogue.referrers(model.descriptor.digest) == [
        Descriptor(
            oci.IMAGE_MANIFEST,
            note.descriptor.digest,
            note.descriptor.size,
            artifact_type=oci.MODEL_ARTIFACT,
        )
    ]
    assert catalogue.referrers(note.descriptor.digest) == []
    with catalogue.transaction() as tx:
        tx.remove_tag(Reference.parse("acme/tiny:note"))
    assert catalogue.unreachable() == frozenset()
    with catalogue.transaction() as tx:
        tx.remove_tag(NAME)
    assert catalogue.unreachable() == {model.descriptor.digest, note.descriptor.digest}
    assert catalogue.unreachable(datetime.now(UTC) - timedelta(hours=1)) == frozenset()


# -- transactions -------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, NotFound])
def test_an_error_inside_undoes_everything(
    catalogue: Catalogue, error: type[BaseException]
) -> None:
    with catalogue.transaction() as tx:
        put(tx, tiny(1))
    before = rows(catalogue)

    def fail() -> None:
        with catalogue.transaction() as tx:
            put(tx, tiny(2))
            tx.remove_tag(NAME)
            tx.add_anchor("acme", PIN)
            tx.set_clock_floor(datetime.now(UTC))
            raise error("stop")

    with pytest.raises(error):
        fail()
    assert rows(catalogue) == before


def test_others_see_nothing_before_the_commit(catalogue: Catalogue, tmp_path: Path) -> None:
    with Catalogue.open(tmp_path / "catalog.db") as other:
        with catalogue.transaction() as tx:
            put(tx, tiny())
            assert catalogue.resolve(NAME) is not None
            assert other.resolve(NAME) is None
        assert other.resolve(NAME) is not None


def test_transactions_do_not_nest(catalogue: Catalogue) -> None:
    with catalogue.transaction(), pytest.raises(StorageFailure), catalogue.transaction():
        pass
    with catalogue.transaction() as tx:
        put(tx, tiny())


def test_a_transaction_that_is_over_refuses(catalogue: Catalogue) -> None:
    with catalogue.transaction() as tx:
        pass
    with pytest.raises(UsageError):
        tx.add_anchor("acme", PIN)


def test_another_writer_is_told_in_one_line(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STORE_LOCK_SECONDS", 0.05)
    other = Catalogue.open(tmp_path / "catalog.db")
    with other, catalogue.transaction(), pytest.raises(StoreBusy), other.transaction():
        pass
    with catalogue.transaction() as tx:
        put(tx, tiny())


def test_threads_take_turns(catalogue: Catalogue) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for round_ in range(5):
                with catalogue.transaction() as tx:
                    put(tx, tiny(number), Reference.parse(f"acme/t{number}:{round_}"))
                assert catalogue.models()
        except BaseException as error:  # noqa: BLE001 - told to the test below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(catalogue.models()) == 20


def test_closed_is_told(tmp_path: Path) -> None:
    catalogue = Catalogue.open(tmp_path / "catalog.db")
    catalogue.close()
    catalogue.close()
    with pytest.raises(SealiftError):
        catalogue.models()


# -- trust --------------------------------------------------------------------------------------


def test_trust_comes_back_as_it_went_in(catalogue: Catalogue) -> None:
    assert catalogue.anchors() == []
    assert catalogue.trust("acme") is None
    with catalogue.transaction() as tx:
        tx.add_anchor("acme", PIN)
        tx.set_trust("acme", STATE)
    assert catalogue.trust("acme") == STATE
    (anchor,) = catalogue.anchors()
    assert (anchor.name, anchor.fingerprint) == ("acme", PIN)


def test_new_trust_replaces_all_of_the_old(catalogue: Catalogue) -> None:
    newer = TrustState("acme", PIN, {1: b"root 1"}, {"timestamp": b"t2", "acme": b"delegated"})
    with catalogue.transaction() as tx:
        tx.add_anchor("acme", PIN)
        tx.set_trust("acme", STATE)
    with catalogue.transaction() as tx:
        tx.set_trust("acme", newer)
    assert catalogue.trust("acme") == newer


def test_anchors_do_not_touch_each_other(catalogue: Catalogue) -> None:
    other = TrustState("other", Digest.of(b"o"), {1: b"o"})
    with catalogue.transaction() as tx:
        for state in (STATE, other):
            tx.add_anchor(state.anchor, state.fingerprint)
            tx.set_trust(state.anchor, state)
    with catalogue.transaction() as tx:
        tx.remove_anchor("acme")
    assert catalogue.trust("acme") is None
    assert catalogue.trust("other") == other
    assert not [r for r in rows(catalogue)["trust_roots"] if r[0] == "acme"]
    assert not [r for r in rows(catalogue)["trust_metadata"] if r[0] == "acme"]


def test_an_anchor_is_never_replaced_silently(catalogue: Catalogue) -> None:
    with catalogue.transaction() as tx:
        tx.add_anchor("acme", PIN)
    with pytest.raises(AlreadyExists), catalogue.transaction() as tx:
        tx.add_anchor("acme", Digest.of(b"another"))
    assert catalogue.anchors()[0].fingerprint == PIN


def test_trust_needs_its_own_anchor(catalogue: Catalogue) -> None:
    with pytest.raises(TrustMissing), catalogue.transaction() as tx:
        tx.set_trust("acme", STATE)
    with catalogue.transaction() as tx:
        tx.add_anchor("acme", Digest.of(b"another root"))
        tx.add_anchor("other", PIN)
        with pytest.raises(TrustMissing):
            tx.set_trust("acme", STATE)
        with pytest.raises(MalformedDocument):
            tx.set_trust("other", STATE)
        with pytest.raises(TrustMissing):
            tx.remove_anchor("absent")


@pytest.mark.parametrize("name", ["", "x" * 256])
def test_anchor_names_are_bounded(name: str) -> None:
    with pytest.raises(InvalidName):
        TrustState(name, PIN, {1: b""})


def test_a_state_in_disorder_is_refused() -> None:
    with pytest.raises(MalformedDocument):
        TrustState("acme", PIN, {0: b""})
    with pytest.raises(MalformedDocument):
        TrustState("acme", PIN, {1: b""}, {"root": b""})


def test_the_clock_floor_only_rises(catalogue: Catalogue) -> None:
    assert catalogue.clock_floor() is None
    first = datetime(2030, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
    for moment, expected in [
        (first, first),
        (first - timedelta(days=1), first),
        (first + timedelta(microseconds=1), first + timedelta(microseconds=1)),
    ]:
        with catalogue.transaction() as tx:
            tx.set_clock_floor(moment)
        assert catalogue.clock_floor() == expected
    with pytest.raises(sqlite3.IntegrityError):
        catalogue._connection.execute("UPDATE clock_floor SET reference_time = 0")


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_survive_to_the_microsecond(moment: datetime) -> None:
    assert from_microseconds(microseconds(moment)) == moment


# -- evidence -----------------------------------------------------------------------------------


def receipt(number: int = 1, **changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "id": f"{number:032x}",
        "site": "5" * 64,
        "host": "isolated",
        "operators": [{"name": "root", "uid": 0, "part": "operator"}],
        "tool": {"name": "sealift", "version": "0", "digest": str(Digest.of(b"tool"))},
        "verdict": {"outcome": "accepted"},
        "media": [],
        "bundle": {
            "id": "b" * 32,
            "sequence": 7,
            "issuedAt": "2030-01-01T00:00:00Z",
            "publisher": "acme",
            "descriptor": str(Digest.of(b"d")),
            "believed": True,
        },
        "time": {
            "clock": "2030-01-02T00:00:00Z",
            "reference": f"2030-01-02T00:00:{number:02}Z",
            "verdict": "clock",
        },
        "models": [],
        "blobs": {"added": 1, "reused": 0, "missing": 0, "bytesAdded": 5},
        "log": {"size": 0, "root": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="},
    }
    document.update(changes)
    return document


def signed(document: bytes) -> SignedReceipt:
    return SignedReceipt(document, b"signature", b"public")


def event(**changes: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "at": "2030-01-01T00:00:00Z",
        "actor": "root",
        "uid": 0,
        "action": "gc",
        "subject": "store",
        "outcome": "done",
        **changes,
    }


def test_receipts_come_back_newest_first(catalogue: Catalogue) -> None:
    kept = [documents.dump(Kind.RECEIPT, receipt(n)) for n in (1, 2)]
    with catalogue.transaction() as tx:
        for data in kept:
            tx.add_receipt(signed(data))
    newest, oldest = catalogue.receipts()
    assert [newest.receipt, oldest.receipt] == [kept[1], kept[0]]
    assert (oldest.id, oldest.bundle, oldest.publisher) == (f"{1:032x}", "b" * 32, "acme")
    assert (oldest.sequence, oldest.verdict) == (7, "accepted")
    assert (oldest.signature, oldest.public) == (b"signature", b"public")
    assert oldest.at == datetime(2030, 1, 2, 0, 0, 1, tzinfo=UTC)


def test_a_clock_that_was_ahead_does_not_put_a_receipt_first(catalogue: Catalogue) -> None:
    ahead = {"clock": "2099-01-01T00:00:00Z", "reference": "2099-01-01T00:00:00Z"}
    root = receipt()["log"]["root"]
    with catalogue.transaction() as tx:
        for number in (3, 1, 2):
            changes: dict[str, Any] = {"log": {"size": number, "root": root}}
            if number == 1:
                changes["time"] = {**ahead, "verdict": "clock"}
            tx.add_receipt(signed(documents.dump(Kind.RECEIPT, receipt(number, **changes))))
    assert [each.id for each in catalogue.receipts()] == [f"{n:032x}" for n in (3, 2, 1)]


def test_a_receipt_is_found_by_the_beginning_of_its_id(catalogue: Catalogue) -> None:
    ids = ["a" * 32, "a" * 31 + "b", "c" * 32]
    with catalogue.transaction() as tx:
        for each in ids:
            tx.add_receipt(signed(documents.dump(Kind.RECEIPT, receipt(id=each))))
    assert catalogue.receipt("c").id == "c" * 32
    assert catalogue.receipt("A" * 31 + "B").id == ids[1]
    for wrong, error in (("a", InvalidName), ("d", NotFound), ("", NotFound), ("%", NotFound)):
        with pytest.raises(error):
            catalogue.receipt(wrong)


def test_the_last_accepted_bundle_of_a_publisher(catalogue: Catalogue) -> None:
    assert catalogue.last_accepted("acme") is None
    rejected = {"outcome": "rejected", "code": "content", "words": "no"}
    with catalogue.transaction() as tx:
        for number, changes in enumerate([{}, {}, {"verdict": rejected}], 1):
            tx.add_receipt(signed(documents.dump(Kind.RECEIPT, receipt(number, **changes))))
    found = catalogue.last_accepted("acme")
    assert found is not None
    assert found.id == f"{2:032x}"
    assert catalogue.last_accepted("other") is None


def test_a_bundle_that_was_never_read_has_a_receipt_too(catalogue: Catalogue) -> None:
    document = receipt(verdict={"outcome": "rejected", "code": "not-a-bundle", "words": "no"})
    del document["bundle"]
    with catalogue.transaction() as tx:
        tx.add_receipt(signed(documents.dump(Kind.RECEIPT, document)))
    (found,) = catalogue.receipts()
    assert (found.bundle, found.publisher, found.sequence) == ("", "", 0)


def test_bad_receipts_are_refused(catalogue: Catalogue) -> None:
    good = documents.dump(Kind.RECEIPT, receipt())
    with catalogue.transaction() as tx:
        with pytest.raises(MalformedDocument):
            tx.add_receipt(signed(good[:-1]))
        tx.add_receipt(signed(good))
        with pytest.raises(AlreadyExists):
            tx.add_receipt(signed(good))
    assert len(catalogue.receipts()) == 1


def test_the_audit_log_keeps_order_and_only_grows(catalogue: Catalogue) -> None:
    with catalogue.transaction() as tx:
        for subject in ("one", "two", "three"):
            tx.add_audit_event(event(subject=subject, detail={"n": 1}))
    entries = catalogue.audit_events()
    assert [entry.event["subject"] for entry in entries] == ["one", "two", "three"]
    assert [entry.seq for entry in entries] == sorted({entry.seq for entry in entries})
    assert catalogue.audit_events(after=entries[0].seq) == entries[1:]
    for sql in ("DELETE FROM audit_log", "UPDATE audit_log SET at = 0"):
        with pytest.raises(sqlite3.IntegrityError, match="only grows"):
            catalogue._connection.execute(sql)


@pytest.mark.parametrize(
    "changes", [{"action": "Dance!"}, {"at": "yesterday"}, {"extra": 1}, {"actor": 5}]
)
def test_malformed_events_are_refused(catalogue: Catalogue, changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedDocument), catalogue.transaction() as tx:
        tx.add_audit_event(event(**changes))
    assert catalogue.audit_events() == []


def test_contradictions_are_damage(catalogue: Catalogue) -> None:
    model = tiny()
    with catalogue.transaction() as tx:
        put(tx, model)
    with pytest.raises(StoreDamaged), catalogue.transaction() as tx:
        tx.forget([model.descriptor.digest], [])
    assert catalogue.resolve(NAME) is not None
