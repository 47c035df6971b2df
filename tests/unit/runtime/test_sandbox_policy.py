"""What the two policies say about calls that matter, and the tables that number them."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.sandbox.bpf import Action, Policy
from runtime.sandbox.egress import EgressAttempt
from runtime.sandbox.landlock import READ, Grant
from runtime.sandbox.policy import front_end_policy, worker_policy
from runtime.sandbox.report import SandboxReport
from runtime.sandbox.surroundings import interpreter_grants
from runtime.sandbox.syscalls import AARCH64, ARCHITECTURES, X86_64, Architecture, current
from schemas.errors import SandboxUnavailable

PID = 4242
WORKER = worker_policy(PID)
FRONT_END = front_end_policy(PID)

# Ways out, ways into other processes, and kernel interfaces with a history.
_NEVER = """
socket connect bind listen sendmmsg recvmmsg execve execveat fork vfork unshare setns ptrace
process_vm_readv process_vm_writev process_madvise pidfd_open pidfd_getfd pidfd_send_signal
tkill rt_sigqueueinfo rt_tgsigqueueinfo io_uring_setup io_uring_enter io_uring_register io_setup
io_submit bpf perf_event_open userfaultfd keyctl add_key request_key mount umount2 move_mount
open_tree fsopen fsconfig fsmount fspick mount_setattr pivot_root chroot name_to_handle_at
open_by_handle_at kexec_load kexec_file_load init_module finit_module delete_module
iopl ioperm modify_ldt reboot swapon swapoff setuid setgid setresuid setresgid setgroups setfsuid
capset setrlimit personality seccomp memfd_create memfd_secret pkey_mprotect shmget shmat msgget
semget mq_open fanotify_init inotify_init1 mknod mknodat symlink symlinkat chown fchownat lchown
quotactl syslog acct settimeofday clock_settime adjtimex sethostname splice tee vmsplice kcmp
landlock_restrict_self migrate_pages move_pages remap_file_pages uselib nfsservctl
"""
NEVER = set(_NEVER.split())

_WORKER_NEVER = """
accept accept4 creat rename renameat2 mkdir mkdirat rmdir unlink unlinkat link linkat chmod fchmod
fchmodat truncate ftruncate fallocate pwrite64 flock utimensat copy_file_range sendfile
"""
WORKER_NEVER = set(_WORKER_NEVER.split())


def verdict(policy: Policy, call: str, *args: int) -> Action:
    padded = (*args, *([0] * (6 - len(args))))
    for rule in policy.rules:
        if rule.call == call and all(padded[c.index] & c.mask == c.value for c in rule.when):
            return rule.action
    return policy.default


def named(policy: Policy) -> set[str]:
    return {rule.call for rule in policy.rules}


@pytest.mark.parametrize("policy", [WORKER, FRONT_END], ids=lambda policy: policy.name)
def test_what_is_never_allowed_has_no_rule(policy: Policy) -> None:
    known = set(X86_64.numbers) | set(AARCH64.numbers)
    assert known >= NEVER
    assert not NEVER & named(policy)
    assert policy.default is Action.REFUSE


def test_the_worker_changes_no_file_and_accepts_nobody() -> None:
    assert not WORKER_NEVER & named(WORKER)


def test_the_worker_may_ask_for_the_processors_tiles_and_for_nothing_like_it() -> None:
    assert verdict(WORKER, "arch_prctl", 0x1023, 18) is Action.ALLOW
    assert verdict(WORKER, "arch_prctl", 0x1023, 19) is Action.REFUSE
    assert verdict(WORKER, "arch_prctl", 0x1002, 18) is Action.REFUSE  # ARCH_SET_FS
    assert verdict(FRONT_END, "arch_prctl", 0x1023, 18) is Action.REFUSE


@pytest.mark.parametrize("policy", [WORKER, FRONT_END], ids=lambda policy: policy.name)
@pytest.mark.parametrize(
    ("call", "args", "action"),
    [
        ("clone", (0x3D0F00,), Action.ALLOW),  # what glibc's pthread_create passes
        ("clone", (0x3D0F00 | 1 << 32,), Action.ALLOW),  # the kernel reads the low half
        ("clone", (0x3D0F00 | 0x40000000,), Action.REFUSE),  # CLONE_NEWNET
        ("clone", (0x3D0F00 | 0x10000000,), Action.REFUSE),  # CLONE_NEWUSER
        ("clone", (17,), Action.REFUSE),  # fork: SIGCHLD alone
        ("clone", (0x4111,), Action.REFUSE),  # vfork: CLONE_VM | CLONE_VFORK | SIGCHLD
        ("clone3", (0, 0), Action.UNKNOWN),
        ("openat2", (0, 0), Action.UNKNOWN),
        ("sendto", (3, 9, 1, 0, 0), Action.ALLOW),
        ("sendto", (3, 9, 1, 0x4000, 0), Action.ALLOW),  # MSG_NOSIGNAL
        ("sendto", (3, 9, 1, 0x20000000, 0), Action.REFUSE),  # MSG_FASTOPEN
        ("sendto", (3, 9, 1, 0, 0x7FFF00000000), Action.REFUSE),  # an address
        ("sendto", (3, 9, 1, 0, 1), Action.REFUSE),
        ("sendmsg", (3, 9, 0), Action.ALLOW),
        ("sendmsg", (3, 9, 0x20000000), Action.REFUSE),
        ("socketpair", (1, 1 | 0o2000000), Action.ALLOW),
        ("socketpair", (1, 2), Action.REFUSE),  # SOCK_DGRAM may address others
        ("socketpair", (1, 5), Action.REFUSE),
        ("socketpair", (2, 1), Action.REFUSE),
        ("socketpair", (1 | 1 << 32, 1), Action.ALLOW),  # an int: the kernel drops the high half
        ("socketpair", (30, 1), Action.REFUSE),  # AF_TIPC
        ("kill", (PID, 6), Action.ALLOW),
        ("kill", (0, 9), Action.REFUSE),
        ("kill", (0xFFFFFFFF, 9), Action.REFUSE),
        ("kill", (1, 0), Action.REFUSE),
        ("tgkill", (PID, PID, 6), Action.ALLOW),
        ("tgkill", (1, 1, 6), Action.REFUSE),
        ("ioctl", (1, 0x5401), Action.ALLOW),
        ("ioctl", (1, 0x5412), Action.REFUSE),  # TIOCSTI
        ("ioctl", (1, 0x5412 | 1 << 32), Action.REFUSE),  # CVE-2017-5226's second half
        ("ioctl", (3, 0x8933), Action.REFUSE),  # SIOCGIFINDEX
        ("prctl", (15,), Action.ALLOW),
        ("prctl", (4, 1), Action.REFUSE),  # PR_SET_DUMPABLE
        ("prctl", (0x59616D61,), Action.REFUSE),  # PR_SET_PTRACER
        ("prlimit64", (0, 3, 0, 0x7000), Action.ALLOW),
        ("prlimit64", (0, 3, 0x7000, 0), Action.REFUSE),
        ("prlimit64", (1, 3, 0, 0x7000), Action.REFUSE),
        ("fcntl", (3, 4), Action.ALLOW),
        ("fcntl", (3, 8), Action.REFUSE),  # F_SETOWN
        ("setsockopt", (3, 6, 1), Action.ALLOW),  # TCP_NODELAY
        ("setsockopt", (3, 6, 30), Action.REFUSE),  # TCP_FASTOPEN_CONNECT
        ("setsockopt", (3, 6, 19), Action.REFUSE),  # TCP_REPAIR
        ("setsockopt", (3, 1, 50), Action.REFUSE),  # SO_ATTACH_BPF
        ("setsockopt", (3, 0, 1), Action.REFUSE),
    ],
)
def test_arguments_decide(policy: Policy, call: str, args: tuple[int, ...], action: Action) -> None:
    assert verdict(policy, call, *args) is action


@pytest.mark.parametrize(
    "flags", [os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_APPEND, os.O_TMPFILE]
)
def test_only_the_front_end_opens_for_writing(flags: int) -> None:
    assert verdict(WORKER, "openat", 0, 0, flags) is Action.REFUSE
    assert verdict(WORKER, "open", 0, flags) is Action.REFUSE
    assert verdict(FRONT_END, "openat", 0, 0, flags) is Action.ALLOW


def test_the_worker_opens_for_reading() -> None:
    assert verdict(WORKER, "openat", 0, 0, os.O_RDONLY | os.O_CLOEXEC) is Action.ALLOW
    assert verdict(WORKER, "openat", 0, 0, os.O_DIRECTORY | os.O_NOFOLLOW) is Action.ALLOW


@given(st.integers(0, (1 << 32) - 1))
def test_no_other_process_is_ever_signalled(pid: int) -> None:
    expected = Action.ALLOW if pid == PID else Action.REFUSE
    assert verdict(WORKER, "kill", pid, 9) is expected
    assert verdict(FRONT_END, "tgkill", pid, pid, 9) is expected


@pytest.mark.parametrize(
    ("arch", "numbers"),
    [
        (
            X86_64,
            {
                "read": 0, "mmap": 9, "socket": 41, "connect": 42, "clone": 56, "execve": 59,
                "ptrace": 101, "prctl": 157, "gettid": 186, "futex": 202, "openat": 257,
                "unshare": 272, "accept4": 288, "prlimit64": 302, "seccomp": 317, "bpf": 321,
                "rseq": 334,
            },
        ),
        (
            AARCH64,
            {
                "io_setup": 0, "openat": 56, "read": 63, "futex": 98, "ptrace": 117, "prctl": 167,
                "gettid": 178, "socket": 198, "connect": 203, "clone": 220, "execve": 221,
                "mmap": 222, "accept4": 242, "wait4": 260, "prlimit64": 261, "seccomp": 277,
                "bpf": 280, "rseq": 293, "kexec_file_load": 294,
            },
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)  # fmt: skip
def test_numbers_of_the_kernel_tables(arch: Architecture, numbers: dict[str, int]) -> None:
    assert {name: arch.numbers[name] for name in numbers} == numbers


def test_numbers_from_424_on_are_common() -> None:
    expected = {
        "pidfd_send_signal": 424, "io_uring_setup": 425, "clone3": 435, "close_range": 436,
        "openat2": 437, "pidfd_getfd": 438, "faccessat2": 439, "landlock_create_ruleset": 444,
        "landlock_restrict_self": 446, "memfd_secret": 447, "mseal": 462,
    }  # fmt: skip
    for arch in ARCHITECTURES.values():
        assert {name: arch.numbers[name] for name in expected} == expected
        assert len(set(arch.numbers.values())) == len(arch.numbers)


def test_this_machine_is_known() -> None:
    assert current() is ARCHITECTURES[os.uname().machine]


def test_other_machines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.uname()
    other = os.uname_result((*real[:4], "riscv64"))
    monkeypatch.setattr(os, "uname", lambda: other)
    with pytest.raises(SandboxUnavailable, match="riscv64"):
        current()


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SandboxUnavailable, match="64-bit Linux"):
        current()


def test_no_report_without_a_filter() -> None:
    with pytest.raises(ValueError, match="not confined"):
        SandboxReport("worker", "", "", "off", True, "none")
    with pytest.raises(ValueError, match="not confined"):
        SandboxReport("worker", "", "", "enforced, 1 rules", False, "none")


def test_documents() -> None:
    report = SandboxReport("worker", "a", "ABI 7", "enforced, 9 rules", True, "none")
    assert report.document() == {
        "process": "worker",
        "namespace": "a",
        "landlock": "ABI 7",
        "seccomp": "enforced, 9 rules",
        "noNewPrivs": True,
        "capabilities": "none",
    }
    assert EgressAttempt("tcp", "x", "refused", "EPERM").document() == {
        "kind": "tcp",
        "target": "x",
        "outcome": "refused",
        "errno": "EPERM",
    }


def test_grants_are_absolute_and_known(tmp_path: os.PathLike[str]) -> None:
    path = next(iter(interpreter_grants())).path
    with pytest.raises(ValueError, match="not absolute"):
        Grant(path.relative_to("/"), READ)
    with pytest.raises(ValueError, match="rights"):
        Grant(path, 0)
    with pytest.raises(ValueError, match="rights"):
        Grant(path, 1)  # to execute: never


def test_the_interpreter_is_granted_nothing_wide() -> None:
    paths = {str(grant.path) for grant in interpreter_grants() if grant.rights == READ}
    assert not paths & {
        "/",
        "/etc",
        "/home",
        "/proc",
        "/proc/self",
        "/root",
        "/sys",
        "/tmp",
        "/usr",
    }
