"""Runs the fuzz target for a while and notes what came of it, for docs/benchmarks.md.

Usage::

    python tools/fuzz.py 120     # seconds; what `make fuzz` does

Inputs that broke something are kept in build/fuzz/, and the exit code tells of them. Every run adds
a line to build/fuzz/runs.jsonl; `make bench PART=fuzz` writes these into the document.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run it; the target's own exit code."""
    sys.path.insert(0, str(_ROOT))  # a script finds its neighbours only, this needs `tools`
    from tools.benchmarks.fuzzing import FOLDER, RUNS, read_stats
    from tools.benchmarks.machine import commit

    seconds = int(sys.argv[1])
    folder = _ROOT / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.iterdir())
    command = [sys.executable, str(_ROOT / "tests" / "fuzz" / "fuzz_reader.py")]
    # The timeout is by the wall clock: on a busy machine, or under nice, a unit may have to wait.
    command += [f"-max_total_time={seconds}", "-max_len=65536", "-timeout=120"]
    command += ["-rss_limit_mb=2048", "-verbosity=0", "-print_final_stats=1"]
    command += [f"-artifact_prefix={folder}/"]
    began = time.monotonic()
    said = []
    with subprocess.Popen(command, cwd=_ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None  # noqa: S101 - asked for above
        for line in process.stderr:
            sys.stderr.write(line)
            said.append(line)
    run = {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        "commit": commit(),
        "seconds": round(time.monotonic() - began),
        "exit": process.returncode,
        "findings": len(set(folder.iterdir()) - before - {folder / RUNS}),
        **read_stats(said),
    }
    with (folder / RUNS).open("a") as runs:
        runs.write(json.dumps(run) + "\n")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
