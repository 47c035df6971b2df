"""The launcher's own process: ``python -m runtime.launcher FD PARENT``."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
from types import FrameType
from typing import Any

from runtime.launcher import PACKET_BYTES
from runtime.launcher.starting import die_with_parent, start_python
from schemas import limits


class _Server:
    """The launcher's own loop: one control socket, many children.

    One worker is started ahead, so that whoever asks need not wait until it has read the engine's
    libraries: at the beginning, and when another one ended, which seldom comes alone. It is a
    program of its own as all are, no copy of one that is there: a worker whose model broke it knows
    nothing of where things lie in the memory of others.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._workers: set[int] = set()
        self._ahead: tuple[socket.socket, int] | None = None

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
            self._prepare()
            open_ = True
            while open_:
                for key, _ in selector.select():
                    if key.fileobj is wake_read:
                        wake_read.recv(PACKET_BYTES)
                    else:
                        open_ = self._take()
                self._reap()
        ahead = [self._ahead[1]] if self._ahead else []
        for pid in (*self._workers, *ahead):
            os.kill(pid, signal.SIGKILL)

    def _take(self) -> bool:
        """Handle one packet. Returns whether there may be more."""
        try:
            packet = self._control.recv(PACKET_BYTES)
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
            channel, pid = self._ahead or _start()
        except OSError as error:
            self._send({"failed": str(error)})
            return
        self._ahead = None
        self._workers.add(pid)
        with channel:
            self._send({"spawned": pid}, [channel.fileno()])

    def _prepare(self) -> None:
        with contextlib.suppress(OSError):  # who asks for one is told, should it fail again
            self._ahead = self._ahead or _start()

    def _reap(self) -> None:
        ended = [(pid, status) for pid in self._workers if (status := _status(pid)) is not None]
        for pid, status in ended:
            self._workers.discard(pid)
            self._send({"exited": pid, "status": status})
        if self._ahead is not None and _status(self._ahead[1]) is not None:
            self._ahead[0].close()
            self._ahead = None  # for good: what ends by itself would do so again
        elif ended:
            self._prepare()

    def _send(self, document: dict[str, Any], descriptors: list[int] | None = None) -> None:
        # A front-end that is gone reads nothing; the next select says so.
        with contextlib.suppress(ConnectionError):
            socket.send_fds(self._control, [json.dumps(document).encode()], descriptors or [])


def _start() -> tuple[socket.socket, int]:
    """A fresh worker: our end of the socketpair to it, and its process id.

    Raises:
        OSError: It could not be started.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            return ours, start_python("runtime.worker", theirs, own_group=True)
        except OSError:
            ours.close()
            raise


def _status(pid: int) -> int | None:
    """What a child ended with, as in :attr:`subprocess.Popen.returncode`; None while it runs."""
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


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


if __name__ == "__main__":
    main()
