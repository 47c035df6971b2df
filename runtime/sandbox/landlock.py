"""File access by path, as far as the kernel's Landlock goes. See landlock(7).

Sources: ``linux/landlock.h`` and ``Documentation/userspace-api/landlock.rst`` (what each ABI
added). No right to execute is ever given: it concerns execve, not the mapping of libraries.
Landlock is no network boundary by itself (it knows TCP only), so seccomp stays mandatory.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.sandbox.kernel import errno_name, syscall
from runtime.sandbox.syscalls import Architecture
from schemas.errors import NotFound

_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_REMOVE_DIR: Final = 1 << 4
_REMOVE_FILE: Final = 1 << 5
_MAKE_DIR: Final = 1 << 7
_MAKE_REG: Final = 1 << 8
_REFER: Final = 1 << 13  # ABI 2: rename and link between folders
_TRUNCATE: Final = 1 << 14  # ABI 3
# ABI → how many of the access bits, counted from 0, that kernel knows.
_FS_BITS: Final = {1: 13, 2: 14, 3: 15, 4: 15}
_FS_BITS_NEWEST: Final = 16  # ABI 5: ioctl on devices
_NET_TCP: Final = 0b11  # ABI 4: bind and connect of TCP
_SCOPES: Final = 0b11  # ABI 6: abstract Unix sockets and signals to outside
_ON_FILES: Final = _WRITE_FILE | _READ_FILE | _TRUNCATE

_CONNECT_TCP: Final = 1 << 1

_CREATE_RULESET_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1
_RULE_NET_PORT: Final = 2
_RULE: Final = struct.Struct("<Qi")  # struct landlock_path_beneath_attr, packed
_PORT: Final = struct.Struct("<QQ")  # struct landlock_net_port_attr

READ: Final = _READ_FILE | _READ_DIR
LIST: Final = _READ_DIR
WRITE_FILE: Final = _READ_FILE | _WRITE_FILE | _TRUNCATE
WRITE: Final = READ | WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER


@dataclass(frozen=True, slots=True)
class Grant:
    """Rights on a path and what lies under it.

    Attributes:
        path: A file or folder.
        rights: One of :data:`READ`, :data:`LIST`, :data:`WRITE_FILE`, :data:`WRITE`.
        required: A missing path is an error; otherwise it is passed over.
    """

    path: Path
    rights: int
    required: bool = False

    def __post_init__(self) -> None:
        if not self.path.is_absolute():
            raise ValueError(f"{self.path} is not absolute")
        if not self.rights or self.rights & ~WRITE:
            raise ValueError(f"no such rights: {self.rights:#x}")


def version(arch: Architecture) -> int:
    """The kernel's Landlock ABI, 0 where it is missing or switched off."""
    number = arch.numbers["landlock_create_ruleset"]
    try:
        return syscall(number, ctypes.c_void_p(None), 0, _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def restrict(grants: Iterable[Grant], arch: Architecture, *, port: int | None = None) -> str:
    """Confine this thread, and those it starts, to ``grants``; no TCP, no signals to others.

    ``no_new_privs`` must be set.

    Args:
        grants: Files and folders.
        arch: Of this process.
        port: The one TCP port that may be connected to, as far as the kernel looks (ABI 4).

    Returns:
        ``ABI 7``, ``unavailable`` or ``refused: …``.

    Raises:
        NotFound: A required path is not there.
    """
    wanted = list(grants)
    abi = version(arch)
    if abi == 0:
        _check_present(wanted)
        return "unavailable"
    if abi == 1 and any(grant.rights & _REFER for grant in wanted):
        return "refused: ABI 1 cannot move files between folders"
    try:
        ruleset = _create(abi, arch)
    except OSError as error:
        return f"refused: {errno_name(error)}"
    try:
        for grant in wanted:
            _add(ruleset, grant, _handled(abi), arch)
        if port is not None and abi >= 4:
            rule = ctypes.c_char_p(_PORT.pack(_CONNECT_TCP, port))
            syscall(arch.numbers["landlock_add_rule"], ruleset, _RULE_NET_PORT, rule, 0)
        syscall(arch.numbers["landlock_restrict_self"], ruleset, 0)
    except OSError as error:
        return f"refused: {errno_name(error)}"
    finally:
        os.close(ruleset)
    return f"ABI {abi}"


def _handled(abi: int) -> int:
    return (1 << _FS_BITS.get(abi, _FS_BITS_NEWEST)) - 1


def _create(abi: int, arch: Architecture) -> int:
    """Handle every access this ABI knows; ``struct landlock_ruleset_attr`` grew with it."""
    fields = [_handled(abi)]
    if abi >= 4:
        fields.append(_NET_TCP)
    if abi >= 6:
        fields.append(_SCOPES)
    attributes = struct.pack(f"<{len(fields)}Q", *fields)
    return syscall(
        arch.numbers["landlock_create_ruleset"], ctypes.c_char_p(attributes), len(attributes), 0
    )


def _add(ruleset: int, grant: Grant, handled: int, arch: Architecture) -> None:
    try:
        descriptor = os.open(grant.path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        _require(grant, error)
        return
    try:
        rights = grant.rights & handled
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _ON_FILES
        if rights:
            rule = ctypes.c_char_p(_RULE.pack(rights, descriptor))
            syscall(arch.numbers["landlock_add_rule"], ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        # A rule names an inode, and procfs makes a new one once its name falls out of the cache.
        # The open descriptor, which itself can read nothing, keeps it there.
        if grant.path.parts[1:2] != ("proc",):
            os.close(descriptor)


def _check_present(grants: Iterable[Grant]) -> None:
    for grant in grants:
        try:
            grant.path.stat()
        except OSError as error:
            _require(grant, error)


def _require(grant: Grant, error: OSError) -> None:
    if grant.required:
        raise NotFound(
            f"a confined process needs {grant.path}",
            why=error.strerror or errno_name(error),
            hint="Check that the path exists and that the service's user may read it.",
        ) from error
