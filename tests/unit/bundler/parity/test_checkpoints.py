"""Parity that was interrupted: it goes on at a checkpoint, and comes out the same."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest

from bundler.parity import Checkpoint, FileRange, encode
from schemas import limits


@pytest.fixture
def files(tmp_path: Path) -> list[FileRange]:
    """Three, of which one ends early and none on a whole block."""
    found = []
    for number, size in enumerate((200_001, 90_003, 199_999)):
        path = tmp_path / f"{number}"
        path.write_bytes(random.Random(number).randbytes(size))
        found.append(FileRange(path, size))
    return found


@pytest.mark.parametrize("block", [512, 4096, 32_768])
def test_going_on_at_any_checkpoint_gives_the_same(
    block: int, files: list[FileRange], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SEGMENT_BYTES", 2 * 16_384)  # of both sinks
    whole = [io.BytesIO(), io.BytesIO()]
    checkpoints: list[Checkpoint] = []
    table = encode(files, whole, block=block, keep=checkpoints.append)
    places = [checkpoint.position for checkpoint in checkpoints]
    step = max(16_384, block)
    assert places == list(range(step, 200_001, step))
    for checkpoint in checkpoints:
        rest = [io.BytesIO(), io.BytesIO()]
        done = 0

        def count(more: int) -> None:
            nonlocal done
            done += more

        assert encode(files, rest, block=block, done=checkpoint, progress=count) == table
        for before, after in zip(whole, rest, strict=True):
            assert before.getvalue()[checkpoint.position :] == after.getvalue()
        assert done == sum(file.length for file in files)
