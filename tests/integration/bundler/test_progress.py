"""What a person sees while a bundle is made: bars on a terminal, lines elsewhere, nothing if asked."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from schemas import render
from tests.support.site import Outcome
from tests.support.terminal import Terminal
from tests.support.trip import BASE, Trip
from tools.benchmarks.models import write_model

SIZE = 64 << 20


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory) -> Trip:
    return Trip(tmp_path_factory.mktemp("progress"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some tenths of a second of work."""
    path = tmp_path_factory.mktemp("large") / "large.gguf"
    write_model(path, SIZE, name="large")
    return path


def test_bars_on_a_terminal(trip: Trip, large: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "SEALIFT_HOME": str(trip.near.home), "COLUMNS": "100"}
    terminal = Terminal(
        environment,
        *("bundle", "create", str(large), "-n", BASE, "-o", str(tmp_path / "x.tar")),
        *("--check-media", *map(str, trip.secret)),
    )
    shown = terminal.expect("hashing large.gguf")
    shown += terminal.expect("writing large.gguf")
    shown += terminal.expect("reading back")
    shown += terminal.expect("every byte is as it was written")
    assert terminal.end() == 0
    assert re.search(r"[0-9.]+/[0-9.]+ MB", shown), "how much of how much"
    assert re.search(r"[0-9.]+ [kMG]B/s", shown), "how fast"
    assert re.search(r"[0-9]{2}:[0-9]{2}", shown), "how long it takes yet"


def test_lines_elsewhere(
    trip: Trip, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "_PLAIN_SECONDS", 0.0)
    done = create(trip, large, tmp_path / "x.tar")
    lines = done.err.splitlines()
    assert any(re.fullmatch(r"hashing large\.gguf: 5[0-9]% of 6[0-9] MB", line) for line in lines)
    assert any(re.fullmatch(r"writing large\.gguf: 100% of 6[0-9] MB", line) for line in lines)
    assert "\r" not in done.err
    assert "\x1b" not in done.err


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_nothing_if_asked(
    option: str, trip: Trip, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "_PLAIN_SECONDS", 0.0)
    done = create(trip, large, tmp_path / "x.tar", option)
    assert done.err == ""
    assert (done.document["models"][0]["name"] == BASE) if option == "--json" else BASE in done.out


def create(trip: Trip, model: Path, output: Path, *options: str) -> Outcome:
    done = trip.near.bundle(
        "create", model, "-n", BASE, "-o", output, "--check-media", *options, *trip.secret
    )
    assert done.code == 0, done
    return done
