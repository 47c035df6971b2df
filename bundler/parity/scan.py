"""Finding damage: every block of every file against the table."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from bundler.parity.ranges import FileRange, OpenRange, open_range
from bundler.parity.table import Table
from schemas import limits
from schemas.errors import ContentMismatch, MalformedDocument

_RUN: Final = 4 * limits.MIB  # read at once, whole blocks
_AHEAD: Final = 4  # runs in memory
_SHOWN: Final = 5  # file names in a message


@dataclass(frozen=True, slots=True)
class Damage:
    """Which blocks are bad or missing.

    Attributes:
        table: What they should be.
        names: Of the files, for messages.
        bad: Per file, one byte per block: 0 where it is right, else 1.
    """

    table: Table
    names: tuple[str, ...]
    bad: tuple[bytes, ...]

    @property
    def count(self) -> int:
        """Bad blocks in all."""
        return sum(sum(blocks) for blocks in self.bad)

    @property
    def files(self) -> dict[int, int]:
        """Damaged files, by number, with how many of their blocks are bad."""
        return {number: sum(blocks) for number, blocks in enumerate(self.bad) if any(blocks)}

    @property
    def worst(self) -> int:
        """The most bad blocks that one stripe has."""
        return max((len(self.of_stripe(s)) for s in range(self.table.stripes)), default=0)

    @property
    def repairable(self) -> bool:
        """Whether there is parity enough."""
        return self.worst <= self.table.parity

    def of_stripe(self, stripe: int) -> list[int]:
        """Files whose block in this stripe is bad."""
        return [
            number
            for number, blocks in enumerate(self.bad)
            if stripe < len(blocks) and blocks[stripe]
        ]

    def extents(self, file: int) -> list[tuple[int, int]]:
        """Bad runs of a file: offset and length in bytes."""
        runs: list[tuple[int, int]] = []
        for stripe, bad in enumerate(self.bad[file]):
            if not bad:
                continue
            offset, size = stripe * self.table.block, self.table.size(file, stripe)
            if runs and sum(runs[-1]) == offset:
                runs[-1] = (runs[-1][0], runs[-1][1] + size)
            else:
                runs.append((offset, size))
        return runs

    def check(self) -> None:
        """See that it can be repaired.

        Raises:
            ContentMismatch: Which files are damaged, and how far beyond the parity.
        """
        stripes = [
            stripe
            for stripe in range(self.table.stripes)
            if len(self.of_stripe(stripe)) > self.table.parity
        ]
        if stripes:
            raise too_much(self, stripes)

    def document(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "repairable": self.repairable,
            "parity": self.table.parity,
            "block": self.table.block,
            "files": [
                {
                    "name": self.names[number],
                    "badBlocks": count,
                    "blocks": self.table.blocks(number),
                    "extents": [list(run) for run in self.extents(number)],
                }
                for number, count in self.files.items()
            ],
        }


def too_much(damage: Damage, stripes: Sequence[int]) -> ContentMismatch:
    """The error for stripes that have more bad blocks than parity."""
    involved: dict[int, int] = {}
    for stripe in stripes:
        for number in damage.of_stripe(stripe):
            involved[number] = involved.get(number, 0) + 1
    worst = sorted(involved, key=lambda number: -involved[number])
    shown = ", ".join(damage.names[number] for number in worst[:_SHOWN])
    more = f" and {len(worst) - _SHOWN} more" if len(worst) > _SHOWN else ""
    lost = max(len(damage.of_stripe(stripe)) for stripe in stripes)
    needed = lost - damage.table.parity
    one = "one of these volumes" if needed == 1 else f"{needed} of these volumes"
    return ContentMismatch(
        "more is damaged than the parity can repair",
        why=f"{len(stripes)} of {damage.table.stripes} stripes have up to {lost} bad blocks where"
        f" {damage.table.parity} can be repaired; they lie in {shown}{more}",
        hint=f"Nothing was changed; copy {one} again from the source",
    )


def check_files(files: Sequence[FileRange | None], table: Table) -> None:
    """See that these can be a table's files.

    Raises:
        MalformedDocument: Another number of them, or a range of another length.
    """
    if len(files) != table.files:
        raise MalformedDocument(
            "the parity table is of other files", why=f"{table.files}, not {len(files)}"
        )
    for number, file in enumerate(files):
        if file is not None and file.length != table.length(number):
            raise MalformedDocument(
                f"{file.name} has another length in the parity table",
                why=f"{table.length(number)}, not {file.length} bytes",
            )


def scan(
    files: Sequence[FileRange | None],
    table: Table,
    progress: Callable[[int], None] | None = None,
) -> Damage:
    """Read all files and compare every block.

    Args:
        files: Data files, then parity files; None for one that is not at hand.
        table: Trusted.
        progress: Called with the number of bytes of each step; missing files count too.

    Raises:
        MalformedDocument: The table is of other files.
        StorageFailure: A failed read other than of a bad spot on the medium, which counts as
            damage.
    """
    check_files(files, table)
    bad: list[bytes] = []
    with ThreadPoolExecutor(min(_AHEAD, os.cpu_count() or 1)) as pool:
        for number, extent in enumerate(files):
            file = open_range(extent)
            if file is None:
                bad.append(b"\1" * table.blocks(number))
                if progress is not None:
                    progress(table.length(number))
                continue
            try:
                bad.append(_scan_file(number, file, table, pool, progress))
            finally:
                file.close()
    names = tuple(
        extent.name if extent is not None else missing_name(number, table)
        for number, extent in enumerate(files)
    )
    return Damage(table, names, tuple(bad))


def missing_name(number: int, table: Table) -> str:
    """What to call a file that nobody has a path of."""
    if number < table.data:
        return f"volume {number + 1}"
    return f"parity volume {number - table.data + 1}"


def _scan_file(
    number: int,
    file: OpenRange,
    table: Table,
    pool: ThreadPoolExecutor,
    progress: Callable[[int], None] | None,
) -> bytes:
    """Read runs of whole blocks, and let others hash them meanwhile."""
    run = max(_RUN, table.block) // table.block
    bad = bytearray(table.blocks(number))
    buffers = deque(memoryview(bytearray(run * table.block)) for _ in range(_AHEAD))
    pending: deque[tuple[Future[None], memoryview]] = deque()
    try:
        for first in range(0, table.blocks(number), run):
            if not buffers:
                future, buffer = pending.popleft()
                future.result()
                buffers.append(buffer)
            view = buffers.popleft()
            offset = first * table.block
            wanted = min(len(view), file.extent.length - offset)
            came = file.read_into(view[:wanted], offset)
            if came < wanted:
                _read_singly(file, view[:wanted], offset, table.block, bad)
            job = pool.submit(_compare, table, number, first, view[:wanted], bad)
            pending.append((job, view))
            if progress is not None:
                progress(wanted)
        for future, _ in pending:
            future.result()
    finally:
        for future, _ in pending:
            future.exception()
    return bytes(bad)


def _read_singly(
    file: OpenRange, view: memoryview, offset: int, block: int, bad: bytearray
) -> None:
    """One unreadable spot must not take the blocks beside it along."""
    for start in range(0, len(view), block):
        part = view[start : start + block]
        if file.read_into(part, offset + start) < len(part):
            bad[(offset + start) // block] = 1


def _compare(table: Table, number: int, first: int, view: memoryview, bad: bytearray) -> None:
    for start in range(0, len(view), table.block):
        stripe = first + start // table.block
        found = hashlib.sha256(view[start : start + table.block]).digest()
        if found != table.digest(number, stripe):
            bad[stripe] = 1
