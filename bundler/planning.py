"""``bundle plan``: what a transfer costs, before anything moves; the same words on both sides.

What is known exactly is told exactly; the rest is estimated from samples of the data and from a
speed that is measured on the spot, with a few MiB.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from bundler.archive import layout
from bundler.archive.codec import EncodingChoice, choose_encoding, encode_piece
from bundler.archive.pieces import Segment
from bundler.clock import now
from bundler.comparing import store_if_any
from bundler.contents import DELTA, IDENTITY, Entry, spread
from bundler.create import Form
from bundler.files import open_regular
from bundler.importer import Wishes, staged_head
from bundler.inspecting import Contents, Looked, Volumes, look_into
from bundler.isolated import find_bundle
from bundler.measuring import Speed, existing_folder, free_space, read_speed, write_speed
from bundler.sources.local import LocalFile, examine
from bundler.volumes import look
from registry.digest import Digest
from registry.store import Store
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import UsageError

OVERHEAD_BYTES: Final = 64 * limits.MIB  # what an import needs beside the payload, at most


@dataclass(frozen=True, slots=True)
class Cost:
    """What one side has to do.

    Attributes:
        read: Bytes.
        write: Bytes.
        peak: Bytes of disk that it takes at most.
        free: Bytes of disk that are there; None where that cannot be seen from here.
        seconds: At the measured speed; likewise.
        folder: Which disk.
    """

    read: int
    write: int
    peak: int
    free: int | None = None
    seconds: float | None = None
    folder: Path | None = None

    @property
    def fits(self) -> bool | None:
        """Whether the disk is large enough; None where that is not known."""
        return None if self.free is None else self.peak <= self.free


@dataclass(frozen=True, slots=True)
class Plan:
    """What a transfer costs.

    Attributes:
        models: Name and bytes of each.
        carried: Encoding to bytes that travel.
        volumes: How many; 0 where all lies in one file.
        volume_size: Bytes of the largest one.
        missing: Numbers of those that are not at hand; isolated side only.
        held: Blobs that are there already, and their bytes.
        lacking: Blobs that the bundle builds upon and that are not there.
        connected: Cost of making the bundle; None once it is made.
        isolated: Cost of importing it.
        speed: As measured here.
        anchor: Name of the pinned publisher that vouches for it; None where nothing was verified.
        doubt: Why nothing was.
    """

    models: tuple[tuple[str, int], ...]
    carried: Mapping[str, int]
    volumes: int
    volume_size: int
    missing: tuple[int, ...]
    held: tuple[int, int]
    lacking: tuple[int, int]
    connected: Cost | None
    isolated: Cost
    speed: Speed
    anchor: str | None = None
    doubt: str = ""

    @property
    def carry(self) -> int:
        """Bytes that travel."""
        return sum(self.carried.values())


def plan(
    home: Path,
    sources: Sequence[str],
    names: Sequence[str],
    output: Path,
    form: Form,
    wishes: Wishes,
) -> Plan:
    """What it costs to bundle models, or to import a bundle: by what the sources are.

    Args:
        home: The store, if there is one; nothing is changed in it.
        sources: Model files; or the files and folders of one bundle.
        names: Of models: none, or one per source.
        output: Of models: where the bundle would be written, or its folder.
        form: Of models: how it would be written.
        wishes: Of a bundle: which models, and whom to believe.

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
        files = [examine(s, n) for s, n in zip(models, wanted, strict=True)]
        folder = output if output.is_dir() else output.parent
        return plan_create(files, form, folder.absolute())
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


def plan_create(files: Sequence[LocalFile], form: Form, folder: Path) -> Plan:
    """What it costs to bundle model files.

    Args:
        files: The models.
        form: How the bundle would be written.
        folder: Where it would be written.

    Raises:
        UsageError: The volumes would be too small.
        StorageFailure: A file or folder cannot be read.
    """
    choices = [_choose(file, form) for file in files]
    entries = [
        _estimated(number, file, choice, form)
        for number, (file, choice) in enumerate(zip(files, choices, strict=True))
    ]
    volumes = list(spread(entries, form.volume_size)) if form.volume_size else []
    sizes = [_file_size(part.size for part in parts) for parts in volumes]
    spooled = sum(entry.stored_size for entry in entries if entry.encoding != IDENTITY)
    carry = sum(entry.stored_size for entry in entries)
    payload = sum(file.size for file in files)
    speed = Speed(read_speed(files[0].path), write_speed(folder), _encode_speed(files, choices))
    encoded = sum(f.size for f, choice in zip(files, choices, strict=True) if choice.ratio < 1)
    cut = payload - encoded if form.volume_size else 0
    return Plan(
        models=tuple((str(file.reference), file.size) for file in files),
        carried=_by_encoding(entries),
        volumes=len(volumes),
        volume_size=max(sizes, default=0),
        missing=(),
        held=(0, 0),
        lacking=(0, 0),
        connected=Cost(
            read=payload + encoded + cut + carry,
            write=spooled + carry,
            peak=spooled + carry,
            free=free_space(folder),
            seconds=_total(
                _at(payload + cut, speed.read),  # hashed, and cut into segments
                _at(encoded, speed.encode) if encoded else 0.0,
                _at(spooled, speed.write),
                _at(carry, _slower(speed.read, speed.write)),
            ),
            folder=folder,
        ),
        isolated=Cost(read=carry, write=payload, peak=payload + OVERHEAD_BYTES),
        speed=speed,
    )


def _choose(file: LocalFile, form: Form) -> EncodingChoice:
    with open_regular(file.path) as source, storage_errors(f"cannot read {file.path}"):
        fd = source.fileno()
        return choose_encoding(
            lambda offset, length: os.pread(fd, length, offset), file.size, mode=form.compression
        )


def _estimated(number: int, file: LocalFile, choice: EncodingChoice, form: Form) -> Entry:
    """An entry of the right sizes, as far as they are known; its digests mean nothing."""
    nobody = Digest.of(number.to_bytes(8))
    encoded = str(choice.encoding) != IDENTITY
    piece = limits.PIECE_BYTES if encoded else form.piece or limits.SEGMENT_BYTES
    if not encoded and (form.piece is None or file.size <= piece):
        return Entry(nobody, file.size)
    sizes = (min(piece, file.size - offset) for offset in range(0, file.size, piece))
    stored = (max(1, round(size * choice.ratio)) if encoded else size for size in sizes)
    segments = tuple(Segment(size, nobody) for size in stored)
    return Entry(nobody, file.size, str(choice.encoding), piece, segments)


def _file_size(sizes: Iterable[int]) -> int:
    return layout.end_of_archive(layout.BLOCK * 2, sizes)


def _encode_speed(files: Sequence[LocalFile], choices: Sequence[EncodingChoice]) -> float | None:
    """One piece in one thread; the quick levels use two, the slow ones all cores."""
    for file, choice in zip(files, choices, strict=True):
        if choice.ratio >= 1:
            continue
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
        carried=_by_encoding(contents.descriptor.contents),
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
        seconds=_total(
            _at(stored, speed.read) if stored > size else 0.0,
            _at(size, _slower(speed.read, speed.write)),
            _at(again, speed.read),
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


def _by_encoding(entries: Iterable[Entry]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for entry in entries:
        found[entry.encoding] += entry.stored_size
    return dict(found)


def _at(count: int, speed: float | None) -> float | None:
    if not count:
        return 0.0
    return None if speed is None else count / speed


def _slower(*speeds: float | None) -> float | None:
    known = [speed for speed in speeds if speed is not None]
    return min(known) if len(known) == len(speeds) else None


def _total(*parts: float | None) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
