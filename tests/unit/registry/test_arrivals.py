"""Which imports brought a model."""

from __future__ import annotations

from pathlib import Path

from registry.digest import Digest
from registry.store import Store
from tests.gguf_files import tiny_gguf
from tests.serving import install
from tests.support.arrival import KEY, ROOT, brought


def test_arrivals(tmp_path: Path) -> None:
    home = tmp_path / "home"
    one = install(home, tiny_gguf(tmp_path / "one.gguf", name="One"), "library/one:latest")
    other = install(home, tiny_gguf(tmp_path / "other.gguf", name="Other"), "library/other:latest")
    with Store.open(home) as store:
        for number in (1, 2, 3):
            brought(store, "library/one:latest", number)
        found = store.catalogue.arrivals(one)
        assert [arrival.sequence for arrival in found] == [3, 2, 1]
        last = found[0]
        assert (last.publisher, last.signer, last.keys) == ("acme", "library", (KEY,))
        assert (last.fingerprint, last.trusted, last.name) == (
            str(ROOT),
            True,
            "library/one:latest",
        )
        assert last.document()["imported_at"] == "2026-03-03T05:06:07Z"
        assert len(store.catalogue.arrivals(one, 2)) == 2
        assert store.catalogue.arrivals(other) == []
        assert store.catalogue.arrivals(Digest.of(b"unknown")) == []


def test_a_publisher_that_is_gone(tmp_path: Path) -> None:
    digest = install(tmp_path / "home", tiny_gguf(tmp_path / "one.gguf"), "library/one:latest")
    with Store.open(tmp_path / "home") as store:
        brought(store, "library/one:latest", pinned=False)
        (found,) = store.catalogue.arrivals(digest)
        assert (found.publisher, found.trusted) == ("acme", False)
