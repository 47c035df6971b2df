"""The front-end's side of the launcher."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Self

from runtime.launcher import PACKET_BYTES
from runtime.launcher.starting import start_python
from schemas import limits
from schemas.errors import WorkerFailed

_DESCRIPTOR: Final = struct.Struct("@i")


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
    packet, ancillary, _, _ = control.recvmsg(PACKET_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            return packet, _DESCRIPTOR.unpack(data)[0]
    return packet, None


def _discard(future: asyncio.Future[tuple[socket.socket, int]]) -> None:
    """Nobody waits for this worker any more: closing its socket ends it."""
    if not future.cancelled() and future.exception() is None:
        future.result()[0].close()
