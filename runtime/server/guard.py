"""Who may talk to the server: checks of the ``Host`` and ``Origin`` headers, and CORS. Pure.

A page on any web site can make its visitor's browser send requests to a loopback port. Two checks
stop it: the name in ``Host`` must mean this machine (DNS rebinding), and a request that carries an
``Origin`` must come from an allowed one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
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


def allowed_host(header: str | None) -> bool:
    """Whether a ``Host`` header names this machine: a loopback address or ``localhost``.

    None and the empty string pass: browsers always send a name.
    """
    if not header:
        return True
    try:
        name = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    return _is_loopback(name)


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


def _is_loopback(name: str) -> bool:
    name = name.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, 6.3: never resolved outside
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
