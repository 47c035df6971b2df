"""Workers that are killed at the worst moments: one clear error each, and nobody else notices."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import Server, install, serving
from tools.benchmarks.faults import PHASES, Faults

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def server(model_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("faults")
    # The same weights under another file name: another manifest, so another model and worker.
    copy = folder / "other.gguf"
    shutil.copyfile(model_gguf, copy)
    install(folder / "home", model_gguf, "library/victim:latest")
    install(folder / "home", copy, "library/bystander:latest")
    with serving(folder / "home", num_threads="1") as found:
        yield found


@pytest.fixture(scope="module")
def faults(server: Server) -> Faults:
    return Faults(server.process.pid, server.port, "victim", "bystander")


@pytest.mark.parametrize("phase", PHASES)
def test_a_killed_worker(server: Server, faults: Faults, phase: str) -> None:
    for _ in range(2):
        outcome = faults.once(phase)
        assert outcome.good, outcome
        assert server.get("/healthz") == {"status": "ok"}
