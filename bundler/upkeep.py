"""``bundle repair`` and ``bundle check-media``: looking after what lies on sticks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bundler.extents import Outline, media_files, outline, ranges
from bundler.files import check_output
from bundler.finding import find_bundle
from bundler.media import MediaCheck, check_media
from bundler.parity import Damage, repair_files, scan
from bundler.volumes import look
from schemas.errors import MalformedDocument, NotFound
from schemas.render import Meter


def check_paths(paths: Sequence[Path], progress: Meter) -> MediaCheck:
    """Read a bundle back from its medium, past the page cache, and compare all of it.

    It asks whether the medium holds what the head describes, not who signed that.

    Args:
        paths: The bundle, or its head and volumes as far as they lie on this medium.
        progress: Told of the bytes.

    Raises:
        ContentError: There is no head, or it is broken.
        StorageFailure: The medium is gone.
    """
    media = look(paths)
    head, _ = find_bundle(media)
    files = media_files(head, media)
    total = sum(extent.length for file in files for extent in file.extents)
    progress.begin("reading back", total)
    return check_media(files, progress=progress.advance)


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair found and did.

    Attributes:
        damage: All of it, before.
        written: Volumes that were made again.
        left: Parity volumes that are damaged or lost; the bundle is whole without them.
    """

    damage: Damage
    written: tuple[Path, ...]
    left: tuple[str, ...]


def repair_paths(
    paths: Sequence[Path], folder: Path | None, progress: Meter, *, dry_run: bool = False
) -> Repaired:
    """Find damage in a bundle's volumes and make them again.

    Nobody's signature is asked for: what comes out is what the bundle's own table says, and an
    import verifies it.

    Args:
        paths: The head, and volumes and parity volumes as far as they are at hand.
        folder: Where repaired volumes go; None puts each where the damaged one lies, and lost ones
            beside the head.
        progress: Told of the bytes.
        dry_run: Only look.

    Raises:
        ContentMismatch: More is damaged than the parity can repair; nothing was changed.
        MalformedDocument: The bundle has no parity.
        StorageFull, StorageFailure: As they come.
    """
    media = look(paths)
    head, volumes = find_bundle(media)
    seen = outline(head)
    table = seen.table
    if table is None:
        raise MalformedDocument("the bundle has no parity", hint="Copy it again from its source")
    files = ranges(seen, table, media)
    total = sum(table.length(number) for number in range(table.files))
    progress.begin("looking for damage", total)
    damage = scan(files, table, progress.advance)
    damage.check()
    numbers = [number for number in damage.files if number < table.data]
    outputs = {
        number: _target(seen, number + 1, volumes.get(number + 1), folder) for number in numbers
    }
    left = tuple(damage.names[number] for number in damage.files if number >= table.data)
    if dry_run or not outputs:
        return Repaired(damage, (), left)
    for number, path in outputs.items():
        check_output(path, overwrite=path == volumes.get(number + 1))
    progress.begin("repairing", sum(table.length(number) for number in numbers))
    repair_files(files, table, outputs, damage=damage, progress=progress.advance)
    return Repaired(damage, tuple(outputs.values()), left)


def _target(seen: Outline, number: int, there: Path | None, folder: Path | None) -> Path:
    name = f"{seen.head.stem}.v{number:03}{seen.head.suffix}" if there is None else there.name
    if folder is not None:
        if not folder.is_dir():
            raise NotFound(f"there is no folder {folder}", hint="Make it first")
        return folder / name
    return seen.head.with_name(name) if there is None else there
