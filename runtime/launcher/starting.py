"""How processes start here: with a clean environment, and ending with whoever started them."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PR_SET_NAME: Final = 15
# What a worker inherits of the environment: where libraries are, which GPU it may use.
_KEPT_VARIABLES: Final = (
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "GGML_VK_VISIBLE_DEVICES",
)
_SET_VARIABLES: Final = {
    "LANG": "C.UTF-8",
    # NumPy's library must not start threads before the worker confines itself.
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # Threads that wait for each other at barriers sleep after some 15 us. By default they spin for
    # milliseconds, and two models that are busy at once keep each other from going on: with one
    # client each they made no token per second, and 59 and 58 now (152 alone).
    "GOMP_SPINCOUNT": "300",
}


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends.

    Args:
        parent: The parent's process id, as the parent knows it.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def name_process(name: str) -> None:
    """Have ``ps`` and ``top`` show this process under a name.

    Args:
        name: The kernel keeps its first 15 bytes.
    """
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def clean_environment() -> dict[str, str]:
    """The environment of launcher and workers: nothing but what they need, no secrets."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {**kept, **_SET_VARIABLES}


def start_python(module: str, inherited: socket.socket, *, own_group: bool) -> int:
    """Start ``python -m module FD PARENT`` with one inherited descriptor beside standard error.

    Args:
        module: What to run.
        inherited: The descriptor.
        own_group: Whether a terminal's signals are not for it. Not a session of its own: to the
            kernel a session is one task (``sched_autogroup``, sched(7)), so it finds nothing wrong
            with all threads of a worker on one processor while something else has another one, and
            threads that wait for each other at barriers then take twenty times as long.

    Returns:
        Its process id. The caller waits for it.

    Raises:
        OSError: It could not be started.
    """
    descriptor = inherited.fileno()
    arguments = (str(descriptor), str(os.getpid()))
    # -I: no current folder on the module path, no PYTHON* variables, no user site.
    process = subprocess.Popen(
        [sys.executable, "-I", "-X", "utf8", "-m", module, *arguments],
        env=clean_environment(),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(descriptor,),
        process_group=0 if own_group else None,
    )
    process.returncode = 0  # reaped by whoever called; keeps Popen from waiting or warning
    return process.pid
