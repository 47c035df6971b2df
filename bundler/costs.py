"""What a transfer costs either side: the words of ``bundle plan``, and their arithmetic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bundler.contents import Entry
from bundler.measuring import Speed
from schemas import limits

OVERHEAD_BYTES: Final = 64 * limits.MIB  # what an import needs beside the payload, at most
STARTING_SECONDS: Final = 1.0  # of any command that verifies or signs; docs/benchmarks.md, "scale"
BLOB_SECONDS: Final = 0.0005  # of each blob, however small; likewise


@dataclass(frozen=True, slots=True)
class Cost:
    """What one side has to do.

    Attributes:
        read: Bytes.
        write: Bytes.
        peak: Bytes of disk that it takes at most.
        free: Bytes of disk that are there; None where that cannot be seen from here.
        seconds: At the measured speed; likewise.
        folder: Which disk.
    """

    read: int
    write: int
    peak: int
    free: int | None = None
    seconds: float | None = None
    folder: Path | None = None

    @property
    def fits(self) -> bool | None:
        """Whether the disk is large enough; None where that is not known."""
        return None if self.free is None else self.peak <= self.free


@dataclass(frozen=True, slots=True)
class Plan:
    """What a transfer costs.

    Attributes:
        models: Name and bytes of each.
        carried: Encoding to bytes that travel.
        volumes: How many; 0 where all lies in one file.
        volume_size: Bytes of the largest one.
        missing: Numbers of those that are not at hand; isolated side only.
        held: Blobs that are there already, and their bytes.
        lacking: Blobs that the bundle builds upon and that are not there.
        connected: Cost of making the bundle; None once it is made.
        isolated: Cost of importing it.
        speed: As measured here.
        parity: Bytes of each parity volume; isolated side: of those at hand.
        head: Bytes of the head, or of what lies before the blobs in one file, about; connected
            side only.
        exact: Whether the bytes that travel are known exactly, but for the head.
        anchor: Name of the pinned publisher that vouches for it; None where nothing was verified.
        doubt: Why nothing was.
    """

    models: tuple[tuple[str, int], ...]
    carried: Mapping[str, int]
    volumes: int
    volume_size: int
    missing: tuple[int, ...]
    held: tuple[int, int]
    lacking: tuple[int, int]
    connected: Cost | None
    isolated: Cost
    speed: Speed
    parity: tuple[int, ...] = ()
    head: int = 0
    exact: bool = True
    anchor: str | None = None
    doubt: str = ""

    @property
    def carry(self) -> int:
        """Bytes that travel."""
        return sum(self.carried.values())


def by_encoding(entries: Iterable[Entry]) -> dict[str, int]:
    """Encoding to stored bytes."""
    found: Counter[str] = Counter()
    for entry in entries:
        found[entry.encoding] += entry.stored_size
    return dict(found)


def at(count: int, speed: float | None) -> float | None:
    """Seconds for so many bytes."""
    if not count:
        return 0.0
    return None if speed is None else count / speed


def slower(*speeds: float | None) -> float | None:
    """The slowest of some speeds; None where one is not known."""
    known = [speed for speed in speeds if speed is not None]
    return min(known) if len(known) == len(speeds) else None


def total(*parts: float | None) -> float | None:
    """Sum of some seconds; likewise."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
