"""Volumes as if they were whole: of several copies, and made again from parity, as they are read.

Nothing is written anywhere. Whoever reads compares every byte with what was signed, as ever.
"""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from bundler.evidence.attempt import Attempt
from bundler.extents import Outline, outline, ranges, volume_extents
from bundler.files import Source, open_regular
from bundler.media import Extent
from bundler.parity import Repairer, RestoredFile
from bundler.volumes import Label, Media
from registry.digest import Digest
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import BlobsMissing, ContentError, IncompleteBundle, StorageFailure

_Result = TypeVar("_Result")
Opener = Callable[[], BinaryIO]


class Mended(dict[int, Source]):
    """Volumes by number, each as if it were whole.

    Attributes:
        by_parity: Numbers of those of which parity had to make anything again, as far as they were
            read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_parity: set[int] = set()


def mending(
    head: Path,
    media: Media,
    volumes: Mapping[int, Path],
    read: Callable[[BinaryIO, Mapping[int, Source]], _Result],
    attempt: Attempt | None = None,
) -> _Result:
    """Read a bundle; where that fails, once more from other copies of its volumes, and parity.

    Args:
        head: Its file.
        media: All files at hand.
        volumes: The first file of each volume.
        read: Reads it; what it verified the first time it need not read again.
        attempt: Is told which volumes parity made again.
    """
    try:
        with open_regular(head) as source:
            return read(source, volumes)
    except BlobsMissing:
        raise
    except (ContentError, StorageFailure) as error:
        if not any(label.parity or len(paths) > 1 for label, paths in media.copies.items()):
            raise
        with restored(head, media) as mended:
            more = () if mended is None else mended.keys() - volumes.keys()
            if mended is None or (isinstance(error, IncompleteBundle) and not more):
                raise
            if attempt is not None:
                attempt.lost = mended.by_parity
            with open_regular(head) as source:
                return read(source, mended)


@contextmanager
def restored(head: Path, media: Media) -> Iterator[Mended | None]:
    """The volumes of a bundle, mended as they are read.

    Args:
        head: The bundle's head.
        media: Its volumes and parity volumes, as far as they are at hand.

    Yields:
        None where there is neither parity that could help nor a second copy of anything.
    """
    seen = outline(head)
    bundle = seen.descriptor.id
    mended = Mended()
    with ExitStack() as stack:
        repairer = _repairer(seen, media, stack)
        for number in range(1, len(seen.descriptor.volumes) + 1):
            paths = media.copies.get(Label(bundle, number), [])
            if len(paths) > 1 or repairer is not None:
                mended[number] = _opener(seen, number, paths, repairer, mended)
            elif paths:
                mended[number] = paths[0]
        yield mended if any(not isinstance(each, Path) for each in mended.values()) else None


def _opener(
    seen: Outline, number: int, paths: Sequence[Path], repairer: Repairer | None, mended: Mended
) -> Opener:
    def last() -> BinaryIO:
        mended.by_parity.add(number)
        return cast("BinaryIO", RestoredFile(cast("Repairer", repairer), number - 1))

    def opened() -> BinaryIO:
        extents = list(volume_extents(seen.descriptor, number))
        made = None if repairer is None else last
        return cast("BinaryIO", io.BufferedReader(Pieced(extents, paths, made), 512))

    return opened


def _repairer(seen: Outline, media: Media, stack: ExitStack) -> Repairer | None:
    """What makes lost blocks again; None where there is no parity, or too little."""
    if seen.table is None or not media.parity_of(seen.descriptor.id):
        return None
    best = Media(volumes=dict(media.volumes))
    for label, paths in media.copies.items():
        if len(paths) > 1 and not label.parity and label.number <= seen.table.data:
            extents = list(volume_extents(seen.descriptor, label.number))
            best.volumes[label] = next((p for p in paths if _is_whole(p, extents)), paths[0])
    files = ranges(seen, seen.table, best)
    if files.count(None) > seen.table.parity:
        return None
    return stack.enter_context(Repairer(files, seen.table, targets=range(seen.table.data)))


def _is_whole(path: Path, extents: Sequence[Extent]) -> bool:
    with open_regular(path) as file:
        return all(_is_right(file.fileno(), extent) for extent in extents)


def _is_right(fd: int, extent: Extent) -> bool:
    """Whether a file holds what it should, in one extent; what cannot be read is not right."""
    expected = extent.content
    digest = expected if isinstance(expected, Digest) else Digest.of(expected)
    hasher, position = digest.hasher(), extent.offset
    try:
        while position < extent.end:
            data = os.pread(fd, min(limits.IO_CHUNK, extent.end - position), position)
            if not data:
                return False
            hasher.update(data)
            position += len(data)
    except OSError:
        return False
    return hasher.hexdigest() == digest.hex


class Pieced(io.RawIOBase):
    """One volume out of several copies, none of which needs to be whole.

    Each extent comes from the first copy that has it right; one that no copy has right from
    ``last``, else from the first copy, damaged as it is.

    Args:
        extents: Of the whole file, in order.
        copies: Files.
        last: Opens something that has all of it right, at a price.
    """

    def __init__(
        self, extents: Sequence[Extent], copies: Sequence[Path], last: Opener | None
    ) -> None:
        self._extents = extents
        self._starts = [extent.offset for extent in extents]
        self._chosen: dict[int, int | None] = {}
        self._open_last, self._last = last, cast("BinaryIO | None", None)
        self._position = 0
        self._stack = ExitStack()
        self._fds: list[int] = []
        for path in copies:
            try:
                self._fds.append(self._stack.enter_context(open_regular(path)).fileno())
            except StorageFailure:
                continue  # the medium is gone, or shows nothing

    def close(self) -> None:
        """Close all copies; again is fine."""
        self._stack.close()
        super().close()

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As in :class:`io.IOBase`."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._extents[-1].end}
        self._position = max(base[whence] + offset, 0)
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Read up to the end of an extent.

        Raises:
            ContentMismatch: No copy has it right, and parity cannot make it either.
            StorageFailure: It cannot be read from any.
        """
        number = bisect_right(self._starts, self._position) - 1
        extent = self._extents[number]
        view = memoryview(buffer).cast("B")[: max(extent.end - self._position, 0)]
        if not view:
            return 0
        if number not in self._chosen:
            right = (fd for fd in self._fds if _is_right(fd, extent))
            self._chosen[number] = next(right, None)
        count = self._read(self._chosen[number], view)
        self._position += count
        return count

    def _read(self, fd: int | None, view: memoryview) -> int:
        if fd is None and self._open_last is not None:
            if self._last is None:
                self._last = self._open_last()
            self._last.seek(self._position)
            return self._last.readinto(view)  # type: ignore[attr-defined, no-any-return]
        with storage_errors("cannot read a volume"):
            return os.preadv(self._fds[0] if fd is None else fd, [view], self._position)
