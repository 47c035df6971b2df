"""What other tools say of a model that went through a bundle.

``model_signing`` runs for real, in a process of its own. cosign is a Go program that is no dependency
here; docs/trust-operations.md tells what it said. The documented payload of its bundle is verified
by hand below.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from bundler.chunking import Chunking
from bundler.chunks.shelf import IndexShelf
from bundler.create import Form, create_bundle
from bundler.sources import resolve
from bundler.trust.publisher import Publisher
from bundler.trusting import pin
from registry.oci import Descriptor, Manifest
from registry.reference import Reference
from registry.store import Store
from schemas.render import Output
from tests.gguf_files import tiny_gguf
from tests.support.second_reader import read_bundle
from tests.support.site import Site, check_sound

PASSPHRASE = b"correct horse"
MODEL = "library/tiny:1"
SIGSTORE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PREDICATES = {
    "https://sigstore.dev/cosign/sign/v1",
    "https://model_signing/signature/v1.0",
    "https://cyclonedx.org/bom",
}


@dataclass(frozen=True)
class Journey:
    """A model that was bundled, imported and taken out again."""

    folder: Path
    bundle: Path
    site: Site

    @property
    def model(self) -> Path:
        return self.folder / "out/library/tiny/1"

    @property
    def key(self) -> Path:
        return self.folder / "out/library.pub"


def publish(folder: Path, bundle: str, key_type: str = "ecdsa-p256") -> Path:
    """Make a bundle of a tiny model; made again, the same publisher signs."""
    home = folder / "publisher"
    if not home.exists():
        Publisher.init(
            home,
            name="p",
            namespaces=["library"],
            passphrase=PASSPHRASE,
            key_type=key_type,
            kdf_rounds=10,
        )
    weights = tiny_gguf(folder / "tiny.gguf")
    output = folder / bundle
    with Output(quiet=True).progress() as meter:
        chunking = Chunking(IndexShelf(folder / "chunks"), {})
        create_bundle(
            Publisher.open(home),
            [resolve(str(weights), MODEL, chunking, meter)],
            output,
            form=Form(),
            passphrase=PASSPHRASE,
            now=datetime.now(UTC),
            progress=meter,
        )
    return output


def trusting(folder: Path) -> Site:
    publisher = Publisher.open(folder / "publisher")
    (folder / "root.json").write_bytes(publisher.root_bytes)
    pin(folder / "home", folder / "root.json", str(publisher.fingerprint), "p")
    return Site(folder / "home")


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    folder = tmp_path_factory.mktemp("journey")
    bundle = publish(folder, "models.bundle.tar")
    site = trusting(folder)
    assert site.bundle("import", bundle, "--quiet").code == 0
    done = site.bundle("extract", MODEL, "--into", folder / "out", "--json")
    assert done.code == 0, done.err
    assert done.document["models"][0]["key"] == str(folder / "out/library.pub")
    return Journey(folder, bundle, site)


def model_signing(journey: Journey, key: Path, model: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "model_signing", "verify", "key"),
            *("--signature", journey.model / "model.sig", "--public_key", key, model),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )


def test_model_signing_verifies_the_extracted_model(journey: Journey) -> None:
    done = model_signing(journey, journey.key, journey.model)
    assert (done.returncode, done.stdout.strip()) == (0, "Verification succeeded"), done.stderr


def test_model_signing_finds_a_changed_file(journey: Journey, tmp_path: Path) -> None:
    changed = tmp_path / "model"
    changed.mkdir()
    data = bytearray((journey.model / "tiny.gguf").read_bytes())
    data[-1] ^= 1
    (changed / "tiny.gguf").write_bytes(data)
    done = model_signing(journey, journey.key, changed)
    assert done.returncode != 0
    assert "Hash mismatch for 'tiny.gguf'" in done.stderr


def test_model_signing_finds_a_file_too_many(journey: Journey, tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes((journey.model / "tiny.gguf").read_bytes())
    (tmp_path / "evil.py").write_bytes(b"import os")
    done = model_signing(journey, journey.key, tmp_path)
    assert done.returncode != 0
    assert "evil.py" in done.stderr


def test_model_signing_refuses_another_key(journey: Journey, tmp_path: Path) -> None:
    publish(tmp_path, "other.tar")
    site = trusting(tmp_path)
    assert site.bundle("import", tmp_path / "other.tar", "--quiet").code == 0
    assert site.bundle("extract", MODEL, "--into", tmp_path / "out", "--quiet").code == 0
    assert model_signing(journey, tmp_path / "out/library.pub", journey.model).returncode != 0


def test_cosigns_payload_verifies_by_hand(journey: Journey, tmp_path: Path) -> None:
    """DSSE v1: the signature is over PAE(type, payload); the statement names the manifest."""
    layout = tmp_path / "layout"
    done = journey.site.bundle("export", journey.bundle, "--oci-layout", layout, "--quiet")
    assert done.code == 0, done.err
    index = json.loads((layout / "index.json").read_bytes())
    model, *referrers = index["manifests"]
    assert model["annotations"]["kind"] == "dev.cosignproject.cosign/image"
    key = load_pem_public_key(journey.key.read_bytes())
    assert isinstance(key, EllipticCurvePublicKey)
    seen = set()
    for descriptor in referrers:
        manifest = json.loads(blob(layout, descriptor["digest"]))
        assert manifest["subject"]["digest"] == model["digest"]
        assert manifest["artifactType"] == descriptor["artifactType"]
        if descriptor["artifactType"] == SIGSTORE:
            statement = opened(key, blob(layout, manifest["layers"][0]["digest"]))
            kind = manifest["annotations"]["dev.sigstore.bundle.predicateType"]
            assert statement["predicateType"] == kind
            seen.add(kind)
            if kind != "https://model_signing/signature/v1.0":
                (subject,) = statement["subject"]
                assert subject["digest"] == {"sha256": model["digest"].partition(":")[2]}
    assert seen == PREDICATES


def blob(layout: Path, digest: str) -> bytes:
    data = (layout / "blobs" / digest.replace(":", "/")).read_bytes()
    assert digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    return data


def opened(key: EllipticCurvePublicKey, bundle: bytes) -> dict[str, Any]:
    envelope = json.loads(bundle)["dsseEnvelope"]
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"]
    message = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    key.verify(signature, message, ECDSA(SHA256()))
    with pytest.raises(InvalidSignature):
        key.verify(signature, message + b" ", ECDSA(SHA256()))
    statement: dict[str, Any] = json.loads(payload)
    return statement


def test_the_same_model_has_the_same_attestations_in_every_bundle(
    journey: Journey, tmp_path: Path
) -> None:
    """Or every import would leave some more in the store."""
    again = publish(journey.folder, "again.bundle.tar")
    site = journey.site.copy(tmp_path / "copy")
    before = set(site.snapshot().blobs)
    assert site.bundle("import", again, "--quiet").code == 0
    assert set(site.snapshot().blobs) == before
    assert check_sound(site.home) == [MODEL]


def test_the_second_reader_reads_it_too(journey: Journey) -> None:
    descriptor, blobs = read_bundle(journey.bundle)
    (model,) = descriptor["models"]
    assert len(model["referrers"]) == 4
    assert {each["digest"] for each in model["referrers"]} <= blobs.keys()


def test_ed25519_publishers_send_a_bill_of_materials_alone(tmp_path: Path) -> None:
    """The other tools know P-256 in common, not Ed25519."""
    bundle = publish(tmp_path, "models.bundle.tar", "ed25519")
    site = trusting(tmp_path)
    assert site.bundle("import", bundle, "--quiet").code == 0
    done = site.bundle("extract", MODEL, "--into", tmp_path / "out", "--json")
    assert done.code == 0
    assert done.document["models"][0]["signature"] is None
    assert (tmp_path / "out/library/tiny/1/bom.cdx.json").is_file()


def test_without_the_publishers_key_the_bill_of_materials_still_travels(tmp_path: Path) -> None:
    publish(tmp_path, "first.tar")
    (tmp_path / "publisher/keys/publisher-library.pem").unlink()
    bundle = publish(tmp_path, "models.bundle.tar")
    site = trusting(tmp_path)
    assert site.bundle("import", bundle, "--quiet").code == 0
    done = site.bundle("extract", MODEL, "--into", tmp_path / "out", "--json")
    assert done.document["models"][0]["signature"] is None


def test_bom_prints_what_came(journey: Journey, tmp_path: Path) -> None:
    of_model = journey.site.bundle("bom", MODEL)
    assert of_model.code == 0, of_model.err
    assert of_model.document["metadata"]["component"]["name"] == "tiny"
    assert of_model.document == json.loads((journey.model / "bom.cdx.json").read_bytes())
    of_bundle = journey.site.bundle("bom", journey.bundle)
    assert [each["name"] for each in of_bundle.document["components"]] == ["tiny"]
    stranger = Site(tmp_path / "nobody")
    assert stranger.bundle("bom", journey.bundle).code != 0
    unbelieved = stranger.bundle("bom", journey.bundle, "--unverified")
    assert unbelieved.document == of_bundle.document
    assert journey.site.bundle("bom", MODEL, "-o", tmp_path / "bom.json").code == 0
    assert (tmp_path / "bom.json").read_bytes() == (journey.model / "bom.cdx.json").read_bytes()
    assert journey.site.bundle("bom", MODEL, "-o", tmp_path / "bom.json").code != 0
    assert journey.site.bundle("bom", "library/none:1").code != 0


def test_extract_does_not_write_over_anything(journey: Journey) -> None:
    before = sorted(journey.folder.joinpath("out").rglob("*"))
    assert journey.site.bundle("extract", MODEL, "--into", journey.folder / "out").code != 0
    assert sorted(journey.folder.joinpath("out").rglob("*")) == before


def test_extract_finds_rot(journey: Journey, tmp_path: Path) -> None:
    copy = journey.site.copy(tmp_path / "copy")
    weights = hashlib.sha256((journey.model / "tiny.gguf").read_bytes()).hexdigest()
    path = copy.home / "blobs/sha256" / weights
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    done = copy.bundle("extract", MODEL, "--into", tmp_path / "out", "--json")
    assert done.code != 0
    assert not list((tmp_path / "out").rglob("tiny.gguf"))


def test_removing_the_model_removes_what_referred_to_it(journey: Journey, tmp_path: Path) -> None:
    copy = journey.site.copy(tmp_path / "copy")
    with Store.open(copy.home) as store:
        store.remove_model(Reference.parse(MODEL))
    assert not any(copy.snapshot().blobs)


def test_what_another_tool_attached_in_the_store_is_passed_over(
    journey: Journey, tmp_path: Path
) -> None:
    """A registry takes anybody's referrers; cosign's own have other media types and certificates."""
    copy = journey.site.copy(tmp_path / "copy")
    with Store.open(copy.home) as store:
        record = store.catalogue.resolve(Reference.parse(MODEL))
        assert record is not None
        for layer in (b"not json", b'{"mediaType":"x"}'):
            config = b'{"foreign":true}' if layer == b"not json" else b"{}"
            kind = "application/vnd.oci.empty.v1+json"
            made = Manifest(
                config=Descriptor.for_bytes(kind, config),
                layers=(Descriptor.for_bytes(SIGSTORE, layer),),
                artifact_type=SIGSTORE,
                subject=record.descriptor,
                annotations={"dev.sigstore.bundle.predicateType": sorted(PREDICATES)[1]},
            )
            described = Descriptor.for_bytes(made.media_type, made.to_bytes())
            with store.blobs.stage("foreign") as area, store.lock():
                for data in (made.to_bytes(), config, layer):
                    area.add_bytes(data)
                area.install()
                with store.catalogue.transaction() as tx:
                    for each in made.blobs:
                        tx.put_blob(each)
                    tx.put_manifest(record.reference.repository, described, made)
    done = copy.bundle("extract", MODEL, "--into", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    found = (tmp_path / "out/library/tiny/1/model.sig").read_bytes()
    assert found == (journey.model / "model.sig").read_bytes()
