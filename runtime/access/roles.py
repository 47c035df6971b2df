"""What an API key may be for, and what each route asks for. Pure."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Role(Enum):
    """What a key may do."""

    INFER = "infer"
    """Ask models."""
    MODELS = "models"
    """Make, fetch, copy and remove models."""
    METRICS = "metrics"
    """Read ``/metrics``."""
    ADMIN = "admin"
    """Everything."""


NOBODY: Final[frozenset[Role]] = frozenset()
"""What asks for no key at all."""
ANYBODY: Final = frozenset(Role)
"""What every key may do: see which models there are."""
ASKING: Final = frozenset({Role.INFER, Role.ADMIN})
MANAGING: Final = frozenset({Role.MODELS, Role.ADMIN})
READING: Final = frozenset({Role.METRICS, Role.ADMIN})
RUNNING: Final = frozenset({Role.ADMIN})


# What a probe or a browser asks before it can have a key. None of it tells anything about models.
_OPEN: Final = frozenset({"/", "/healthz", "/readyz", "/ui"})
_OPEN_UNDER: Final = ("/ui/",)
_LISTS: Final = frozenset(
    {
        "/api/version",
        "/api/tags",
        "/api/ps",
        "/api/show",
        "/api/provenance",
        "/v1/models",
        "/v1/models/{name}",
        "/openapi.json",
    }
)
_MANAGING: Final = frozenset(
    {"/api/create", "/api/copy", "/api/delete", "/api/pull", "/api/push", "/api/blobs"}
)
_MANAGING_UNDER: Final = ("/api/blobs/",)
_ADMIN_UNDER: Final = ("/api/sealift/",)


def roles_for(route: str) -> frozenset[Role]:
    """The roles of which a route asks for one; :data:`NOBODY` where no key is needed.

    Any route that is not listed asks for ``infer``, so that what is added later is not open.

    Args:
        route: Its pattern, as in ``/api/blobs/{digest}``: what answers, however a client wrote it.
    """
    if route in _OPEN or route.startswith(_OPEN_UNDER):
        return NOBODY
    if route in _LISTS:
        return ANYBODY
    if route in _MANAGING or route.startswith(_MANAGING_UNDER):
        return MANAGING
    if route == "/metrics":
        return READING
    if route.startswith(_ADMIN_UNDER):
        return RUNNING
    return ASKING
