"""The test vectors: what the format's document promises, read by us and by a second reader."""

from __future__ import annotations

import hashlib
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bundler.importer import Wishes, import_bundle
from bundler.trusting import pin
from bundler.verifying import verify_bundle
from bundler.volumes import look
from registry.store import Store
from schemas.render import Output
from tests.support.second_reader import read_bundle

VECTORS = Path(__file__).parents[2] / "vectors"
EXPECTED: dict[str, Any] = json.loads((VECTORS / "expected.json").read_bytes())


@pytest.mark.parametrize("name", EXPECTED["bundles"])
def test_second_reader_finds_what_is_expected(name: str) -> None:
    held = read_bundle(VECTORS / EXPECTED["bases"][name])[1] if name in EXPECTED["bases"] else {}
    descriptor, blobs = read_bundle(VECTORS / name, held)
    found = [
        {"name": model["name"], "manifest": model["manifest"]["digest"]}
        for model in descriptor["models"]
    ]
    assert found == EXPECTED["bundles"][name]
    assert all(model["manifest"] in blobs for model in found)


@pytest.mark.parametrize("name", EXPECTED["bundles"])
def test_our_reader_verifies_them(name: str, tmp_path: Path) -> None:
    root = VECTORS / "root.json"
    pin(tmp_path / "home", root, hashlib.sha256(root.read_bytes()).hexdigest(), "vectors")
    volumes = {
        label.number: path
        for label, path in look([VECTORS]).volumes.items()
        if path.name.startswith(Path(name).stem)
    }
    clock = datetime.strptime(EXPECTED["clock"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    with Store.open(tmp_path / "home") as store, Output(quiet=True).progress() as meter:
        if name in EXPECTED["bases"]:
            with (VECTORS / EXPECTED["bases"][name]).open("rb", buffering=0) as source:
                import_bundle(store, source, {}, wishes=Wishes(), now=clock, progress=meter)
        with (VECTORS / name).open("rb", buffering=0) as source:
            verified = verify_bundle(
                store, source, volumes, wishes=Wishes(), now=clock, progress=meter
            )
    found = [
        {"name": str(m.bundled.reference), "manifest": str(m.bundled.manifest.digest)}
        for m in verified.models
    ]
    assert found == EXPECTED["bundles"][name]


def test_the_encodings_are_all_there() -> None:
    found = {
        entry["encoding"] for name in EXPECTED["bundles"] for entry in _descriptor(name)["contents"]
    }
    assert {"identity", "delta"} <= found
    assert found & {"zstd", "zstd-planes2", "zstd-planes4"}


def _descriptor(name: str) -> dict[str, Any]:
    with tarfile.open(VECTORS / name) as tar:
        file = tar.extractfile("sealift/bundle.json")
        assert file is not None
        found: dict[str, Any] = json.load(file)
        return found
