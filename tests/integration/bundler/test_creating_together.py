"""Several `bundle create` at once, in one publisher's workspace; and each phase of one killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bundler.workbench import folder_of
from tests.support.site import check_sound
from tests.support.trip import BASE, Trip, model
from tools.benchmarks.models import write_model

BUNDLE = Path(sys.executable).with_name("bundle")
SIZE = 64 << 20


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory) -> Trip:
    return Trip(tmp_path_factory.mktemp("together"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.gguf"
    write_model(path, SIZE, name="large")
    return path


def start(trip: Trip, *argv: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [BUNDLE, "create", *map(str, (*argv, *trip.secret)), "--json"],
        env={**os.environ, "SEALIFT_HOME": str(trip.near.home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, Any]:
    """Exit code, and the document or the error."""
    out, err = process.communicate(timeout=250)
    assert "Traceback" not in out + err
    if process.returncode:
        return process.returncode, json.loads(err)["error"]
    return 0, json.loads(out)


def test_bundles_made_at_once_are_numbered_apart(trip: Trip, tmp_path: Path) -> None:
    models = [model(tmp_path / f"{n}.gguf", name=f"Number {n}") for n in range(4)]
    running = [
        start(trip, path, "-n", f"library/m{n}:1", "-o", tmp_path / f"{n}.tar")
        for n, path in enumerate(models)
    ]
    found = [ended(process) for process in running]
    assert [code for code, _ in found] == [0] * 4, found
    sequences = {document["sequence"]: document["path"] for _, document in found}
    assert len(sequences) == 4
    site = trip.site("in-order")
    for _, path in sorted(sequences.items()):
        assert site.bundle("import", path).code == 0
    assert check_sound(site.home) == [f"library/m{n}:1" for n in range(4)]


def test_one_output_is_written_by_one(trip: Trip, large: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.tar"
    running = [start(trip, large, "-n", BASE, "-o", output) for _ in range(2)]
    codes = sorted((ended(process) for process in running), key=lambda pair: pair[0])
    assert codes[0][0] == 0
    # The other one found the first at work, or done.
    assert codes[1][0] == 0 or codes[1][1]["code"] in {"store-busy", "already-exists"}
    site = trip.site(f"one-output-{tmp_path.name}")
    assert site.bundle("import", output).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


PHASES = {
    "hashing": ("hashing", ()),
    "compressing": ("compressing", ("--compression", "max")),
    "writing": ("writing", ()),
    "volumes": ("writing", ("--volume-size", "16Mi")),
    "parity": ("computing parity", ("--volume-size", "16Mi", "--parity", "2")),
}
WATCHED = """
import os, signal, sys
from schemas import render
phase = sys.argv.pop(1)
begin, advance = render._Silent.begin, render._Silent.advance
state = {"in": False}
def begun(self, name, size):
    state["in"] = name.startswith(phase)
def advanced(self, count):
    if state["in"]:
        state["seen"] = state.get("seen", 0) + 1
        if state["seen"] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
render._Silent.begin, render._Silent.advance = begun, advanced
from bundler.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("case", PHASES)
def test_killed_in_each_phase_it_goes_on(case: str, trip: Trip, tmp_path: Path) -> None:
    phase, options = PHASES[case]
    path = tmp_path / "m.gguf"
    write_model(path, SIZE // 2, name=case)
    if case == "compressing":
        with path.open("r+b") as file:  # half of it: what compresses
            file.seek(SIZE // 4)
            file.write(bytes(SIZE // 4))
    stick = tmp_path / "stick"
    stick.mkdir()
    output = stick / "x.tar"
    argv = ["create", path, "-n", BASE, "-o", output, *options, *trip.secret, "--json"]
    environment = {**os.environ, "SEALIFT_HOME": str(trip.near.home)}
    killed = subprocess.run(
        [sys.executable, "-c", WATCHED, phase, *map(str, argv)],
        env=environment,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        timeout=250,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed
    assert [each.name for each in stick.iterdir() if not each.name.startswith(".")] == []
    before = _work(output)
    done = trip.near.bundle(*argv)
    assert done.code == 0, done
    assert not folder_of(output).exists()
    if case in {"writing", "volumes", "parity"}:
        assert before, "there was nothing to go on with"
        kept = [each for each in stick.iterdir() if each.stat().st_ino in before]
        assert kept, "nothing was taken over"
    site = trip.site(f"killed-{case}")
    assert site.bundle("import", stick).code == 0
    assert check_sound(site.home) == [BASE]


def _work(output: Path) -> set[int]:
    """Files of an interrupted attempt."""
    folder = folder_of(output)
    if not folder.is_dir():
        return set()
    return {path.stat().st_ino for path in folder.glob("out-*")}
