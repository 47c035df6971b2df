"""Worn, or a fake? By the pattern of what is wrong.

A stick that claims more than it has does one of two things beyond its real end. It drops what is
written and reads as nothing in particular: then all is right up to some point and all is wrong
after it. Or its addresses wrap around: then what was written last lies over what was written first,
and the same content is found in two places. Worn cells do neither.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from bundler.media.readback import SECTOR
from bundler.media.result import FileCheck, Kind, MediaCheck, Verdict
from schemas import limits

_SAMPLES: Final = 1 << 16  # fingerprints kept; beyond that every second one goes
_SHOWN: Final = 5  # file names in a message
_WORDS: Final = {
    Kind.DIFFERS: "wrong",
    Kind.UNREADABLE: "unreadable",
    Kind.MISSING: "missing",
    Kind.UNVERIFIED: "",
}
_CHOOSING: Final = SECTOR // 2  # offset of the bytes that decide
_TAIL_EXTENTS: Final = 3  # wrong to the very end, which chance does not do
_TAIL_SHARE: Final = 0.98  # of what lies after the first wrong byte is wrong too
_LEAST_TAIL: Final = 64 * limits.KIB
_REPEATS: Final = 3
_REPEAT_SHARE: Final = 0.5  # of the fingerprints in wrong extents are found elsewhere too


@dataclass(frozen=True, slots=True)
class _Seen:
    position: int  # over all files
    length: int
    right: bool


class Judge:
    """Sees everything that is read, and what was found of it; tells the verdict at the end."""

    def __init__(self) -> None:
        self._base = 0  # position of the current file over all files
        self._end = 0
        self._extents: list[_Seen] = []
        self._mask = 0
        self._samples: list[tuple[int, int, bytes]] = []  # choice, position, fingerprint
        self._constant_from = 0  # from here on nothing but one byte's repetition was read
        self._last = -1

    def begin(self) -> None:
        """The next file."""
        self._base = self._end

    def seen(self, offset: int, data: memoryview) -> None:
        """Bytes that were read, at an offset of the current file."""
        self._note_constant(self._base + offset, data)
        start = -offset % SECTOR
        for at in range(start, len(data) - SECTOR + 1, SECTOR):
            # Chosen by its content, so that both places of a repeated sector are.
            choice = hash(bytes(data[at + _CHOOSING : at + _CHOOSING + 64]))
            if choice & self._mask:
                continue
            sector = data[at : at + SECTOR]
            if sector[0] == sector[-1] and _constant(sector):
                continue
            key = hashlib.blake2b(sector, digest_size=8).digest()
            self._samples.append((choice, self._base + offset + at, key))
        while len(self._samples) > _SAMPLES:
            self._mask = self._mask << 1 | 1
            self._samples = [sample for sample in self._samples if not sample[0] & self._mask]

    def extent(self, offset: int, length: int, right: bool | None) -> None:  # noqa: FBT001 - three states
        """An extent was compared: right, wrong, or not there at all (None)."""
        position = self._base + offset
        self._end = max(self._end, position + length)
        if right is not None:
            self._extents.append(_Seen(position, length, right))

    def _note_constant(self, position: int, data: memoryview) -> None:
        first = data[0]
        if not (data[-1] == first and _constant(data)):
            self._constant_from, self._last = position + len(data), -1
        elif self._last not in (-1, first):
            self._constant_from, self._last = position, first
        else:
            self._last = first

    def verdict(self, files: tuple[FileCheck, ...]) -> MediaCheck:
        """What is to be thought of the medium."""
        if all(file.ok for file in files):
            return MediaCheck(Verdict.OK, "", files)
        repeats = self._repeats()
        if repeats is not None:
            return MediaCheck(
                Verdict.FAKE_CAPACITY,
                "looks like fake capacity: what was written at one place is found at another",
                files,
                repeats,
            )
        tail = self._tail()
        if tail is not None:
            return MediaCheck(
                Verdict.FAKE_CAPACITY,
                "looks like fake capacity: all is right up to one point, and wrong after it",
                files,
                tail,
            )
        return MediaCheck(Verdict.DAMAGED, _told(files), files)

    def _repeats(self) -> int | None:
        """The distance of repetition, about the real capacity, where wrong content repeats."""
        wrong = [extent for extent in self._extents if not extent.right]
        starts = [extent.position for extent in wrong]

        def is_wrong(position: int) -> bool:
            index = bisect_right(starts, position) - 1
            return index >= 0 and position < wrong[index].position + wrong[index].length

        places: dict[bytes, list[int]] = {}
        for _, position, key in self._samples:
            places.setdefault(key, []).append(position)
        total = repeated = 0
        distances: Counter[int] = Counter()
        for positions in places.values():
            bad = [position for position in positions if is_wrong(position)]
            total += len(bad)
            if len(positions) > 1 and bad:
                repeated += len(bad)
                distances.update(b - a for a, b in pairwise(positions))
        if repeated < _REPEATS or repeated < total * _REPEAT_SHARE:
            return None
        return distances.most_common(1)[0][0]

    def _tail(self) -> int | None:
        """Where the wrong part begins that goes on to the end."""
        first = next((n for n, extent in enumerate(self._extents) if not extent.right), None)
        if first is None or first == 0:
            return None
        tail = self._extents[first:]
        wrong = [extent for extent in tail if not extent.right]
        length, bad = sum(e.length for e in tail), sum(e.length for e in wrong)
        if bad < length * _TAIL_SHARE or bad < _LEAST_TAIL or tail[-1].right:
            return None
        end = tail[-1].position + tail[-1].length
        constant = self._last >= 0 and end - self._constant_from >= bad / 2
        if len(wrong) < _TAIL_EXTENTS and not constant:
            return None
        return tail[0].position


def _told(files: Sequence[FileCheck]) -> str:
    """What is wrong, in one line."""
    counts: Counter[str] = Counter()
    for file in files:
        counts.update(dict.fromkeys(_WORDS.values(), 0))
        for extent in file.bad:
            counts[_WORDS[extent.kind]] += extent.length
        counts["too many"] += file.excess
    if any(count for word, count in counts.items() if word):
        del counts[""]  # what could not be told for the others' sake
    found = [f"{count} bytes {word}".rstrip() for word, count in counts.items() if count]
    names = [file.name for file in files if not file.ok]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(found)} in {', '.join(names[:_SHOWN])}{more}"


def _constant(data: memoryview) -> bool:
    return not bytes(data).strip(bytes((data[0],)))
