"""The store as one: opening, the writers' lock, names."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from pathlib import Path

import pytest

from registry.locks import holder
from registry.reference import Reference
from registry.store import Store
from schemas import documents
from schemas.documents import Kind
from schemas.errors import InvalidName, NotFound, StorageFailure, StoreBusy
from tests.store_models import TinyModel, install, snapshot, tiny

NAME = Reference.parse("acme/tiny:1")


def test_opening_makes_a_private_home(home: Path) -> None:
    home = home / "deep" / "er"
    with Store.open(home) as store:
        assert store.catalogue.models() == []
        assert list(store.blobs) == []
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert sorted(path.name for path in home.iterdir()) == [
        "blobs",
        "catalog.db",
        "lock",
        "staging",
    ]


def test_opening_again_changes_no_byte(home: Path) -> None:
    with Store.open(home) as store:
        install(store, tiny(), "acme/tiny:1")
    before = snapshot(home)
    for create in (True, False):
        with Store.open(home, create=create) as store:
            assert len(store.catalogue.models()) == 1
        assert snapshot(home) == before


def test_only_using_a_store_that_is_not_there(home: Path) -> None:
    with pytest.raises(NotFound, match="no store at") as caught:
        Store.open(home, create=False)
    assert "SEALIFT_HOME" in caught.value.hint
    assert not home.exists()


def test_a_home_that_is_a_file(home: Path) -> None:
    home.touch()
    with pytest.raises(StorageFailure):
        Store.open(home)


def test_only_using_clears_nothing(store: Store, home: Path) -> None:
    with store.blobs.stage() as area:
        area.add_bytes(b"x")
        with Store.open(home, create=False):
            pass
        assert area.folder.exists()


# -- the lock -----------------------------------------------------------------------------------


def test_the_lock_excludes_other_handles_and_names_the_holder(store: Store, home: Path) -> None:
    with Store.open(home) as other, store.lock():
        with pytest.raises(StoreBusy) as caught, other.lock(timeout=0.05):
            pass
        assert caught.value.why in (f"process {os.getpid()}", "")
        assert caught.value.hint
    with Store.open(home) as other, other.lock(timeout=0):
        pass


def test_the_lock_nests(store: Store, home: Path) -> None:
    with Store.open(home) as other:
        with store.lock(), store.lock():
            with store.lock():
                pass
            with pytest.raises(StoreBusy), other.lock(timeout=0):
                pass
        with other.lock(timeout=0):
            pass


def test_the_lock_is_given_back_after_an_error(store: Store, home: Path) -> None:
    with pytest.raises(ValueError, match="stop"), store.lock():
        raise ValueError("stop")
    with Store.open(home) as other, other.lock(timeout=0):
        pass


def test_threads_of_one_store_exclude_each_other(store: Store) -> None:
    refused = []

    def work() -> None:
        try:
            with store.lock(timeout=0.05):
                pass
        except StoreBusy as error:
            refused.append(error)

    with store.lock():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(refused) == 1


def test_waiting_for_the_lock(store: Store, home: Path) -> None:
    taken = threading.Event()

    def work() -> None:
        with Store.open(home) as other, other.lock():
            taken.set()
            release.wait(10)

    release = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    assert taken.wait(10)
    threading.Timer(0.1, release.set).start()
    with store.lock(timeout=10):
        pass
    thread.join()


def test_nobody_holds_an_unlocked_file(home: Path) -> None:
    home.touch()
    with home.open() as file:
        assert holder(file.fileno()) is None
        fcntl.flock(file, fcntl.LOCK_EX)
        assert holder(file.fileno()) in (os.getpid(), None)


# -- names --------------------------------------------------------------------------------------


def test_removing_prunes_what_only_this_model_needed(store: Store) -> None:
    one, two = TinyModel(b"shared", b'{"n":1}'), TinyModel(b"shared", b'{"n":2}')
    install(store, one, "acme/one:1")
    install(store, two, "acme/two:1")
    report = store.remove_model(Reference.parse("acme/one:1"))
    assert {digest for digest, _ in report.removed} == one.digests - two.digests
    assert report.bytes == sum(size for _, size in report.removed) > 0
    assert set(store.blobs) == two.digests
    assert store.remove_model(Reference.parse("acme/two:1")).kept == 0
    assert list(store.blobs) == []
    assert store.catalogue.models() == []
    assert store.catalogue.blob_sizes() == {}


def test_removing_one_of_two_names_prunes_nothing(store: Store) -> None:
    install(store, tiny(), "acme/tiny:1")
    store.copy_model(NAME, Reference.parse("other/tiny:2"))
    assert store.remove_model(NAME).removed == ()
    assert set(store.blobs) == tiny().digests
    assert store.remove_model(Reference.parse("other/tiny:2")).removed
    assert list(store.blobs) == []


def test_removing_without_pruning(store: Store) -> None:
    install(store, tiny(), "acme/tiny:1")
    assert store.remove_model(NAME, prune=False).removed == ()
    assert set(store.blobs) == tiny().digests
    assert store.catalogue.resolve(NAME) is None


def test_nothing_is_pruned_while_an_import_is_under_way(store: Store) -> None:
    install(store, tiny(), "acme/tiny:1")
    with store.blobs.stage():
        assert store.remove_model(NAME).removed == ()
    assert set(store.blobs) == tiny().digests


def test_pruning_keeps_what_an_unnamed_manifest_needs(store: Store) -> None:
    """Only what was asked for goes; the rest has its grace time."""
    named, unnamed = TinyModel(b"shared", b'{"n":1}'), TinyModel(b"shared", b'{"n":2}')
    install(store, named, "acme/tiny:1")
    install(store, unnamed, None)
    store.remove_model(NAME)
    assert set(store.blobs) == unnamed.digests


def test_removing_keeps_a_model_that_others_refer_to(store: Store) -> None:
    model = tiny(1)
    note = TinyModel(b"note", subject=model.descriptor)
    install(store, model, "acme/tiny:1")
    install(store, note, "acme/tiny:note")
    store.remove_model(Reference.parse("acme/tiny:note"))
    assert set(store.blobs) == model.digests | note.digests  # a referrer lives with its subject
    assert store.catalogue.referrers(model.descriptor.digest)


@pytest.mark.parametrize("name", ["acme/absent", "acme/tiny:2", "other/tiny:1"])
def test_what_is_not_there(store: Store, home: Path, name: str) -> None:
    install(store, tiny(), "acme/tiny:1")
    reference = Reference.parse(name)
    before = snapshot(home)
    for act in (
        lambda: store.remove_model(reference),
        lambda: store.copy_model(reference, Reference.parse("x")),
    ):
        with pytest.raises(NotFound, match=f"model '{reference.shortest}' not found"):
            act()
    assert snapshot(home) == before


def test_removing_by_digest_must_fit_the_name(store: Store) -> None:
    install(store, tiny(1), "acme/tiny:1")
    install(store, tiny(2), "acme/tiny:2")
    wrong = Reference.parse(f"acme/tiny:1@{tiny(2).descriptor.digest}")
    with pytest.raises(NotFound):
        store.remove_model(wrong)
    store.remove_model(Reference.parse(f"acme/tiny:1@{tiny(1).descriptor.digest}"))
    assert [r.reference.tag for r in store.catalogue.models()] == ["2"]


def test_copying_gives_a_second_name(store: Store) -> None:
    install(store, tiny(1), "acme/tiny:1")
    install(store, tiny(2), "acme/second:1")
    before = snapshot(store.blobs.path(tiny().descriptor.digest).parent)
    record = store.copy_model(NAME, Reference.parse("acme/second:1"))
    assert record.descriptor.digest == tiny(1).descriptor.digest
    assert record.facts == {"seed": 1}
    assert {str(r.reference) for r in store.catalogue.models()} == {"acme/tiny:1", "acme/second:1"}
    assert snapshot(store.blobs.path(tiny().descriptor.digest).parent) == before


@pytest.mark.parametrize("target", ["mirror.example/acme/x", f"acme/x@{tiny().descriptor.digest}"])
def test_copies_have_plain_names(store: Store, target: str) -> None:
    install(store, tiny(), "acme/tiny:1")
    with pytest.raises(InvalidName):
        store.copy_model(NAME, Reference.parse(target))


def test_what_was_done_is_in_the_audit_log(store: Store) -> None:
    install(store, tiny(), "acme/tiny:1")
    store.copy_model(NAME, Reference.parse("acme/second:1"))
    store.remove_model(NAME)
    digest = str(tiny().descriptor.digest)
    events = [entry.event for entry in store.catalogue.audit_events()]
    for event in events:
        documents.validate(Kind.AUDIT_EVENT, event)
    assert [(e["action"], e["subject"], e["detail"]) for e in events] == [
        ("model.copy", "acme/tiny:1", {"to": "acme/second:1", "manifest": digest}),
        ("model.remove", "acme/tiny:1", {"manifest": digest}),
    ]
