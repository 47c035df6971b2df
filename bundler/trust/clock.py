"""Reference time: what "now" means on a host whose clock may be wrong."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

# When this release was made: no honest clock is behind it. Raised with every release.
BUILD_DATE: Final = datetime(2026, 11, 1, tzinfo=UTC)

CLOCK: Final = "clock"
CLOCK_ROLLBACK: Final = "clock_rollback"


@dataclass(frozen=True, slots=True)
class ReferenceTime:
    """The time against which all expiries of one import are judged.

    Attributes:
        time: ``max(clock, floor, BUILD_DATE)``, UTC.
        verdict: ``clock``, or ``clock_rollback`` when the clock was behind the floor.
    """

    time: datetime
    verdict: str


def reference_time(now: datetime, floor: datetime | None) -> ReferenceTime:
    """Fix the reference time of one import.

    Args:
        now: The host's clock, with a time zone.
        floor: The latest reference time that this site committed; None before the first.
    """
    lowest = max(BUILD_DATE, floor) if floor is not None else BUILD_DATE
    if now < lowest:
        return ReferenceTime(lowest.astimezone(UTC), CLOCK_ROLLBACK)
    return ReferenceTime(now.astimezone(UTC), CLOCK)
