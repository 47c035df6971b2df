"""Who may talk to the server: checks of the ``Host`` and ``Origin`` headers, and CORS. Pure.

A page on any web site can make its visitor's browser send requests to a loopback port. Two checks
stop it: the name in ``Host`` must mean this machine (DNS rebinding), and a request that carries an
``Origin`` must come from an allowed one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import urlsplit

_SCHEMES: Final = ("http", "https")
PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, DELETE, OPTIONS",
    # "*" does not cover Authorization (Fetch standard, "CORS-safelisted request-header").
    "Access-Control-Allow-Headers": "*, Authorization",
    "Access-Control-Max-Age": "600",
}


def allowed_host(header: str | None, names: Sequence[str] = (), *, addresses: bool = False) -> bool:
    """Whether a ``Host`` header names this machine: a loopback address or ``localhost``.

    None and the empty string pass: browsers always send a name.

    Args:
        header: As it came.
        names: Others that do, lower case; ``*.x`` is any name under ``x``.
        addresses: Whether every IP address does. Only a name can be made to lead somewhere else.
    """
    if not header:
        return True
    try:
        name = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    return _is_loopback(name) or _is_named(name, names) or (addresses and _is_address(name))


def same_origin(origin: str | None, host: str | None) -> bool:
    """Whether the page that sent a request came from the very server it is sent to.

    Args:
        origin: The header ``Origin``.
        host: The header ``Host``, which must have been checked.
    """
    if not origin or not host:
        return False
    scheme, found, rest = origin.lower().partition("://")
    return bool(found) and scheme in _SCHEMES and rest == host.lower()


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser only asks what it may send (Fetch standard, "CORS-preflight request")."""
    asks = "Access-Control-Request-Method" in headers and "Origin" in headers
    return method == "OPTIONS" and asks


def allowed_origin(header: str | None, extra: Sequence[str]) -> bool:
    """Whether a request may come from this origin.

    Args:
        header: ``Origin``; None passes, for no browser page sent the request.
        extra: The configured origins; ``*`` in one stands for anything.
    """
    if header is None:
        return True
    origin = header.lower()
    if any(fnmatchcase(origin, pattern.lower().rstrip("/")) for pattern in extra):
        return True
    try:
        parts = urlsplit(origin)
        name = parts.hostname or ""
    except ValueError:
        return False
    return parts.scheme in _SCHEMES and _is_loopback(name)


def _is_named(name: str, names: Sequence[str]) -> bool:
    name = name.lower().removesuffix(".")
    return any(
        name.endswith(known[1:]) if known.startswith("*.") else name == known for known in names
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    name = name.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, 6.3: never resolved outside
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
