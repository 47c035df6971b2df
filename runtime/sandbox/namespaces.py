"""An empty network namespace: not even a loopback device that is up. See namespaces(7)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from runtime.sandbox.kernel import errno_name, unshare

_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000


def enter_empty_network() -> str:
    """Leave the host's network for a new, empty one. Needs a single-threaded process.

    With the privilege for it the network alone is new; without it a user namespace is made as
    well, in which this user maps to itself, so files keep their owners.

    Returns:
        What was reached, for people: ``empty network namespace`` or ``refused: …``. Containers
        often refuse; seccomp then carries the denial alone.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(_CLONE_NEWNET)
    except OSError:
        pass
    else:
        return "empty network namespace"
    try:
        unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    except OSError as error:
        return f"refused: {error.strerror} ({errno_name(error)})"
    return "empty network namespace, own user namespace" + _map_user(uid, gid)


def _map_user(uid: int, gid: int) -> str:
    """One line each, user_namespaces(7); unmapped, files still open but show as ``nobody``."""
    try:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1", encoding="ascii")
    except OSError as error:
        return f" (user not mapped: {errno_name(error)})"
    return ""
