"""Parity volumes of a bundle that is being made."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from bundler.descriptor import BundleDescriptor, Parity
from bundler.extents import parity_back, parity_front, volume_size
from bundler.files import open_regular, write_file
from bundler.parity import FileRange, Table, choose_block, encode
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
        with open_regular(kept) as file, storage_errors(f"cannot read {kept}"):
            return Table.decode(file.read(limits.PARITY_TABLE_BYTES + 1))
    except NotFound:
        pass
    numbers = range(1, len(plan.volumes) + 1)
    data = [FileRange(bench.out_path(n), volume_size(plan, n)) for n in numbers]
    lengths = [each.length for each in data]
    longest = max(lengths)
    block = choose_block(lengths, count)
    progress.begin("computing parity", sum(lengths))
    with ExitStack() as stack:
        files: list[BinaryIO] = []
        for number in range(1, count + 1):
            file = stack.enter_context(bench.output(len(data) + number, fresh=True))
            _write(file, parity_front(plan.id, number, longest))
            files.append(file)
        table = encode(data, files, block=block, progress=progress.advance)
        for number, file in enumerate(files, 1):
            _write(file, parity_back(len(parity_front(plan.id, number, longest)), longest))
    write_file(kept, table.encode())
    return table


def described(table: Table) -> Parity:
    """As the descriptor names it."""
    encoded = table.encode()
    return Parity(table.parity, table.block, Digest.of(encoded), len(encoded))


def _write(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    with storage_errors("cannot write a parity volume"):
        while view:
            view = view[file.write(view) :]
