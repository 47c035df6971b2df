"""A small model and a publisher whose keys open fast."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from bundler.chunking import Chunking
from bundler.chunks.shelf import IndexShelf
from bundler.sources import LocalModel, resolve
from bundler.trust.publisher import Publisher
from schemas.render import Meter, Output
from tests.gguf_files import tiny_gguf

PASSPHRASE = b"correct horse"


@pytest.fixture(scope="session")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("model") / "Tiny-Test.F32.gguf")


@pytest.fixture(scope="session")
def meter() -> Meter:
    with Output(quiet=True).progress() as meter:
        return meter


@pytest.fixture(scope="session")
def chunking(tmp_path_factory: pytest.TempPathFactory) -> Chunking:
    return Chunking(IndexShelf(tmp_path_factory.mktemp("chunks")), {})


@pytest.fixture(scope="session")
def model(gguf: Path, chunking: Chunking, meter: Meter) -> LocalModel:
    return resolve(str(gguf), None, chunking, meter)


@pytest.fixture(scope="session")
def connected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a publisher for ``library`` and the file ``passphrase``."""
    home = tmp_path_factory.mktemp("connected") / "home"
    Publisher.init(
        home / "publisher",
        name="unit",
        namespaces=["library"],
        passphrase=PASSPHRASE,
        now=datetime.now(UTC),
        kdf_rounds=1000,
    )
    (home / "passphrase").write_bytes(PASSPHRASE + b"\n")
    return home
