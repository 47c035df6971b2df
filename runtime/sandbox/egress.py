"""Proof by trying: every way out, attempted from inside, with what the kernel answered.

The targets are loopback only. That is enough: where ``socket()`` or ``connect()`` is refused even
for loopback, no packet is made for anybody. A control run in an unconfined process shows the
attempts to be real: there they are answered ``ALLOWED``.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from runtime.sandbox.kernel import errno_name

Outcome = Literal["refused", "ALLOWED"]

DISCARD_PORT: Final = 9  # RFC 863
_DNS_PORT: Final = 53  # RFC 1035
_TIMEOUT_S: Final = 1.0
_LOOPBACK: Final = "127.0.0.1"
_LOOPBACK6: Final = "::1"
_UNIX_TARGET: Final = "\0sealift-egress-attempt"  # abstract: touches no file

# A query for the root's name servers: header (id 1, one question), empty name, type NS, class IN.
_DNS_QUERY: Final = bytes.fromhex("00010000000100000000000000") + b"\x00\x02\x00\x01"

# Answers that mean that nothing was sent and nobody was asked. Anything else, "connection refused"
# by a peer above all, means that the attempt got out of this process.
_REFUSALS: Final = frozenset(
    {
        errno.EPERM,
        errno.EACCES,
        errno.EAFNOSUPPORT,
        errno.EPROTONOSUPPORT,
        errno.ESOCKTNOSUPPORT,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EADDRNOTAVAIL,
    }
)


@dataclass(frozen=True, slots=True)
class EgressAttempt:
    """One way out and what came of it.

    Attributes:
        kind: ``tcp``, ``tcp6``, ``fastopen``, ``udp``, ``dns``, ``unix``, ``unix-datagram``,
            ``raw``, ``packet`` or ``netlink``.
        target: Where to, for people.
        outcome: ``refused`` or ``ALLOWED``.
        errno_name: The kernel's answer, ``""`` where it was success.
    """

    kind: str
    target: str
    outcome: Outcome
    errno_name: str

    def document(self) -> dict[str, object]:
        """For JSON: ``sealift doctor --egress``."""
        return {
            "kind": self.kind,
            "target": self.target,
            "outcome": self.outcome,
            "errno": self.errno_name,
        }


def attempt_all(port: int = DISCARD_PORT) -> list[EgressAttempt]:
    """Try every way out of this process, loopback only; changes nothing, takes at most seconds.

    Args:
        port: TCP and UDP port to aim at; a test's own listener shows that attempts are real.

    Returns:
        One entry per way, in a fixed order.
    """
    attempts: list[tuple[str, str, Callable[[], None]]] = [
        ("tcp", f"{_LOOPBACK}:{port}", lambda: _connect(socket.AF_INET, (_LOOPBACK, port))),
        ("tcp6", f"[{_LOOPBACK6}]:{port}", lambda: _connect(socket.AF_INET6, (_LOOPBACK6, port))),
        ("fastopen", f"{_LOOPBACK}:{port}", lambda: _fast_open(port)),
        ("udp", f"{_LOOPBACK}:{port}", lambda: _datagram(b"sealift", port)),
        ("dns", f"{_LOOPBACK}:{_DNS_PORT}", lambda: _datagram(_DNS_QUERY, _DNS_PORT)),
        ("unix", "abstract socket", lambda: _connect(socket.AF_UNIX, _UNIX_TARGET)),
        ("unix-datagram", "abstract socket", _unix_datagram),
        ("raw", "ICMP", lambda: _make(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)),
        ("packet", "link layer", lambda: _make(socket.AF_PACKET, socket.SOCK_RAW, 0)),
        ("netlink", "routing table", lambda: _make(socket.AF_NETLINK, socket.SOCK_RAW, 0)),
    ]
    return [_attempt(kind, target, call) for kind, target, call in attempts]


def _attempt(kind: str, target: str, call: Callable[[], None]) -> EgressAttempt:
    try:
        call()
    except TimeoutError:
        return EgressAttempt(kind, target, "ALLOWED", "ETIMEDOUT")
    except OSError as error:
        outcome: Outcome = "refused" if error.errno in _REFUSALS else "ALLOWED"
        return EgressAttempt(kind, target, outcome, errno_name(error))
    return EgressAttempt(kind, target, "ALLOWED", "")


def _make(family: int, kind: int, protocol: int) -> None:
    socket.socket(family, kind, protocol).close()


def _connect(family: int, address: tuple[str, int] | str) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as way:
        way.settimeout(_TIMEOUT_S)
        way.connect(address)


def _fast_open(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as way:
        way.settimeout(_TIMEOUT_S)
        way.sendto(b"sealift", socket.MSG_FASTOPEN, (_LOOPBACK, port))


def _datagram(payload: bytes, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.sendto(payload, (_LOOPBACK, port))


def _unix_datagram() -> None:
    """From a socketpair, which needs neither socket() nor connect()."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        left.sendto(b"sealift", _UNIX_TARGET)
