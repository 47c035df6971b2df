"""The address that the server listens on, and what it takes to listen there."""

from __future__ import annotations

import errno
import ipaddress
import resource
import socket
from datetime import UTC, datetime
from typing import Any, Final
from weakref import WeakSet

from runtime.access.keyfile import KeyRing
from runtime.access.tls import Identity
from schemas import limits
from schemas.errors import EnvironmentFault, UsageError

BACKLOG: Final = 128
_DEFAULT_PORT: Final = 11434
_LOCAL: Final = "127.0.0.1"

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Listener(socket.socket):
    """A socket that listens already: the confined front-end may not call ``listen`` again.

    It takes no more connections at a time than ``most``, so that whoever opens many cannot use up
    the descriptors that workers and the store need; more are closed at once.

    Args:
        family: ``AF_INET`` or ``AF_INET6``.
        most: Connections at a time.
    """

    def __init__(self, family: int, most: int = limits.HTTP_CONNECTIONS) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self.most = most
        # Those that are closed are gone from here once nobody holds them any more.
        self._taken: WeakSet[socket.socket] = WeakSet()

    def accept(self) -> tuple[socket.socket, Any]:
        """As of any socket; a connection too many is as if there were none."""
        connection, address = super().accept()
        if len(self._taken) >= self.most:
            connection.close()
            raise BlockingIOError(errno.EAGAIN, "too many connections")
        self._taken.add(connection)
        return connection, address

    def listen(self, backlog: int = BACKLOG, /) -> None:
        """Nothing to do."""


def parse_host(host: str) -> tuple[IPAddress, int]:
    """Read ``address:port``, ``localhost:port`` or ``[address]:port``; port 0 draws a free one.

    Raises:
        UsageError: It is none of these.
    """
    name, colon, port = host.rpartition(":")
    if not colon or (":" in name and not name.startswith("[")):
        name, port = host, str(_DEFAULT_PORT)
    name = name.strip("[]")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) < 65536):
        raise UsageError(f"{host[:80]!r} has no valid port", hint="Write it like 127.0.0.1:11434")
    try:
        address = ipaddress.ip_address(_LOCAL if name == "localhost" else name)
    except ValueError:
        raise UsageError(
            f"{host[:80]!r} is not an address", hint="Write it like 127.0.0.1:11434"
        ) from None
    return address, int(port)


def make_room() -> int:
    """Let this process open as many files as it may; how many connections that is enough for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.HTTP_CONNECTIONS + limits.OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return limits.HTTP_CONNECTIONS
    return max(min(limits.HTTP_CONNECTIONS, soft - limits.OTHER_DESCRIPTORS), 16)


def check_exposure(address: IPAddress, identity: Identity | None, keys: KeyRing) -> None:
    """Refuse to listen where others could ask or read along.

    Args:
        address: To listen on.
        identity: For TLS; None if there is none.
        keys: As they are now.

    Raises:
        UsageError: It is no loopback address, and TLS or API keys are missing.
    """
    if address.is_loopback:
        return
    what = f"refusing to listen on {address}"
    if identity is None:
        raise UsageError(
            what,
            why="other machines need TLS",
            hint="Set tls_cert and tls_key, or use 127.0.0.1, ::1 or localhost",
        )
    if not keys.keys.usable(datetime.now(UTC)):
        raise UsageError(
            what,
            why="other machines need API keys, and there are none",
            hint="Make one with sealift apikey create",
        )


def bind(address: IPAddress, port: int) -> Listener:
    """Listen.

    Raises:
        EnvironmentFault: The port is taken or not allowed.
    """
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    where = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
    listener = Listener(family, make_room())
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address), port))
        socket.socket.listen(listener, BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise EnvironmentFault(
                f"cannot listen on {where}",
                why="the port is in use",
                hint="Stop the other server, or set another address with --host",
            ) from None
        raise EnvironmentFault(f"cannot listen on {where}", why=str(error.strerror)) from None
    return listener
