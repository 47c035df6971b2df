"""How many threads decode: one per physical core that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

_SIBLINGS: Final = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
_READ_BYTES: Final = 4096


def physical_cores() -> int:
    """Physical cores within this process's affinity mask and CPU quota, at least 1.

    Two threads on one core share the units that decoding keeps busy; more threads than the quota
    wait for each other at every layer. To be called before confinement, after which ``/sys`` is out
    of sight.
    """
    cores = {_read(Path(_SIBLINGS.format(cpu))) or str(cpu) for cpu in os.sched_getaffinity(0)}
    return max(1, min(len(cores), _quota()))


def _quota() -> int:
    """Whole processors that the control group grants (cgroup v2 ``cpu.max``)."""
    limit, _, period = _read(_QUOTA).partition(" ")
    if limit.isdigit() and period.isdigit() and int(period):
        return math.ceil(int(limit) / int(period))
    return len(os.sched_getaffinity(0))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_READ_BYTES).decode("ascii", "replace").strip()
    except OSError:
        return ""
