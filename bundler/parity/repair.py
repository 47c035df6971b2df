"""Making bad blocks again from the good ones of their stripe, and files of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bundler.files import new_file
from bundler.parity.code import Code
from bundler.parity.ranges import FileRange, OpenRange, open_range, read_block, write_all
from bundler.parity.scan import Damage, check_files, missing_name, too_much
from bundler.parity.table import Table
from registry.verify import Writable
from schemas import limits
from schemas.errors import ContentMismatch, NotFound

_MEMORY: Final = 32 * limits.MIB  # of what is read of a stripe at once
_SLICE: Final = 32 * limits.KIB  # per file and call of the library, for few files


class Repairer:
    """Gives any block of any file: as it is where it is right, made again where it is not.

    What it hands out always has the table's digest. It learns of damage as it goes, so that a scan
    before is useful, not needed. Use it as a context manager.

    Args:
        files: Data files, then parity files; None for one that is not at hand.
        table: Trusted.
        damage: What is known already.
        targets: Files of which bad blocks will be asked for; those of one stripe are made together.

    Raises:
        MalformedDocument: The table is of other files.
        StorageFailure: A file cannot be opened.
    """

    def __init__(
        self,
        files: Sequence[FileRange | None],
        table: Table,
        damage: Damage | None = None,
        targets: Iterable[int] = (),
    ) -> None:
        check_files(files, table)
        self.table = table
        self._targets = frozenset(targets)
        self._names = tuple(
            file.name if file is not None else missing_name(number, table)
            for number, file in enumerate(files)
        )
        self._stack = ExitStack()
        with ExitStack() as stack:
            self._code = stack.enter_context(Code(table.data, table.parity))
            self._files = [self._open(stack, file) for file in files]
            self._stack = stack.pop_all()
        self._bad = [
            bytearray(damage.bad[number]) if damage else bytearray(table.blocks(number))
            for number in range(table.files)
        ]
        for number, file in enumerate(self._files):
            if file is None:
                self._bad[number] = bytearray(b"\1" * table.blocks(number))
        self._made: tuple[int, dict[int, bytes]] = (-1, {})
        self._run, self._step = _steps(table)
        memory = memoryview(bytearray(self._run * table.data))
        self._views = [memory[at : at + self._run] for at in range(0, len(memory), self._run)]

    @staticmethod
    def _open(stack: ExitStack, extent: FileRange | None) -> OpenRange | None:
        file = open_range(extent)
        if file is not None:
            stack.callback(file.close)
        return file

    def close(self) -> None:
        """Close all files; again is fine."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def damage(self) -> Damage:
        """What is known by now."""
        return Damage(self.table, self._names, tuple(bytes(blocks) for blocks in self._bad))

    def block(self, file: int, stripe: int) -> bytes:
        """The right bytes of a block.

        Raises:
            ContentMismatch: More blocks of the stripe are bad than the parity can make again.
            StorageFailure: A failed read other than of a bad spot.
        """
        if not self._bad[file][stripe]:
            data = self._read_verified(file, stripe)
            if data is not None:
                return data
            self._bad[file][stripe] = 1
        if self._made[0] != stripe or file not in self._made[1]:
            self._made = (stripe, self._make(file, stripe))
        return self._made[1][file]

    def _read_verified(self, file: int, stripe: int) -> bytes | None:
        data = bytearray(self.table.size(file, stripe))
        whole = read_block(
            self._files[file], memoryview(data), stripe * self.table.block, len(data)
        )
        if whole and hashlib.sha256(data).digest() == self.table.digest(file, stripe):
            return bytes(data)
        return None

    def _make(self, file: int, stripe: int) -> dict[int, bytes]:
        """Rebuild this block, and those of other targets in its stripe that are known to be bad.

        Where the result is wrong, one of the blocks taken for good is not: all are looked at then,
        and it is done again without the bad ones.
        """
        while True:
            bad = [
                n for n, blocks in enumerate(self._bad) if stripe < len(blocks) and blocks[stripe]
            ]
            if len(bad) > self.table.parity:
                raise too_much(self.damage, [stripe])
            good = [number for number in range(self.table.files) if number not in bad]
            wanted = [number for number in bad if number == file or number in self._targets]
            made = self._rebuild(good[: self.table.data], wanted, stripe)
            if made is not None:
                return made
            found = [
                number
                for number in good
                if self.table.size(number, stripe) and self._read_verified(number, stripe) is None
            ]
            if not found:
                raise ContentMismatch(
                    f"cannot make {self._names[file]} again",
                    why=f"stripe {stripe} is right elsewhere and yet gives other bytes",
                    hint="The parity is of another bundle; copy the volume again from its source",
                )
            for number in found:
                self._bad[number][stripe] = 1

    def _rebuild(
        self, sources: Sequence[int], wanted: Sequence[int], stripe: int
    ) -> dict[int, bytes] | None:
        """Compute blocks slice by slice; None if what comes out is wrong or a source unreadable."""
        table = self.table
        length, run = table.size(table.files - 1, stripe), self._run
        made: dict[int, list[memoryview]] = {number: [] for number in wanted}
        for at in range(0, length, run):
            for view, number in zip(self._views, sources, strict=True):
                size = max(0, min(run, table.size(number, stripe) - at))
                if not read_block(self._files[number], view, stripe * table.block + at, size):
                    return None
            for start in range(0, min(run, length - at), self._step):
                end = start + self._step
                parts = (view[start:end] for view in self._views)
                have = dict(zip(sources, parts, strict=True))
                for number, part in zip(wanted, self._code.rebuild(have, wanted), strict=True):
                    made[number].append(part)
        blocks = {n: b"".join(parts)[: table.size(n, stripe)] for n, parts in made.items()}
        for number, data in blocks.items():
            if hashlib.sha256(data).digest() != table.digest(number, stripe):
                return None
        return blocks


def _steps(table: Table) -> tuple[int, int]:
    """Bytes per file that are read at once, and that one call of the library gets.

    It inverts a matrix (k³ steps) in each call, so it gets more where there are more files.
    """
    run = table.block
    while run > limits.PARITY_LEAST_BLOCK and run * table.data > _MEMORY:
        run //= 2
    step = limits.PARITY_LEAST_BLOCK
    while step < min(run, max(_SLICE, _SLICE * table.data**2 // 256)):
        step *= 2
    return run, step


def repair(
    files: Sequence[FileRange | None],
    table: Table,
    sinks: Mapping[int, Writable],
    *,
    damage: Damage | None = None,
    progress: Callable[[int], None] | None = None,
) -> Damage:
    """Write whole files anew, every block verified; several at once read the others only once.

    Args:
        files: Data files, then parity files; None for one that is not at hand.
        table: Trusted.
        sinks: Number of a file to where its bytes go, from front to end.
        damage: Of a scan: what cannot be repaired is refused before anything is written.
        progress: Called with the number of bytes written in each step.

    Returns:
        All damage that is known after it.

    Raises:
        ContentMismatch: More is damaged than the parity can repair. What was written must be
            discarded; the damaged files are as they were.
        StorageFull, StorageFailure: As they come.
    """
    if damage is not None:
        damage.check()
    with Repairer(files, table, damage, sinks) as repairer:
        for stripe in range(table.stripes):
            for number, sink in sinks.items():
                if stripe < table.blocks(number):
                    data = repairer.block(number, stripe)
                    write_all(sink, data)
                    if progress is not None:
                        progress(len(data))
        return repairer.damage


def repair_files(
    files: Sequence[FileRange | None],
    table: Table,
    outputs: Mapping[int, Path],
    *,
    around: Mapping[int, tuple[bytes, bytes]] | None = None,
    damage: Damage | None = None,
    progress: Callable[[int], None] | None = None,
) -> Damage:
    """As :func:`repair`, into files that appear under their names when all of them are right.

    An output may be the damaged file's own path: it is replaced then, never changed.

    Args:
        files: See `repair`.
        table: See `repair`.
        outputs: Number of a file to where it goes.
        around: Number of a file to what lies before and after its range.
        damage: See `repair`.
        progress: See `repair`.

    Raises:
        ContentMismatch, StorageFull, StorageFailure: As :func:`repair`; no output has appeared.
    """
    with ExitStack() as stack:
        sinks = {number: stack.enter_context(new_file(path)) for number, path in outputs.items()}
        frames = {number: (around or {}).get(number, (b"", b"")) for number in sinks}
        for number, sink in sinks.items():
            write_all(sink, frames[number][0])
        result = repair(files, table, sinks, damage=damage, progress=progress)
        for number, sink in sinks.items():
            write_all(sink, frames[number][1])
        return result


def patch_files(
    files: Sequence[FileRange | None],
    table: Table,
    damage: Damage,
    *,
    only: Iterable[int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Overwrite the bad blocks, and nothing else, where they lie.

    Each block is verified before it is written, and only bad ones are, so that an interruption
    costs nothing. For media without room for a second file.

    Args:
        files: As for :func:`repair`.
        table: Trusted.
        damage: Of a scan.
        only: Numbers of the files to repair; all damaged ones where it is None.
        progress: Called with the number of bytes written in each step.

    Returns:
        How many blocks were written.

    Raises:
        NotFound: One of these files is not there; make it with :func:`repair_files`.
        ContentMismatch: More is damaged than the parity can repair; nothing was written.
        StorageFull, StorageFailure: As they come.
    """
    damage.check()
    numbers = sorted(damage.files if only is None else only)
    written = 0
    with ExitStack() as stack:
        repairer = stack.enter_context(Repairer(files, table, damage, numbers))
        targets: dict[int, OpenRange] = {}
        for number in numbers:
            extent = files[number]
            if extent is None or not extent.path.is_file():
                raise NotFound(
                    f"{damage.names[number]} is not there to be repaired in place",
                    hint="Have it written as a new file",
                )
            targets[number] = OpenRange(extent, writable=True)
            stack.callback(targets[number].close)
        for stripe in range(table.stripes):
            for number in damage.of_stripe(stripe):
                if number in targets:
                    data = repairer.block(number, stripe)
                    targets[number].write(data, stripe * table.block)
                    written += 1
                    if progress is not None:
                        progress(len(data))
        for target in targets.values():
            target.sync()
    return written
