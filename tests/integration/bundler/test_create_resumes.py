"""`bundle create` interrupted: the same command goes on where it was, and what comes out is whole."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gguf_files import Pieces, tensor

FLOATS = 3 << 20


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 MiB of weights that compress a little, as weights do."""
    moments = random.Random(5)
    values = [moments.gauss(0, 0.02) for _ in range(4096)]
    weights = struct.pack("<4096f", *values)
    data = Pieces(
        tensors=(
            tensor("token_embd.weight", (32, 4), 2, 0),
            tensor("output_norm.weight", (FLOATS,), 0, 96),
        ),
        data_bytes=96 + 4 * FLOATS,
    ).build()
    body = bytearray(data)
    start = len(body) - 4 * FLOATS
    for number in range(FLOATS // 4096):
        block = bytearray(weights)
        block[:8] = number.to_bytes(8, "big")
        body[start + number * len(block) : start + (number + 1) * len(block)] = block
    path = tmp_path_factory.mktemp("resumes") / "tiny.gguf"
    path.write_bytes(body)
    return path


def interrupt(
    repository: Path, what: str, form: str, folder: Path, source: Path, times: int
) -> dict[str, int]:
    scratch = folder / "scratch"
    scratch.mkdir()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.support.resuming",
            what,
            form,
            str(folder),
            str(source),
            str(times),
            "7",
        ],
        cwd=repository,
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    counts: dict[str, int] = json.loads(done.stdout)
    print(counts)
    return counts


@pytest.mark.parametrize("form", ["one", "coded", "volumes", "coded-volumes", "parity"])
def test_killed_again_and_again(form: str, repository: Path, source: Path, tmp_path: Path) -> None:
    counts = interrupt(repository, "kill", form, tmp_path, source, 30)
    assert counts["killed"] >= 30
    assert counts["left"] >= 10  # or the moments were not spread over the work


@pytest.mark.parametrize("form", ["one", "coded-volumes", "parity"])
def test_power_lost_again_and_again(
    form: str, repository: Path, source: Path, tmp_path: Path
) -> None:
    counts = interrupt(repository, "power", form, tmp_path, source, 25)
    assert counts["lost"] >= 25
    assert counts["begun"] >= 5
