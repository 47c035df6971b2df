"""The hash of a whole blob while its segments come, as long as they come in order."""

from __future__ import annotations

from collections.abc import Callable

from bundler.contents import Entry
from registry.pipeline import Readable, read_some

Bytes = bytes | bytearray | memoryview


class Rolling:
    """Follows one blob from its first segment on; of no use once a segment was left out.

    Args:
        entry: The blob; not a delta.
    """

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._hash = entry.digest.hasher()
        self._next = 0
        self._whole = True

    def expects(self, entry: Entry, number: int) -> bool:
        """Whether this segment is the next one; from then on it must come whole."""
        expected = self._whole and (entry, number) == (self._entry, self._next)
        self._whole = False
        return expected

    def feed(self, data: Bytes) -> None:
        """Bytes of the segment, in order."""
        self._hash.update(data)

    def done(self, number: int) -> None:
        """All bytes of the segment have come, and were right."""
        self._next = number + 1
        self._whole = True

    def complete(self, entry: Entry) -> bool:
        """Whether all segments of this blob have been seen."""
        return self._whole and entry == self._entry and self._next == len(entry.parts)

    def hexdigest(self) -> str:
        """Of all bytes so far."""
        return self._hash.hexdigest()


class Tee:
    """A reader that shows what it reads to somebody else too."""

    def __init__(self, source: Readable, also: Callable[[memoryview], None]) -> None:
        self._source = source
        self._also = also

    def read(self, n: int, /) -> bytes:
        """Read on."""
        data = self._source.read(n)
        self._also(memoryview(data))
        return data

    def readinto(self, view: memoryview) -> int:
        """Read on, into memory of the caller's."""
        count = read_some(self._source, view)
        self._also(view[:count])
        return count
