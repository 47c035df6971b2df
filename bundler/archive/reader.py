"""Reading a bundle in one pass: every byte is either predicted or verified by its digest."""

from __future__ import annotations

import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterable
from io import RawIOBase, UnsupportedOperation
from typing import Any, BinaryIO, Final

from bundler.archive import layout
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import MalformedArchive, NotABundle, TruncatedBundle

_RETRY: Final = "Copy the bundle again from its source, and compare"
_FOREIGN: Final = "Only files that `bundle create` wrote can be read"


class ArchiveReader:
    """A cursor over a bundle. It only moves forward, so a pipe will do.

    Args:
        source: Opened for unbuffered reading, at the start of the bundle.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._position = 0

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._position

    def open_first(self, name: str, content: bytes) -> None:
        """Read the member that tells a bundle from any other file.

        Raises:
            NotABundle: The file starts otherwise.
            TruncatedBundle: It starts like a bundle and ends there.
        """
        wanted = layout.header(name, len(content)) + content + bytes(layout.padding(len(content)))
        got = self._read_up_to(len(wanted))
        if got == wanted:
            return
        if got and wanted.startswith(got):
            raise TruncatedBundle(
                "the bundle is cut off", why=f"it ends after {len(got)} bytes", hint=_RETRY
            )
        raise NotABundle("this file is no bundle", why=_kind(got), hint=_FOREIGN)

    def next_small(
        self, allowed: re.Pattern[str], max_bytes: Callable[[str], int]
    ) -> tuple[str, bytes]:
        """Read a member whose name and size are not known beforehand.

        Args:
            allowed: Full match of the names that may come here.
            max_bytes: By name; refused before its data is read if larger.

        Returns:
            Name and data.

        Raises:
            MalformedArchive: A name, type or header that no bundle has here.
            TruncatedBundle: The file ends early.
        """
        block = self._read_exactly(layout.BLOCK, "in a member header")
        if not any(block):
            raise TruncatedBundle(
                "the bundle is cut off",
                why=f"it goes on with zeros from byte {self._position - len(block)}",
                hint=_RETRY,
            )
        name, size = self._interpret(block)
        if not allowed.fullmatch(name) or len(name) > layout.NAME_BYTES:
            raise MalformedArchive(
                f"the bundle has a member {name[:120]!r}",
                why="no bundle has it here",
                hint=_FOREIGN,
            )
        if not 0 <= size <= max_bytes(name):
            raise MalformedArchive(
                f"{name} cannot be that large",
                why=f"{size} bytes, allowed are {max_bytes(name)}",
                hint=_FOREIGN,
            )
        if block != layout.header(name, size):
            raise MalformedArchive(
                f"{name[:120]} has a header that no bundle has",
                why="it is not as `bundle create` writes it",
                hint=_FOREIGN,
            )
        return name, self._data(name, size)

    def expect_members(self, sizes: Iterable[int]) -> None:
        """See that a file is long enough for what comes, before the first large member is copied.

        Args:
            sizes: Of all members that follow. Where the source is no regular file, its end will
                show.

        Raises:
            TruncatedBundle: It is not.
        """
        try:
            status = os.fstat(self._source.fileno())
        except UnsupportedOperation:
            return
        wanted = layout.end_of_archive(self._position, sizes)
        if stat.S_ISREG(status.st_mode) and status.st_size < wanted:
            raise TruncatedBundle(
                "the bundle is cut off",
                why=f"{status.st_size} of {wanted} bytes are there",
                hint=_RETRY,
            )

    def expect_small(self, name: str, size: int) -> bytes:
        """Read a small member that must come now."""
        self._expect_header(name, size)
        return self._data(name, size)

    def expect_blob(self, name: str, size: int) -> BlobStream:
        """Open a large member that must come now; :meth:`end_blob` closes it.

        Returns:
            A stream of exactly ``size`` bytes; TruncatedBundle where the file ends early.
        """
        self._expect_header(name, size)
        return BlobStream(self, name, size)

    def end_blob(self, stream: BlobStream) -> None:
        """Check the padding after a blob that was read to its end."""
        if stream.left:
            raise ValueError("a blob must be read to its end first")
        self._padding(stream.name, stream.size)

    def finish(self) -> None:
        """Read the end-of-archive mark, and see that nothing follows.

        Raises:
            TruncatedBundle, MalformedArchive: Otherwise.
        """
        wanted = layout.trailer(self._position)
        got = self._read_up_to(len(wanted) + 1)
        if got == wanted:
            return
        if wanted.startswith(got):
            raise TruncatedBundle("the bundle is cut off", why="it lacks its end mark", hint=_RETRY)
        if got[: layout.BLOCK].strip(b"\0") and len(got) >= layout.BLOCK:
            name, _ = self._interpret(got[: layout.BLOCK])
            raise MalformedArchive(
                f"the bundle has a member {name[:120]!r} too many",
                why="nobody signed for it",
                hint=_RETRY,
            )
        raise MalformedArchive(
            "the bundle goes on after its end",
            why=f"there is more from byte {self._position - len(got)} on than zeros to its end",
            hint=_RETRY,
        )

    def readinto(self, buffer: memoryview) -> int:
        """Raw read for :class:`BlobStream`: counts, and translates what the disk says."""
        with storage_errors("cannot read the bundle"):
            count: int = self._source.readinto(buffer) or 0  # type: ignore[attr-defined]
        self._position += count
        return count

    def skip(self, count: int) -> None:
        """Go on without looking at so many bytes: by seeking where the source can.

        Raises:
            TruncatedBundle: A source that cannot seek ends early; the end of another shows later.
        """
        with storage_errors("cannot read the bundle"):
            if self._source.seekable():
                self._source.seek(count, os.SEEK_CUR)
                self._position += count
                return
        view = memoryview(bytearray(min(count, limits.IO_CHUNK)))
        while count:
            got = self.readinto(view[:count])
            if not got:
                raise TruncatedBundle("the bundle ends early", hint=_RETRY)
            count -= got

    def _expect_header(self, name: str, size: int) -> None:
        wanted = layout.header(name, size)
        got = self._read_exactly(len(wanted), f"before {name}")
        if got == wanted:
            return
        if not got.strip(b"\0"):
            raise TruncatedBundle(
                "the bundle is cut off", why=f"there are zeros in place of {name}", hint=_RETRY
            )
        found, found_size = self._interpret(got[: layout.BLOCK])
        if found != name:
            why = f"found {found[:120]!r}"
        elif found_size != size:
            why = f"declared with {found_size} bytes where {size} were signed"
        else:
            why = "its header is not as `bundle create` writes it"
        raise MalformedArchive(f"the bundle should have {name} here", why=why, hint=_RETRY)

    def _interpret(self, block: bytes) -> tuple[str, int]:
        """Name and size as tar understands them: for messages and trust files, never trusted."""
        try:
            info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise MalformedArchive(
                "the bundle has a broken member header", why=str(error), hint=_RETRY
            ) from None
        if info.type != tarfile.REGTYPE:
            raise MalformedArchive(
                f"the bundle has a member {info.name[:120]!r} that is no regular file",
                why="links, devices, folders and extensions are never accepted",
                hint=_FOREIGN,
            )
        return info.name, info.size

    def _data(self, name: str, size: int) -> bytes:
        data = self._read_exactly(size, f"inside {name}")
        self._padding(name, size)
        return data

    def _padding(self, name: str, size: int) -> None:
        if any(self._read_exactly(layout.padding(size), f"after {name}")):
            raise MalformedArchive(
                f"{name} is not as it was written", why="its padding is not zero", hint=_RETRY
            )

    def _read_exactly(self, count: int, where: str) -> bytes:
        data = self._read_up_to(count)
        if len(data) < count:
            raise TruncatedBundle(
                f"the bundle ends {where}", why=f"after {self._position} bytes", hint=_RETRY
            )
        return data

    def _read_up_to(self, count: int) -> bytes:
        view = memoryview(bytearray(count))
        done = 0
        while done < count and (got := self.readinto(view[done:])):
            done += got
        return bytes(view[:done])


class BlobStream(RawIOBase):
    """The data of one large member: exactly its size, or TruncatedBundle.

    Attributes:
        name: The member's.
        size: In bytes.
        left: Bytes not read yet.
        offset: Where the data begins in the bundle.
    """

    def __init__(self, archive: ArchiveReader, name: str, size: int) -> None:
        super().__init__()
        self._archive = archive
        self.name = name
        self.size = size
        self.left = size
        self.offset = archive.position

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill from the archive, never past the member's end."""
        view = memoryview(buffer).cast("B")[: self.left]
        if not view:
            return 0
        count = self._archive.readinto(view)
        if count == 0:
            raise TruncatedBundle(
                f"the bundle ends inside {self.name}",
                why=f"{self.left} of {self.size} bytes are missing",
                hint=_RETRY,
            )
        self.left -= count
        return count

    def skip(self, count: int) -> None:
        """Go on without looking at so many bytes."""
        if count > self.left:
            raise ValueError("a member has no bytes behind its end")
        self._archive.skip(count)
        self.left -= count

    def read_exactly(self, count: int) -> bytes:
        """So many bytes, held in memory.

        Raises:
            TruncatedBundle: The bundle ends before.
        """
        view = memoryview(bytearray(count))
        done = 0
        while done < count and (got := self.readinto(view[done:])):
            done += got
        return bytes(view[:done])


def _kind(start: bytes) -> str:
    """What the file seems to be instead, for people."""
    if not start:
        return "it is empty"
    for magic, kind in (
        (b"GGUF", "it is a GGUF model; bundle it first with `bundle create`"),
        (b"\x1f\x8b", "it is gzip"),
        (b"\x28\xb5\x2f\xfd", "it is zstd"),
        (b"PK\x03\x04", "it is a zip file"),
    ):
        if start.startswith(magic):
            return kind
    return "it is some other tar" if start[257:262] == b"ustar" else "it does not start like one"
