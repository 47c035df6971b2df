"""The courier: a process that connects to the mirror for a front-end which cannot connect at all.

It is told the mirror's addresses once, when it starts, then confines itself. From then on every
packet that comes over its socketpair means "connect"; what it says is not looked at. The answer is
one packet: ``ok`` with a connected socket, or why not. It ends with the front-end.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from typing import Any, Final, Self

from runtime.launcher.starting import die_with_parent, start_python
from runtime.sandbox import SandboxReport, attempt_all, confine_courier
from schemas import limits
from schemas.errors import EnvironmentFault, RemoteUnavailable, SandboxUnavailable, SealiftError

_PACKET_BYTES: Final = 64 * limits.KIB
_OK: Final = b"ok"
_CONNECT: Final = b"connect"
_PORTS_SINCE: Final = 4
_ITS_BUSINESS: Final = ("tcp", "tcp6")  # ways out that it must have


class Courier:
    """The front-end's side of it. Several threads may use it and take turns. See :meth:`start`.

    Attributes:
        report: ``sandbox``, the process's own report, and ``attempts``, every way out that is not
            its business, as it tried them; JSON.
    """

    def __init__(self, control: socket.socket, pid: int, report: dict[str, Any]) -> None:
        self._control = control
        self._pid = pid
        self._turn = threading.Lock()
        self.report = report

    @classmethod
    def start(cls, addresses: Sequence[tuple[str, int]]) -> Self:
        """Start the process. To be called from the main thread, before confinement.

        Args:
            addresses: IP address and port of the mirror; tried in order.

        Raises:
            EnvironmentFault: It could not be started.
            SandboxUnavailable: It cannot be confined here.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                pid = start_python("runtime.mirror.courier", theirs, own_group=False)
            ours.settimeout(limits.PROBE_SECONDS)
            ours.send(json.dumps(list(addresses)).encode())
            answer = json.loads(ours.recv(_PACKET_BYTES) or b"{}")
        except (OSError, ValueError) as error:
            ours.close()
            raise EnvironmentFault("the courier cannot start", why=str(error)) from None
        if "sandbox" not in answer:
            ours.close()
            raise SandboxUnavailable("the courier cannot be confined", why=str(answer.get("why")))
        ours.settimeout(limits.CONNECT_SECONDS * (len(addresses) + 1))
        return cls(ours, pid, answer)

    def dial(self) -> socket.socket:
        """A fresh connection to the mirror.

        Raises:
            RemoteUnavailable: The mirror does not answer, or the courier is gone.
        """
        with self._turn:
            try:
                self._control.send(_CONNECT)
                packet, descriptors, _, _ = socket.recv_fds(self._control, _PACKET_BYTES, 1)
            except OSError as error:
                raise RemoteUnavailable("the courier is gone", why=str(error)) from None
        if packet != _OK or not descriptors:
            why = packet.decode("utf-8", "replace") or "the courier is gone"
            raise RemoteUnavailable("the mirror does not answer", why=why)
        return socket.socket(fileno=descriptors[0])

    def close(self) -> None:
        """End the process; again is fine."""
        if self._control.fileno() < 0:
            return
        self._control.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


# -- the process --------------------------------------------------------------------------------


def _serve(control: socket.socket, addresses: Sequence[tuple[str, int]]) -> None:
    while control.recv(_PACKET_BYTES):
        way, why = _connect(addresses)
        if way is None:
            control.send(why.encode())
            continue
        with way:
            socket.send_fds(control, [_OK], [way.fileno()])


def _connect(addresses: Sequence[tuple[str, int]]) -> tuple[socket.socket | None, str]:
    why = "its name did not resolve when the server started"
    for host, port in addresses:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        way = socket.socket(family, socket.SOCK_STREAM)
        try:
            way.settimeout(limits.CONNECT_SECONDS)
            way.connect((host, port))
            way.settimeout(None)
        except OSError as error:
            way.close()
            why = f"{host} port {port}: {error.strerror or error}"
        else:
            return way, ""
    return None, why


def held_port(report: SandboxReport) -> bool:
    """Whether the kernel keeps this process to the mirror's port (Landlock ABI 4)."""
    words = report.landlock.split()
    return len(words) == 2 and words[1].isdecimal() and int(words[1]) >= _PORTS_SINCE


def main() -> None:
    """Entry point of ``python -m runtime.mirror.courier FD PARENT``."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the front-end's to handle
    with socket.socket(fileno=descriptor) as control:
        addresses = [
            (str(host), int(port)) for host, port in json.loads(control.recv(_PACKET_BYTES))
        ]
        try:
            report = confine_courier(
                port=addresses[0][1] if addresses else 0, keep_descriptors=[descriptor]
            )
        except SealiftError as error:
            control.send(json.dumps({"why": error.line()}).encode())
            return
        # Where Landlock holds the port, TCP to any other must fail too.
        business = () if held_port(report) else _ITS_BUSINESS
        attempts = [a.document() for a in attempt_all() if a.kind not in business]
        control.send(json.dumps({"sandbox": report.document(), "attempts": attempts}).encode())
        with contextlib.suppress(ConnectionError):
            _serve(control, addresses)


if __name__ == "__main__":
    main()
