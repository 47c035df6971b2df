"""What fuzzing the bundle's readers came to: `make fuzz` notes it, this shows it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tools.benchmarks.results import Figure, Section, at_least, at_most, table
from tools.benchmarks.site import Bench

FOLDER: Final = Path("build") / "fuzz"
RUNS: Final = "runs.jsonl"
_ROOT: Final = Path(__file__).resolve().parents[2]
_SHOWN: Final = 5
_AIM_SECONDS: Final = 3600
_STAT: Final = re.compile(r"stat::(\w+):\s+(\d+)")
# libFuzzer's names to ours.
_STATS: Final = {
    "number_of_executed_units": "executions",
    "new_units_added": "new inputs",
    "peak_rss_mb": "peak MiB",
}
_HOW: Final = """\
Coverage-guided fuzzing (atheris, libFuzzer) of everything that reads a bundle before and after its
signatures are checked; `tests/fuzz/fuzz_reader.py` lists it. One process; it begins with the test
vectors and their parts, and keeps what reaches new code. A finding is an input that raises anything
but an error of ours, takes longer than two minutes, or more than 2 GiB of memory. The longest runs
on this machine; `FUZZ_SECONDS=3600 make fuzz` makes one."""


def read_stats(lines: Iterable[str]) -> dict[str, int]:
    """Read ``-print_final_stats`` of libFuzzer; what it did not print is not there."""
    found = {}
    for line in lines:
        if (match := _STAT.search(line)) and match[1] in _STATS:
            found[_STATS[match[1]]] = int(match[2])
    return found


def measure(bench: Bench) -> Section | None:
    """Show the longest runs; None where there was none."""
    path = _ROOT / FOLDER / RUNS
    if not path.is_file():
        bench.say("no run was noted; make one with: FUZZ_SECONDS=3600 make fuzz")
        return None
    return section([json.loads(line) for line in path.read_text().splitlines()])


def section(runs: list[dict[str, Any]]) -> Section:
    """The longest runs as a table; findings of all of them count.

    Args:
        runs: As ``tools/fuzz.py`` notes them, at least one.
    """
    longest = sorted(runs, key=lambda run: -int(run["seconds"]))[:_SHOWN]
    names = ["executions", "seconds", "new inputs", "peak MiB", "findings"]
    rows = [
        [
            f"{run['date']} UTC, {run['commit']}",
            *(f"{run[n]:,}" if n in run else "-" for n in names),
        ]
        for run in longest
    ]
    first = longest[0]
    figures = (
        at_least("fuzzing, longest run, s", first["seconds"], _AIM_SECONDS, "{:.0f}"),
        Figure("fuzzing, executions in it", f"{first.get('executions', 0):,}"),
        at_most("fuzzing, findings in it", first["findings"], 0, "{:.0f}"),
    )
    return Section("fuzz", "Fuzzing", f"{_HOW}\n\n{table(['run', *names], rows)}", figures)
