"""Deltas between versions of a model against tools that are made for deltas: size and time."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from tools.benchmarks import quiet
from tools.benchmarks.process import BenchError, Cost, run
from tools.benchmarks.results import Figure, Section, at_most, seconds, table
from tools.benchmarks.site import Bench

_ROOT: Final = Path(__file__).resolve().parents[2]
_OURS: Final = Path(__file__).with_name("pieces_run.py")  # not imported: the harness stays small
_VERSIONS: Final = Path(__file__).with_name("versions.py")
_TOOLS: Final = {"zstd": "zstd", "xdelta3": "xdelta3", "rsync": "rsync"}  # command: Debian package
_MOST_PAIRS: Final = 3
_AIMS: Final = {"metadata": 0.005, "layer": 0.05}
_HOW: Final = """\
SmolLM2-135M-Instruct, 4 bits, {size:.0f} MB, as the old version; as the new one the same with a
longer `general.name` ("metadata": all data lie elsewhere) and with all tensors of one of
30 layers replaced by random bytes ("layer"). "Make" is what the connected side does, "apply"
the isolated one, verification of the result included where a tool has it. Sealift makes its delta
from the old version's chunk index ({index:.0f} KB, made in {indexed:.2f} s while the blob is
hashed) and does not need the old version itself; all others read it. `zstd` and `xdelta3` have
windows over the whole file; `rsync` writes a batch, with blocks chosen by itself.
Files in the page cache; {pairs} runs in turn; median (least-largest)."""


@dataclass
class _Tool:
    """One way to make and apply a delta, and what it took.

    Attributes:
        make: Command; ``{old}``, ``{new}``, ``{delta}``, ``{index}`` and ``{out}`` are filled in.
        apply: The same.
        in_place: Whether it applies the delta to ``{out}``, which is a copy of the old version.
    """

    name: str
    make: list[str]
    apply: list[str]
    in_place: bool = False
    size: int = 0
    made: list[Cost] = field(default_factory=list)
    applied: list[Cost] = field(default_factory=list)


def measure(bench: Bench) -> Section:
    """Both versions with every tool.

    Raises:
        BenchError: No room, no model, a tool is missing, or a command failed.
    """
    for command, package in _TOOLS.items():
        if shutil.which(command) is None:
            raise BenchError(f"{command} is not installed (Debian: apt-get install {package})")
    folder = bench.folder / "delta"
    quiet.need_space(bench.folder, 1 << 30)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pairs = min(bench.pairs, _MOST_PAIRS)
    try:
        old = Path(run([sys.executable, str(_ROOT / "tools" / "fetch_model.py")]).output.strip())
        size = old.stat().st_size
        index = [bench.command("python"), str(_OURS), "index", str(old)]
        indexed = [run([*index, str(folder / "index")]) for _ in range(pairs)]
        found = {}
        for name, change in (("metadata", "rename"), ("layer", "layer")):
            new = folder / "new"
            run([sys.executable, str(_VERSIONS), change, str(old), str(new)])
            found[name] = _one_version(bench, folder, old, new, pairs)
        how = _HOW.format(
            size=size / 1e6,
            index=(folder / "index").stat().st_size / 1e3,
            indexed=median(cost.seconds for cost in indexed),
            pairs=pairs,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _section(found, size, how)


def _tools(bench: Bench) -> list[_Tool]:
    ours = [bench.command("python"), str(_OURS)]
    patch = ["zstd", "-q", "-f", "--patch-from={old}", "--long=27"]
    xdelta = ["xdelta3", "-q", "-f", "-B", str(1 << 27), "-s", "{old}"]
    batch = ["rsync", "--no-whole-file", "--ignore-times"]
    return [
        _Tool(
            "Sealift",
            [*ours, "diff", "{new}", "{index}", "{delta}"],
            [*ours, "patch", "{delta}", "{old}", "{out}"],
        ),
        _Tool(
            "`zstd --patch-from`",
            [*patch, "-T0", "{new}", "-o", "{delta}"],
            [*patch, "-d", "{delta}", "-o", "{out}"],
        ),
        _Tool(
            "`xdelta3`", [*xdelta, "-e", "{new}", "{delta}"], [*xdelta, "-d", "{delta}", "{out}"]
        ),
        _Tool(
            "`rsync`",
            [*batch, "--only-write-batch={delta}", "{new}", "{out}"],
            [*batch, "--read-batch={delta}", "{out}"],
            in_place=True,
        ),
    ]


def _one_version(bench: Bench, folder: Path, old: Path, new: Path, pairs: int) -> list[_Tool]:
    tools = _tools(bench)
    out, delta = folder / "out", folder / "batch"
    names = {
        "old": str(old),
        "new": str(new),
        "delta": str(delta),
        "out": str(out),
        "index": str(folder / "index"),
    }
    for number in range(pairs):
        bench.patience.wait()
        for tool in tools:
            if tool.in_place:
                shutil.copyfile(old, out)
            quiet.settle(folder, (old, new), cold=False, size=new.stat().st_size)
            tool.made.append(run([part.format(**names) for part in tool.make]))
            tool.size = delta.stat().st_size
            quiet.settle(folder, (old, delta), cold=False, size=new.stat().st_size)
            tool.applied.append(run([part.format(**names) for part in tool.apply]))
            run(["cmp", str(new), str(out)])
            for path in folder.glob("batch*"):
                path.unlink()
            out.unlink()
            bench.say(f"{number + 1}/{pairs} {tool.name}: {tool.size} bytes")
    return tools


def _section(found: dict[str, list[_Tool]], full: int, how: str) -> Section:
    head = ["", "bytes", "of the full size, %", "make, s", "apply, s", "peak, MiB"]
    rows = [
        [
            f"{version}: {tool.name}",
            f"{tool.size}",
            f"{100 * tool.size / full:.3f}",
            seconds([cost.seconds for cost in tool.made]),
            seconds([cost.seconds for cost in tool.applied]),
            f"{max(c.peak_bytes for c in (*tool.made, *tool.applied)) >> 20}",
        ]
        for version, tools in found.items()
        for tool in tools
    ]
    figures: list[Figure] = []
    for version, (ours, patch, xdelta, batch) in found.items():
        share = 100 * ours.size / full
        form = "{:.3f}"
        figures.append(
            at_most(f"delta, {version}, % of full size", share, 100 * _AIMS[version], form)
        )
        for other, name in ((patch, "zstd --patch-from"), (xdelta, "xdelta3"), (batch, "rsync")):
            figures.append(
                Figure(f"delta, {version}, size / {name}", f"{ours.size / other.size:.2f}")
            )
    return Section(
        "delta",
        "Deltas between versions of a model",
        f"{how}\n\n{table(head, rows)}",
        tuple(figures),
    )
