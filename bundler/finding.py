"""Which bundle is meant by the files at hand; and volumes whose labels can no longer be read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bundler.archive import layout
from bundler.extents import Outline, outline
from bundler.files import open_regular
from bundler.volumes import Label, Media
from registry.verify import storage_errors
from schemas.errors import ContentError, NotFound, UsageError


def find_bundle(
    media: Media, staged: Callable[[str], Path | None] = lambda _: None
) -> tuple[Path, dict[int, Path]]:
    """The one bundle among the files: its head, and its volumes by number.

    A head that is named decides, whatever other bundles lie in the folders beside it. Volumes with
    damaged labels are recognised by what follows these, and noted among the media.

    Args:
        media: The files.
        staged: Finds the head of a bundle that was kept in an earlier sitting.

    Raises:
        UsageError: They are of several bundles.
        NotFound: There is none, or no head.
    """
    if len(media.strangers) == 1 and not (media.heads or media.volumes):
        return media.strangers[0], {}  # reading it says what it is instead
    head = _head(media, staged)
    seen = None
    if media.strangers or media.unknown or len(media.bundles) > 1:
        with suppress(ContentError):  # whoever reads it next says what is wrong with it
            seen = outline(head)
    if seen is not None:
        adopt(seen, media)
    if media.strangers and not _replaceable(seen, media):
        raise UsageError(
            f"{media.strangers[0].name} is no part of a bundle",
            why="it is neither a head nor a volume",
            hint="Copy it again from its source, or leave it out",
        )
    if len(media.bundles) > 1:
        mine = "" if seen is None else seen.descriptor.id
        if mine not in media.bundles or _named_of_others(media, mine):
            raise _several(media)
        return head, media.of(mine)
    return head, media.of(media.bundles[0]) if media.bundles else {}


def _head(media: Media, staged: Callable[[str], Path | None]) -> Path:
    heads = [path for path in media.heads if path in media.named] or media.heads
    if len(heads) > 1:
        raise UsageError(
            "these are several bundles",
            why=", ".join(path.name for path in heads[:5]),
            hint="Name the file of the one you want, beside the folder with its volumes",
        )
    if heads:
        return heads[0]
    if not media.bundles:
        raise NotFound("there is no bundle here", hint="Give the bundle's file, or its folder")
    kept = [path for bundle in media.bundles if (path := staged(bundle)) is not None]
    if len(kept) > 1 or (not kept and len(media.bundles) > 1):
        raise _several(media)
    if not kept:
        raise NotFound(
            "these are volumes without their head", hint="Give the bundle's head file too"
        )
    return kept[0]


def _several(media: Media) -> UsageError:
    return UsageError(
        "these are volumes of several bundles",
        why=", ".join(each[:8] for each in media.bundles),
        hint="Import one bundle at a time",
    )


def _named_of_others(media: Media, mine: str) -> bool:
    return any(
        label.bundle != mine and not media.named.isdisjoint(paths)
        for label, paths in media.copies.items()
    )


def _replaceable(seen: Outline | None, media: Media) -> bool:
    """Whether a file that is nothing any more may be a volume that parity can make again."""
    if seen is None or seen.table is None or not media.parity_of(seen.descriptor.id):
        return False
    return len(media.of(seen.descriptor.id)) < len(seen.descriptor.volumes)


def adopt(seen: Outline, media: Media) -> None:
    """Recognise volumes whose labels are damaged: by the header of the member after the label.

    That makes them no more credible than a label would: every byte is compared later.
    """
    if not seen.descriptor.volumes or not (media.strangers or media.unknown):
        return
    places = _second_headers(seen)
    for files in (media.strangers, media.unknown):
        for path in list(files):
            label = _recognised(path, places)
            if label is not None:
                files.remove(path)
                media.add(label, path)


def _second_headers(seen: Outline) -> dict[int, dict[bytes, Label]]:
    """Where the member after the label begins: its header's first block, to the volume."""
    descriptor = seen.descriptor
    names = [
        (Label(descriptor.id, number), parts[0].name, parts[0].size)
        for number, parts in enumerate(descriptor.volumes, 1)
    ]
    if seen.table is not None:
        size = max(seen.table.lengths)
        names += [
            (Label(descriptor.id, n, parity=True), f"sealift/parity/{n:03}", size)
            for n in range(1, seen.table.parity + 1)
        ]
    places: dict[int, dict[bytes, Label]] = {}
    for label, name, size in names:
        offset = layout.member_size(len(label.to_bytes()))
        places.setdefault(offset, {})[layout.header(name, size)] = label
    return places


def _recognised(path: Path, places: dict[int, dict[bytes, Label]]) -> Label | None:
    with open_regular(path) as file, storage_errors(f"cannot read {path}"):
        for offset, headers in places.items():
            file.seek(offset)
            found = file.read(3 * layout.BLOCK)
            for length in (layout.BLOCK, 3 * layout.BLOCK):
                if (label := headers.get(found[:length])) is not None:
                    return label
    return None
