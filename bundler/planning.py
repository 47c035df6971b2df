"""``bundle plan``: what a transfer costs, before anything moves; the same words on both sides.

What is known exactly is told exactly; the rest is estimated from samples of the data and from a
speed that is measured on the spot, with a few MiB.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from bundler.archive import layout
from bundler.archive.codec import (
    AS_IT_IS,
    QUICK_LEVEL,
    Encoding,
    EncodingChoice,
    choose_encoding,
    encode_piece,
    piece_sizes,
)
from bundler.archive.pieces import Segment
from bundler.chunking import Chunking
from bundler.chunks.index import IndexBuilder
from bundler.chunks.recipes import Delta
from bundler.chunks.shelf import IndexShelf
from bundler.clock import now
from bundler.comparing import store_if_any
from bundler.connected import workspace
from bundler.contents import DELTA, IDENTITY, Entry, spread
from bundler.costs import OVERHEAD_BYTES, Cost, Plan, at, by_encoding, slower, total
from bundler.create import Form
from bundler.files import free_space, open_regular
from bundler.importer import Wishes, staged_head
from bundler.inspecting import Contents, Looked, Volumes, look_into
from bundler.isolated import find_bundle
from bundler.measuring import Speed, existing_folder, read_speed, write_speed
from bundler.sources.local import LocalFile, examine, resolve
from bundler.volumes import look
from registry.digest import Digest
from registry.store import Store
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import UsageError
from schemas.render import Meter


def plan(
    home: Path,
    sources: Sequence[str],
    names: Sequence[str],
    output: Path,
    form: Form,
    wishes: Wishes,
    progress: Meter,
) -> Plan:
    """What it costs to bundle models, or to import a bundle: by what the sources are.

    Args:
        home: The store, if there is one; nothing is changed in it.
        sources: Model files; or the files and folders of one bundle.
        names: Of models: none, or one per source.
        output: Of models: where the bundle would be written, or its folder.
        form: Of models: how it would be written.
        wishes: Of a bundle: which models, and whom to believe.
        progress: Told of bytes that must be read: only against what a site holds.

    Raises:
        UsageError: Both kinds at once, or another number of names.
        SealiftError: As :func:`plan_create` and :func:`plan_import`.
    """
    models = [source for source in sources if _is_model(source)]
    if models and len(models) < len(sources):
        raise UsageError(
            "models and bundles cannot be planned at once",
            why=f"{models[0]} is a model",
            hint="Give the models that are to be bundled, or the bundle that is to be imported",
        )
    if models:
        if names and len(names) != len(models):
            raise UsageError(
                f"{len(models)} models and {len(names)} names were given",
                hint="Give one --name per model, in the same order, or none",
            )
        wanted: Sequence[str | None] = names or [None] * len(models)
        pairs = zip(models, wanted, strict=True)
        if form.held:
            chunking = Chunking(_Shelf(workspace(home) / "chunks"), form.held)
            ways = [_against(s, n, form, chunking, progress) for s, n in pairs]
        else:
            ways = [_whole(examine(s, n), form) for s, n in pairs]
        folder = output if output.is_dir() else output.parent
        return plan_create(ways, form, folder.absolute())
    media = look(Path(source) for source in sources)
    with store_if_any(home) as store:
        head, _ = find_bundle(
            media, lambda bundle: staged_head(store, bundle) if store is not None else None
        )
        return plan_import(store, home, head, media.of, wishes, now())


def _is_model(source: str) -> bool:
    if "://" in source:
        return True
    path = Path(source)
    with storage_errors(f"cannot read {source}"):
        if path.is_dir():
            return False
    with open_regular(path) as file, storage_errors(f"cannot read {source}"):
        return file.read(4) == b"GGUF" or path.suffix.lower() == ".gguf"


# -- connected side -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Way:
    """How a model would travel.

    Attributes:
        file: The model.
        choice: Its encoding, if it travels whole.
        held: Whether the far side has it already.
        delta: How it is made of what the far side has.
    """

    file: LocalFile
    choice: EncodingChoice
    held: bool = False
    delta: Delta | None = None

    @property
    def encoded(self) -> int:
        """Bytes that have to be encoded."""
        if self.delta is not None:
            return self.delta.recipe.literal_size
        return self.file.size if self.choice.ratio < 1 else 0


def plan_create(ways: Sequence[Way], form: Form, folder: Path) -> Plan:
    """What it costs to bundle model files.

    Args:
        ways: The models, and how each would travel.
        form: How the bundle would be written.
        folder: Where it would be written.

    Raises:
        UsageError: The volumes would be too small.
        StorageFailure: A file or folder cannot be read.
    """
    sent = [way for way in ways if not way.held]
    entries = [_estimated(number, way, form) for number, way in enumerate(sent)]
    volumes = list(spread(entries, form.volume_size)) if form.volume_size else []
    sizes = [_file_size(part.size for part in parts) for parts in volumes]
    spooled = sum(entry.stored_size for entry in entries if entry.encoding != IDENTITY)
    carry = sum(entry.stored_size for entry in entries)
    payload = sum(way.file.size for way in sent)
    held = [way.file.size for way in ways if way.held]
    speed = Speed(read_speed(ways[0].file.path), write_speed(folder), _encode_speed(sent))
    encoded = sum(way.encoded for way in sent)
    plain = sum(entry.size for entry in entries if entry.encoding == IDENTITY)
    cut = plain if form.volume_size else 0
    again = sum(entry.stored_size for entry in entries if entry.encoding == DELTA)
    return Plan(
        models=tuple((str(way.file.reference), way.file.size) for way in ways),
        carried=by_encoding(entries),
        volumes=len(volumes),
        volume_size=max(sizes, default=0),
        missing=(),
        held=(len(held), sum(held)),
        lacking=(0, 0),
        connected=Cost(
            read=payload + sum(held) + encoded + cut + carry,
            write=spooled + carry,
            peak=spooled + carry,
            free=free_space(folder),
            seconds=total(
                at(payload + sum(held) + cut, speed.read),  # hashed, and cut into segments
                at(encoded, speed.encode),
                at(spooled, speed.write),
                at(carry, slower(speed.read, speed.write)),
            ),
            folder=folder,
        ),
        isolated=Cost(
            read=carry,
            write=payload + again,
            peak=payload + again + (OVERHEAD_BYTES if sent else 0),
        ),
        speed=speed,
    )


def _whole(file: LocalFile, form: Form) -> Way:
    with open_regular(file.path) as source, storage_errors(f"cannot read {file.path}"):
        fd = source.fileno()
        choice = choose_encoding(
            lambda offset, length: os.pread(fd, length, offset), file.size, mode=form.compression
        )
    return Way(file, choice)


def _against(source: str, name: str | None, form: Form, chunking: Chunking, meter: Meter) -> Way:
    """Against what a site holds, a model has to be read whole to know what it would cost."""
    model = resolve(source, name, chunking, meter)
    file = LocalFile(model.reference, model.path, model.size, model.facts)
    if model.digest in form.held:
        return Way(file, AS_IT_IS, held=True)
    return _whole(file, form) if model.delta is None else Way(file, AS_IT_IS, delta=model.delta)


class _Shelf(IndexShelf):
    """The publisher's indexes, of which a plan makes none."""

    def add(self, builder: IndexBuilder, blob: Digest, size: int) -> None:
        """Nothing is written."""


def _estimated(number: int, way: Way, form: Form) -> Entry:
    """An entry of the right sizes, as far as they are known; its digests mean nothing."""
    nobody, file, choice = Digest.of(number.to_bytes(8)), way.file, way.choice
    if way.delta is not None:
        literals = [n for n in piece_sizes(way.delta.recipe.literal_size) if n]
        sizes = [len(way.delta.recipe.to_bytes()), *literals]
        segments = tuple(Segment(size, nobody) for size in sizes)
        bases = way.delta.bases
        return Entry(nobody, file.size, DELTA, limits.PIECE_BYTES, segments, bases)
    encoded = str(choice.encoding) != IDENTITY
    piece = limits.PIECE_BYTES if encoded else form.piece or limits.SEGMENT_BYTES
    if not encoded and (form.piece is None or file.size <= piece):
        return Entry(nobody, file.size)
    raw = (min(piece, file.size - offset) for offset in range(0, file.size, piece))
    stored = (max(1, round(size * choice.ratio)) if encoded else size for size in raw)
    segments = tuple(Segment(size, nobody) for size in stored)
    return Entry(nobody, file.size, str(choice.encoding), piece, segments)


def _file_size(sizes: Iterable[int]) -> int:
    return layout.end_of_archive(layout.BLOCK * 2, sizes)


def _encode_speed(ways: Sequence[Way]) -> float | None:
    """One piece in one thread; the quick levels use two, the slow ones all cores."""
    for way in ways:
        file, choice = way.file, way.choice
        if not way.encoded:
            continue
        if way.delta is not None:
            choice = EncodingChoice(Encoding.ZSTD, QUICK_LEVEL)
        size = min(file.size, limits.MIB if choice.slow else limits.PIECE_BYTES)
        with open_regular(file.path) as source, storage_errors(f"cannot read {file.path}"):
            raw = os.pread(source.fileno(), size, (file.size - size) // 2)
        begun = time.perf_counter()
        encode_piece(choice.encoding, choice.level, raw)
        single = len(raw) / max(time.perf_counter() - begun, 1e-9)
        most = limits.PIECE_WORKERS_SLOW if choice.slow else limits.PIECE_WORKERS
        return single * min(most, len(os.sched_getaffinity(0)))
    return None


# -- isolated side --------------------------------------------------------------------------------


def plan_import(
    store: Store | None,
    home: Path,
    head: Path,
    volumes: Volumes,
    wishes: Wishes,
    moment: datetime,
) -> Plan:
    """What it costs to import a bundle; nothing is changed.

    Args:
        store: Of this site, if there is one.
        home: Where it is, or would be made.
        head: The bundle or its head.
        volumes: Finds the files of its volumes.
        wishes: Which models, and whom to believe.
        moment: The clock.

    Raises:
        NotFound: None of the models that were asked for.
        ContentError, OutsideClosure: The bundle contradicts itself.
        EnvironmentFault: It cannot be read.
    """
    with open_regular(head) as source:
        catalogue = store.catalogue if store is not None else None
        looked = look_into(catalogue, source, volumes, anchor=wishes.anchor, now=moment)
    contents = looked.contents
    wanted = {id(model) for model in wishes.wanted(contents.descriptor)}
    models = [model for model in contents.models if id(model.bundled) in wanted]
    blobs = {blob.digest: blob.size for model in models for blob in model.blobs}
    there = _there(store, contents.descriptor.id)
    held = {digest: size for digest, size in blobs.items() if there.get(digest) == size}
    lacking = [
        (digest, size) for digest, size in contents.descriptor.requires if there.get(digest) != size
    ]
    todo = [e for e in contents.descriptor.contents if e.digest in blobs and e.digest not in held]
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
        isolated=_import_cost(todo, speed, folder),
        speed=speed,
        **_belief(looked),
    )


def _belief(looked: Looked) -> dict[str, str]:
    return {"doubt": looked.doubt} if looked.anchor is None else {"anchor": looked.anchor}


def _import_cost(todo: Sequence[Entry], speed: Speed, folder: Path) -> Cost:
    stored = sum(entry.stored_size for entry in todo)
    size = sum(entry.size for entry in todo)
    # What comes in segments is read once more when it is whole; a delta's stored bytes are kept
    # until its blob is.
    again = sum(entry.size for entry in todo if len(entry.parts) > 1 or entry.encoding != IDENTITY)
    deltas = sum(entry.stored_size for entry in todo if entry.encoding == DELTA)
    return Cost(
        read=stored + again,
        write=size + deltas,
        peak=size + deltas + (OVERHEAD_BYTES if todo else 0),
        free=free_space(folder),
        seconds=total(
            at(stored, speed.read) if stored > size else 0.0,
            at(size, slower(speed.read, speed.write)),
            at(again, speed.read),
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


_HEX: Final = 64


def _volumes_needed(contents: Contents, todo: Sequence[Entry]) -> set[int]:
    wanted = {entry.digest for entry in todo}
    return {
        number
        for number, parts in enumerate(contents.descriptor.volumes, 1)
        if any(part.entry.digest in wanted for part in parts)
    }
