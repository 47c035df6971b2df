"""Installing a filter, and seeing that it holds. See seccomp(2)."""

from __future__ import annotations

import ctypes
import errno
import socket
from typing import Final

from runtime.sandbox.bpf import Policy, assemble, compile_policy
from runtime.sandbox.kernel import errno_name, syscall
from runtime.sandbox.syscalls import Architecture
from schemas.errors import SandboxUnavailable

# linux/seccomp.h
_SET_MODE_FILTER: Final = 1
_FLAG_TSYNC: Final = 1
_FLAG_SPEC_ALLOW: Final = 4
_INSTRUCTION_BYTES: Final = 8
_HINT: Final = (
    "Use a kernel with CONFIG_SECCOMP_FILTER, and a container runtime that allows seccomp(2)."
)


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install(policy: Policy, arch: Architecture) -> int:
    """Put ``policy`` on every thread of this process, for good, and try it once.

    ``no_new_privs`` must be set. Speculation mitigations are left as the kernel has them: before
    Linux 5.16 a filter alone would switch the store bypass off and slow decoding down.

    Returns:
        The number of rules in force here.

    Raises:
        SandboxUnavailable: No seccomp, refused, or accepted without effect (some emulators).
    """
    load(assemble(compile_policy(policy, arch)), arch)
    _try(policy)
    return sum(rule.call in arch.numbers for rule in policy.rules)


def load(code: bytes, arch: Architecture) -> None:
    """Hand a program to the kernel, for all threads, for good.

    Args:
        code: ``struct sock_filter[]``, 8 bytes per instruction.
        arch: Where we are.

    Raises:
        SandboxUnavailable: No seccomp, or refused.
    """
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // _INSTRUCTION_BYTES, ctypes.addressof(buffer))
    try:
        result = _set_filter(arch, program, _FLAG_TSYNC | _FLAG_SPEC_ALLOW)
    except OSError as error:
        raise SandboxUnavailable(
            "seccomp is not available, and nothing runs without it",
            why=f"the kernel answered {errno_name(error)}",
            hint=_HINT,
        ) from error
    if result:
        raise SandboxUnavailable(
            "seccomp could not be put on every thread",
            why=f"thread {result} has a filter of its own",
            hint="Confine the process before it starts threads.",
        )


def _set_filter(arch: Architecture, program: _Program, flags: int) -> int:
    number = arch.numbers["seccomp"]
    try:
        return syscall(number, _SET_MODE_FILTER, flags, ctypes.byref(program))
    except OSError as error:
        if error.errno != errno.EINVAL or not flags & _FLAG_SPEC_ALLOW:
            raise
    # Linux before 4.17 does not know SPEC_ALLOW.
    return syscall(number, _SET_MODE_FILTER, flags & ~_FLAG_SPEC_ALLOW, ctypes.byref(program))


def _try(policy: Policy) -> None:
    """The one check that cannot be talked round: a socket that no policy allows is refused."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    except PermissionError:
        return
    except OSError as error:
        why = f"a new socket was answered {errno_name(error)}, not EPERM"
    else:
        why = "the kernel took the filter, yet a new socket was still made"
    raise SandboxUnavailable(f"the {policy.name} filter does not hold", why=why, hint=_HINT)
