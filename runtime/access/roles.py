"""What an API key may be for, and what each route asks for. Pure."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from typing import Final


class Role(Enum):
    """What a key may do."""

    INFER = "infer"
    """Ask models, and see which there are."""
    MODELS = "models"
    """Make, fetch, copy and remove models."""
    METRICS = "metrics"
    """Read ``/metrics``."""
    ADMIN = "admin"
    """Everything."""


# What a probe or a browser asks before it can have a key. None of it tells anything about models.
_OPEN: Final = frozenset({"/", "/healthz", "/readyz", "/ui"})
_OPEN_UNDER: Final = ("/ui/",)
_MANAGING: Final = frozenset(
    {"/api/create", "/api/copy", "/api/delete", "/api/pull", "/api/push", "/api/blobs"}
)
_MANAGING_UNDER: Final = ("/api/blobs/",)
_ADMIN_UNDER: Final = ("/api/sealift/",)


def role_for(route: str) -> Role | None:
    """The role that a route asks for; None where everybody may ask.

    Any route that is not listed asks for ``infer``, so that what is added later is not open.

    Args:
        route: Its pattern, as in ``/api/blobs/{digest}``: what answers, however a client wrote it.
    """
    if route in _OPEN or route.startswith(_OPEN_UNDER):
        return None
    if route in _MANAGING or route.startswith(_MANAGING_UNDER):
        return Role.MODELS
    if route == "/metrics":
        return Role.METRICS
    if route.startswith(_ADMIN_UNDER):
        return Role.ADMIN
    return Role.INFER


def allows(roles: Collection[Role], wanted: Role) -> bool:
    """Whether a key of these roles may do what asks for this one."""
    return wanted in roles or Role.ADMIN in roles
