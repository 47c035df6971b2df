"""One publisher, one site that trusts it, one good bundle: made once, attacked in copies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bundle_simulator import forge, twin
from tests.support.publisher_simulator import Simulator
from tests.support.site import Site, new_site, simulator


@pytest.fixture(scope="session")
def publisher() -> Simulator:
    return simulator()


@pytest.fixture(scope="session")
def site(publisher: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Its store is empty and must stay so: tests that let something in take a copy."""
    return new_site(tmp_path_factory.mktemp("site") / "home", publisher)


@pytest.fixture(scope="session")
def good(publisher: Simulator) -> bytes:
    return forge(twin(publisher))


@pytest.fixture
def stick(tmp_path: Path) -> Callable[[bytes], Path]:
    """Put bytes where a stick would be."""

    def write(data: bytes) -> Path:
        path = tmp_path / "models.bundle.tar"
        path.write_bytes(data)
        return path

    return write
