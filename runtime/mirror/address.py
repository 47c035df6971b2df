"""Where the mirror is: the setting ``mirror``, parsed once."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from schemas.errors import UsageError

_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"[A-Za-z0-9_.-]{1,253}|[0-9A-Fa-f:]{2,45}")
_HINT: Final = "Write it like https://registry.site.example:5000"


@dataclass(frozen=True, slots=True)
class MirrorAddress:
    """A registry's base address.

    Attributes:
        scheme: ``https``, or ``http`` where that is meant.
        host: Name or IP address, without brackets.
        port: 1 to 65535.
    """

    scheme: Literal["http", "https"]
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> MirrorAddress:
        """Read ``https://host[:port]`` or ``http://host[:port]``.

        Raises:
            UsageError: Anything else: a path, a user, a query, another scheme.
        """
        try:
            parts = urlsplit(text.strip())
            port = parts.port
        except ValueError:
            raise _wrong(text) from None
        scheme = parts.scheme.lower()
        extra = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
        if scheme not in _PORTS or extra or not _HOST.fullmatch(parts.hostname or "") or port == 0:
            raise _wrong(text)
        return cls(
            "https" if scheme == "https" else "http", parts.hostname or "", port or _PORTS[scheme]
        )

    @property
    def authority(self) -> str:
        """``host:port``, the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def same_host(self, name: str) -> bool:
        """Whether a model's name names this host: ``registry.site:5000/library/x``."""
        return name.lower() in (self.authority.lower(), f"{self.host}:{self.port}".lower())

    def resolve(self) -> list[tuple[str, int]]:
        """IP addresses and port; empty if the name does not resolve now."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError:
            return []
        return list(dict.fromkeys((str(entry[4][0]), self.port) for entry in found))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def _wrong(text: str) -> UsageError:
    return UsageError(f"{text[:80]!r} is no address of a mirror", hint=_HINT)
