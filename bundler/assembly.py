"""The large blobs of a bundle while they come in: from any volume, in any order, at any time.

A blob grows in a part file of the import's staging area. Each stored segment is compared with its
signed digest before it counts, each finished blob with its own before it is accepted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bundler.archive.codec import Encoding
from bundler.archive.pieces import Segment, decode_run, default_workers
from bundler.archive.reader import BlobStream
from bundler.contents import DELTA, IDENTITY, PIECEWISE, Entry, Part
from bundler.journal import Journal
from bundler.rebuilding import Bases, rebuild_entry
from bundler.rolling import Rolling, Tee
from registry import linuxio
from registry.pipeline import hash_through
from registry.staging import StagingArea
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import ContentError, ContentMismatch
from schemas.render import Meter

if TYPE_CHECKING:
    from hashlib import _Hash


class Assembly:
    """Makes blobs of segments.

    Args:
        area: Kept, so that an interrupted import can go on.
        journal: Of the same area.
        bases: For deltas.
    """

    def __init__(self, area: StagingArea, journal: Journal, bases: Bases) -> None:
        self._area = area
        self._journal = journal
        self._bases = bases
        self._rolling: Rolling | None = None

    def done(self, entry: Entry) -> bool:
        """Whether the blob waits in the area, verified."""
        return entry.digest in self._area.digests

    def complete(self, entry: Entry) -> bool:
        """Whether all of a blob's segments have come."""
        have, count = self._journal.segments(entry.digest), len(entry.parts)
        return self.done(entry) or (len(have) >= count and set(range(count)) <= have)

    def lacks(self, part: Part) -> bool:
        """Whether any of a part's segments has not come yet."""
        return lacks(part, self._area, self._journal)

    def settle(self, entries: Iterable[Entry]) -> None:
        """Finish blobs of which an interrupted import had all segments.

        What the journal says is a hint: a blob that is not there, or turns out wrong, starts anew.
        """
        for entry in entries:
            if self.done(entry):
                continue
            with storage_errors(f"cannot look for blob {entry.digest.short}"):
                begun = self._grows_in(entry).is_file()
            if not begun:
                self._journal.forget(entry.digest)
            elif self.complete(entry):
                with suppress(ContentError):
                    self._finish(entry)

    def take(self, part: Part, stream: BlobStream, progress: Meter) -> None:
        """Read one member of a bundle, or skip what is there already.

        Args:
            part: What the member holds.
            stream: Stands at its first byte; ends after its last.
            progress: Told of all of the member's bytes, skipped ones too.

        Raises:
            ContentMismatch: A segment or the finished blob is not what was signed. Of the former
                nothing counts, the latter starts anew.
            TruncatedBundle, StorageFull, StorageFailure: As they come.
        """
        entry = part.entry
        if self.done(entry):
            stream.skip(part.size)
            progress.advance(part.size)
        elif entry.encoding == IDENTITY and len(entry.parts) == 1:
            self._take_front(entry, stream, progress)
        else:
            self._take_segments(part, stream, progress)
            if self.complete(entry):
                self._finish(entry)

    def _take_front(self, entry: Entry, stream: BlobStream, progress: Meter) -> None:
        """The fast way: the blob as it is, hashed once while it is copied."""
        front = min(self._journal.front(entry.digest), entry.size)
        with self._part_file(entry) as fd:
            front = min(front, os.fstat(fd).st_size)
            with os.fdopen(os.dup(fd), "rb", buffering=0) as staged:
                seed = entry.digest.hasher()
                _hash_range(staged, front, seed)
            stream.skip(front)
            progress.advance(front)
            os.lseek(fd, front, os.SEEK_SET)
            came, found = hash_through(
                stream,
                entry.size - front,
                entry.digest.algorithm,
                sink_fd=fd,
                progress=progress.advance,
                seed=seed,
                durable=lambda done: self._journal.front_done(entry.digest, front + done),
            )
            self._accept(entry, fd, came + front, found)

    def _take_segments(self, part: Part, stream: BlobStream, progress: Meter) -> None:
        with self._part_file(part.entry) as fd:
            if part.entry.encoding in PIECEWISE:
                self._take_pieces(part, stream, progress, fd)
            else:
                self._take_raw(part, stream, progress, fd)

    def _take_raw(self, part: Part, stream: BlobStream, progress: Meter, fd: int) -> None:
        """Segments that are put into their place as they come."""
        entry = part.entry
        have = self._journal.segments(entry.digest)
        offset = _offset(part)
        for number, segment in enumerate(part.segments, part.first):
            if number in have:
                stream.skip(segment.size)
                progress.advance(segment.size)
            else:
                rolling = self._follow(entry, number)
                source = stream if rolling is None else Tee(stream, rolling.feed)
                os.lseek(fd, offset, os.SEEK_SET)
                _, found = hash_through(
                    source,
                    segment.size,
                    segment.digest.algorithm,
                    sink_fd=fd,
                    progress=progress.advance,
                )
                compare_segment(entry, number, found)
                os.fdatasync(fd)
                self._journal.segments_done(entry.digest, [number])
                if rolling is not None:
                    rolling.done(number)
            offset += segment.size

    def _take_pieces(self, part: Part, stream: BlobStream, progress: Meter, fd: int) -> None:
        """Encoded segments: read here, decoded on all cores, written here in their order."""
        entry = part.entry
        have = self._journal.segments(entry.digest)
        lacking = [n for n in range(part.first, part.first + part.count) if n not in have]

        def stored() -> Iterator[tuple[bytes, Segment, int]]:
            wanted = set(lacking)
            for number, segment in enumerate(part.segments, part.first):
                if number in wanted:
                    yield stream.read_exactly(segment.size), segment, entry.raw_range(number)[1]
                else:
                    stream.skip(segment.size)
                progress.advance(segment.size)

        batch = _Batch(fd, entry, self._journal)
        decoded = decode_run(stored(), Encoding(entry.encoding))
        try:
            with closing(decoded):
                for number, raw in zip(lacking, decoded, strict=True):
                    rolling = self._follow(entry, number)
                    _write_at(fd, raw, entry.raw_range(number)[0])
                    if rolling is not None:
                        rolling.feed(raw)
                        rolling.done(number)
                    batch.add(number, len(raw))
        finally:
            batch.sync()

    def _follow(self, entry: Entry, number: int) -> Rolling | None:
        """The hash of the whole blob, as long as its segments come in order, from the first one."""
        if number == 0 and entry.encoding != DELTA:
            self._rolling = Rolling(entry)
        rolling = self._rolling
        return rolling if rolling is not None and rolling.expects(entry, number) else None

    def _finish(self, entry: Entry) -> None:
        """All segments are there: see that they make the blob."""
        if entry.encoding == DELTA:
            self._rebuild(entry)
            return
        rolling, self._rolling = self._rolling, None
        with self._part_file(entry) as fd:
            if rolling is not None and rolling.complete(entry):
                self._accept(entry, fd, entry.size, rolling.hexdigest())
                return
            with os.fdopen(os.dup(fd), "rb", buffering=0) as file:
                file.seek(0)
                came, found = hash_through(file, entry.size, entry.digest.algorithm)
                self._accept(entry, fd, came, found)

    def _rebuild(self, entry: Entry) -> None:
        """Turn a delta's stored bytes and its bases into the blob.

        Both together never take more than the blob and a segment: what of the stored bytes has
        become a part of the blob is given back. An interrupted rebuilding goes on from there.
        """
        stored = self._stored_path(entry)
        recipe = entry.parts[0].size
        # Nothing is reserved for the blob: it gets the room that its literals give back.
        with self._open(self._area.part(entry.digest), 0) as fd, self._open(stored, 0) as raw:

            def durable(done: int, used: int) -> None:
                os.fdatasync(fd)
                self._journal.front_done(entry.digest, done)
                linuxio.give_back(raw, recipe, used - recipe)

            try:
                with os.fdopen(os.dup(raw), "rb", buffering=0) as file:
                    front = min(self._journal.front(entry.digest), os.fstat(fd).st_size)
                    rebuild_entry(entry, file, self._bases, fd, front=front, durable=durable)
            except ContentError:
                self._start_anew(entry)
                raise
            self._keep(entry, fd)
        stored.unlink()

    def _accept(self, entry: Entry, fd: int, came: int, found: str) -> None:
        if came != entry.size or found != entry.digest.hex:
            self._start_anew(entry)
            raise ContentMismatch(
                f"blob {entry.digest.short} is not what was signed",
                why=f"it hashes to {found[:12]}",
                hint="Run it again; if it stays, copy the bundle again from its source",
            )
        self._keep(entry, fd)

    def _keep(self, entry: Entry, fd: int) -> None:
        """The blob is right: it waits from now on."""
        os.ftruncate(fd, entry.size)
        # Many small ones are synced together; a delta's stored bytes go as soon as it is accepted.
        durable = entry.size >= limits.CODED_BYTES or entry.encoding == DELTA
        if durable:
            os.fsync(fd)
        self._area.accept(entry.digest, entry.size, durable=durable)

    def _start_anew(self, entry: Entry) -> None:
        """What was recorded of a blob turned out wrong."""
        self._journal.forget(entry.digest)
        with storage_errors(f"cannot clear blob {entry.digest.short}"):
            self._area.part(entry.digest).unlink(missing_ok=True)
            self._stored_path(entry).unlink(missing_ok=True)

    def _part_file(self, entry: Entry) -> AbstractContextManager[int]:
        size = entry.stored_size if entry.encoding == DELTA else entry.size
        return self._open(self._grows_in(entry), size)

    def _grows_in(self, entry: Entry) -> Path:
        """Where segments are put."""
        is_delta = entry.encoding == DELTA
        return self._stored_path(entry) if is_delta else self._area.part(entry.digest)

    def _stored_path(self, entry: Entry) -> Path:
        """Where a delta's stored bytes grow."""
        return self._area.part(entry.digest).with_suffix(".delta")

    @contextmanager
    def _open(self, path: Path, size: int) -> Iterator[int]:
        with storage_errors(f"cannot store {path.name}"):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                if size > limits.IO_CHUNK:
                    linuxio.preallocate(fd, size)
                yield fd
            finally:
                os.close(fd)


class _Batch:
    """Pieces that are written and not yet synced: no more than an interruption may cost.

    Those that are being decoded meanwhile count too.
    """

    _MOST = limits.SEGMENT_BYTES - (default_workers() + 1) * limits.PIECE_BYTES

    def __init__(self, fd: int, entry: Entry, journal: Journal) -> None:
        self._fd = fd
        self._entry = entry
        self._journal = journal
        self._numbers: list[int] = []
        self._bytes = 0

    def add(self, number: int, size: int) -> None:
        """Note a piece that is in its place."""
        self._numbers.append(number)
        self._bytes += size
        if self._bytes >= self._MOST:
            self.sync()

    def sync(self) -> None:
        """Make all of them durable, then say so."""
        numbers, self._numbers, self._bytes = self._numbers, [], 0
        if numbers:
            os.fdatasync(self._fd)
            self._journal.segments_done(self._entry.digest, numbers)


def _offset(part: Part) -> int:
    """Where the bytes of a part begin that are stored as they are."""
    if part.entry.encoding == IDENTITY:
        return part.entry.raw_range(part.first)[0]
    return sum(segment.size for segment in part.entry.parts[: part.first])


def _hash_range(file: BinaryIO, size: int, hasher: _Hash) -> None:
    came, _ = hash_through(file, size, "", seed=hasher)
    if came != size:
        raise ContentMismatch("the staged front of a blob is shorter than its journal says")


def lacks(part: Part, area: StagingArea, journal: Journal) -> bool:
    """Whether a staging area has yet to see any of a part's segments."""
    if part.entry.digest in area.digests:
        return False
    numbers = range(part.first, part.first + part.count)
    return not set(numbers) <= journal.segments(part.entry.digest)


def compare_segment(entry: Entry, number: int, found: str) -> None:
    """See that a segment's bytes are the signed ones.

    Args:
        entry: The blob.
        number: Which segment.
        found: Hexadecimal digest of what came.

    Raises:
        ContentMismatch: They are not.
    """
    if found != entry.parts[number].digest.hex:
        raise ContentMismatch(
            f"segment {number} of blob {entry.digest.short} is not what was signed",
            why=f"it hashes to {found[:12]}",
            hint="Copy this volume again from its source, and run it again",
        )


def _write_at(fd: int, data: bytes | bytearray, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
