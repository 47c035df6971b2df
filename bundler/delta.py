"""Placeholder until recipes land; never merged like this."""

from __future__ import annotations

from typing import Any

from schemas.errors import UnsupportedRequest


def rebuild(entry: Any, stored: Any, bases: Any, fd: int) -> str:
    raise UnsupportedRequest("deltas")
