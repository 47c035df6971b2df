"""Receipts: what they tell of imports and refusals, and what becomes of those that were edited."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bundler.trust.site import site_key
from registry.digest import Digest
from schemas import strictjson
from schemas.errors import (
    BadSignature,
    ContentMismatch,
    ExpiredMetadata,
    FingerprintMismatch,
    KeyUnavailable,
    MalformedDocument,
    NotABundle,
    RollbackDetected,
    SealiftError,
    TruncatedBundle,
    TrustMissing,
)
from tests.support.bundle_simulator import forge, twin
from tests.support.publisher_simulator import Simulator
from tests.support.site import Outcome, Site, check_line, new_site, simulator

Stick = Callable[[bytes], Path]


@pytest.fixture
def target(publisher: Simulator, tmp_path: Path) -> Site:
    return new_site(tmp_path / "home", publisher)


def receipts(site: Site) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = site.bundle("receipt", "list", "--json").document
    return found


def last(site: Site) -> dict[str, Any]:
    """The newest by its place in the log, verified as the connected side would."""
    newest = max(receipts(site), key=lambda receipt: receipt["log"]["size"])
    path = site.home.with_name("receipt.json")
    assert site.bundle("receipt", "export", newest["id"], "-o", path, "--force").code == 0
    known = site_key(site.home).fingerprint.hex
    shown = Site(site.home.with_name("elsewhere")).bundle(
        "receipt", "verify", path, "--site", known, "--json"
    )
    assert shown.code == 0, shown
    assert shown.document == newest
    assert path.read_bytes().isascii()
    return newest


def refused(site: Site, path: Path, wanted: type[SealiftError]) -> dict[str, Any]:
    """An import is refused; its receipt."""
    outcome = site.bundle("import", path, "--json")
    assert outcome.code == wanted.exit_code, outcome
    receipt = last(site)
    assert receipt["verdict"]["outcome"] == "rejected"
    assert receipt["verdict"]["code"] == wanted.code
    assert receipt["verdict"]["words"].startswith(outcome.error["what"])
    assert (receipt["models"], receipt["blobs"]["added"]) == ([], 0)
    assert [medium["file"] for medium in receipt["media"]] == [path.name]
    assert site.bundle("audit", "verify").code == 0
    return receipt


# -- what they tell -------------------------------------------------------------------------------


def test_of_an_import(target: Site, publisher: Simulator, stick: Stick) -> None:
    path = stick(forge(twin(publisher)))
    assert target.bundle("import", path).code == 0
    receipt = last(target)
    assert receipt["verdict"] == {"outcome": "accepted"}
    assert receipt["site"] == site_key(target.home).fingerprint.hex
    assert receipt["media"][0]["bytes"] == path.stat().st_size
    assert receipt["bundle"]["believed"] is True
    assert set(receipt["trust"]["before"]) == {"root"}
    assert {"root", "timestamp", "snapshot", "targets"} <= set(receipt["trust"]["after"])
    (model,) = receipt["models"]
    assert model["path"] == "models/library/tiny/1/manifest.json"
    assert model["signer"] == "publisher-library"
    assert model["keys"]
    assert receipt["blobs"]["added"] == 3
    (operator,) = receipt["operators"]
    assert operator["part"] == "operator"
    assert receipt["log"]["size"] == 1
    assert receipt["tool"]["digest"].startswith("sha256:")


def test_of_the_next_import(target: Site, publisher: Simulator, stick: Stick) -> None:
    assert target.bundle("import", stick(forge(twin(publisher)))).code == 0
    first = last(target)
    newer = twin(publisher)
    newer.bump()
    assert target.bundle("import", stick(forge(newer, sequence=2))).code == 0
    second = last(target)
    assert second["previous"] == {"id": first["bundle"]["id"], "sequence": 1}
    assert second["trust"]["before"] == first["trust"]["after"]
    assert second["trust"]["after"]["timestamp"]["version"] == 2
    assert (second["blobs"]["added"], second["blobs"]["reused"]) == (0, 3)
    assert second["time"]["floor"] <= second["time"]["reference"]


def test_of_a_file_that_is_no_bundle(target: Site, stick: Stick) -> None:
    receipt = refused(target, stick(b"no bundle" * 1000), NotABundle)
    assert "bundle" not in receipt
    assert "trust" not in receipt


def test_of_a_stranger(target: Site, stick: Stick) -> None:
    """What the bundle claims is told, as a claim."""
    receipt = refused(target, stick(forge(simulator())), TrustMissing)
    assert receipt["bundle"]["believed"] is False
    assert receipt["bundle"]["publisher"] == "simulated"
    assert "trust" not in receipt


def test_of_a_cut_bundle(target: Site, good: bytes, stick: Stick) -> None:
    receipt = refused(target, stick(good[:-5000]), TruncatedBundle)
    assert receipt["bundle"]["believed"] is True
    assert receipt["trust"]["anchor"] == "simulated"
    assert "after" not in receipt["trust"]


def test_of_a_flipped_byte(target: Site, good: bytes, stick: Stick) -> None:
    data = bytearray(good)
    data[len(good.rstrip(b"\0")) - 1] ^= 1
    refused(target, stick(bytes(data)), ContentMismatch)


def test_of_an_old_bundle(target: Site, publisher: Simulator, stick: Stick) -> None:
    newer = twin(publisher)
    newer.bump()
    assert target.bundle("import", stick(forge(newer))).code == 0
    receipt = refused(target, stick(forge(twin(publisher))), RollbackDetected)
    assert receipt["bundle"]["believed"] is False


def test_of_an_expired_bundle(target: Site, publisher: Simulator, stick: Stick) -> None:
    late = twin(publisher)
    late.signed["timestamp"].expires = late.now - timedelta(days=1)
    refused(target, stick(forge(late)), ExpiredMetadata)


def test_a_refusal_changes_nothing_for_the_next(
    target: Site, good: bytes, publisher: Simulator, stick: Stick, tmp_path: Path
) -> None:
    """Refused again and again, the good bundle is taken as if nothing had been."""
    clean = target.copy(tmp_path / "clean")
    bad = tmp_path / "bad.tar"
    for cut in range(1, 12):
        bad.write_bytes(good[: len(good) * cut // 12])
        assert target.bundle("import", bad).code != 0
    for home in (target, clean):
        assert home.bundle("import", stick(good)).code == 0
    assert target.snapshot().blobs == clean.snapshot().blobs
    assert target.models() == clean.models()
    one, other = last(target), last(clean)
    for name in ("trust", "models", "blobs"):
        assert one[name] == other[name]


def test_what_cannot_be_recorded_is_not_done(target: Site, good: bytes, stick: Stick) -> None:
    """Without its key the site imports nothing."""
    site_key(target.home)
    (target.home / "site" / "key.pem").write_text("no key")
    before = target.snapshot()
    outcome = target.bundle("import", stick(good), "--json")
    assert outcome.code == KeyUnavailable.exit_code
    assert target.snapshot() == before


def test_mere_mistakes_leave_none(target: Site, tmp_path: Path) -> None:
    before = target.snapshot()
    assert target.bundle("import", tmp_path / "absent.tar").code == 4
    assert target.snapshot() == before


def test_old_unsigned_ones_stay_readable(target: Site) -> None:
    import sqlite3
    from contextlib import closing

    old = {
        "schemaVersion": 1,
        "id": "0" * 32,
        "verdict": "accepted",
        "bundle": {
            "id": "1" * 32,
            "sequence": 1,
            "issuedAt": "2026-01-01T00:00:00Z",
            "publisher": "acme",
        },
        "trust": {"anchor": "acme", "root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
        "time": {
            "clock": "2026-01-01T00:00:00Z",
            "reference": "2026-01-01T00:00:00Z",
            "verdict": "clock",
        },
        "models": [],
        "blobs": {"added": 0, "reused": 0, "bytesAdded": 0},
        "tool": {"name": "sealift", "version": "0"},
    }
    with closing(sqlite3.connect(target.home / "catalog.db", isolation_level=None)) as db:
        db.execute(
            "INSERT INTO imports VALUES (?, ?, 'acme', 1, 'accepted', 0)", ("0" * 32, "1" * 32)
        )
        db.execute(
            "INSERT INTO receipts (id, import, document) VALUES (?, ?, ?)",
            ("0" * 32, "0" * 32, strictjson.dumps(old)),
        )
    assert target.bundle("receipt", "list").code == 0
    assert target.bundle("receipt", "show", "000", "--json").document == old
    assert target.bundle("receipt", "export", "000").code == 4
    assert target.bundle("audit", "verify").code == 0


# -- files of theirs, edited ----------------------------------------------------------------------


@pytest.fixture
def file(target: Site, good: bytes, stick: Stick, tmp_path: Path) -> Path:
    assert target.bundle("import", stick(good)).code == 0
    path = tmp_path / "receipt.json"
    assert target.bundle("receipt", "export", receipts(target)[0]["id"], "-o", path).code == 0
    return path


def edited(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change the payload, and let everything but the signature follow."""
    envelope = json.loads(path.read_bytes())
    document = json.loads(base64.b64decode(envelope["payload"]))
    edit(document)
    envelope["payload"] = base64.b64encode(strictjson.dumps(document)).decode()
    path.write_text(json.dumps(envelope, indent=1) + "\n")


def verify(site: Site, path: Path, *more: object) -> Outcome:
    return site.bundle("receipt", "verify", path, "--json", *more)


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d["verdict"].update(outcome="rejected"),
        lambda d: d["models"].clear(),
        lambda d: d["operators"][0].update(name="somebody else"),
        lambda d: d["log"].update(size=7),
        lambda d: d["time"].update(clock="2020-01-01T00:00:00Z"),
        lambda d: d["blobs"].update(added=0),
    ],
    ids=["verdict", "models", "operator", "log", "time", "blobs"],
)
def test_an_edited_field(target: Site, file: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    edited(file, edit)
    outcome = verify(target, file)
    assert outcome.code == BadSignature.exit_code
    check_line(outcome.error)


def test_a_receipt_of_another_site(target: Site, file: Path) -> None:
    assert verify(target, file, "--site", "0" * 64).code == FingerprintMismatch.exit_code


def test_a_receipt_passed_off_as_another_kind(target: Site, file: Path) -> None:
    text = file.read_text().replace("vnd.sealift.receipt.v2", "vnd.sealift.inventory.v1")
    file.write_text(text)
    assert verify(target, file).code in (BadSignature.exit_code, MalformedDocument.exit_code)


def test_an_inventory_passed_off_as_a_receipt(target: Site, tmp_path: Path) -> None:
    path = tmp_path / "inventory.json"
    assert target.bundle("inventory", "export", "-o", path).code == 0
    assert verify(target, path).code == MalformedDocument.exit_code


def test_a_receipt_signed_by_a_stranger_in_the_sites_name(
    target: Site, file: Path, tmp_path: Path
) -> None:
    from bundler.evidence import receipts as module
    from bundler.inventory import report
    from bundler.trust.site import sign

    signed = report.parse(file.read_bytes())
    (tmp_path / "stranger").mkdir()
    forged = sign(site_key(tmp_path / "stranger"), signed.payload, module.TYPE)
    file.write_bytes(report.render(forged, module.about(json.loads(signed.payload))))
    assert verify(target, file).code == MalformedDocument.exit_code


def test_the_receipt_is_the_one_that_the_log_tells_of(target: Site, file: Path) -> None:
    payload = base64.b64decode(json.loads(file.read_bytes())["payload"])
    size = json.loads(payload)["log"]["size"]
    shown = target.bundle("audit", "show", str(size), "-n", "1", "--json").document["entries"][0]
    assert shown["detail"]["digest"] == str(Digest.of(payload))
