"""Encodings of real weights against the zstd command: size and speed."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from tools.benchmarks import quiet
from tools.benchmarks.process import BenchError, Cost, run
from tools.benchmarks.results import Figure, Section, at_most, table
from tools.benchmarks.site import Bench

_OURS: Final = Path(__file__).with_name("pieces_run.py")  # not imported: the harness stays small
_WEIGHTS: Final = Path(__file__).with_name("weights.py")
_TIMES: Final = 4  # the weights follow each other so often, so that starting counts little
_MOST_RUNS: Final = 2  # what is told is size, and speed by the processor's time
_SLOW_RUNS: Final = 1  # of zstd -19, over the weights once
_LEVELS: Final = (1, 3, 19)
_QUICK: Final = 9  # levels up to here
_AUTO: Final = "Sealift, auto"
_MAX: Final = "Sealift, max"
_GAIN: Final = 0.95  # of plain zstd's size: planes have to be that much smaller
_HOW: Final = """\
all-MiniLM-L6-v2 as published (F32, 91 MB) and rounded to 16 bits, each {times} times in a row: no
window of these levels reaches back to the time before. Sealift is what `bundle create` does after
it hashed the source: sampling, byte planes, zstd in frames of 8 MiB on two threads, a digest of
each; and what `bundle import` does: comparing these, decoding, hashing what comes out. Beside it
the `zstd` command with `-T0`, which uses both cores to compress and one to decompress, and neither
hashes with SHA-256; "max" and level 19 over the weights once.
Both from file to file in the page cache; {pairs} runs in turn, medians. MB/s count raw bytes by the
wall clock; "per CPU s" are MB per second of processor time, which others on the machine disturb
less."""


@dataclass
class _Tool:
    """One way to compress, and what it took."""

    name: str
    encode: list[str]
    decode: list[str]
    slow: bool = False
    stored: int = 0
    raw: int = 0
    encoded: list[Cost] = field(default_factory=list)
    decoded: list[Cost] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return self.stored / self.raw

    def rate(self, costs: list[Cost]) -> float:
        """Median MB/s of raw bytes."""
        return self.raw / median(cost.seconds for cost in costs) / 1e6

    def cpu_rate(self, costs: list[Cost]) -> float:
        """Median MB of raw bytes per second of processor time."""
        return self.raw / median(cost.cpu_seconds for cost in costs) / 1e6


def measure(bench: Bench) -> Section:
    """Every type of weights with every tool.

    Raises:
        BenchError: No room, no network, no zstd, or a command failed.
    """
    if shutil.which("zstd") is None:
        raise BenchError("zstd is not installed (Debian: apt-get install zstd)")
    folder = bench.folder / "compression"
    quiet.need_space(bench.folder, 4 << 30)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        made = run([bench.command("python"), str(_WEIGHTS), str(bench.folder)]).output
        variants: dict[str, str] = json.loads(made)
        found = {
            dtype: _one_type(bench, folder, dtype, Path(path)) for dtype, path in variants.items()
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _section(found, min(bench.pairs, _MOST_RUNS))


def _one_type(bench: Bench, folder: Path, dtype: str, once: Path) -> list[_Tool]:
    many = folder / "raw"
    with many.open("wb") as file:
        for _ in range(_TIMES):
            with once.open("rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)
    tools = _tools(bench)
    runs = min(bench.pairs, _MOST_RUNS)
    for number in range(runs):
        bench.patience.wait()
        for tool in tools:
            if tool.slow and number >= _SLOW_RUNS:
                continue
            _one_run(folder, tool, once if tool.slow else many)
            bench.say(f"{number + 1}/{runs} {dtype} {tool.name}: {tool.ratio:.4f}")
    return tools


def _tools(bench: Bench) -> list[_Tool]:
    ours = [bench.command("python"), str(_OURS)]
    back = ["zstd", "-q", "-f", "-d", "{stored}", "-o", "{back}"]
    decode = [*ours, "decode", "{stored}", "{back}"]
    tools = [
        _Tool(_AUTO, [*ours, "encode", "{raw}", "{stored}"], decode),
        _Tool(_MAX, [*ours, "encode-max", "{raw}", "{stored}"], decode, slow=True),
    ]
    for level in _LEVELS:
        encode = ["zstd", "-q", "-f", f"-{level}", "-T0", "{raw}", "-o", "{stored}"]
        tools.append(_Tool(_zstd(level), encode, back, slow=level > _QUICK))
    return tools


def _one_run(folder: Path, tool: _Tool, raw: Path) -> None:
    names = {"raw": str(raw), "stored": str(folder / "stored"), "back": str(folder / "back")}
    stored, back = Path(names["stored"]), Path(names["back"])
    tool.raw = raw.stat().st_size
    quiet.settle(folder, (raw,), cold=False, size=tool.raw)
    tool.encoded.append(run([part.format(**names) for part in tool.encode]))
    tool.stored = stored.stat().st_size
    quiet.settle(folder, (stored,), cold=False, size=tool.raw)
    tool.decoded.append(run([part.format(**names) for part in tool.decode]))
    run(["cmp", str(raw), str(back)])
    stored.unlink()
    back.unlink()


def _section(found: dict[str, list[_Tool]], pairs: int) -> Section:
    head = [
        "",
        "size, %",
        "compress, MB/s",
        "per CPU s",
        "decompress, MB/s",
        "per CPU s",
        "peak, MiB",
    ]
    rows = [
        [
            f"{dtype}: {tool.name}",
            f"{100 * tool.ratio:.1f}",
            f"{tool.rate(tool.encoded):.1f}",
            f"{tool.cpu_rate(tool.encoded):.1f}",
            f"{tool.rate(tool.decoded):.0f}",
            f"{tool.cpu_rate(tool.decoded):.0f}",
            f"{max(c.peak_bytes for c in (*tool.encoded, *tool.decoded)) >> 20}",
        ]
        for dtype, tools in found.items()
        for tool in tools
    ]
    figures: list[Figure] = []
    for dtype, tools in found.items():
        by_name = {tool.name: tool for tool in tools}
        ours, best, plain = by_name[_AUTO], by_name[_MAX], by_name[_zstd(3)]
        figures.append(at_most(f"{dtype} size / zstd -3", ours.ratio / plain.ratio, _GAIN))
        slow = by_name[_zstd(19)].ratio
        figures.append(Figure(f"{dtype} size / zstd -19", f"{ours.ratio / slow:.2f}"))
        figures.append(Figure(f"{dtype} size, max / zstd -19", f"{best.ratio / slow:.2f}"))
        rate = ours.rate(ours.encoded) / plain.rate(plain.encoded)
        figures.append(Figure(f"{dtype} compress, times zstd -3", f"{rate:.1f}"))
    text = f"{_HOW.format(times=_TIMES, pairs=pairs)}\n\n{table(head, rows)}"
    return Section("compression", "Weights in floating point against zstd", text, tuple(figures))


def _zstd(level: int) -> str:
    return f"`zstd -{level}`"
