"""What a worker and a front-end may ask of the kernel. Everything not named here is refused.

An allow-list, so a call nobody thought of (io_uring, bpf, keyctl, the mount family, ptrace,
userfaultfd, perf, pidfd_getfd, process_vm_*, execve, socket, connect …) is refused without being
named. It was drawn from traces of the real engine and the real front-end; groups are whole
families, so that another C library or thread library meets the same list. Argument values:
``linux/sched.h``, ``fcntl.h``, ``prctl.h``, ``socket.h``, ``tcp.h``, ``ioctls.h`` of asm-generic.
"""

from __future__ import annotations

from typing import Final

from runtime.sandbox.bpf import INT, WHOLE, Action, Condition, Policy, Rule

# Not W^X: ctypes callbacks need memory that is both, wherever libffi was built (as Debian's is)
# without static trampolines; one such page would undo the rule for all.
_MEMORY: Final = """
brk mmap mprotect munmap mremap msync mincore madvise mlock mlock2 munlock membarrier
"""
_THREADS: Final = """
futex futex_waitv futex_wake futex_wait futex_requeue set_robust_list get_robust_list rseq
set_tid_address gettid getpid getppid getpgrp getpgid getsid sched_yield sched_getaffinity
sched_getparam sched_getscheduler sched_getattr sched_get_priority_max sched_get_priority_min
getpriority getcpu exit exit_group restart_syscall wait4 waitid
"""
_SIGNALS: Final = """
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack
pause
"""
_TIME: Final = """
clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times getitimer setitimer
alarm getrusage timerfd_create timerfd_settime timerfd_gettime
"""
_IDENTITY: Final = """
uname sysinfo getuid geteuid getgid getegid getresuid getresgid getgroups getrlimit getrandom capget
umask
"""
# Reading, and using what is open already. Opening for writing is another matter: _READ_ONLY below.
_FILES: Final = """
read pread64 readv preadv preadv2 write writev lseek close close_range dup dup2 dup3
stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat
getcwd getdents64 fadvise64 readahead pipe pipe2 eventfd eventfd2
poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
"""
_CONNECTED: Final = """
recvfrom recvmsg shutdown getsockname getpeername getsockopt
"""
_WRITING: Final = """
open openat creat pwrite64 pwritev pwritev2 truncate ftruncate fallocate fsync fdatasync
sync_file_range flock rename renameat renameat2 mkdir mkdirat rmdir unlink unlinkat link linkat
chmod fchmod fchmodat fchmodat2 utime utimes utimensat futimesat copy_file_range sendfile
"""
_ONE_FILE: Final = """
open openat pwrite64 pwritev ftruncate fallocate fsync fdatasync
"""
_SERVING: Final = """
accept accept4
"""

_O_WRITES: Final = 0o3 | 0o100 | 0o1000 | 0o2000 | 0o20000000  # ACCMODE CREAT TRUNC APPEND TMPFILE
_MSG_FASTOPEN: Final = 0x20000000
_AF_UNIX: Final = 1
_AF_INET: Final = 2
_AF_INET6: Final = 10
_SOCK_STREAM: Final = 1
_SOCK_TYPE: Final = 0xF
_CLONE_THREAD: Final = 0x10000
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
_CLONE_NEW: Final = 0x7E020000
_SOL_SOCKET: Final = 1
_IPPROTO_TCP: Final = 6
_SOCKET_OPTIONS: Final = {
    # REUSEADDR, SNDBUF, RCVBUF, KEEPALIVE, LINGER, RCVTIMEO, SNDTIMEO
    _SOL_SOCKET: (2, 7, 8, 9, 13, 20, 21),
    # NODELAY, CORK, KEEPIDLE, KEEPINTVL, KEEPCNT, QUICKACK, USER_TIMEOUT
    _IPPROTO_TCP: (1, 3, 4, 5, 6, 12, 18),
}
# F_DUPFD, GETFD, SETFD, GETFL, SETFL, F_DUPFD_CLOEXEC. Not SETOWN: it can signal others.
_FCNTL: Final = (0, 1, 2, 3, 4, 1030)
# F_GETLK, SETLK, SETLKW, F_OFD_GETLK, OFD_SETLK, OFD_SETLKW: SQLite and lock files.
_FCNTL_LOCKS: Final = (5, 6, 7, 36, 37, 38)
# TCGETS (isatty), TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX. Not TIOCSTI.
_IOCTL: Final = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# PR_GET_DUMPABLE, SET_NAME, GET_NAME, GET_SECCOMP, GET_NO_NEW_PRIVS, PR_SET_VMA.
_PRCTL: Final = (3, 15, 16, 21, 39, 0x53564D41)


def worker_policy(pid: int) -> Policy:
    """The list for a process that decodes tokens: no file opened for writing, no socket made.

    Args:
        pid: The process itself, the only one it may signal (``abort``, ``raise``).
    """
    return Policy("worker", (*_common(pid), *_READ_ONLY, _DATA_LIMIT, _TILES))


def front_end_policy(pid: int) -> Policy:
    """The list for the HTTP front-end: accepts and answers, opens no way out, starts nothing.

    Args:
        pid: The process itself, the only one it may signal.
    """
    return Policy(
        "front-end",
        (*_common(pid), *_allow(_WRITING), *_allow(_SERVING), *_one_of("fcntl", 1, _FCNTL_LOCKS)),
    )


def quantizer_policy(pid: int) -> Policy:
    """The list for a process that writes one file: which one is Landlock's to see.

    Args:
        pid: The process itself, the only one it may signal.
    """
    return Policy("quantizer", (*_common(pid), *_allow(_ONE_FILE)))


def courier_policy(pid: int) -> Policy:
    """The list for the process that connects to the mirror: TCP, and nothing else out.

    Args:
        pid: The process itself, the only one it may signal.
    """
    return Policy("courier", (*_common(pid), *_READ_ONLY, *_TCP, Rule("connect", Action.ALLOW)))


def _allow(names: str) -> tuple[Rule, ...]:
    return tuple(Rule(name, Action.ALLOW) for name in names.split())


def _one_of(call: str, index: int, values: tuple[int, ...]) -> tuple[Rule, ...]:
    """Allow ``call`` for these values of one ``int`` argument."""
    return tuple(Rule(call, Action.ALLOW, (Condition(index, INT, value),)) for value in values)


def _none_set(call: str, index: int, bits: int) -> Rule:
    """Allow ``call`` where none of ``bits`` is set in the argument."""
    return Rule(call, Action.ALLOW, (Condition(index, bits, 0),))


def _common(pid: int) -> tuple[Rule, ...]:
    plain = (_MEMORY, _THREADS, _SIGNALS, _TIME, _IDENTITY, _FILES, _CONNECTED)
    return (
        *(rule for group in plain for rule in _allow(group)),
        *_NEW_THREADS,
        *_MESSAGES,
        *_socket_options(),
        *_one_of("fcntl", 1, _FCNTL),
        *_one_of("ioctl", 1, _IOCTL),
        *_one_of("prctl", 0, _PRCTL),
        *_signals_to_itself(pid),
        # Reading a limit is common (stack size of a thread); setting one is not ours any more.
        Rule("prlimit64", Action.ALLOW, (Condition(0, INT, 0), Condition(2, WHOLE, 0))),
        # Its flags lie behind a pointer. The C library falls back to openat.
        Rule("openat2", Action.UNKNOWN),
    )


# Threads of this process only. clone3 keeps its flags behind a pointer, where no filter can look:
# ENOSYS makes the C library use clone.
_NEW_THREADS: Final = (
    Rule("clone", Action.ALLOW, (Condition(0, _CLONE_THREAD | _CLONE_NEW, _CLONE_THREAD),)),
    Rule("clone3", Action.UNKNOWN),
)
# Messages go where the socket is connected already: no address, no TCP Fast Open (a connect in
# disguise). A datagram socketpair could address any other Unix datagram socket, a stream cannot.
_MESSAGES: Final = (
    Rule("sendto", Action.ALLOW, (Condition(4, WHOLE, 0), Condition(3, _MSG_FASTOPEN, 0))),
    _none_set("sendmsg", 2, _MSG_FASTOPEN),
    Rule(
        "socketpair",
        Action.ALLOW,
        (Condition(0, INT, _AF_UNIX), Condition(1, _SOCK_TYPE, _SOCK_STREAM)),
    ),
)
# A stream over IPv4 or IPv6. Where to is no filter's to see: Landlock holds the port, where it can.
_TCP: Final = tuple(
    Rule(
        "socket",
        Action.ALLOW,
        (Condition(0, INT, family), Condition(1, _SOCK_TYPE, _SOCK_STREAM)),
    )
    for family in (_AF_INET, _AF_INET6)
)
_READ_ONLY: Final = (_none_set("open", 1, _O_WRITES), _none_set("openat", 2, _O_WRITES))
# How much memory it may have is a worker's own to lower and raise again around a chat template
# (RLIMIT_DATA, asm-generic/resource.h); the hard limit stays what it was.
_DATA_LIMIT: Final = Rule("prlimit64", Action.ALLOW, (Condition(0, INT, 0), Condition(1, INT, 2)))
# The processor's AMX registers are given to who asks for them: ARCH_REQ_XCOMP_PERM with
# XFEATURE_XTILEDATA (asm/prctl.h, arch/x86 fpu/types.h). arch_prctl sets nothing else but that.
_TILES: Final = Rule(
    "arch_prctl", Action.ALLOW, (Condition(0, INT, 0x1023), Condition(1, WHOLE, 18))
)


def _socket_options() -> tuple[Rule, ...]:
    return tuple(
        Rule("setsockopt", Action.ALLOW, (Condition(1, INT, level), Condition(2, INT, option)))
        for level, options in _SOCKET_OPTIONS.items()
        for option in options
    )


def _signals_to_itself(pid: int) -> tuple[Rule, ...]:
    return (
        Rule("kill", Action.ALLOW, (Condition(0, INT, pid),)),
        Rule("tgkill", Action.ALLOW, (Condition(0, INT, pid),)),
    )
