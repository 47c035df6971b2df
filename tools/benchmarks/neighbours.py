"""Who else uses the processors meanwhile: told beside every figure, and waited for if asked to.

Whether a pair is repeated depends on what others did, never on what it measured.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_STAT: Final = Path("/proc/stat")
_TICK: Final = os.sysconf("SC_CLK_TCK")
_WINDOW_SECONDS: Final = 1.0
_WINDOWS: Final = 3  # quiet ones in a row
_QUIET: Final = 0.1  # share of all processors that others may use before a run
_DISTURBED: Final = 0.2  # … and during it; kernel threads that write out count as others


@dataclass(frozen=True, slots=True)
class Watch:
    """Begun before something is timed.

    Attributes:
        began: ``time.perf_counter()``.
        busy: Processor seconds used by anyone since boot.
    """

    began: float
    busy: float

    @classmethod
    def begin(cls) -> Watch:
        """Now."""
        return cls(time.perf_counter(), _busy_seconds())

    def share(self, own_seconds: float) -> float:
        """Share of all processors that others have used since, 0 to 1.

        Args:
            own_seconds: Processor time that what is measured has used.
        """
        capacity = (time.perf_counter() - self.began) * (os.cpu_count() or 1)
        others = _busy_seconds() - self.busy - own_seconds
        return min(max(others / max(capacity, 1 / _TICK), 0.0), 1.0)


class Patience:
    """How long one figure may wait for a quiet machine.

    Args:
        seconds: Altogether; 0 takes the machine as it is.
    """

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self.repeated = 0

    def wait(self) -> None:
        """Come back when others leave the processors alone, or when patience ends."""
        quiet = 0
        while quiet < _WINDOWS and time.monotonic() < self._until:
            watch = Watch.begin()
            time.sleep(_WINDOW_SECONDS)
            quiet = quiet + 1 if watch.share(0) < _QUIET else 0

    def again(self, share: float) -> bool:
        """Whether to repeat what others disturbed with this share of the processors."""
        if share <= _DISTURBED or time.monotonic() >= self._until:
            return False
        self.repeated += 1
        return True


def descendants_seconds() -> float:
    """Processor time of this process and its living descendants."""
    times: dict[int, tuple[int, float]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended
            times[int(folder.name)] = (int(fields[1]), (int(fields[11]) + int(fields[12])) / _TICK)
    ours = {os.getpid()}
    while more := {pid for pid, (parent, _) in times.items() if parent in ours} - ours:
        ours |= more
    return sum(times[pid][1] for pid in ours if pid in times)


def _busy_seconds() -> float:
    """All but idle and waiting for a disk; time stolen by a hypervisor counts as busy."""
    fields = [int(field) for field in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICK
