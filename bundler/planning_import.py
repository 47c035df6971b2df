"""What it costs to import a bundle: the isolated side of ``bundle plan``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Final

from bundler.contents import DELTA, IDENTITY, Entry
from bundler.costs import (
    BLOB_SECONDS,
    OVERHEAD_BYTES,
    STARTING_SECONDS,
    Cost,
    Plan,
    at,
    by_encoding,
    slower,
    total,
)
from bundler.files import free_space, open_regular
from bundler.importer import Wishes
from bundler.inspecting import Contents, look_into
from bundler.journal import Journal
from bundler.measuring import Speed, existing_folder, read_speed, write_speed
from bundler.volumes import Media
from registry.digest import Digest
from registry.store import Store
from registry.verify import storage_errors

_HEX: Final = 64


def plan_import(
    store: Store | None,
    home: Path,
    head: Path,
    media: Media,
    wishes: Wishes,
    moment: datetime,
) -> Plan:
    """What it costs to import a bundle; nothing is changed.

    Args:
        store: Of this site, if there is one.
        home: Where it is, or would be made.
        head: The bundle or its head.
        media: Where its volumes are, as far as they are at hand.
        wishes: Which models, and whom to believe.
        moment: The clock.

    Raises:
        NotFound: None of the models that were asked for.
        ContentError, OutsideClosure: The bundle contradicts itself.
        EnvironmentFault: It cannot be read.
    """
    with open_regular(head) as source:
        catalogue = store.catalogue if store is not None else None
        looked = look_into(catalogue, source, media.of, anchor=wishes.anchor, now=moment)
    contents = looked.contents
    wanted = {id(model) for model in wishes.wanted(contents.descriptor)}
    models = [model for model in contents.models if id(model.bundled) in wanted]
    blobs = {blob.digest: blob.size for model in models for blob in model.blobs}
    there = _there(store, contents.descriptor.id)
    journal = _journal(store, contents.descriptor.id)
    held = {digest: size for digest, size in blobs.items() if there.get(digest) == size}
    todo = [
        _Rest(entry, journal)
        for entry in contents.descriptor.contents
        if entry.digest in blobs and entry.digest not in held
    ]
    required = blobs.keys() | {base for rest in todo for base in rest.entry.bases}
    lacking = [
        (digest, size)
        for digest, size in contents.descriptor.requires
        if digest in required and there.get(digest) != size
    ]
    needed = _volumes_needed(contents, todo)
    at_hand = {volume.number: volume.path for volume in contents.volumes if volume.path}
    folder = existing_folder(home)
    first = next((path for n, path in sorted(at_hand.items()) if n in needed), head)
    speed = Speed(read_speed(first), write_speed(folder))
    return Plan(
        models=tuple((str(model.bundled.reference), model.size) for model in models),
        carried=by_encoding(contents.descriptor.contents),
        volumes=len(contents.volumes),
        volume_size=max((volume.size for volume in contents.volumes), default=0),
        missing=tuple(sorted(needed - at_hand.keys())),
        held=(len(held), sum(held.values())),
        lacking=(len(lacking), sum(size for _, size in lacking)),
        connected=None,
        isolated=_import_cost(todo, len(blobs), speed, folder),
        speed=speed,
        parity=_sizes(media.parity_of(contents.descriptor.id)),
        anchor=looked.anchor,
        doubt=looked.doubt if looked.anchor is None else "",
    )


def _sizes(paths: Mapping[int, Path]) -> tuple[int, ...]:
    with storage_errors("cannot look at the parity volumes"):
        return tuple(path.stat().st_size for _, path in sorted(paths.items()))


@dataclass(frozen=True)
class _Rest:
    """What has yet to come of a blob.

    Attributes:
        entry: The blob.
        journal: Says what came in earlier sittings.
    """

    entry: Entry
    journal: Journal

    @cached_property
    def missing(self) -> tuple[int, ...]:
        """Numbers of the segments that have not come."""
        came = self.journal.segments(self.entry.digest)
        return tuple(number for number in range(len(self.entry.parts)) if number not in came)

    @property
    def front(self) -> int:
        """Bytes of a blob in one segment that came before it was interrupted."""
        return self.journal.front(self.entry.digest) if self.missing else 0

    @property
    def stored(self) -> int:
        """Bytes to be read from the bundle."""
        return sum(self.entry.parts[number].size for number in self.missing) - self.front

    @property
    def raw(self) -> int:
        """Bytes to be written into the blob: as they come, or of a delta when all has come."""
        if self.entry.encoding == DELTA:
            return self.entry.size
        return sum(self.entry.raw_range(number)[1] for number in self.missing) - self.front


def _journal(store: Store | None, bundle: str) -> Journal:
    if store is None:
        return Journal(Path())
    return Journal.looked_at(store.blobs.kept_area(bundle) / "journal")


def _import_cost(todo: Sequence[_Rest], blobs: int, speed: Speed, folder: Path) -> Cost:
    stored = sum(rest.stored for rest in todo)
    size = sum(rest.raw for rest in todo)
    entries = [rest.entry for rest in todo]
    # What comes in segments is read once more when it is whole; a delta's stored bytes are kept
    # until its blob is.
    again = sum(e.size for e in entries if len(e.parts) > 1 or e.encoding != IDENTITY)
    deltas = sum(rest.stored for rest in todo if rest.entry.encoding == DELTA)
    return Cost(
        read=stored + again,
        write=size + deltas,
        peak=size + deltas + (OVERHEAD_BYTES if todo else 0),
        free=free_space(folder),
        seconds=total(
            at(stored, speed.read) if stored > size else 0.0,
            at(size, slower(speed.read, speed.write)),
            at(again, speed.read),
            STARTING_SECONDS + blobs * BLOB_SECONDS,
        ),
        folder=folder,
    )


def _there(store: Store | None, bundle: str) -> dict[Digest, int]:
    """Blobs in the store, and those that wait from an earlier sitting, to size in bytes."""
    if store is None:
        return {}
    found = {digest: store.blobs.size(digest) for digest in store.blobs}
    area = store.blobs.kept_area(bundle)
    with storage_errors(f"cannot look into {area}"):
        if area.is_dir():
            for entry in os.scandir(area):
                algorithm, _, encoded = entry.name.partition("-")
                if algorithm == "sha256" and len(encoded) == _HEX and entry.is_file():
                    found[Digest(algorithm, encoded)] = entry.stat().st_size
    return found


def _volumes_needed(contents: Contents, todo: Sequence[_Rest]) -> set[int]:
    wanted = {rest.entry.digest: set(rest.missing) for rest in todo}
    return {
        number
        for number, parts in enumerate(contents.descriptor.volumes, 1)
        if any(
            not wanted.get(part.entry.digest, set()).isdisjoint(
                range(part.first, part.first + part.count)
            )
            for part in parts
        )
    }
