"""A store with one small model in it, and the command called as a function."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import pytest

from registry import oci
from registry.digest import Digest
from registry.gguf import model_facts, read_header_file
from registry.oci import Descriptor, Manifest
from registry.reference import Reference
from registry.store import Store
from runtime.cli.main import main
from tests.gguf_files import tiny_gguf

TEMPLATE = "{{ messages[0].content }}\x1b]0;owned\x07"


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Sealift = Callable[..., Ended]


@pytest.fixture
def sealift(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Sealift:
    """Call the command in this process, on the test's own home."""
    monkeypatch.setenv("SEALIFT_HOME", str(home))

    def call(*arguments: str) -> Ended:
        capsys.readouterr()
        return Ended(main(arguments), *capsys.readouterr())

    return call


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the store would be."""
    return tmp_path / "home"


@pytest.fixture
def model(home: Path, tmp_path: Path) -> Reference:
    """A model in the store, whose chat template would drive a terminal."""
    weights = tiny_gguf(tmp_path / "tiny.gguf", chat_template=TEMPLATE)
    facts = asdict(model_facts(read_header_file(weights)))
    data = weights.read_bytes()
    manifest = Manifest(
        config=Descriptor.for_bytes(oci.MODEL_CONFIG, b"{}"),
        layers=(Descriptor.for_bytes(oci.WEIGHT_RAW, data),),
        artifact_type=oci.MODEL_ARTIFACT,
    )
    reference = Reference.parse("library/tiny:1k")
    with Store.open(home) as store, store.blobs.stage() as area:
        for part in (data, b"{}", manifest.to_bytes()):
            area.add(io.BytesIO(part), Digest.of(part), len(part))
        with store.lock():
            area.install()
            with store.catalogue.transaction() as tx:
                for blob in manifest.blobs:
                    tx.put_blob(blob)
                descriptor = Descriptor.for_bytes(oci.IMAGE_MANIFEST, manifest.to_bytes())
                tx.put_manifest(reference.repository, descriptor, manifest, facts)
                tx.set_tag(reference, descriptor.digest)
    return reference
