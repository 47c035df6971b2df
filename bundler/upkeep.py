"""``bundle repair`` and ``bundle check-media``: looking after what lies on sticks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bundler.extents import (
    Outline,
    media_files,
    outline,
    parity_back,
    parity_front,
    ranges,
)
from bundler.files import check_output, open_regular
from bundler.finding import find_bundle
from bundler.media import MediaCheck, check_media
from bundler.parity import Damage, FileRange, Table, repair_files, scan
from bundler.volumes import Media, look
from registry.verify import storage_errors
from schemas.errors import MalformedDocument, NotFound
from schemas.render import Meter


def check_paths(paths: Sequence[Path], progress: Meter) -> MediaCheck:
    """Read a bundle back from its medium, past the page cache, and compare all of it.

    It asks whether the medium holds what the head describes, not who signed that.

    Args:
        paths: The bundle, or its head and volumes as far as they lie on this medium; of a head
            alone, those in its folder.
        progress: Told of the bytes.

    Raises:
        ContentError: There is no head, or it is broken.
        StorageFailure: The medium is gone.
    """
    head, media = _at_hand(paths)
    files = media_files(head, media)
    total = sum(extent.length for file in files for extent in file.extents)
    progress.begin("reading back", total)
    return check_media(files, progress=progress.advance)


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair found and did.

    Attributes:
        damage: Bad blocks, before.
        misshapen: Names of files whose blocks are right, and not what lies around them: something
            was appended, or the label of a parity volume is damaged.
        written: Volumes that were made again.
    """

    damage: Damage
    misshapen: tuple[str, ...]
    written: tuple[Path, ...]


def repair_paths(
    paths: Sequence[Path], folder: Path | None, progress: Meter, *, dry_run: bool = False
) -> Repaired:
    """Find damage in a bundle's volumes, parity volumes too, and make them again.

    Nobody's signature is asked for: what comes out is what the bundle's own table says, and an
    import verifies it.

    Args:
        paths: The head, and volumes and parity volumes as far as they are at hand; of a head alone,
            those in its folder.
        folder: Where repaired volumes go; None puts each where the damaged one lies, and lost ones
            beside the head.
        progress: Told of the bytes.
        dry_run: Only look.

    Raises:
        ContentMismatch: More is damaged than the parity can repair; nothing was changed.
        MalformedDocument: The bundle has no parity.
        StorageFull, StorageFailure: As they come.
    """
    head, media = _at_hand(paths)
    seen = outline(head)
    table = seen.table
    if table is None:
        raise MalformedDocument("the bundle has no parity", hint="Copy it again from its source")
    files = ranges(seen, table, media)
    total = sum(table.length(number) for number in range(table.files))
    progress.begin("looking for damage", total)
    damage = scan(files, table, progress.advance)
    damage.check()
    around = _around(seen, table)
    odd = [n for n in range(table.files) if n not in damage.files and _odd(files[n], around[n])]
    numbers = [*damage.files, *odd]
    outputs = {number: _target(seen, table, number, files[number], folder) for number in numbers}
    misshapen = tuple(damage.names[number] for number in odd)
    if dry_run or not outputs:
        return Repaired(damage, misshapen, ())
    for number, path in outputs.items():
        there = files[number]
        check_output(path, overwrite=there is not None and path == there.path)
    progress.begin("repairing", sum(table.length(number) for number in numbers))
    repair_files(files, table, outputs, around=around, damage=damage, progress=progress.advance)
    return Repaired(damage, misshapen, tuple(outputs.values()))


def _at_hand(paths: Sequence[Path]) -> tuple[Path, Media]:
    """A bundle and its volumes; beside a head that is named alone they are looked for."""
    media = look(paths)
    head, _ = find_bundle(media)
    if list(paths) == [head] and not media.volumes:
        media = look([head, head.parent])
    return head, media


def _around(seen: Outline, table: Table) -> dict[int, tuple[bytes, bytes]]:
    """What lies before and after each file's range: of parity volumes, the tar around it."""
    length = max(table.lengths)
    frames = dict.fromkeys(range(table.data), (b"", b""))
    for number in range(table.parity):
        front = parity_front(seen.descriptor.id, number + 1, length)
        frames[table.data + number] = (front, parity_back(len(front), length))
    return frames


def _odd(extent: FileRange | None, around: tuple[bytes, bytes]) -> bool:
    """Whether a file is anything else beside its range."""
    if extent is None:
        return False
    front, back = around
    with open_regular(extent.path) as file, storage_errors(f"cannot read {extent.path}"):
        before = file.read(len(front))
        file.seek(extent.offset + extent.length)
        return (before, file.read(len(back) + 1)) != around


def _target(
    seen: Outline, table: Table, number: int, there: FileRange | None, folder: Path | None
) -> Path:
    if there is None:
        kind, count = ("v", number) if number < table.data else ("p", number - table.data)
        path = seen.head.with_name(f"{seen.head.stem}.{kind}{count + 1:03}{seen.head.suffix}")
    else:
        path = there.path
    if folder is None:
        return path
    if not folder.is_dir():
        raise NotFound(f"there is no folder {folder}", hint="Make it first")
    return folder / path.name
