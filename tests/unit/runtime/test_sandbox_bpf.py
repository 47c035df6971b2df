"""The compiled filter against the meaning of its rules, run by a small interpreter."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.sandbox.bpf import (
    INT,
    WHOLE,
    Action,
    Condition,
    Instruction,
    Policy,
    Rule,
    assemble,
    compile_policy,
)
from runtime.sandbox.policy import front_end_policy, quantizer_policy, worker_policy
from runtime.sandbox.syscalls import AARCH64, X86_64, Architecture

ARCHES = (X86_64, AARCH64)
PID = 4242


@dataclass(frozen=True)
class Call:
    number: int
    audit: int
    args: tuple[int, int, int, int, int, int]

    def data(self) -> bytes:
        """``struct seccomp_data``, little-endian."""
        return struct.pack("<IIQ6Q", self.number & INT, self.audit, 0xDEAD, *self.args)


def run_program(code: bytes, call: Call) -> int:
    """Classic BPF as seccomp allows it: the kernel's ``bpf_check_classic`` subset we emit."""
    data = call.data()
    program = list(struct.iter_unpack("<HBBI", code))
    accumulator = at = 0
    while True:
        op, jt, jf, k = program[at]
        at += 1
        if op == 0x20:
            assert k % 4 == 0
            assert k + 4 <= len(data)
            accumulator = int.from_bytes(data[k : k + 4], "little")
        elif op == 0x54:
            accumulator &= k
        elif op == 0x15:
            at += jt if accumulator == k else jf
        elif op == 0x25:
            at += jt if accumulator > k else jf
        elif op == 0x35:
            at += jt if accumulator >= k else jf
        elif op == 0x06:
            return int(k)
        else:
            raise AssertionError(f"instruction {op:#x} is not one of ours")


def meaning(policy: Policy, arch: Architecture, call: Call) -> Action:
    """What the table says, written without regard to how it is compiled."""
    number = call.number & INT
    if call.audit != arch.audit:
        return Action.KILL
    if arch is X86_64 and number >= 0x40000000:
        return Action.KILL
    if number > max(arch.numbers.values()):
        return Action.UNKNOWN
    names = {name for name, value in arch.numbers.items() if value == number}
    for rule in policy.rules:
        if rule.call in names and all(call.args[c.index] & c.mask == c.value for c in rule.when):
            return rule.action
    return policy.default


numbers = st.one_of(
    st.integers(0, 480),
    st.integers(0, INT),
    st.sampled_from([-1, 0x3FFFFFFF, 0x40000000, 0x40000029]),
)
# Values near those that rules look at, alone and with dirt in the high half.
words = st.one_of(
    st.integers(0, WHOLE),
    st.sampled_from([0, 1, 2, 3, 6, 7, PID, 0o100, 0x541B, 0x5412, 0x10000, 0x20000000, 0x3D0F00]),
    st.sampled_from([0, 1, 6, PID]).map(lambda low: low | 1 << 32),
    st.integers(0, 63).map(lambda bit: 1 << bit),
)
arguments = st.tuples(words, words, words, words, words, words)


@st.composite
def calls(draw: st.DrawFn, arch: Architecture) -> Call:
    audit = draw(st.sampled_from([arch.audit, arch.audit, arch.audit, 0x40000003, 0x40000028, 0]))
    return Call(draw(numbers), audit, draw(arguments))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    names = st.sampled_from(["read", "openat", "socket", "clone", "open", "mmap", "cachestat"])
    masks = st.sampled_from([1, 3, INT, 0xFF00, WHOLE, INT << 32, 1 << 32 | 1])

    @st.composite
    def conditions(inner: st.DrawFn) -> Condition:
        mask = inner(masks)
        return Condition(inner(st.integers(0, 5)), mask, inner(words) & mask)

    rules = st.builds(
        Rule,
        names,
        st.sampled_from(Action),
        st.lists(conditions(), max_size=3).map(tuple),
    )
    default = draw(st.sampled_from(Action))
    return Policy("any", tuple(draw(st.lists(rules, min_size=1, max_size=12))), default)


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
@pytest.mark.parametrize("make", [worker_policy, front_end_policy, quantizer_policy])
@given(data=st.data())
def test_program_means_what_the_policy_says(
    data: st.DataObject, arch: Architecture, make: Callable[[int], Policy]
) -> None:
    policy = make(PID)
    call = data.draw(calls(arch))
    code = assemble(compile_policy(policy, arch))
    assert run_program(code, call) == meaning(policy, arch, call)


@given(data=st.data(), policy=policies(), arch=st.sampled_from(ARCHES))
def test_program_means_what_any_table_says(
    data: st.DataObject, policy: Policy, arch: Architecture
) -> None:
    call = data.draw(calls(arch))
    # Aim at what the table names most of the time, else nearly every call meets the default.
    named = [arch.numbers[name] for name in policy.calls() if name in arch.numbers]
    number = data.draw(st.sampled_from([call.number, *named, *named]))
    call = Call(number, arch.audit, call.args) if number != call.number else call
    code = assemble(compile_policy(policy, arch))
    assert run_program(code, call) == meaning(policy, arch, call)


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
@pytest.mark.parametrize("make", [worker_policy, front_end_policy, quantizer_policy])
def test_every_call_of_the_table_gets_the_verdict_of_the_policy(
    arch: Architecture, make: Callable[[int], Policy]
) -> None:
    policy = make(PID)
    code = assemble(compile_policy(policy, arch))
    for number in range(arch.last + 3):
        for value in (0, 1, 6, PID, WHOLE):
            call = Call(number, arch.audit, (value,) * 6)
            assert run_program(code, call) == meaning(policy, arch, call)


def test_instruction_bytes_are_those_of_sock_filter() -> None:
    program = (Instruction(0x20, 0, 0, 4), Instruction(0x15, 1, 2, 0xC000003E))
    assert assemble(program) == bytes.fromhex("2000000004000000150001023e0000c0")


def test_a_known_program() -> None:
    policy = Policy("tiny", (Rule("read", Action.ALLOW, (Condition(0, WHOLE, 5),)),))
    program = compile_policy(policy, X86_64)
    assert [(i.code, i.jt, i.jf, i.k) for i in program] == [
        (0x20, 0, 0, 4),
        (0x15, 1, 0, 0xC000003E),
        (0x06, 0, 0, 0x80000000),
        (0x20, 0, 0, 0),
        (0x35, 0, 1, 0x40000000),
        (0x06, 0, 0, 0x80000000),
        (0x25, 0, 1, X86_64.last),
        (0x06, 0, 0, 0x00050026),
        (0x15, 0, 6, 0),
        (0x20, 0, 0, 16),
        (0x15, 0, 3, 5),
        (0x20, 0, 0, 20),
        (0x15, 0, 1, 0),
        (0x06, 0, 0, 0x7FFF0000),
        (0x06, 0, 0, 0x00050001),
        (0x06, 0, 0, 0x00050001),
    ]


def test_the_longest_policy_fits_the_kernel() -> None:
    for arch in ARCHES:
        for policy in (worker_policy(PID), front_end_policy(PID)):
            assert len(compile_policy(policy, arch)) < 1024


def test_a_program_too_long_is_refused() -> None:
    many = tuple(Rule(name, Action.ALLOW, (Condition(0, WHOLE, 1),)) for name in X86_64.numbers)
    per_call = 18
    rules = tuple(
        Rule(rule.call, Action.ALLOW, (Condition(0, WHOLE, value),))
        for rule in many
        for value in range(per_call)
    )
    with pytest.raises(ValueError, match="the kernel takes 4096"):
        compile_policy(Policy("endless", rules), X86_64)


def test_a_block_too_long_for_its_jump_is_refused() -> None:
    rules = tuple(Rule("read", Action.ALLOW, (Condition(0, WHOLE, value),)) for value in range(100))
    with pytest.raises(ValueError, match="out of range"):
        compile_policy(Policy("long", rules), X86_64)


@pytest.mark.parametrize(
    ("index", "mask", "value"), [(-1, 1, 0), (6, 1, 0), (0, 0, 0), (0, 1 << 64, 0), (0, 1, 2)]
)
def test_conditions_that_cannot_hold_are_refused(index: int, mask: int, value: int) -> None:
    with pytest.raises(ValueError, match=r"argument|mask"):
        Condition(index, mask, value)


def test_a_misspelt_call_and_an_empty_policy_are_refused() -> None:
    with pytest.raises(ValueError, match="no architecture"):
        Rule("raed", Action.ALLOW)
    with pytest.raises(ValueError, match="without rules"):
        Policy("empty", ())
