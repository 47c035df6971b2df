"""Reading the large blobs of a bundle, as far as they are wanted: of one file, or of volumes."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bundler.archive import layout
from bundler.archive.reader import ArchiveReader, BlobStream
from bundler.assembly import Assembly, lacks
from bundler.contents import Entry, Part
from bundler.descriptor import BundleDescriptor, BundledModel
from bundler.files import Source, free_space, open_source
from bundler.head import Head
from bundler.journal import Journal
from bundler.volumes import Label, label_of
from registry.digest import Digest
from registry.staging import StagingArea
from registry.store import Store
from registry.verify import storage_errors
from schemas.errors import (
    BlobsMissing,
    IncompleteBundle,
    MalformedArchive,
    NotABundle,
    StorageFull,
)
from schemas.render import Meter

_JOURNAL: Final = "journal"

TakePart = Callable[[Part, BlobStream], None]
"""Reads all bytes of a part from its stream."""


@dataclass(frozen=True, slots=True)
class Need:
    """What some of a bundle's models take.

    Attributes:
        head: Of the bundle.
        models: The wanted ones.
        blobs: All that they consist of.
        entries: The large blobs that travel, in their order.
        requires: What the site must hold, to size in bytes: blobs that were left out, and bases of
            deltas.
    """

    head: Head
    models: tuple[BundledModel, ...]
    blobs: frozenset[Digest]
    entries: tuple[Entry, ...]
    requires: Mapping[Digest, int]

    @classmethod
    def of(cls, head: Head, models: Sequence[BundledModel]) -> Need:
        """Of these models and of no others."""
        blobs = frozenset(blob.digest for model in models for blob in head.blobs_of(model))
        entries = tuple(entry for entry in head.large if entry.digest in blobs)
        bases = {base for entry in entries for base in entry.bases}
        requires = {d: size for d, size in head.descriptor.requires if d in blobs or d in bases}
        return cls(head, tuple(models), blobs, entries, requires)

    def check(self, store: Store, *, rebuilds_held: bool) -> None:
        """See that the site has what was left out.

        Args:
            store: The site's.
            rebuilds_held: Whether deltas are applied even where the site has what they make, and
                so need their bases.

        Raises:
            BlobsMissing: It has not.
        """
        has = store.blobs.has
        rebuilt = [e for e in self.entries if rebuilds_held or not has(e.digest, e.size)]
        needed = self.blobs.union(*(entry.bases for entry in rebuilt))
        missing = {d: n for d, n in self.requires.items() if d in needed and not has(d, n)}
        if missing:
            raise BlobsMissing(
                "this bundle was made for a site that holds more than this one",
                why=f"{len(missing)} blobs of {sum(missing.values())} bytes are not here",
                hint="Write a want-list (--want-list FILE) and have it topped up",
                blobs=missing,
            )

    def volumes(self) -> tuple[int, ...]:
        """Numbers of the volumes that hold any of it."""
        digests = {entry.digest for entry in self.entries}
        return tuple(
            number
            for number, parts in enumerate(self.head.descriptor.volumes, 1)
            if any(part.entry.digest in digests for part in parts)
        )


def assemble(
    store: Store, area: StagingArea, need: Need, volumes: Mapping[int, Source], progress: Meter
) -> tuple[BundledModel, ...]:
    """Read what is at hand of the large blobs into a staging area.

    Args:
        store: Has the bases of deltas.
        area: Takes the blobs; may be of another place than the store.
        need: Which blobs; others are passed over.
        volumes: Files of its volumes by number; those that hold nothing needed stay closed.
        progress: Told of each blob's bytes.

    Returns:
        The wanted models of which every blob is there.

    Raises:
        ContentError, EnvironmentFault: As for :func:`bundler.importer.import_bundle`.
    """
    head, entries = need.head, need.entries
    with Journal(area.folder / _JOURNAL) as journal:
        assembly = Assembly(area, journal, store.blobs)
        for digest, size in need.requires.items():  # no collection may take them meanwhile
            area.claim(digest, size)
        for entry in entries:
            area.claim(entry.digest, entry.size)
        assembly.settle(entries)
        todo = [entry for entry in entries if not assembly.done(entry)]
        _reserve(area, sum(entry.size for entry in todo))

        def take(part: Part, stream: BlobStream) -> None:
            progress.begin(f"blob {part.entry.digest.short}", part.size)
            assembly.take(part, stream, progress)

        if head.descriptor.volumes:
            wanted = {entry.digest for entry in todo}
            for number in filter(volumes.__contains__, need.volumes()):
                parts = head.descriptor.volumes[number - 1]
                digests = {part.entry.digest for part in parts if assembly.lacks(part)} & wanted
                if digests:
                    read_volume(head.descriptor, number, volumes[number], digests, take)
                    area.settle()  # its stick may go back into the drawer
        else:
            reader = head.trusted.reader
            for entry in head.large:
                read_part(reader, Part.all_of(entry), need.blobs, take)
            reader.finish()
    present = area.digests | need.requires.keys()
    return tuple(
        model for model in need.models if all(b.digest in present for b in head.blobs_of(model))
    )


def read_volume(
    descriptor: BundleDescriptor,
    number: int,
    path: Source,
    needed: Collection[Digest],
    take: TakePart,
) -> None:
    """Read one volume from its label to its end.

    Args:
        descriptor: Says what it holds.
        number: Of the volume, from 1 on.
        path: Where it is.
        needed: Blobs whose parts are taken; others are passed over.
        take: Reads a part's bytes from its stream.

    Raises:
        ContentError, EnvironmentFault: It is another volume, or broken; or what ``take`` raises.
    """
    parts = descriptor.volumes[number - 1]
    with open_source(path) as source:
        reader = ArchiveReader(source)
        label = Label(descriptor.id, number)
        try:
            reader.open_first(layout.VOLUME_NAME, label.to_bytes())
        except NotABundle:
            if isinstance(path, Path) and label_of(path) not in (None, label):
                raise
            raise MalformedArchive(
                f"volume {number} does not begin as it was written",
                why="its label is damaged",
                hint="Copy this volume again from its source, and run it again",
            ) from None
        reader.expect_members(part.size for part in parts)
        for part in parts:
            read_part(reader, part, needed, take)
        reader.finish()


def read_part(
    reader: ArchiveReader, part: Part, needed: Collection[Digest], take: TakePart
) -> None:
    """Read one member of a bundle, or pass over it; the arguments are :func:`read_volume`'s."""
    stream = reader.expect_blob(part.name, part.size)
    if part.entry.digest in needed:
        take(part, stream)
    else:
        stream.skip(part.size)
    reader.end_blob(stream)


def _reserve(area: StagingArea, total: int) -> None:
    what = "cannot look at the store's disk"
    free = free_space(area.folder, what)
    with storage_errors(what):
        begun = sum(entry.stat().st_blocks * 512 for entry in os.scandir(area.folder))
    if free + begun < total:
        raise StorageFull(
            "not enough space in the store",
            why=f"{total - begun} bytes needed, {free} free",
            hint="Free some space, or set SEALIFT_HOME to a larger disk",
        )


def incomplete(need: Need, area: StagingArea) -> IncompleteBundle:
    """The error that names the volumes which a staging area still lacks."""
    volumes = need.head.descriptor.volumes
    with Journal(area.folder / _JOURNAL) as journal:
        lacking = [
            number
            for number in need.volumes()
            if any(
                lacks(part, area, journal)
                for part in volumes[number - 1]
                if part.entry.digest in need.blobs
            )
        ]
    return IncompleteBundle(
        f"{len(lacking)} of {len(volumes)} volumes have yet to come",
        why=f"missing: {', '.join(map(str, lacking[:50]))}",
        hint="Run it again with them; what came is kept",
    )
