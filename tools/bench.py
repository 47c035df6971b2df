"""Measures Sealift beside public tools and writes docs/benchmarks.md.

Usage::

    python tools/bench.py                  # everything, about half an hour
    python tools/bench.py import rss       # some sections; --help lists them
    make bench PART="import rss"           # the same; installs the peers where it may
    python tools/bench.py --pairs 9 import # more repeats
    python tools/bench.py --patience 600   # wait for a quiet machine, repeat what others disturb

Needs up to 33 GiB in its folder (build/bench, or --folder) and removes what it wrote. Figures are
ratios of medians from interleaved runs. A missed aim is shown, not an error: the exit code tells
only whether everything could be measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parent.parent
_PAIRS: Final = 3


def main() -> int:
    """Measure what was asked for; 1 if something could not be measured."""
    sys.path.insert(0, str(_ROOT))  # a script finds its neighbours only, this needs `tools`
    from tools.benchmarks import FIGURES, document
    from tools.benchmarks.machine import line
    from tools.benchmarks.neighbours import Patience
    from tools.benchmarks.process import BenchError
    from tools.benchmarks.results import Figure, Section, summary
    from tools.benchmarks.site import Bench

    arguments = _arguments(tuple(FIGURES))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    figures: list[Figure] = []
    failed = False
    for key in arguments.figures or FIGURES:
        print(f"{key}: measuring", flush=True)
        bench = Bench(
            arguments.folder, arguments.pairs, Patience(arguments.patience), _progress(key)
        )
        load = os.getloadavg()[0]
        try:
            module = import_module(f"tools.benchmarks.{FIGURES[key]}")
            section: Section | None = module.measure(bench)
        except BenchError as error:
            print(f"{key}: error: {error}", file=sys.stderr)
            failed = True
            continue
        if section is None:
            continue
        figures += section.figures
        if arguments.write:
            machine = line(arguments.folder, load)
            document.write(_ROOT / "docs" / "benchmarks.md", {key: (section, machine)})
    print(f"\n{summary(figures)}")
    if arguments.write:
        print("\nwritten: docs/benchmarks.md")
    return int(failed)


def _arguments(keys: tuple[str, ...]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"one of {', '.join(keys)}")
    parser.add_argument("--pairs", type=int, default=_PAIRS, help="interleaved repeats (3)")
    parser.add_argument("--folder", type=Path, default=_ROOT / "build" / "bench")
    parser.add_argument(
        "--patience", type=float, default=0, help="seconds per figure to wait for a quiet machine"
    )
    parser.add_argument("--no-write", dest="write", action="store_false")
    arguments = parser.parse_args()
    if unknown := set(arguments.figures) - set(keys):
        parser.error(f"unknown figure {min(unknown)}; there are {', '.join(keys)}")
    if arguments.pairs < 1:
        parser.error("--pairs must be at least 1")
    arguments.folder = arguments.folder.absolute()
    return arguments


def _progress(key: str) -> Callable[[str], None]:
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{key}: {time.monotonic() - began:4.0f} s: {text}", flush=True)

    return say


if __name__ == "__main__":
    sys.exit(main())
