"""What leaves a site: exact, signed, bounded; and whatever comes in its place is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.inventory import (
    Inventory,
    WantList,
    export,
    export_want_list,
    read,
    read_want_list,
    report,
)
from bundler.inventory.blobset import decode64, encode64, pack, unpack
from bundler.inventory.held import about
from bundler.trust.site import SiteKey, sign, site_key
from registry.digest import Digest
from registry.store import Store
from schemas import limits, strictjson
from schemas.documents import Kind
from schemas.errors import (
    BadSignature,
    FingerprintMismatch,
    InvalidName,
    MalformedDocument,
    SealiftError,
)
from tests.store_models import install, tiny
from tests.support.publisher_simulator import Simulator

NOW = datetime(2026, 8, 1, 12, tzinfo=UTC)
REFUSALS = (MalformedDocument, BadSignature, FingerprintMismatch, InvalidName)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A site with two models and a publisher."""
    home = tmp_path / "home"
    with Store.open(home) as store:
        install(store, tiny(), "library/tiny:1")
        install(store, tiny(), "library/tiny:latest")
        with store.catalogue.transaction() as tx:
            state = Simulator().state()
            tx.add_anchor("simulated", state.fingerprint)
            tx.set_trust("simulated", state)
            tx.set_clock_floor(NOW)
    return home


def exported(home: Path, **options: int) -> bytes:
    with Store.open(home) as store:
        return export(store, now=NOW, **options)


# -- the inventory --------------------------------------------------------------------------------


def test_an_inventory_tells_what_the_store_holds(home: Path) -> None:
    data = exported(home)
    key = site_key(home, create=False)
    inventory = read(data, key.fingerprint)
    with Store.open(home) as store:
        assert inventory.blobs == store.catalogue.blob_sizes()
        assert inventory.site == key.fingerprint
        assert inventory.time == inventory.clock_floor == NOW
        assert [str(m.reference) for m in inventory.models] == [
            "library/tiny:1",
            "library/tiny:latest",
        ]
        assert {m.manifest for m in inventory.models} <= set(inventory.blobs)
        (publisher,) = inventory.publishers
        assert publisher.fingerprint == store.catalogue.anchors()[0].fingerprint
        assert publisher.versions == {"root": 1}
        event = store.catalogue.audit_events()[-1].event
    assert event["action"] == "inventory.export"
    assert event["subject"] == key.fingerprint.hex
    assert event["detail"] == {"digest": str(Digest.of(data)), "blobs": len(inventory.blobs)}
    digest, size = next(iter(inventory.blobs.items()))
    assert inventory.holds(digest, size)
    assert not inventory.holds(digest, size + 1)
    assert not inventory.holds(Digest.of(b"other"), size)


def test_the_trusted_versions_are_told(tmp_path: Path) -> None:
    home = tmp_path / "home"
    simulator = Simulator()
    simulator.bump("timestamp", "targets")
    files = simulator.issue()
    names = {
        "timestamp.json": "timestamp",
        "1.snapshot.json": "snapshot",
        "2.targets.json": "targets",
    }
    state = simulator.state()
    trusted = {role: files[name] for name, role in names.items()}
    with Store.open(home) as store, store.catalogue.transaction() as tx:
        tx.add_anchor("simulated", state.fingerprint)
        tx.set_trust("simulated", replace(state, metadata=trusted))
    (publisher,) = read(exported(home)).publishers
    assert publisher.versions == {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 2}


def test_the_file_is_ascii_and_begins_with_lines_for_people(home: Path) -> None:
    data = exported(home)
    text = data.decode("ascii")
    assert text.startswith('{\n "schemaVersion": 1,\n "about": [\n  "What an isolated site holds')
    fingerprint = site_key(home).fingerprint.hex
    lines = json.loads(text)["about"]
    assert f"Site: {fingerprint[:4]} {fingerprint[4:8]} " in lines[1]
    assert "Time: 2026-08-01T12:00:00Z" in lines
    assert "  library/tiny:latest" in lines
    assert "simulated" not in text  # what a site calls its publishers is its own business
    assert b"simulated" not in base64.b64decode(json.loads(text)["payload"])


def test_an_empty_store(tmp_path: Path) -> None:
    inventory = read(exported(tmp_path / "home"))
    assert inventory.blobs == {}
    assert inventory.models == ()
    assert inventory.clock_floor is None
    assert inventory.total == 0


def test_small_blobs_can_be_left_out(home: Path) -> None:
    everything = read(exported(home)).blobs
    largest = max(everything.values())
    assert set(read(exported(home, least_size=largest)).blobs.values()) == {largest}


def test_a_blob_whose_file_is_gone_is_not_told(home: Path) -> None:
    digest = next(iter(read(exported(home)).blobs))
    with Store.open(home) as store:
        store.blobs.path(digest).unlink()
    assert digest not in read(exported(home)).blobs


def test_many_models_are_cut_in_the_lines_for_people() -> None:
    name, manifest = "library/m:1", str(Digest.of(b"m"))
    document = inventory_document([{"name": name, "manifest": manifest}] * 50)
    lines = about(document)
    assert len(lines) < 64
    assert lines[-2] == "  and 10 more"


def test_the_listing_names_every_blob(home: Path) -> None:
    inventory = read(exported(home))
    listing = inventory.listing()
    assert listing["totalBytes"] == inventory.total
    assert {Digest.parse(b["digest"]): b["size"] for b in listing["blobs"]} == inventory.blobs
    json.dumps(listing)


# -- the want-list --------------------------------------------------------------------------------


def test_a_want_list_survives_the_journey(tmp_path: Path) -> None:
    blobs = {Digest.of(bytes([n])): n * 1000 for n in range(5)}
    data = export_want_list(tmp_path, "ab" * 16, 7, blobs, now=NOW)
    wanted = read_want_list(data, site_key(tmp_path).fingerprint)
    assert wanted.blobs == blobs
    assert (wanted.bundle, wanted.sequence, wanted.total) == ("ab" * 16, 7, 10_000)
    assert wanted.time == NOW
    assert wanted.listing()["blobs"][0].keys() == {"digest", "size"}
    assert "Blobs: 5, 10 KB (digests and sizes only)" in json.loads(data)["about"]
    with pytest.raises(MalformedDocument, match="this is no inventory v1"):
        read(data)


def test_a_want_list_that_wants_nothing(tmp_path: Path) -> None:
    with pytest.raises(MalformedDocument, match="wants nothing"):
        export_want_list(tmp_path, "ab" * 16, 7, {}, now=NOW)


# -- attacks --------------------------------------------------------------------------------------


def test_another_sites_inventory(home: Path, tmp_path: Path) -> None:
    other = site_key(tmp_path)
    with pytest.raises(FingerprintMismatch) as caught:
        read(exported(home), other.fingerprint)
    assert other.fingerprint.short in caught.value.why


def inventory_document(
    models: list[dict[str, str]] | None = None, **changes: Any
) -> dict[str, Any]:
    return {
        "schemaVersion": 1,
        "site": "0" * 64,
        "time": "2026-08-01T12:00:00Z",
        "tool": {"name": "sealift", "version": "0.1.0"},
        "publishers": [],
        "models": models or [],
        "blobs": pack({Digest.of(b"x"): 1}),
        **changes,
    }


def signed_inventory(
    key: SiteKey, change: Callable[[dict[str, Any]], None] = lambda _: None
) -> bytes:
    """An inventory as a site could sign it that has gone mad."""
    document = inventory_document(site=key.fingerprint.hex)
    change(document)
    return report.write(Kind.INVENTORY, document, key, about)


MODEL = {"name": "library/m:1", "manifest": str(Digest.of(b"m"))}

MAD: dict[str, Callable[[dict[str, Any]], None]] = {
    "another site": lambda d: d.update(site="1" * 64),
    "a time that is none": lambda d: d.update(time="2026-02-30T12:00:00Z"),
    "a model twice": lambda d: d.update(models=[MODEL, MODEL]),
    "a model without its namespace": lambda d: d.update(models=[{**MODEL, "name": "m:1"}]),
    "digests out of order": lambda d: d["blobs"].update(
        digests=encode64(b"\2" * 32 + b"\1" * 32), sizes=encode64(b"\1\1"), count=2
    ),
    "a digest twice": lambda d: d["blobs"].update(
        digests=encode64(b"\1" * 64), sizes=encode64(b"\1\1"), count=2
    ),
    "a count that is wrong": lambda d: d["blobs"].update(count=2),
    "too few sizes": lambda d: d["blobs"].update(sizes=""),
    "too many sizes": lambda d: d["blobs"].update(sizes=encode64(b"\1\1")),
    "a size cut off": lambda d: d["blobs"].update(sizes=encode64(b"\x81")),
    "a size in more bytes than it needs": lambda d: d["blobs"].update(sizes=encode64(b"\x81\0")),
    "a size beyond any blob": lambda d: d["blobs"].update(sizes=encode64(b"\xff" * 8 + b"\1")),
    "a size without end": lambda d: d["blobs"].update(sizes=encode64(b"\xff" * 50)),
    "base64 with loose bits": lambda d: d["blobs"].update(sizes="AR"),
    "an unknown key": lambda d: d.update(note="hello"),
}


@pytest.mark.parametrize("flaw", MAD)
def test_a_validly_signed_contradiction_is_refused(tmp_path: Path, flaw: str) -> None:
    key = site_key(tmp_path)
    read(signed_inventory(key), key.fingerprint)
    with pytest.raises(REFUSALS):
        read(signed_inventory(key, MAD[flaw]), key.fingerprint)


def reassembled(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    document = json.loads(data)
    change(document)
    return json.dumps(document, indent=1).encode() + b"\n"


OUTSIDE: dict[str, Callable[[dict[str, Any]], None]] = {
    "other lines for people": lambda d: d["about"].append("All is well"),
    "no lines for people": lambda d: d.update(about=[]),
    "control characters": lambda d: d["about"].append("\x1b[2J"),
    "an unknown key": lambda d: d.update(more=1),
    "another type": lambda d: d.update(payloadType="application/vnd.sealift.want-list.v1+json"),
    "a foreign type": lambda d: d.update(payloadType="text/plain"),
    "another key": lambda d: d.update(publicKey="AAAA"),
    "another key id": lambda d: d["signatures"][0].update(keyid="0" * 64),
    "no signature": lambda d: d.update(signatures=[]),
    "two signatures": lambda d: d["signatures"].append(d["signatures"][0]),
    "a wrong signature": lambda d: d["signatures"][0].update(sig="AAAA"),
    "base64 with loose bits": lambda d: d["signatures"][0].update(sig="AB=="),
}


@pytest.mark.parametrize("flaw", OUTSIDE)
def test_an_envelope_that_was_changed_is_refused(home: Path, flaw: str) -> None:
    data = exported(home)
    assert reassembled(data, lambda _: None) == data
    with pytest.raises(REFUSALS):
        read(reassembled(data, OUTSIDE[flaw]))


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return signed_inventory(site_key(tmp_path_factory.mktemp("home")))


@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_any_flipped_bit_is_refused(honest: bytes, position: int, bit: int) -> None:
    data = bytearray(honest)
    data[position % len(data)] ^= 1 << bit
    with pytest.raises(REFUSALS):
        read(bytes(data))


@given(cut=st.integers(0, 10**6), more=st.binary(min_size=1, max_size=5))
def test_cut_and_trailing_bytes_are_refused(honest: bytes, cut: int, more: bytes) -> None:
    for data in (honest[: cut % len(honest)], honest + more):
        with pytest.raises(REFUSALS):
            read(data)


def test_a_payload_in_another_spelling(tmp_path: Path) -> None:
    key = site_key(tmp_path)
    document = inventory_document(site=key.fingerprint.hex)
    payload = strictjson.dumps(document).replace(b'":', b'": ')
    signed = sign(key, payload, "application/vnd.sealift.inventory.v1+json")
    with pytest.raises(MalformedDocument, match="canonical"):
        read(report.render(signed, about(document)))


def test_a_file_that_is_too_large() -> None:
    with pytest.raises(MalformedDocument, match="too large"):
        read(b" " * (limits.REPORT_BYTES + 1))


# -- sets of blobs --------------------------------------------------------------------------------

digests = st.binary(min_size=32, max_size=32).map(lambda raw: Digest("sha256", raw.hex()))
sizes = st.one_of(st.integers(0, 300), st.integers(0, limits.BLOB_BYTES))


@given(st.dictionaries(digests, sizes, max_size=20))
def test_a_set_of_blobs_survives_its_encoding(blobs: dict[Digest, int]) -> None:
    document = pack(blobs)
    assert unpack(document, "set") == blobs
    assert document["count"] == len(blobs)


@given(st.binary(max_size=70), st.binary(max_size=12), st.integers(0, 3))
def test_any_set_is_canonical_or_refused(raw: bytes, lengths: bytes, count: int) -> None:
    document = {"count": count, "digests": encode64(raw), "sizes": encode64(lengths)}
    try:
        blobs = unpack(document, "set")
    except MalformedDocument:
        return
    assert pack(blobs) == document


@given(st.text(alphabet="AB_-/+=\n", max_size=9))
def test_base64_has_one_spelling(text: str) -> None:
    try:
        data = decode64(text, "text")
    except MalformedDocument:
        return
    assert encode64(data) == text


def test_what_cannot_be_listed() -> None:
    for blobs in ({Digest("sha512", "0" * 128): 1}, {Digest.of(b""): -1}, {Digest.of(b""): 2**60}):
        with pytest.raises(SealiftError):
            pack(blobs)


def test_values_are_frozen(home: Path) -> None:
    inventory = read(exported(home))
    assert isinstance(inventory, Inventory)
    with pytest.raises(TypeError):
        inventory.blobs[Digest.of(b"")] = 1  # type: ignore[index]
    wanted = WantList(Digest.of(b""), NOW, "a" * 32, 1, {Digest.of(b""): 0})
    with pytest.raises(TypeError):
        wanted.blobs[Digest.of(b"")] = 1  # type: ignore[index]
