"""An action that dies at every one of its changes to the file system, one after the other."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import pytest

# Python 3.12 warns of threads, of which pytest-timeout has one; the child touches none.
FORKS = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

_CHANGES = ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "shutil.rmtree")


def die_at(operation: int) -> None:
    """Have this process die at its n-th change to the file system, with nothing cleaned up."""
    left = operation

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if writes or event in _CHANGES:
            left -= 1
            if left <= 0:
                os._exit(9)

    sys.addaudithook(hook)


def crashes(
    action: Callable[[], object], prepare: Callable[[], object] = lambda: None
) -> Iterator[int]:
    """Run an action in child processes that die ever later, until one lives.

    Args:
        action: What to do.
        prepare: Done before each child is made, in this process.

    Yields:
        After each child: at which change it died, or would have.
    """
    for operation in range(1, 200):
        prepare()
        child = os.fork()
        if child == 0:
            die_at(operation)
            try:
                action()
            except BaseException:  # noqa: BLE001 - a forked child must not run pytest's handlers
                os._exit(2)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, 9)
        yield operation
        if code == 0:
            return
    pytest.fail("it never ended")
