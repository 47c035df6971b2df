"""Making parity: one pass over the data files, in constant memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bundler.parity.code import Code
from bundler.parity.ranges import FileRange, OpenRange, read_block, write_all
from bundler.parity.table import DIGEST, Table, check_geometry, table_bytes
from registry.verify import Writable
from schemas import limits
from schemas.errors import ContentMismatch, UnsupportedRequest

if TYPE_CHECKING:
    from hashlib import _Hash

_WINDOW_BYTES: Final = 16 * limits.MIB  # of one of the two sets of buffers
_LARGEST_RUN: Final = 1 * limits.MIB  # read at once from one file
_SLICE: Final = 16 * limits.KIB  # of each file per call of the library: stays in the cache
_STRIPES: Final = 1024  # as many as small bundles get, for fine-grained repair
_BYTES_PER_ENTRY: Final = 32  # of the matrix to be inverted: keeps that below the other work
_DIGESTS_BYTES: Final = 8 * limits.MIB  # a table above that gets larger blocks
_WORKERS: Final = 4


def choose_block(lengths: Sequence[int], parity: int) -> int:
    """Bytes per block for files of these lengths: 1 MiB unless they are small or huge.

    Raises:
        UnsupportedRequest: Too many files, or too large ones.
    """
    if not lengths or max(lengths) < 1 or len(lengths) + parity > limits.PARITY_FILES:
        raise UnsupportedRequest(
            f"no parity over {len(lengths)} volumes",
            why=f"with parity there may be {limits.PARITY_FILES} at most",
            hint="Use larger volumes",
        )
    block = limits.PARITY_LEAST_BLOCK
    # Rebuilding inverts a matrix per block, which grows with the cube of the number of files.
    least = max(-(-max(lengths) // _STRIPES), _BYTES_PER_ENTRY * len(lengths) ** 2)
    while block < min(least, limits.PARITY_USUAL_BLOCK):
        block *= 2
    while block < limits.PARITY_LARGEST_BLOCK:
        if table_bytes(lengths, parity, block) <= _DIGESTS_BYTES:
            break
        block *= 2
    if table_bytes(lengths, parity, block) > limits.PARITY_TABLE_BYTES:
        raise UnsupportedRequest("the bundle is too large for parity", hint="Make several of it")
    return block


def encode(
    data: Sequence[FileRange],
    sinks: Sequence[Writable],
    *,
    block: int | None = None,
    progress: Callable[[int], None] | None = None,
    done: Checkpoint | None = None,
    keep: Callable[[Checkpoint], None] | None = None,
) -> Table:
    """Write parity files, and make the table of all blocks.

    Args:
        data: The data files; their order matters.
        sinks: Where each parity file's bytes go, from front to end; as many as the longest data
            file has. Making them durable is the caller's.
        block: As :func:`choose_block` says where it is None.
        progress: Called with the number of bytes read in each step.
        done: Where an earlier call with the same files was; the sinks stand behind that.
        keep: Called at least every ``limits.SEGMENT_BYTES`` that go into the sinks, where going on
            would be possible; what came before it in the sinks is not synced yet.

    Raises:
        UnsupportedRequest: Too many files.
        ContentMismatch: A file is shorter than its range says.
        StorageFull, StorageFailure: A failed read or write; what was written must be discarded.
    """
    lengths = [extent.length for extent in data]
    size = choose_block(lengths, len(sinks)) if block is None else block
    check_geometry(lengths, len(sinks), size)
    with ExitStack() as stack:
        code = stack.enter_context(Code(len(data), len(sinks)))
        pool = stack.enter_context(ThreadPoolExecutor(min(_WORKERS, os.cpu_count() or 1)))
        files = [OpenRange(extent) for extent in data]
        for file in files:
            stack.callback(file.close)
        encoder = _Encoder(code, pool, files, sinks, size, progress or _ignore)
        return encoder.run(done or Checkpoint(0, ()), keep)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What an interrupted computation need not do again.

    Attributes:
        position: Bytes of each file that are done, or the whole file where it is shorter; a
            multiple of the block's size.
        digests: Of all blocks up to there, for each data and then each parity file.
    """

    position: int
    digests: tuple[bytes, ...]


class _Window:
    """The same run of every data file, in memory."""

    def __init__(self, files: int, run: int) -> None:
        self.run = run
        memory = memoryview(bytearray(files * run))
        self.views = [memory[file * run : (file + 1) * run] for file in range(files)]


class _Encoder:
    def __init__(
        self,
        code: Code,
        pool: ThreadPoolExecutor,
        files: Sequence[OpenRange],
        sinks: Sequence[Writable],
        block: int,
        progress: Callable[[int], None],
    ) -> None:
        self._code, self._pool, self._files = code, pool, files
        self._sinks, self._block, self._progress = sinks, block, progress
        self._length = max(file.extent.length for file in files)
        self._hashes: list[_Hash] = [hashlib.sha256() for _ in (*files, *sinks)]
        self._digests = [bytearray() for _ in (*files, *sinks)]

    def run(self, done: Checkpoint, keep: Callable[[Checkpoint], None] | None) -> Table:
        """Read one window while the parity of the one before is computed and written."""
        if done.position:
            self._digests = [bytearray(known) for known in done.digests]
        self._progress(sum(min(f.extent.length, done.position) for f in self._files))
        run = _LARGEST_RUN
        while run > limits.PARITY_LEAST_BLOCK and (
            run * len(self._files) > _WINDOW_BYTES or run * len(self._sinks) > limits.SEGMENT_BYTES
        ):
            run //= 2
        windows = [_Window(len(self._files), run) for _ in range(2)]
        kept = done.position
        pending = self._read(windows[kept // run % 2], kept)
        for start in range(kept, self._length, run):
            window = windows[start // run % 2]
            self._progress(sum(future.result() for future in pending))
            if start + run < self._length:
                pending = self._read(windows[(start // run + 1) % 2], start + run)
            self._write(window, start)
            end = start + run
            least = limits.SEGMENT_BYTES // len(self._sinks) - run
            if keep and end < self._length and end % self._block == 0 and end - kept >= least:
                keep(self._checkpoint(end))
                kept = end
        lengths = tuple(file.extent.length for file in self._files)
        return Table(self._block, lengths, len(self._sinks), b"".join(self._digests))

    def _checkpoint(self, end: int) -> Checkpoint:
        """The next window may have been hashed in part already: no more than the end counts."""
        lengths = [file.extent.length for file in self._files] + [self._length] * len(self._sinks)
        counts = (-(-min(end, length) // self._block) for length in lengths)
        pairs = zip(self._digests, counts, strict=True)
        return Checkpoint(end, tuple(bytes(known[: DIGEST * count]) for known, count in pairs))

    def _read(self, window: _Window, start: int) -> list[Future[int]]:
        return [
            self._pool.submit(self._fill, number, window.views[number], start)
            for number in range(len(self._files))
        ]

    def _fill(self, number: int, view: memoryview, start: int) -> int:
        file = self._files[number]
        length = max(0, min(len(view), file.extent.length - start))
        if not read_block(file, view, start, length):
            raise ContentMismatch(
                f"{file.extent.name} cannot be read whole",
                why=f"it should have {file.extent.length} bytes",
                hint="Make the bundle again; check the disk if it stays so",
            )
        self._hash(number, view[:length], start, file.extent.length)
        return length

    def _hash(self, number: int, part: memoryview, start: int, length: int) -> None:
        """Take bytes into the digests of their blocks."""
        while part:
            room = self._block - start % self._block
            self._hashes[number].update(part[:room])
            start, part = start + len(part[:room]), part[room:]
            if start % self._block == 0 or start == length:
                self._digests[number] += self._hashes[number].digest()
                self._hashes[number] = hashlib.sha256()

    def _write(self, window: _Window, start: int) -> None:
        step = min(_SLICE, window.run)
        parity: list[list[memoryview]] = [[] for _ in self._sinks]
        for at in range(0, window.run, step):
            encoded = self._code.encode([view[at : at + step] for view in window.views])
            for parts, part in zip(parity, encoded, strict=True):
                parts.append(part)
        for number, parts in enumerate(parity):
            whole = memoryview(b"".join(parts))[: self._length - start]
            self._hash(len(self._files) + number, whole, start, self._length)
            write_all(self._sinks[number], whole)


def _ignore(_: int) -> None:
    return
