"""Cuts a blob into chunks while it passes by, and hashes each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from bundler.chunks.regions import Cut, Region
from schemas import limits
from schemas.errors import DependencyMissing

if TYPE_CHECKING:
    from pyfastcdc import FastCDC

_AVERAGES: Final = {Cut.FINE: limits.FINE_CHUNK_BYTES, Cut.COARSE: limits.COARSE_CHUNK_BYTES}
_SPREAD: Final = 4  # the shortest chunk is a quarter of the average, the longest four times it
_BATCH: Final = 1 * limits.MIB  # buffered before it is cut by content


class Chunk(NamedTuple):
    """A run of bytes that may be found again.

    Attributes:
        offset: In the blob.
        length: Bytes.
        digest: SHA-256, 32 bytes.
    """

    offset: int
    length: int
    digest: bytes


class Chunker:
    """Push bytes in, get chunks out; in constant memory, whatever the portions.

    Args:
        regions: In order from the blob's first byte to its last, without a gap.
    """

    def __init__(self, regions: Iterable[Region]) -> None:
        self._regions = _Regions(regions)
        self._position = 0
        self._cutter: _FixedCutter | _ContentCutter | None = None
        self._end = 0

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Chunk]:
        """Take the blob's next bytes; the iterator must be exhausted before the next call.

        Yields:
            Chunks that ended in them, or before.

        Raises:
            ValueError: More bytes than the regions have.
            DependencyMissing: A region is cut by content, for which a library is needed.
        """
        view = memoryview(data).cast("B")
        while view:
            if self._cutter is None:
                region = self._regions.after(self._position)
                self._cutter = _cutter(region)
                self._end = region.offset + region.length
            portion = view[: self._end - self._position]
            self._position += len(portion)
            view = view[len(portion) :]
            at_end = self._position == self._end
            yield from self._cutter.feed(portion, at_end=at_end)
            if at_end:
                self._cutter = None

    def giving(self, *takers: Callable[[Chunk], None]) -> Callable[[memoryview], None]:
        """What takes the blob's bytes and has every chunk go to all takers, in order.

        For `registry.verify.digest_stream`, say, which hashes the whole beside it.
        """

        def feed(data: memoryview) -> None:
            for chunk in self.feed(data):
                for take in takers:
                    take(chunk)

        return feed

    def finish(self) -> int:
        """See that all of the blob came; returns its size.

        Raises:
            ValueError: The regions go on.
        """
        if self._cutter is not None or not self._regions.exhausted():
            raise ValueError("the blob ends before its last region does")
        return self._position


class _Regions:
    """The regions one after the other, checked for gaps."""

    def __init__(self, regions: Iterable[Region]) -> None:
        self._left = iter(regions)

    def after(self, position: int) -> Region:
        region = next(self._left, None)
        if region is None or region.offset != position:
            raise ValueError(f"no region starts at byte {position}")
        return region

    def exhausted(self) -> bool:
        return next(self._left, None) is None


class _FixedCutter:
    """Every so many bytes, with nothing buffered."""

    def __init__(self, region: Region) -> None:
        self._start = region.offset
        self._length = 0
        self._hash = hashlib.sha256()

    def feed(self, data: memoryview, *, at_end: bool) -> Iterator[Chunk]:
        while data:
            portion = data[: limits.FIXED_CHUNK_BYTES - self._length]
            self._hash.update(portion)
            self._length += len(portion)
            data = data[len(portion) :]
            if self._length == limits.FIXED_CHUNK_BYTES or (at_end and not data):
                yield Chunk(self._start, self._length, self._hash.digest())
                self._start += self._length
                self._length = 0
                self._hash = hashlib.sha256()


class _ContentCutter:
    """Where the content says so (FastCDC 2020)."""

    def __init__(self, region: Region, average: int) -> None:
        self._start = region.offset
        self._longest = average * _SPREAD
        self._cdc = _fastcdc(average)
        self._buffer = bytearray()

    def feed(self, data: memoryview, *, at_end: bool) -> Iterator[Chunk]:
        # In batches, as what is not cut yet is moved to the front each time.
        while data:
            room = max(self._longest + _BATCH - len(self._buffer), 1)
            portion = data[:room]
            self._buffer += portion
            data = data[len(portion) :]
            last = at_end and not data
            if last or len(self._buffer) >= self._longest + _BATCH:
                yield from self._cut(last=last)

    def _cut(self, *, last: bool) -> Iterator[Chunk]:
        batch = bytes(self._buffer)
        done = 0
        for chunk in self._cdc.cut_buf(batch):
            # A cut depends on as many bytes as the longest chunk has.
            if not last and done + self._longest > len(batch):
                break
            yield Chunk(self._start + done, chunk.length, hashlib.sha256(chunk.data).digest())
            done += chunk.length
        self._start += done
        del self._buffer[:done]


def _cutter(region: Region) -> _FixedCutter | _ContentCutter:
    if region.cut is Cut.FIXED:
        return _FixedCutter(region)
    return _ContentCutter(region, _AVERAGES[region.cut])


def _fastcdc(average: int) -> FastCDC:
    try:
        from pyfastcdc import FastCDC
    except ImportError as error:
        raise DependencyMissing(
            "the library that cuts files by their content is not installed",
            why=str(error),
            hint="Install sealift[connect]",
        ) from error
    return FastCDC(
        average,
        min_size=average // _SPREAD,
        max_size=average * _SPREAD,
        normalized_chunking=2,  # the paper's recommendation: sizes close to the average
    )
