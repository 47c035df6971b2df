"""Comparing a medium with what was written to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bundler.media.expected import Extent
from bundler.media.judge import Judge
from bundler.media.readback import SECTOR, Part, ReadBack, Windows, read_back
from bundler.media.result import BadExtent, FileCheck, Kind, MediaCheck
from registry.digest import Digest
from schemas.errors import MalformedDocument

_MOST_BAD: Final = 10_000  # extents told per file; beyond that the last one grows over its gaps


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A file on the medium.

    Attributes:
        path: Where it lies there.
        extents: What it should hold, ascending; what lies between them is not looked at.
        size: How long it should be; None if the end of the last extent.
    """

    path: Path
    extents: Iterable[Extent]
    size: int | None = None


def check_media(
    files: Iterable[MediaFile],
    *,
    opener: Callable[[Path], ReadBack] = read_back,
    progress: Callable[[int], None] | None = None,
) -> MediaCheck:
    """Read files back past the page cache, compare all of them, and judge the medium.

    Bad spots do not end it: everything that is wrong is collected.

    Args:
        files: In the order in which they were written; a fake's pattern shows by that.
        opener: How to open one.
        progress: Called with the number of bytes of each step.

    Raises:
        StorageFailure: The medium is gone, or the system cannot write out what waits for it.
        MalformedDocument: Extents overlap or are out of order.
    """
    judge = Judge()
    checks: list[FileCheck] = []
    for file in files:
        judge.begin()
        if not file.path.exists() and opener is read_back:
            checks.append(_absent(file, judge))
            continue
        source = opener(file.path)
        try:
            checks.append(_Check(file, source, judge, progress).run())
        finally:
            source.close()
    return judge.verdict(tuple(checks))


def _absent(file: MediaFile, judge: Judge) -> FileCheck:
    bad = _BadList()
    for extent in _ordered(file.extents):
        bad.add(extent.offset, extent.length, Kind.MISSING)
        judge.extent(extent.offset, extent.length, None)
    return FileCheck(file.path.name, None, 0, bad.all())


class _BadList:
    """Bad extents of one file, merged."""

    def __init__(self) -> None:
        self._found: list[BadExtent] = []

    def add(self, offset: int, length: int, kind: Kind) -> None:
        last = self._found[-1] if self._found else None
        if last is not None and (
            len(self._found) >= _MOST_BAD
            or (last.kind is kind and last.offset + last.length >= offset)
        ):
            end = max(last.offset + last.length, offset + length)
            self._found[-1] = BadExtent(last.offset, end - last.offset, last.kind)
        else:
            self._found.append(BadExtent(offset, length, kind))

    def all(self) -> tuple[BadExtent, ...]:
        return tuple(self._found)


class _Check:
    def __init__(
        self,
        file: MediaFile,
        source: ReadBack,
        judge: Judge,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._file, self._source, self._judge, self._progress = file, source, judge, progress
        self._bad = _BadList()
        self._checked = 0

    def run(self) -> FileCheck:
        """Go through all extents."""
        end = 0
        with Windows(self._source) as windows:
            for extent in _ordered(self._file.extents):
                self._extent(windows, extent)
                end = extent.end
        excess = max(0, self._source.size - (end if self._file.size is None else self._file.size))
        name, method = self._file.path.name, self._source.method
        return FileCheck(name, method, self._checked, self._bad.all(), excess)

    def _extent(self, windows: Windows, extent: Extent) -> None:
        compare = _Digesting(extent) if isinstance(extent.content, Digest) else _Exact(extent)
        came = 0
        for part in windows.parts(extent.offset, extent.length):
            came += part.length
            if part.data is not None:
                self._judge.seen(part.offset, part.data)
                self._checked += part.length
            compare.take(part)
            if self._progress is not None:
                self._progress(part.length)
        wrong = list(compare.finish(came))
        for bad in wrong:
            self._bad.add(bad.offset, bad.length, bad.kind)
        self._judge.extent(extent.offset, extent.length, _readable(wrong))


def _readable(wrong: list[BadExtent]) -> bool | None:
    """Whether an extent is right (True), wrong (False), or simply not there (None)."""
    if wrong and all(bad.kind is Kind.MISSING for bad in wrong):
        return None
    return not wrong


class _Digesting:
    """An extent of which the digest is known: right or wrong as a whole."""

    def __init__(self, extent: Extent) -> None:
        assert isinstance(extent.content, Digest)  # noqa: S101 - the caller looked
        self._extent = extent
        self._digest = extent.content
        self._hash = extent.content.hasher()
        self._holes: list[Part] = []

    def take(self, part: Part) -> None:
        if part.data is None:
            self._holes.append(part)
        else:
            self._hash.update(part.data)

    def finish(self, came: int) -> Iterator[BadExtent]:
        extent, whole = self._extent, came == self._extent.length
        if whole and not self._holes:
            if self._hash.hexdigest() != self._digest.hex:
                yield BadExtent(extent.offset, extent.length, Kind.DIFFERS)
            return
        at, end = extent.offset, extent.offset + came
        for hole in self._holes:
            if hole.offset > at:
                yield BadExtent(at, hole.offset - at, Kind.UNVERIFIED)
            yield BadExtent(hole.offset, hole.length, Kind.UNREADABLE)
            at = hole.offset + hole.length
        if at < end:
            yield BadExtent(at, end - at, Kind.UNVERIFIED)
        if not whole:
            yield BadExtent(end, extent.end - end, Kind.MISSING)


class _Exact:
    """An extent of which the bytes are known: wrong sectors are told one by one."""

    def __init__(self, extent: Extent) -> None:
        assert isinstance(extent.content, bytes)  # noqa: S101 - the caller looked
        self._extent = extent
        self._content = extent.content
        self._bad: list[BadExtent] = []

    def take(self, part: Part) -> None:
        if part.data is None:
            self._bad.append(BadExtent(part.offset, part.length, Kind.UNREADABLE))
            return
        start = part.offset - self._extent.offset
        wanted = self._content[start : start + part.length]
        found = bytes(part.data)  # two memoryviews would be compared byte by byte
        if found == wanted:
            return
        at = 0
        while at < part.length:
            # up to the next sector of the medium
            step = min(SECTOR - (part.offset + at) % SECTOR, part.length - at)
            if found[at : at + step] != wanted[at : at + step]:
                self._bad.append(BadExtent(part.offset + at, step, Kind.DIFFERS))
            at += step

    def finish(self, came: int) -> Iterator[BadExtent]:
        yield from self._bad
        if came < self._extent.length:
            end = self._extent.offset + came
            yield BadExtent(end, self._extent.length - came, Kind.MISSING)


def _ordered(extents: Iterable[Extent]) -> Iterator[Extent]:
    end = 0
    for extent in extents:
        if extent.offset < end:
            raise MalformedDocument("expected extents overlap or are out of order")
        end = extent.end
        yield extent
