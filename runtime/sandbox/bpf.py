"""A table of rules in, a seccomp program out. Pure: no system call is made here.

Sources: ``linux/bpf_common.h`` and ``linux/seccomp.h`` for the encodings, seccomp(2) and
``Documentation/userspace-api/seccomp_filter.rst`` for the meaning. The program is a straight line
of blocks, one per system call, each ending in a return: longer than a search tree, but readable,
and the kernel caches the calls that are always allowed (Linux 5.11).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from runtime.sandbox.syscalls import ARCHITECTURES, Architecture

# struct sock_filter: u16 code, u8 jt, u8 jf, u32 k; BPF_MAXINSNS in linux/bpf_common.h.
_INSTRUCTION: Final = struct.Struct("<HBBI")
MAX_INSTRUCTIONS: Final = 4096

LD_W_ABS: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
AND_K: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
JEQ_K: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JGT_K: Final = 0x25  # BPF_JMP | BPF_JGT | BPF_K
JGE_K: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
RET_K: Final = 0x06  # BPF_RET | BPF_K

# Offsets in struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6].
_NR: Final = 0
_ARCH: Final = 4
_ARGS: Final = 16
_LOW: Final = 0xFFFFFFFF

_EPERM: Final = 1
_ENOSYS: Final = 38


class Action(IntEnum):
    """``SECCOMP_RET_*`` with its data (``linux/seccomp.h``)."""

    ALLOW = 0x7FFF0000
    REFUSE = 0x00050000 | _EPERM
    UNKNOWN = 0x00050000 | _ENOSYS
    KILL = 0x80000000


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds where ``args[index] & mask == value``; args are unsigned 64-bit.

    The kernel reads ``int`` arguments from the low half of the register only, so conditions on
    them must leave the high half out of the mask: :data:`INT` does.
    """

    index: int
    mask: int
    value: int

    def __post_init__(self) -> None:
        if not 0 <= self.index <= 5:
            raise ValueError(f"a system call has arguments 0 to 5, not {self.index}")
        if not 0 < self.mask < 1 << 64 or self.value & ~self.mask:
            raise ValueError(f"value {self.value:#x} is outside mask {self.mask:#x}")


INT: Final = _LOW
WHOLE: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to ``call`` where all of ``when`` hold."""

    call: str
    action: Action
    when: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        if not any(self.call in arch.numbers for arch in ARCHITECTURES.values()):
            raise ValueError(f"no architecture has a system call {self.call!r}")


@dataclass(frozen=True, slots=True)
class Policy:
    """Ordered rules; the first that fits decides; where none does: :attr:`default`.

    A foreign instruction set or numbering kills the process whatever the rules say, and a call
    newer than the table is answered as an older kernel would (ENOSYS).
    """

    name: str
    rules: tuple[Rule, ...]
    default: Action = Action.REFUSE

    def __post_init__(self) -> None:
        if not self.rules:
            raise ValueError("a policy without rules lets nothing run")

    def calls(self) -> tuple[str, ...]:
        """The names that rules exist for, in order of first mention."""
        return tuple(dict.fromkeys(rule.call for rule in self.rules))


@dataclass(frozen=True, slots=True)
class Instruction:
    """One ``struct sock_filter``; jumps are relative to the next instruction."""

    code: int
    jt: int
    jf: int
    k: int

    def __post_init__(self) -> None:
        if not (0 <= self.jt <= 255 and 0 <= self.jf <= 255 and 0 <= self.k <= _LOW):
            raise ValueError(f"field out of range in {self.code:#x} {self.jt} {self.jf} {self.k}")


def compile_policy(policy: Policy, arch: Architecture) -> tuple[Instruction, ...]:
    """Translate ``policy`` for ``arch``; rules for calls that it lacks are left out.

    Raises:
        ValueError: The program is longer than the kernel takes.
    """
    program = _preamble(arch)
    for call in policy.calls():
        if call in arch.numbers:
            body = _block([rule for rule in policy.rules if rule.call == call], policy.default)
            program.append(Instruction(JEQ_K, 0, len(body), arch.numbers[call]))
            program.extend(body)
    program.append(_ret(policy.default))
    if len(program) > MAX_INSTRUCTIONS:
        raise ValueError(f"{len(program)} instructions, the kernel takes {MAX_INSTRUCTIONS}")
    return tuple(program)


def assemble(program: Sequence[Instruction]) -> bytes:
    """The bytes of ``struct sock_filter[]``, 8 per instruction."""
    return b"".join(_INSTRUCTION.pack(i.code, i.jt, i.jf, i.k) for i in program)


def _preamble(arch: Architecture) -> list[Instruction]:
    """Kill what is foreign, leave the call number in the accumulator, answer what is too new."""
    program = [
        Instruction(LD_W_ABS, 0, 0, _ARCH),
        Instruction(JEQ_K, 1, 0, arch.audit),
        _ret(Action.KILL),
        Instruction(LD_W_ABS, 0, 0, _NR),
    ]
    if arch.foreign_from is not None:
        program += [Instruction(JGE_K, 0, 1, arch.foreign_from), _ret(Action.KILL)]
    program += [Instruction(JGT_K, 0, 1, arch.last), _ret(Action.UNKNOWN)]
    return program


def _block(rules: Sequence[Rule], default: Action) -> list[Instruction]:
    """The verdict on one call; always returns, for it overwrites the accumulator."""
    block: list[Instruction] = []
    for rule in rules:
        block += _conditional(rule)
        if not rule.when:
            return block
    return [*block, _ret(default)]


def _conditional(rule: Rule) -> list[Instruction]:
    tests = [test for condition in rule.when for test in _halves(condition)]
    body: list[Instruction] = []
    # Built from the end, so that the distance to the next rule is known.
    for offset, mask, value in reversed(tests):
        after = len(body) + 1
        test = [Instruction(LD_W_ABS, 0, 0, offset)]
        if mask != _LOW:
            test.append(Instruction(AND_K, 0, 0, mask))
        test.append(Instruction(JEQ_K, 0, after, value))
        body = test + body
    return [*body, _ret(rule.action)]


def _halves(condition: Condition) -> list[tuple[int, int, int]]:
    """(offset, mask, value) of the 32-bit tests that make up one condition, little-endian."""
    base = _ARGS + 8 * condition.index
    low = (base, condition.mask & _LOW, condition.value & _LOW)
    high = (base + 4, condition.mask >> 32, condition.value >> 32)
    return [half for half in (low, high) if half[1]]


def _ret(action: Action) -> Instruction:
    return Instruction(RET_K, 0, 0, int(action))
