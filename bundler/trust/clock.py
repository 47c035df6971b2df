"""Reference time: what "now" means on a host whose clock may be wrong.

``max(clock, floor, build date)``. The floor is the latest time that this site has proof of: that of
its last import, or when a bundle that it took was issued. So a clock that is set back, or starts at
1970 without a battery, revives nothing that has expired.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from bundler.clock import rfc3339

# When this release was made: no honest clock is behind it. Raised with every release.
BUILD_DATE: Final = datetime(2026, 11, 1, tzinfo=UTC)

CLOCK: Final = "clock"
CLOCK_ROLLBACK: Final = "clock_rollback"

# A signed time this far ahead of the clock is taken for a clock that is behind; one further ahead,
# for a stolen key that would push the site past the expiry of its root.
SKEW: Final = timedelta(hours=48)


@dataclass(frozen=True, slots=True)
class ReferenceTime:
    """The time against which all expiries of one import are judged.

    Attributes:
        time: ``max(clock, floor, BUILD_DATE)``, UTC.
        verdict: ``clock``, or ``clock_rollback`` when the clock was behind the floor.
        clock: What the host's clock said, UTC.
        floored: Whether the floor decided, rather than the build date.
    """

    time: datetime
    verdict: str
    clock: datetime
    floored: bool = False

    def words(self) -> str:
        """What the clock says, and what is taken for now, and why."""
        if self.verdict == CLOCK:
            return f"the clock here says {_text(self.clock)}"
        proof = (
            "this site has seen that time before" if self.floored else "this release was made then"
        )
        return (
            f"the clock here says {_text(self.clock)}, which is behind; taken as now is"
            f" {_text(self.time)}, for {proof}"
        )


def reference_time(now: datetime, floor: datetime | None) -> ReferenceTime:
    """Fix the reference time of one import.

    Args:
        now: The host's clock, with a time zone.
        floor: The latest reference time that this site committed; None before the first.
    """
    clock = now.astimezone(UTC)
    floored = floor is not None and floor > BUILD_DATE
    lowest = (floor if floored and floor is not None else BUILD_DATE).astimezone(UTC)
    if clock < lowest:
        return ReferenceTime(lowest, CLOCK_ROLLBACK, clock, floored)
    return ReferenceTime(clock, CLOCK, clock)


def after_import(
    reference: datetime, clock: datetime, issued: datetime
) -> tuple[datetime, datetime | None]:
    """What an import leaves: the floor, and the signed time if it is to be believed.

    Args:
        reference: The time that it was judged at.
        clock: What the host's clock said.
        issued: When the bundle was made, as signed.
    """
    if believable(issued, clock):
        return max(reference, issued), issued
    return reference, None


def believable(issued: datetime, clock: datetime) -> bool:
    """Whether a signed time is not too far ahead of the clock to be evidence."""
    return issued <= clock + SKEW


def noted(clock: datetime, reference: datetime, verdict: str) -> dict[str, str]:
    """What the audit log says about a clock that was behind; nothing about one that was not."""
    if verdict == CLOCK:
        return {}
    return {"time": verdict, "clock": rfc3339(clock), "taken": rfc3339(reference)}


def _text(moment: datetime) -> str:
    return f"{moment.year:04d}-{moment:%m-%d %H:%M UTC}"
