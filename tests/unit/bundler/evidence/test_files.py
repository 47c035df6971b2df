"""Proofs and exports of the audit log: made from a store, checked without one, hostile in between."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from hypothesis import given
from hypothesis import strategies as st

from bundler.evidence import auditing, exporting, proofs
from bundler.trust.site import site_key
from registry.store import Store
from schemas import limits
from schemas.errors import FingerprintMismatch, NotFound, SealiftError, UsageError

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SIZE = 37
Edit = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    with Store.open(home) as store, store.catalogue.transaction() as tx:
        for number in range(SIZE):
            tx.add_audit_event(Store.audit_event("test.event", f"näme {number}", {}))
    return home


@pytest.fixture(scope="module")
def proof(home: Path) -> bytes:
    with Store.open(home) as store:
        exporting.make_checkpoint(store)
        return proofs.prove_entry(store, 11, entry=True)


@pytest.fixture(scope="module")
def continuation(home: Path) -> bytes:
    with Store.open(home) as store:
        exporting.make_checkpoint(store)
        return proofs.prove_continuation(store, 20)


def edited(data: bytes, edit: Edit) -> bytes:
    document = json.loads(data)
    edit(document)
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


# -- proofs ---------------------------------------------------------------------------------------


def test_every_entry_can_be_proven(home: Path) -> None:
    known = site_key(home).fingerprint
    with Store.open(home) as store:
        exporting.make_checkpoint(store)
        entries = [document for _, document in store.catalogue.audit.rows()]
        for index in range(SIZE):
            data = proofs.prove_entry(store, index, entry=index % 2 == 0)
            proven = proofs.verify(data, known)
            assert (proven.index, proven.size) == (index, SIZE)
            assert proven.entry == (entries[index] if index % 2 == 0 else None)
            assert data.isascii()
        for size in range(1, SIZE + 1):
            assert proofs.verify(proofs.prove_continuation(store, size), known).since == size


def test_a_proof_without_its_entry_tells_no_name(home: Path) -> None:
    with Store.open(home) as store:
        exporting.make_checkpoint(store)
        assert set(json.loads(proofs.prove_entry(store, 3, entry=False))["inclusion"]) == {
            "index",
            "leaf",
            "path",
        }


def test_a_verifier_of_a_few_lines_agrees(proof: bytes) -> None:
    """Written from RFC 6962 and c2sp.org alone, with nothing of ours."""
    told = json.loads(proof)
    text, lines = told["checkpoint"].split("\n\n")
    origin, size, root = text.split("\n")
    blob = base64.b64decode(lines.split(" ")[2])
    public = base64.b64decode(told["publicKey"])
    assert origin == "sealift/site/" + hashlib.sha256(public).hexdigest()
    assert blob[:4] == hashlib.sha256(public).digest()[:4]
    key = load_der_public_key(public)
    assert isinstance(key, EllipticCurvePublicKey)
    key.verify(blob[4:], (text + "\n").encode(), ECDSA(SHA256()))

    inclusion = told["inclusion"]
    path = [base64.b64decode(each) for each in inclusion["path"]]

    def rebuilt(index: int, leaves: int) -> bytes:
        """RFC 6962 §2.1.1, turned round."""
        if leaves == 1:
            return hashlib.sha256(b"\0" + base64.b64decode(inclusion["entry"])).digest()
        half = 1 << (leaves - 1).bit_length() - 1
        other = path.pop()
        if index < half:
            return hashlib.sha256(b"\1" + rebuilt(index, half) + other).digest()
        return hashlib.sha256(b"\1" + other + rebuilt(index - half, leaves - half)).digest()

    assert rebuilt(inclusion["index"], int(size)) == base64.b64decode(root)
    assert not path


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d["inclusion"].update(index=12),
        lambda d: d["inclusion"].update(index=10**12),
        lambda d: d["inclusion"]["path"].pop(),
        lambda d: d["inclusion"]["path"].append("A" * 43 + "="),
        lambda d: d["inclusion"]["path"].reverse(),
        lambda d: d["inclusion"].update(leaf="A" * 43 + "="),
        lambda d: d["inclusion"].update(entry=base64.b64encode(b"{}").decode()),
        lambda d: d.update(checkpoint=d["checkpoint"].replace("\n37\n", "\n38\n")),
        lambda d: d.update(publicKey="AAAA"),
        lambda d: d.update(more=1),
        lambda d: d.pop("inclusion"),
        lambda d: d.update(consistency={"size": 1, "root": "A" * 43 + "=", "path": []}),
    ],
)
def test_an_edited_proof(proof: bytes, edit: Edit) -> None:
    assert edited(proof, lambda _: None) == proof
    with pytest.raises(SealiftError):
        proofs.verify(edited(proof, edit))


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d["consistency"].update(size=21),
        lambda d: d["consistency"].update(size=38),
        lambda d: d["consistency"].update(root="A" * 43 + "="),
        lambda d: d["consistency"]["path"].pop(0),
        lambda d: d["consistency"]["path"].append("A" * 43 + "="),
        lambda d: d["consistency"]["path"].reverse(),
    ],
)
def test_an_edited_continuation(continuation: bytes, edit: Edit) -> None:
    with pytest.raises(SealiftError):
        proofs.verify(edited(continuation, edit))


@given(data=st.data())
def test_no_changed_byte_of_a_proof_passes(proof: bytes, data: st.DataObject) -> None:
    at, by = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(1, 255))
    changed = bytearray(proof)
    changed[at] ^= by
    with pytest.raises(SealiftError):
        proofs.verify(bytes(changed))


def test_a_proof_of_another_site(proof: bytes, tmp_path: Path) -> None:
    with pytest.raises(FingerprintMismatch):
        proofs.verify(proof, site_key(tmp_path).fingerprint)


def test_nothing_is_proven_that_is_not_there(home: Path) -> None:
    with Store.open(home) as store:
        for index in (-1, SIZE, 10**9):
            with pytest.raises(NotFound):
                proofs.prove_entry(store, index, entry=False)
        for size in (0, SIZE + 1):
            with pytest.raises(NotFound):
                proofs.prove_continuation(store, size)


# -- exports --------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1, 7, 8, 32, 36])
@pytest.mark.parametrize("full", [False, True])
def test_an_export_from_any_entry_on(home: Path, first: int, full: bool) -> None:
    with Store.open(home) as store:
        data = exporting.export(store, NOW, first=first, full=full)
        told = exporting.read_export(data, site_key(home).fingerprint)
        assert (told.first, told.size, len(told.entries)) == (first, SIZE, SIZE - first)
        assert told.root == store.catalogue.audit.root()
    assert data.isascii()
    payload = base64.b64decode(json.loads(data)["payload"])
    assert (
        b"actor" in base64.b64decode(json.loads(payload)["entries"][0].get("entry", ""))
    ) == full
    assert b"test.event" in payload


def test_an_export_tells_no_name_by_default(home: Path) -> None:
    with Store.open(home) as store:
        payload = base64.b64decode(json.loads(exporting.export(store, NOW))["payload"])
    for entry in json.loads(payload)["entries"]:
        assert set(entry) == {"leaf", "at", "reference", "action", "outcome"}


def test_an_export_is_bounded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AUDIT_EXPORT_ENTRIES", 10)
    with Store.open(home) as store:
        with pytest.raises(UsageError, match="too many") as caught:
            exporting.export(store, NOW)
        assert "--first 27" in caught.value.hint
        exporting.export(store, NOW, first=27)
        for wrong in (-1, SIZE):
            with pytest.raises(NotFound):
                exporting.export(store, NOW, first=wrong)


def test_no_changed_export_passes(home: Path) -> None:
    from bundler.evidence.coding import encode
    from bundler.inventory import report
    from bundler.trust.site import sign
    from schemas import documents
    from schemas.documents import Kind

    key = site_key(home)
    with Store.open(home) as store:
        data = exporting.export(store, NOW, first=5, full=True)
    document = json.loads(base64.b64decode(json.loads(data)["payload"]))

    def resigned(edit: Edit) -> bytes:
        """By the site itself: what its checkpoint says must still hold."""
        changed = json.loads(json.dumps(document))
        edit(changed)
        payload = documents.dump(Kind.AUDIT_EXPORT, changed)
        signed = sign(key, payload, "application/vnd.sealift.audit-export.v1+json")
        return report.render(signed, exporting.about_export(changed))

    assert exporting.read_export(resigned(lambda _: None)).first == 5
    edits: list[Edit] = [
        lambda d: d["entries"].pop(),
        lambda d: d["entries"].pop(3),
        lambda d: d["entries"].reverse(),
        lambda d: d["entries"].append(d["entries"][0]),
        lambda d: d.update(first=6),
        lambda d: d.update(first=4),
        lambda d: d["before"].reverse(),
        lambda d: d["before"].pop(),
        lambda d: d["entries"][2].update(action="other.event"),
        lambda d: d["entries"][2].update(outcome="refused"),
        lambda d: d["entries"][2].update(leaf=encode(b"\0" * 32)),
        lambda d: d["entries"][2].update(entry=d["entries"][3]["entry"]),
    ]
    for edit in edits:
        with pytest.raises(SealiftError):
            exporting.read_export(resigned(edit))


# -- checkpoints, and the audit of a log that nobody touched ---------------------------------------


def test_a_checkpoint_is_made_once_per_size(home: Path) -> None:
    with Store.open(home) as store:
        _, first = exporting.make_checkpoint(store)
        _, second = exporting.make_checkpoint(store)
        assert first == second
        assert exporting.read_checkpoint(exporting.export_checkpoint(store, NOW))[0] == first


def test_an_empty_log_has_nothing_to_tell(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        for ask in (exporting.make_checkpoint, lambda s: exporting.export(s, NOW)):
            with pytest.raises(NotFound):
                ask(store)
        found = auditing.audit(store)
        assert (found.size, found.findings) == (0, ())


def test_a_log_from_before_checkpoints_is_sound(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        with store.catalogue.transaction() as tx:
            tx.add_audit_event(Store.audit_event("test.event", "x", {}))
        found = auditing.audit(store)
        assert (found.site, found.size, found.findings) == (None, 1, ())
