"""The launcher: a small process that starts workers for a front-end which no longer can.

``sealift serve`` starts it before it confines itself. From then on the front-end asks it over one
socketpair, and it answers with the front-end's end of a fresh socketpair to a fresh worker. It ends
with the front-end, and takes all workers along.

Every message is one packet of JSON:

- to the launcher: ``{"op": "spawn"}``, ``{"op": "kill", "pid": n}``;
- from it: ``{"spawned": pid}`` with one descriptor, ``{"failed": "why"}``, and unasked
  ``{"exited": pid, "status": n}``, ``n`` as in :attr:`subprocess.Popen.returncode`.

Spawns are answered in the order in which they were asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Self

from schemas import limits
from schemas.errors import WorkerFailed

_PACKET_BYTES: Final = 4096
_DESCRIPTOR: Final = struct.Struct("@i")
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
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
}


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends.

    Args:
        parent: The parent's process id, as the parent knows it.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


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


# -- the process --------------------------------------------------------------------------------


class _Server:
    """The launcher's own loop: one control socket, many children."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._workers: set[int] = set()

    def run(self) -> None:
        """Serve until the front-end's end closes, then take all workers along."""
        wake_read, wake_write = socket.socketpair()
        wake_read.setblocking(False)
        wake_write.setblocking(False)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(wake_read, selectors.EVENT_READ)
            open_ = True
            while open_:
                for key, _ in selector.select():
                    if key.fileobj is wake_read:
                        wake_read.recv(_PACKET_BYTES)
                    else:
                        open_ = self._take()
                self._reap()
        for pid in self._workers:
            os.kill(pid, signal.SIGKILL)

    def _take(self) -> bool:
        """Handle one packet. Returns whether there may be more."""
        try:
            packet = self._control.recv(_PACKET_BYTES)
        except ConnectionError:
            return False
        if not packet:
            return False
        request = json.loads(packet)
        if request["op"] == "spawn":
            self._spawn()
        elif request["op"] == "kill" and request["pid"] in self._workers:
            os.kill(request["pid"], signal.SIGKILL)
        return True

    def _spawn(self) -> None:
        if len(self._workers) >= limits.WORKERS:
            self._send({"failed": f"{limits.WORKERS} workers are running"})
            return
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            self._send({"failed": str(error)})
            return
        with ours, theirs:
            try:
                pid = start_python("runtime.worker", theirs, own_group=True)
            except OSError as error:
                self._send({"failed": str(error)})
                return
            self._workers.add(pid)
            self._send({"spawned": pid}, [ours.fileno()])

    def _reap(self) -> None:
        for pid in list(self._workers):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self._workers.discard(pid)
                self._send({"exited": pid, "status": os.waitstatus_to_exitcode(status)})

    def _send(self, document: dict[str, Any], descriptors: list[int] | None = None) -> None:
        # A front-end that is gone reads nothing; the next select says so.
        with contextlib.suppress(ConnectionError):
            socket.send_fds(self._control, [json.dumps(document).encode()], descriptors or [])


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """A handler, so that the signal interrupts ``select``."""


def main() -> None:
    """Entry point of ``python -m runtime.launcher FD PARENT``."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the front-end's to handle
    with socket.socket(fileno=descriptor) as control:
        control.set_inheritable(False)
        _Server(control).run()


# -- the front-end's side -----------------------------------------------------------------------


class Launcher:
    """Starts and ends workers from inside the confined front-end, in its event loop.

    Made by :meth:`start`.
    """

    def __init__(self, control: socket.socket, pid: int) -> None:
        self._control = control
        self.pid = pid
        self._loop: asyncio.AbstractEventLoop | None = None
        self._spawning: deque[asyncio.Future[tuple[socket.socket, int]]] = deque()
        self._watchers: dict[int, Callable[[int], None]] = {}
        self._exited: dict[int, int] = {}

    @classmethod
    def start(cls) -> Self:
        """Start the process. To be called from the main thread, before confinement.

        Raises:
            WorkerFailed: It could not be started.
        """
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                pid = start_python("runtime.launcher", theirs, own_group=False)
        except OSError as error:
            raise WorkerFailed("the launcher of workers cannot start", why=str(error)) from error
        ours.setblocking(False)
        return cls(ours, pid)

    @property
    def descriptor(self) -> int:
        """The descriptor that confinement must leave open."""
        return self._control.fileno()

    async def spawn(self) -> tuple[socket.socket, int]:
        """Start a worker process.

        Returns:
            The front-end's end of the socketpair to it, and its process id.

        Raises:
            WorkerFailed: It could not be started, or the launcher is gone.
        """
        future = self._listen().create_future()
        self._spawning.append(future)
        self._send({"op": "spawn"})
        try:
            async with asyncio.timeout(limits.LAUNCHER_SECONDS):
                return await asyncio.shield(future)
        except TimeoutError:
            raise WorkerFailed("the launcher of workers does not answer") from None
        finally:
            if not future.done() or future.cancelled():
                future.add_done_callback(_discard)

    def watch(self, pid: int, callback: Callable[[int], None]) -> None:
        """Have ``callback(status)`` called once, in the event loop, when a worker has ended.

        Args:
            pid: From :meth:`spawn`.
            callback: Gets the exit code, negative for a signal.
        """
        if pid in self._exited:
            self._listen().call_soon(callback, self._exited.pop(pid))
        else:
            self._watchers[pid] = callback

    def kill(self, pid: int) -> None:
        """End a worker at once. One that has ended already is ignored."""
        with contextlib.suppress(WorkerFailed):  # without a launcher there are no workers
            self._send({"op": "kill", "pid": pid})

    def close(self) -> None:
        """End the launcher and, with it, all workers. Does not wait for the workers' ends."""
        if self._control.fileno() < 0:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._control)
        self._control.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def _listen(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            loop.add_reader(self._control, self._readable)
            self._loop = loop
        return loop

    def _send(self, document: dict[str, Any]) -> None:
        try:
            self._control.send(json.dumps(document).encode())
        except OSError as error:
            raise WorkerFailed("the launcher of workers is gone", why=str(error)) from error

    def _readable(self) -> None:
        try:
            packet, descriptor = _receive(self._control)
        except BlockingIOError:
            return
        except OSError:
            packet, descriptor = b"", None
        if not packet:
            self._lost()
            return
        answer = json.loads(packet)
        if "exited" in answer:
            self._ended(answer["exited"], answer["status"])
            return
        future = self._spawning.popleft()
        if "failed" in answer:
            future.set_exception(WorkerFailed("a worker cannot start", why=answer["failed"]))
            return
        future.set_result((socket.socket(fileno=descriptor), answer["spawned"]))

    def _ended(self, pid: int, status: int) -> None:
        watcher = self._watchers.pop(pid, None)
        if watcher is None:
            self._exited[pid] = status
        else:
            watcher(status)

    def _lost(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._control)
        while self._spawning:
            future = self._spawning.popleft()
            future.set_exception(WorkerFailed("the launcher of workers is gone"))
            future.exception()  # read once here: whoever asked may have gone as well


def _receive(control: socket.socket) -> tuple[bytes, int | None]:
    """One packet and the descriptor that came with it, closed on exec from the first moment.

    Not ``socket.recv_fds``: it leaves out the flags that it is given.
    """
    room = socket.CMSG_SPACE(_DESCRIPTOR.size)
    packet, ancillary, _, _ = control.recvmsg(_PACKET_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            return packet, _DESCRIPTOR.unpack(data)[0]
    return packet, None


def _discard(future: asyncio.Future[tuple[socket.socket, int]]) -> None:
    """Nobody waits for this worker any more: closing its socket ends it."""
    if not future.cancelled() and future.exception() is None:
        future.result()[0].close()


if __name__ == "__main__":
    main()
