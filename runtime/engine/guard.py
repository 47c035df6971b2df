"""Limits around code that a model file brings along: time and memory of its chat template.

Jinja's sandbox keeps a template from reaching the interpreter, not from asking for ten to the ninth
spaces or looping for ever. Both limits are the kernel's, so no filter or operator slips past them.
"""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final, TypeVar

from schemas import limits
from schemas.errors import MalformedModel, SandboxUnavailable

T = TypeVar("T")

_STATM: Final = Path("/proc/self/statm")
_STATM_DATA_FIELD: Final = 5  # proc(5): data + stack, in pages
_STATM_BYTES: Final = 256


class _TimeUp(BaseException):
    """Not an ``Exception``: nothing in between may take it for an ordinary failure."""


class Guard:
    """Runs work of a template within limits. To be used from the main thread.

    Stage one is a timer whose signal raises in the interpreter. Stage two, at twice the time, is
    for a single call in C that never comes back to the interpreter: its signal ends the process.

    Args:
        seconds: Processor time for one :meth:`run`.
        memory: Bytes that one :meth:`run` may add to the process.
    """

    def __init__(
        self,
        *,
        seconds: float = limits.TEMPLATE_SECONDS,
        memory: int = limits.TEMPLATE_MEMORY,
    ) -> None:
        self._seconds = seconds
        self._memory = memory
        self._armed = False

    def run(self, work: Callable[[], T]) -> T:
        """Call ``work`` within the limits.

        Raises:
            MalformedModel: It took too much time or memory, or recursed too deeply.
            SandboxUnavailable: The limits cannot be set; ``work`` was not called.
        """
        before = resource.getrlimit(resource.RLIMIT_DATA)
        handler = signal.signal(signal.SIGVTALRM, self._time_up)
        try:
            self._limit_memory(before[1])
            self._armed = True
            signal.setitimer(signal.ITIMER_PROF, 2 * self._seconds)
            signal.setitimer(signal.ITIMER_VIRTUAL, self._seconds)
            return work()
        except _TimeUp:
            raise _exhausted("time", f"more than {self._seconds} s of processor time") from None
        except MemoryError:
            raise _exhausted("memory", f"more than {self._memory} bytes") from None
        except RecursionError:
            raise _exhausted("depth", "it calls itself without end") from None
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGVTALRM, handler)
            resource.setrlimit(resource.RLIMIT_DATA, before)

    def _limit_memory(self, hard: int) -> None:
        try:
            with _STATM.open("rb") as file:
                pages = int(file.read(_STATM_BYTES).split()[_STATM_DATA_FIELD])
            soft = pages * resource.getpagesize() + self._memory
            if hard != resource.RLIM_INFINITY:
                soft = min(soft, hard)
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        except (OSError, ValueError) as error:
            raise SandboxUnavailable(
                "a template's memory cannot be limited", why=str(error)
            ) from error

    def _time_up(self, _number: int, _frame: FrameType | None) -> None:
        if self._armed:
            raise _TimeUp


def _exhausted(what: str, why: str) -> MalformedModel:
    return MalformedModel(
        f"the model's chat template takes too much {what}",
        why=why,
        hint="Give another template, or a raw prompt.",
    )
