"""Collection takes what nothing leads to, and nothing else; scrubbing finds rot."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.gc import collect, scrub
from registry.reference import Reference
from registry.store import Store
from schemas.errors import NotFound, StoreBusy
from tests.store_models import TinyModel, backdate, install, snapshot, tiny

DAY = 24 * 3600.0
NAME = Reference.parse("acme/tiny:1")


def age(store: Store, model: TinyModel, seconds: float) -> None:
    for digest in model.digests:
        backdate(store.blobs.path(digest), seconds)


def test_named_models_stay_for_ever(store: Store) -> None:
    install(store, tiny(), "acme/tiny:1")
    age(store, tiny(), 1000 * DAY)
    report = collect(store, grace_seconds=0)
    assert report.removed == ()
    assert report.kept == 3
    assert set(store.blobs) == tiny().digests


def test_the_grace_time(store: Store) -> None:
    with store.blobs.stage() as area:
        digest = area.add_bytes(b"from an import that died before its commit")
        area.install()
    backdate(store.blobs.path(digest), DAY - 60)
    assert collect(store).removed == ()
    backdate(store.blobs.path(digest), 61)
    assert collect(store, dry_run=True).removed == ((digest, 42),)
    assert store.blobs.has(digest)
    assert collect(store).removed == ((digest, 42),)
    assert not store.blobs.has(digest)


def test_a_file_from_the_future_is_young(store: Store) -> None:
    with store.blobs.stage() as area:
        digest = area.add_bytes(b"x")
        area.install()
    backdate(store.blobs.path(digest), -DAY)
    assert collect(store, grace_seconds=0).removed == ()


def test_removed_models_go_with_their_rows(store: Store) -> None:
    install(store, tiny(), "acme/tiny:1")
    store.remove_model(NAME, prune=False)
    report = collect(store, grace_seconds=0)
    assert {digest for digest, _ in report.removed} == tiny().digests
    assert store.catalogue.blob_sizes() == {}
    assert store.catalogue.references() == {}
    event = store.catalogue.audit_events()[-1].event
    assert (event["action"], event["detail"]) == ("gc", {"blobs": 3, "bytes": report.bytes})


def test_a_young_unnamed_manifest_keeps_its_blobs(store: Store) -> None:
    install(store, tiny(), None)
    age(store, tiny(), 2 * DAY)
    assert collect(store, grace_seconds=DAY).removed == ()
    assert {digest for digest, _ in collect(store, grace_seconds=0).removed} == tiny().digests


def test_a_claim_begins_the_grace_time_anew(store: Store) -> None:
    install(store, tiny(), "acme/tiny:1")
    store.remove_model(NAME, prune=False)
    age(store, tiny(), 2 * DAY)
    weights = tiny().manifest.layers[0]
    with store.blobs.stage() as area:
        assert area.claim(weights.digest, weights.size)
        area.install()
    collect(store, grace_seconds=DAY)
    assert store.blobs.has(weights.digest)


def test_a_live_import_survives_collection(store: Store, home: Path) -> None:
    install(store, tiny(), "acme/tiny:1")
    store.remove_model(NAME, prune=False)
    model = tiny()
    with store.blobs.stage() as area:
        for blob in model.manifest.blobs:
            assert area.claim(blob.digest, blob.size)
        fresh = area.add_bytes(b"fresh")
        with Store.open(home) as other:
            assert collect(other, grace_seconds=0).removed
        assert list(store.blobs) == []
        assert area.path(fresh).read_bytes() == b"fresh"
        area.install()
    for blob in model.manifest.blobs:
        assert store.blobs.verify(blob.digest)
    assert store.blobs.has(fresh)


def test_a_dry_run_changes_no_byte(store: Store, home: Path) -> None:
    install(store, tiny(), "acme/tiny:1")
    store.remove_model(NAME, prune=False)
    before = snapshot(home / "blobs")
    dead = home / "staging" / "dead"
    dead.mkdir()
    events = store.catalogue.audit_events()
    assert collect(store, grace_seconds=0, dry_run=True).removed
    assert snapshot(home / "blobs") == before
    assert dead.exists()
    assert store.catalogue.audit_events() == events
    collect(store)
    assert not dead.exists()


def test_rows_without_files_are_forgotten(store: Store) -> None:
    install(store, tiny(), "acme/tiny:1")
    store.remove_model(NAME, prune=False)
    for digest in tiny().digests:
        store.blobs.path(digest).unlink()
    assert collect(store, grace_seconds=0).removed == ()
    assert store.catalogue.blob_sizes() == {}


def test_collection_waits_its_turn(
    store: Store, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(home) as other, other.lock():
        lock = store.lock
        monkeypatch.setattr(store, "lock", lambda: lock(timeout=0.05))
        with pytest.raises(StoreBusy):
            collect(store)


# -- scrubbing ----------------------------------------------------------------------------------


def test_a_sound_store_is_clean(store: Store) -> None:
    install(store, tiny(), "acme/tiny:1")
    report = scrub(store)
    assert report.clean
    assert report.checked == 3
    assert report.bytes == sum(store.blobs.size(digest) for digest in tiny().digests)


def test_rot_goes_to_quarantine_and_an_import_heals_it(store: Store, home: Path) -> None:
    install(store, tiny(), "acme/tiny:1")
    rotten = tiny().manifest.layers[0].digest
    path = store.blobs.path(rotten)
    path.chmod(0o600)
    path.write_bytes(b"rot" + path.read_bytes()[3:])
    report = scrub(store)
    assert not report.clean
    assert report.rotted == (rotten,)
    assert report.missing == ()
    assert not store.blobs.has(rotten)
    assert (home / "quarantine" / f"sha256-{rotten.hex}").read_bytes().startswith(b"rot")
    with pytest.raises(NotFound):
        store.blobs.open(rotten)
    again = scrub(store)
    assert again.missing == (rotten,)
    install(store, tiny(), "acme/tiny:1")
    assert scrub(store).clean


def test_missing_files_are_told(store: Store) -> None:
    install(store, tiny(), "acme/tiny:1")
    gone = tiny().manifest.config.digest
    store.blobs.path(gone).unlink()
    assert scrub(store).missing == (gone,)
