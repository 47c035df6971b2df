"""Parity over the files of a folder, in a process of its own.

``python parity_run.py create FOLDER COUNT`` makes COUNT parity files of ``FOLDER/v*.tar``;
``python parity_run.py repair FOLDER COUNT`` looks at all of them and makes again what is missing.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bundler.parity import FileRange, Table, encode, repair_files, scan

_TABLE: Final = "parity.bin"


def main() -> None:
    """Do what the arguments say."""
    action, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    (_create if action == "create" else _repair)(folder, count)


def _create(folder: Path, count: int) -> None:
    data = [FileRange(path, path.stat().st_size) for path in sorted(folder.glob("v*.tar"))]
    with ExitStack() as stack:
        sinks = [
            stack.enter_context((folder / f"p{number}.tar").open("wb", buffering=0))
            for number in range(count)
        ]
        table = encode(data, sinks)
        for sink in sinks:
            os.fsync(sink.fileno())
    (folder / _TABLE).write_bytes(table.encode())


def _repair(folder: Path, count: int) -> None:
    table = Table.decode((folder / _TABLE).read_bytes())
    paths = [folder / f"v{number:02}.tar" for number in range(table.data)]
    paths += [folder / f"p{number}.tar" for number in range(count)]
    files = [FileRange(path, table.length(number)) for number, path in enumerate(paths)]
    damage = scan(files, table)
    repair_files(files, table, {number: paths[number] for number in damage.files}, damage=damage)


if __name__ == "__main__":
    main()
