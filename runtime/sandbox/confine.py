"""The two ways into the sandbox. Both are one-way, and both end in an enforced filter or an error.

Order matters: descriptors go first, libraries that start threads are tamed before namespaces
(which need a single thread), privileges fall before Landlock and seccomp, and seccomp comes last
because it refuses the calls that the earlier steps are made of.
"""

from __future__ import annotations

import importlib
import os
import resource
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from runtime.sandbox import landlock, seccomp
from runtime.sandbox.bpf import Policy
from runtime.sandbox.kernel import (
    PR_GET_NO_NEW_PRIVS,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    drop_capabilities,
    errno_name,
    no_proc,
    prctl,
    thread_count,
)
from runtime.sandbox.namespaces import enter_empty_network
from runtime.sandbox.policy import (
    courier_policy,
    front_end_policy,
    quantizer_policy,
    worker_policy,
)
from runtime.sandbox.report import Process, SandboxReport
from runtime.sandbox.surroundings import interpreter_grants, web_grants
from runtime.sandbox.syscalls import Architecture, current
from schemas.errors import DependencyMissing, SandboxUnavailable

STANDARD_STREAMS: Final = (0, 1, 2)
_SHARED: Final = "shared with the host"
# Libraries that start threads as they are loaded, each with the variable that stops it.
_SINGLE_THREADED_LOADING: Final = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def confine_worker(
    *,
    readable: Sequence[Path],
    keep_descriptors: Sequence[int],
    preload: Sequence[str] = (),
) -> SandboxReport:
    """Confine the fresh worker process: its model, its libraries, its one socket, nothing else.

    Call it first thing in the process, before threads and before the model is opened. Afterwards
    no file can be opened for writing, no socket made, no process started, no signal sent out.

    Args:
        readable: The model's files, or folders; read-only.
        keep_descriptors: Descriptors to keep beside standard input, output and error: the worker's
            end of the socketpair. All others are closed.
        preload: Modules to import before the gates close: those that open a file for writing as
            they load (llama_cpp opens ``/dev/null``).

    Returns:
        What was reached.

    Raises:
        SandboxUnavailable: No filter, or threads already run. The caller must exit.
        NotFound: A path in ``readable`` is missing.
        DependencyMissing: A module in ``preload`` is missing.
    """
    arch = current()
    namespace, capabilities = _isolate("worker", keep_descriptors, preload, arch)
    grants = [landlock.Grant(p.resolve(), landlock.READ, required=True) for p in readable]
    reached = landlock.restrict([*grants, *interpreter_grants()], arch)
    return _enforce("worker", worker_policy(os.getpid()), arch, namespace, reached, capabilities)


def confine_quantizer(
    *,
    readable: Path,
    writable: Path,
    keep_descriptors: Sequence[int],
    preload: Sequence[str] = (),
) -> SandboxReport:
    """Confine a fresh process that makes one file out of another: as a worker, but for that file.

    Args:
        readable: The one to read.
        writable: The one to write; it must be there.
        keep_descriptors: As in :func:`confine_worker`.
        preload: As there.

    Returns:
        What was reached.

    Raises:
        SandboxUnavailable: No filter, no Landlock, which alone keeps it from other files, or
            threads already run. The caller must exit.
        NotFound: One of the files is missing.
        DependencyMissing: A module in ``preload`` is missing.
    """
    arch = current()
    namespace, capabilities = _isolate("quantizer", keep_descriptors, preload, arch)
    grants = [
        landlock.Grant(readable.resolve(), landlock.READ, required=True),
        landlock.Grant(writable.resolve(), landlock.WRITE_FILE, required=True),
    ]
    reached = landlock.restrict([*grants, *interpreter_grants()], arch)
    if not reached.startswith("ABI"):
        raise SandboxUnavailable(
            "no process can be kept to one file here",
            why=f"Landlock is {reached}",
            hint="Quantize the model with llama.cpp's tools before it is bundled",
        )
    return _enforce(
        "quantizer", quantizer_policy(os.getpid()), arch, namespace, reached, capabilities
    )


def confine_front_end(
    *,
    readable: Sequence[Path] = (),
    writable: Sequence[Path] = (),
    keep_descriptors: Sequence[int] | None = None,
) -> SandboxReport:
    """Confine the HTTP front-end, once its socket listens and before it starts threads.

    Afterwards it accepts and answers, reads and writes under ``writable``, and can neither bind,
    connect, make a socket (a stream socketpair apart) nor start a process. Workers are started by
    a separate launcher, forked before, which passes their sockets as descriptors.

    Args:
        readable: Files or folders to read beside the interpreter's own (certificates, templates).
        writable: Folders to read and write: the home of the store.
        keep_descriptors: Where given, all others but the standard streams are closed.

    Returns:
        What was reached.

    Raises:
        SandboxUnavailable: No filter, threads already run, or a datagram socket is open, over
            which messages could leave. The caller must exit.
        NotFound: A path named is missing.
    """
    arch = current()
    if keep_descriptors is not None:
        _close_others((*STANDARD_STREAMS, *keep_descriptors))
    _demand_single_thread("front-end")
    _demand_no_datagrams()
    capabilities = _give_up_privileges(arch)
    grants = [landlock.Grant(p.resolve(), landlock.READ, required=True) for p in readable]
    grants += [landlock.Grant(p.resolve(), landlock.WRITE, required=True) for p in writable]
    reached = landlock.restrict([*grants, *interpreter_grants(), *web_grants()], arch)
    return _enforce(
        "front-end", front_end_policy(os.getpid()), arch, _SHARED, reached, capabilities
    )


def confine_courier(*, port: int, keep_descriptors: Sequence[int]) -> SandboxReport:
    """Confine the process that connects to the mirror for a front-end that cannot.

    Afterwards it reads the interpreter's files and no others, and makes TCP connections: with
    Landlock ABI 4 to ``port`` alone.

    Args:
        port: The mirror's.
        keep_descriptors: Descriptors to keep beside standard input, output and error.

    Returns:
        What was reached.

    Raises:
        SandboxUnavailable: No filter, or threads already run. The caller must exit.
    """
    arch = current()
    _close_others((*STANDARD_STREAMS, *keep_descriptors))
    _demand_single_thread("courier")
    _demand_no_datagrams()
    capabilities = _give_up_privileges(arch)
    reached = landlock.restrict(interpreter_grants(), arch, port=port)
    return _enforce("courier", courier_policy(os.getpid()), arch, _SHARED, reached, capabilities)


def _isolate(
    process: Process, keep_descriptors: Sequence[int], preload: Sequence[str], arch: Architecture
) -> tuple[str, str]:
    """The first steps of a fresh process that needs no network; the states of two layers."""
    _close_others((*STANDARD_STREAMS, *keep_descriptors))
    _preload(preload)
    _demand_single_thread(process)
    _demand_no_datagrams()
    namespace = enter_empty_network()
    return namespace, _give_up_privileges(arch)


def _enforce(
    process: Process,
    policy: Policy,
    arch: Architecture,
    namespace: str,
    reached: str,
    capabilities: str,
) -> SandboxReport:
    """The last step: the filter, and the report of all."""
    rules = seccomp.install(policy, arch)
    return SandboxReport(
        process=process,
        namespace=namespace,
        landlock=reached,
        seccomp=f"enforced, {rules} rules",
        no_new_privs=prctl(PR_GET_NO_NEW_PRIVS) == 1,
        capabilities=capabilities,
    )


def _give_up_privileges(arch: Architecture) -> str:
    """No core files, no debugger of the same user, no setuid, no capabilities.

    Returns:
        The state of the capabilities, for the report.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        prctl(PR_SET_DUMPABLE, 0)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    except OSError as error:
        raise SandboxUnavailable(
            "privileges cannot be given up for good",
            why=f"prctl answered {errno_name(error)}",
            hint="Use Linux 3.5 or newer.",
        ) from error
    try:
        drop_capabilities(arch.numbers["capset"])
    except OSError as error:
        return f"kept: {errno_name(error)}"
    return "none"


def _preload(modules: Sequence[str]) -> None:
    for variable in _SINGLE_THREADED_LOADING:
        os.environ.setdefault(variable, "1")
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise DependencyMissing(
                f"the worker needs the module {name}",
                why=str(error),
                hint="Install sealift with its 'serve' extra.",
            ) from error


def _close_others(keep: Sequence[int]) -> None:
    """Close every descriptor that is not named, open or not."""
    start = 0
    for descriptor in sorted(set(keep)):
        _close_range(start, descriptor)
        start = descriptor + 1
    _close_range(start, 1 + max(_open_descriptors()))


def _close_range(first: int, end: int) -> None:
    """Never empty: CPython 3.11 reads ``closerange(0, 0)`` as "all"."""
    if first < end:
        os.closerange(first, end)


def _open_descriptors() -> list[int]:
    """Those open now, and that of the listing itself, which is closed by the time it returns."""
    try:
        return [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    except OSError as error:
        raise no_proc(error) from error


def _demand_single_thread(process: str) -> None:
    """Namespaces, capabilities and Landlock reach only the calling thread and what it starts."""
    count = thread_count()
    if count != 1:
        raise SandboxUnavailable(
            f"the {process} cannot be confined",
            why=f"it runs {count} threads already",
            hint="Confine it before anything starts threads (numpy does unless told otherwise).",
        )


def _demand_no_datagrams() -> None:
    """An open datagram or raw socket could still address anybody; a stream cannot."""
    for descriptor in _open_descriptors():
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as held:
                kind = held.type
        except OSError:
            continue  # the listing's own, closed by now
        if kind not in {socket.SOCK_STREAM, socket.SOCK_SEQPACKET}:
            raise SandboxUnavailable(
                "an open socket could still send to any address",
                why=f"descriptor {descriptor} is a {socket.SocketKind(kind).name} socket",
                hint="Close it first (a syslog handler, for one), or log to standard error.",
            )
