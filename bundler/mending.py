"""Lost and damaged volumes as if they were whole, made again from parity while they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from bundler.extents import outline, ranges
from bundler.parity import Repairer, RestoredFile
from bundler.volumes import Media


@contextmanager
def restored(head: Path, media: Media) -> Iterator[Mapping[int, Callable[[], BinaryIO]] | None]:
    """All volumes of a bundle as if none were lost or damaged, by number; nothing is written.

    Args:
        head: The bundle's head.
        media: Its volumes and parity volumes, as far as they are at hand.

    Yields:
        None where there is no parity, or more volumes are lost than it can make again.
    """
    seen = outline(head)
    if seen.table is None or not media.parity_of(seen.descriptor.id):
        yield None
        return
    files = ranges(seen, seen.table, media)
    if files.count(None) > seen.table.parity:
        yield None
        return
    with Repairer(files, seen.table, targets=range(seen.table.data)) as repairer:

        def opener(number: int) -> Callable[[], BinaryIO]:
            return lambda: cast("BinaryIO", RestoredFile(repairer, number))

        yield {number + 1: opener(number) for number in range(seen.table.data)}
