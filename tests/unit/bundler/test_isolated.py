"""Fingerprints as people copy them, pins, times, and the record of an import."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.clock import now, parse_rfc3339, rfc3339
from bundler.importer import Wishes
from bundler.isolated import import_paths
from bundler.trust.fingerprint import parse_fingerprint
from bundler.trusting import anchors, pin, unpin
from registry.digest import Digest
from registry.store import Store
from schemas.documents import Kind, load, validate
from schemas.errors import (
    AlreadyExists,
    FingerprintMismatch,
    InvalidName,
    MalformedDocument,
    NotFound,
    TrustMissing,
    UsageError,
)
from schemas.render import Meter
from tests.support.bundle_simulator import Forgery, forge, twin
from tests.support.publisher_simulator import Simulator
from tests.support.site import simulator, snapshot

HEX = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def publisher() -> Simulator:
    return simulator()


@pytest.fixture
def root(publisher: Simulator, tmp_path: Path) -> Path:
    path = tmp_path / "root.json"
    path.write_bytes(publisher.root_bytes)
    return path


@pytest.mark.parametrize(
    "text",
    [
        HEX,
        HEX.upper(),
        f"sha256:{HEX}",
        f"SHA256:{HEX.upper()}",
        f"  {HEX}\n",
        " ".join(HEX[i : i + 4] for i in range(0, 64, 4)),
        ":".join(HEX[i : i + 2] for i in range(0, 64, 2)),
        "-".join(HEX[i : i + 8] for i in range(0, 64, 8)),
    ],
)
def test_fingerprint_as_people_copy_it(text: str) -> None:
    assert parse_fingerprint(text) == Digest("sha256", HEX)


@pytest.mark.parametrize(
    "text", ["", HEX[:-1], HEX + "0", "g" * 64, "sha512:" + HEX, "\u0660" * 64]
)
def test_fingerprint_that_is_none(text: str) -> None:
    with pytest.raises(InvalidName) as caught:
        parse_fingerprint(text)
    assert caught.value.hint


@given(st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31)))  # noqa: DTZ001
def test_times_come_back(moment: datetime) -> None:
    whole = moment.replace(microsecond=0, tzinfo=UTC)
    assert parse_rfc3339(rfc3339(whole)) == whole


def test_clock_has_whole_seconds() -> None:
    assert now().microsecond == 0
    assert abs(now() - datetime.now(UTC)) < timedelta(seconds=5)


def test_pin_and_forget(root: Path, publisher: Simulator, tmp_path: Path) -> None:
    home = tmp_path / "home"
    fingerprint = publisher.state().fingerprint
    known = pin(home, root, str(fingerprint), "them")
    assert (known.anchor.name, known.anchor.fingerprint) == ("them", fingerprint)
    assert list(known.roles) == ["root"]
    assert anchors(home, None) == anchors(home, "them") == [known]
    before = snapshot(home)
    assert pin(home, root, fingerprint.hex.upper(), "them") == known
    assert unpin(home, "them", dry_run=True) == known
    assert snapshot(home) == before
    assert unpin(home, "them", dry_run=False) == known
    assert anchors(home, None) == []
    for gone in (lambda: unpin(home, "them", dry_run=False), lambda: anchors(home, "them")):
        with pytest.raises(TrustMissing) as caught:
            gone()
        assert caught.value.hint


def test_name_that_stands_for_another_root(
    root: Path, publisher: Simulator, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    pin(home, root, str(publisher.state().fingerprint), "them")
    other = simulator()
    root.write_bytes(other.root_bytes)
    before = snapshot(home)
    with pytest.raises(AlreadyExists):
        pin(home, root, str(other.state().fingerprint), "them")
    assert snapshot(home) == before


def test_root_that_is_not_the_one_on_paper(root: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with pytest.raises(FingerprintMismatch) as caught:
        pin(home, root, HEX, "them")
    assert caught.value.hint
    assert not home.exists()


def test_file_that_is_no_root(tmp_path: Path) -> None:
    path = tmp_path / "root.json"
    for data in (b"", b"{}", b"x" * 600_000):
        path.write_bytes(data)
        with pytest.raises(MalformedDocument):
            pin(tmp_path / "home", path, str(Digest.of(data)), "them")
    for file, kind in ((tmp_path / "no", NotFound), (tmp_path, UsageError)):
        with pytest.raises(kind):
            pin(tmp_path / "home", file, HEX, "them")


@pytest.fixture
def bring(
    root: Path, publisher: Simulator, tmp_path: Path, meter: Meter
) -> Callable[[bytes], dict[str, object]]:
    """Import a bundle at one site; the receipt as it was returned."""
    pin(tmp_path / "home", root, str(publisher.state().fingerprint), "them")

    def once(data: bytes) -> dict[str, object]:
        path = tmp_path / "b.tar"
        path.write_bytes(data)
        return import_paths(tmp_path / "home", [path], Wishes(), meter).receipt

    return once


def test_receipt_tells_what_was_done(
    bring: Callable[[bytes], dict[str, object]], publisher: Simulator, tmp_path: Path
) -> None:
    receipt = bring(forge(twin(publisher)))
    validate(Kind.RECEIPT, receipt)
    assert receipt["verdict"] == {"outcome": "accepted"}
    with Store.open(tmp_path / "home") as store:
        (record,) = store.catalogue.receipts()
        assert load(Kind.RECEIPT, record.receipt) == receipt
        assert (record.id, record.verdict) == (receipt["id"], "accepted")
        events = [entry.event for entry in store.catalogue.audit_events()]
        assert [event["action"] for event in events] == ["trust.init", "import"]
        for event in events:
            validate(Kind.AUDIT_EVENT, dict(event))
        digest = str(Digest.of(record.receipt))
        assert events[-1]["detail"] == {"receipt": receipt["id"], "digest": digest}
        floor = store.catalogue.clock_floor()
        assert floor is not None
        assert rfc3339(floor) == json.loads(record.receipt)["time"]["reference"]


def test_receipts_of_one_bundle_differ(
    bring: Callable[[bytes], dict[str, object]], publisher: Simulator
) -> None:
    data = forge(twin(publisher))
    first, second = bring(data), bring(data)
    assert first["id"] != second["id"]
    assert first["bundle"] == second["bundle"]


def test_bundle_without_models_updates_trust_alone(
    bring: Callable[[bytes], dict[str, object]], publisher: Simulator, tmp_path: Path
) -> None:
    newer = twin(publisher)
    newer.bump()
    receipt = bring(forge(newer, Forgery(), descriptor=lambda t: t.update(models=[], contents=[])))
    validate(Kind.RECEIPT, receipt)
    assert receipt["models"] == []
    (known,) = anchors(tmp_path / "home", None)
    assert known.roles["timestamp"][0] == 2
