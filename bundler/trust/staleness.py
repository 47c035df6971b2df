"""How late is too late: which expired metadata a site still takes, and why.

Expiry is judged at the reference time, strictly. A site's policy may grant timestamp and snapshot
some days of grace: they say how fresh a bundle is, not what is in it. Beyond that a person may
accept with a reason. An expired root is never excused: nobody could say any more whose keys count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from bundler.clock import rfc3339
from bundler.trust import names

FRESHNESS: Final = (names.TIMESTAMP, names.SNAPSHOT)
GRACE: Final = "grace"
ACCEPTED: Final = "accepted"


@dataclass(frozen=True, slots=True)
class Allowance:
    """What expired metadata a site takes.

    Attributes:
        grace: For timestamp and snapshot, without anybody being asked.
        accept: Whether a person accepts these two, however late.
        accept_others: Whether also all others but the root.
    """

    grace: timedelta = timedelta(0)
    accept: bool = False
    accept_others: bool = False

    def excuse(self, role: str, expires: datetime, now: datetime) -> str | None:
        """Why an expired role counts all the same; None where it does not."""
        fresh = role in FRESHNESS
        if fresh and now < expires + self.grace:
            return GRACE
        if role != names.ROOT and self.accept and (fresh or self.accept_others):
            return ACCEPTED
        return None


STRICT: Final = Allowance()


@dataclass(frozen=True, slots=True)
class StaleRole:
    """Metadata that had expired and was taken all the same.

    Attributes:
        role: Whose.
        version: Its version.
        expires: When it expired, UTC.
        days: Whole days since then.
        how: ``grace`` or ``accepted``.
    """

    role: str
    version: int
    expires: datetime
    days: int
    how: str

    def document(self) -> dict[str, str | int]:
        """For receipts and requests."""
        return {
            "role": self.role,
            "version": self.version,
            "expired": rfc3339(self.expires),
            "how": self.how,
        }


def excused(
    carried: Mapping[str, tuple[int, datetime]], now: datetime, allowance: Allowance
) -> tuple[StaleRole, ...]:
    """The expired roles of a bundle that count all the same.

    Args:
        carried: Role to version and expiry.
        now: The reference time.
        allowance: Of the site and its operator.
    """
    found = []
    for role, (version, expires) in carried.items():
        how = allowance.excuse(role, expires, now) if expires <= now else None
        if how is not None:
            found.append(StaleRole(role, version, expires, (now - expires).days, how))
    return tuple(found)
