"""Times as they stand in documents: RFC 3339, UTC, whole seconds."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """The machine's clock; ``SOURCE_DATE_EPOCH`` is deliberately not heeded: expiry hangs on it."""
    return datetime.now(UTC).replace(microsecond=0)


def rfc3339(moment: datetime) -> str:
    """``2026-11-23T15:33:00Z``."""
    # Not strftime: glibc's %Y does not fill up the years before 1000.
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def parse_rfc3339(text: str) -> datetime:
    """The inverse of :func:`rfc3339`, for text that its schema has checked."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
