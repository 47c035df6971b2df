"""Waiting for what another process does, with a deadline that a busy machine cannot miss."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import psutil

_SECONDS: Final = 30.0


def eventually(condition: Callable[[], bool], seconds: float = _SECONDS) -> None:
    """Return as soon as it holds; fail the test if it does not within ``seconds``."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it never came true"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether a process has ended, waited for or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
