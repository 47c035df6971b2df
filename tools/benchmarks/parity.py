"""Parity over volumes against `par2` on the same files: making it, and repairing lost volumes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Final

from tools.benchmarks import parity_run, quiet
from tools.benchmarks.process import BenchError, Cost, run
from tools.benchmarks.results import Figure, Section, seconds, table
from tools.benchmarks.site import Bench

_MIB: Final = 1 << 20
_VOLUMES: Final = 16
_PARITY: Final = 2
_BYTES: Final = 32 * _MIB  # per volume; par2's time grows with the square of the blocks
_MOST_PAIRS: Final = 2  # it is slow
_HOW: Final = """\
{volumes} volumes of {size} MiB of random bytes and parity for {parity} of them. "Repair" looks at
all files and makes the two lost volumes again, durable. `par2` (par2cmdline) with blocks of 1 MiB
repairs what ours does, scattered bad blocks too; with one block per volume it is at its fastest,
and a single flipped bit costs a volume. MB/s count the bytes of all data volumes.
{pairs} pairs, files in the page cache; median (least-largest)."""


@dataclass
class _Tool:
    """How one tool makes parity and repairs, and what that took."""

    name: str
    create: list[str]
    repair: list[str]
    made: str  # pattern of its own files
    created: list[Cost] = field(default_factory=list)
    repaired: list[Cost] = field(default_factory=list)


def measure(bench: Bench) -> Section:
    """All tools, interleaved.

    Raises:
        BenchError: No room, no par2, or a command failed.
    """
    if shutil.which("par2") is None:
        raise BenchError("par2 is not installed (Debian: apt-get install par2)")
    quiet.need_space(bench.folder, 2 * (_VOLUMES + _PARITY) * _BYTES)
    folder = bench.folder / "parity"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        volumes = [_random(folder / f"v{number:02}.tar") for number in range(_VOLUMES)]
        tools = _tools(bench, folder, volumes)
        pairs = min(bench.pairs, _MOST_PAIRS)
        for number in range(pairs):
            for tool in tools:
                bench.patience.wait()
                _one(tool, folder, volumes)
                bench.say(
                    f"{number + 1}/{pairs} {tool.name}: create"
                    f" {tool.created[-1].seconds:.1f} s, repair {tool.repaired[-1].seconds:.1f} s"
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _section(tools, pairs)


def _tools(bench: Bench, folder: Path, volumes: list[Path]) -> list[_Tool]:
    ours = [bench.command("python"), parity_run.__file__]
    index = str(folder / "set.par2")
    names = [str(path) for path in volumes]
    tools = [
        _Tool(
            "Sealift",
            [*ours, "create", str(folder), str(_PARITY)],
            [*ours, "repair", str(folder), str(_PARITY)],
            "p*",
        )
    ]
    for name, block in (("`par2`, 1 MiB blocks", _MIB), ("`par2`, whole volumes", _BYTES)):
        blocks = _PARITY * _BYTES // block
        create = ["par2", "create", "-qq", f"-s{block}", f"-c{blocks}", "-n1", index, *names]
        tools.append(_Tool(name, create, ["par2", "repair", "-qq", index], "set*"))
    return tools


def _one(tool: _Tool, folder: Path, volumes: list[Path]) -> None:
    env = {"PYTHONPATH": str(Path(__file__).resolve().parent.parent.parent)}
    quiet.settle(folder, tuple(volumes), cold=False, size=_PARITY * _BYTES)
    tool.created.append(_durably(lambda: run(tool.create, env=env), folder))
    lost = [volumes[1], volumes[-1]]
    kept = [path.rename(path.with_suffix(".kept")) for path in lost]
    quiet.settle(folder, tuple(set(volumes) - set(lost)), cold=False, size=_PARITY * _BYTES)
    tool.repaired.append(_durably(lambda: run(tool.repair, env=env), folder))
    for path, original in zip(lost, kept, strict=True):
        run(["cmp", str(path), str(original)])
        original.replace(path)
    for path in folder.glob(tool.made):
        path.unlink()


def _durably(action: Callable[[], Cost], folder: Path) -> Cost:
    """With the time that the disk takes: par2 leaves that to the system."""
    cost = action()
    waited = run(["sync", "--file-system", str(folder)])
    return replace(cost, seconds=cost.seconds + waited.seconds)


def _random(path: Path) -> Path:
    with path.open("wb") as file:
        for _ in range(_BYTES // _MIB):
            file.write(os.urandom(_MIB))
    return path


def _section(tools: list[_Tool], pairs: int) -> Section:
    rows = [
        [
            tool.name,
            seconds([cost.seconds for cost in tool.created]),
            f"{_rate(tool.created):.0f}",
            f"{median(cost.cpu_seconds for cost in tool.created):.1f}",
            seconds([cost.seconds for cost in tool.repaired]),
            f"{_rate(tool.repaired):.0f}",
            f"{median(cost.cpu_seconds for cost in tool.repaired):.1f}",
            f"{max(c.peak_bytes for c in (*tool.created, *tool.repaired)) // _MIB}",
        ]
        for tool in tools
    ]
    head = ["", "create, s", "MB/s", "CPU, s", "repair, s", "MB/s", "CPU, s", "peak, MiB"]
    how = _HOW.format(volumes=_VOLUMES, size=_BYTES // _MIB, parity=_PARITY, pairs=pairs)
    ours, fine, _ = tools
    figures = (
        Figure("parity, create, MB/s", f"{_rate(ours.created):.0f}"),
        Figure("parity, create, times par2", f"{_rate(ours.created) / _rate(fine.created):.1f}"),
        Figure("parity, repair, MB/s", f"{_rate(ours.repaired):.0f}"),
        Figure("parity, repair, times par2", f"{_rate(ours.repaired) / _rate(fine.repaired):.1f}"),
    )
    return Section("parity", "Parity against par2", f"{how}\n\n{table(head, rows)}", figures)


def _rate(costs: list[Cost]) -> float:
    """Median MB/s over the data volumes' bytes."""
    return _VOLUMES * _BYTES / median(cost.seconds for cost in costs) / 1e6
