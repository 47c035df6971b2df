"""Running a command and seeing what it cost."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.benchmarks.neighbours import Watch

_TOLD: Final = 2000  # characters of a failed command's output that are shown


class BenchError(Exception):
    """The measurement cannot go on; the message says why."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process cost.

    Attributes:
        seconds: From before it was started until it was gone, by the wall clock.
        cpu_seconds: Processor time of the process in user and kernel mode, all threads.
        peak_bytes: Largest resident set. The kernel counts the parent's from before ``exec`` in,
            so the harness itself stays smaller than anything that it measures.
        output: Standard output.
        others: Share of all processors that everybody else used meanwhile, 0 to 1.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str
    others: float = 0.0


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    watch: Callable[[int], None] | None = None,
) -> Cost:
    """Run a command to its end and account for it with ``wait4``.

    Args:
        command: Program and arguments.
        env: Added to this process's environment.
        cwd: Folder to run in.
        watch: Called with its process id over and over while it runs; such a run is not for timing.

    Raises:
        BenchError: It failed.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = Watch.begin()
        # Accounted for by wait4 below: Popen's own wait tells nothing of resources.
        process = subprocess.Popen(  # noqa: SIM115, RUF100
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
        if watch is not None:
            while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                watch(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began.began
        cpu_seconds = usage.ru_utime + usage.ru_stime
        others = began.share(cpu_seconds)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            told = err.read(_TOLD).decode(errors="replace").strip()
            msg = f"{' '.join(command)[:_TOLD]}: exit code {process.returncode}: {told}"
            raise BenchError(msg)
        output = out.read().decode(errors="replace")
    return Cost(seconds, cpu_seconds, usage.ru_maxrss * 1024, output, others)
