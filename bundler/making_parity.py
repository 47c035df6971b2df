"""Parity volumes of a bundle that is being made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.descriptor import BundleDescriptor, Parity
from bundler.extents import parity_back, parity_front, volume_size
from bundler.files import open_regular, write_file
from bundler.parity import Checkpoint, FileRange, Table, choose_block, encode
from bundler.parity.table import DIGEST
from bundler.workbench import Workbench
from registry.digest import Digest
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import NotFound
from schemas.render import Meter

if TYPE_CHECKING:
    from typing import BinaryIO


def write_parity(bench: Workbench, plan: BundleDescriptor, count: int, progress: Meter) -> Table:
    """Write the parity volumes after all volumes are complete; or take over those from earlier.

    Args:
        bench: Holds the volumes as outputs 1 and up; the parity volumes follow.
        plan: The bundle.
        count: How many parity volumes.
        progress: Told of the bytes read.

    Returns:
        The table of all blocks.

    Raises:
        UnsupportedRequest: Too many volumes.
        StorageFull, StorageFailure: The disk says no.
    """
    kept = bench.folder / "parity.bin"
    try:
        return Table.decode(_read(kept, limits.PARITY_TABLE_BYTES + 1))
    except NotFound:
        pass
    numbers = range(1, len(plan.volumes) + 1)
    data = [FileRange(bench.out_path(n), volume_size(plan, n)) for n in numbers]
    lengths = [each.length for each in data]
    longest = max(lengths)
    block = choose_block(lengths, count)
    fronts = {
        len(data) + number: parity_front(plan.id, number, longest) for number in range(1, count + 1)
    }
    notes = _Notes(bench, {number: len(front) for number, front in fronts.items()}, lengths, block)
    done = notes.last()
    progress.begin("computing parity", sum(lengths))
    with ExitStack() as stack:
        files: list[BinaryIO] = []
        for number, front in fronts.items():
            most = 0 if done is None else len(front) + done.position
            file = stack.enter_context(bench.output(number, most=most))
            if done is None:
                _write(file, front)
            files.append(file)
        table = encode(
            data,
            files,
            block=block,
            progress=progress.advance,
            done=done,
            keep=lambda checkpoint: notes.keep(checkpoint, files),
        )
        for front, file in zip(fronts.values(), files, strict=True):
            _write(file, parity_back(len(front), longest))
    write_file(kept, table.encode())
    return table


class _Notes:
    """``parity.notes`` in the workbench: how far the computation came.

    A line per checkpoint: its position, then for each file the digests since the one before, in
    hexadecimal. A line counts once the outputs' own journal says that they reach so far.

    Args:
        bench: The workbench.
        fronts: Number of each parity output to the bytes before its parity.
        lengths: Of the volumes, in bytes.
        block: Bytes per block.
    """

    def __init__(
        self, bench: Workbench, fronts: Mapping[int, int], lengths: Sequence[int], block: int
    ) -> None:
        self._bench, self._fronts = bench, fronts
        self._path = bench.folder / "parity.notes"
        self._lengths = [*lengths, *[max(lengths)] * len(fronts)]
        self._block = block
        self._noted = [b""] * len(self._lengths)

    def last(self) -> Checkpoint | None:
        """Where to go on; what lies behind it is dropped."""
        reached = min(self._bench.durable(n) - front for n, front in self._fronts.items())
        lines: list[bytes] = []
        found: Checkpoint | None = None
        for line in self._lines():
            position, *fresh = line.split(b" ")
            if not position.isdigit() or int(position) > reached:
                break
            try:
                grown = [
                    old + bytes.fromhex(new.decode())
                    for old, new in zip(self._noted, fresh, strict=True)
                ]
            except ValueError:  # torn, or of other volumes
                break
            if [len(each) for each in grown] != self._sizes(int(position)):
                break
            self._noted = grown
            found = Checkpoint(int(position), tuple(grown))
            lines.append(line + b"\n")
        write_file(self._path, b"".join(lines))
        return found

    def keep(self, checkpoint: Checkpoint, files: Sequence[BinaryIO]) -> None:
        """Make outputs durable up to here, and note it."""
        with storage_errors("cannot write a parity volume"):
            for file in files:
                os.fdatasync(file.fileno())
            fresh = [
                new[len(old) :].hex()
                for old, new in zip(self._noted, checkpoint.digests, strict=True)
            ]
            with self._path.open("ab", buffering=0) as notes:
                _write(notes, " ".join([str(checkpoint.position), *fresh]).encode() + b"\n")
                os.fdatasync(notes.fileno())
        self._noted = list(checkpoint.digests)
        for number, front in self._fronts.items():
            self._bench.note_durable(number, front + checkpoint.position)

    def _lines(self) -> list[bytes]:
        try:
            # twice the table, as the digests stand there in hexadecimal
            return _read(self._path, 3 * limits.PARITY_TABLE_BYTES).split(b"\n")[:-1]
        except NotFound:
            return []

    def _sizes(self, position: int) -> list[int]:
        counts = (-(-min(position, length) // self._block) for length in self._lengths)
        return [DIGEST * count for count in counts]


def described(table: Table) -> Parity:
    """As the descriptor names it."""
    encoded = table.encode()
    return Parity(table.parity, table.block, Digest.of(encoded), len(encoded))


def _read(path: Path, most: int) -> bytes:
    with open_regular(path) as file, storage_errors(f"cannot read {path}"):
        parts = []
        while most > 0 and (data := file.read(min(most, limits.IO_CHUNK))):
            parts.append(data)
            most -= len(data)
    return b"".join(parts)


def _write(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    with storage_errors("cannot write a parity volume"):
        while view:
            view = view[file.write(view) :]
