"""What it costs to bundle models: the connected side of ``bundle plan``."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bundler.archive.codec import (
    AS_IT_IS,
    QUICK_LEVEL,
    Encoding,
    EncodingChoice,
    encode_piece,
)
from bundler.chunking import Chunking
from bundler.chunks.index import IndexBuilder
from bundler.chunks.shelf import IndexShelf
from bundler.connected import found_models, open_publisher, workspace
from bundler.contents import DELTA, IDENTITY, Entry
from bundler.costs import (
    OVERHEAD_BYTES,
    STARTING_SECONDS,
    Cost,
    Plan,
    at,
    by_encoding,
    slower,
    total,
)
from bundler.estimating import Estimate, Way, held, ways_of, whole
from bundler.files import free_space, open_regular
from bundler.forms import Form
from bundler.measuring import Speed, copy_speed, read_speed, write_speed
from bundler.sources import FoundModel, hashed
from registry.digest import Digest
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import NotFound
from schemas.render import Meter

_SIGNING_SECONDS: Final = 0.5  # keys are opened slowly, on purpose
_ENTRY_BYTES: Final = 400  # of a blob's description in descriptor and manifest; measured
_SEGMENT_BYTES: Final = 102  # of a segment's


def plan_models(
    home: Path,
    sources: Sequence[str],
    names: Sequence[str],
    folder: Path,
    form: Form,
    progress: Meter,
) -> Plan:
    """What it costs to bundle models.

    Args:
        home: Whose publisher would sign, if there is one.
        sources: As typed.
        names: As typed: none, or one per source.
        folder: Where the bundle would be written.
        form: How it would be written.
        progress: Told of bytes that must be read: only against what a site holds.

    Raises:
        UsageError: Another number of names, two models of one name, or volumes that are too small.
        UnsupportedRequest: There would be too many volumes for parity.
        SealiftError: As :func:`bundler.sources.examine`.
    """
    models = found_models(sources, names)
    if form.held:
        chunking = Chunking(_Shelf(workspace(home) / "chunks"), form.held)
        ways = [way for each in models for way in _against(each, form, chunking, progress)]
    else:
        ways = ways_of(models, form)
    return _plan(models, ways, form, folder, _signed_so_far(home))


def _plan(
    models: Sequence[FoundModel], ways: Sequence[Way], form: Form, folder: Path, head: int
) -> Plan:
    estimate = Estimate(ways, form)
    sent, entries, carry = estimate.sent, estimate.entries, estimate.carry
    payload = sum(way.file.size for way in sent)
    held = [way.file.size for way in ways if way.held]
    speed = Speed(
        read_speed(ways[0].file.path), write_speed(folder), _encode_speed(sent), copy_speed(folder)
    )
    encoded = sum(way.encoded for way in sent)
    cut = sum(e.size for e in entries if e.encoding == IDENTITY and len(e.parts) > 1)
    again = sum(entry.stored_size for entry in entries if entry.encoding == DELTA)
    over = sum(estimate.volumes) if estimate.parity else 0
    free = free_space(folder)
    return Plan(
        models=tuple((str(model.reference), model.size) for model in models),
        carried=by_encoding(entries),
        volumes=len(estimate.volumes),
        volume_size=max(estimate.volumes, default=0),
        missing=(),
        held=(len(held), sum(held)),
        lacking=(0, 0),
        connected=Cost(
            read=payload + sum(held) + encoded + cut + carry + over,
            write=estimate.written,
            peak=estimate.written,
            free=free,
            seconds=total(
                at(payload + sum(held) + cut, speed.read),  # hashed, and cut into segments
                at(encoded, speed.encode),
                at(estimate.spooled, speed.write),
                at(carry, slower(speed.read, speed.copy)),
                at(over, slower(speed.read, speed.write)),
                STARTING_SECONDS + _SIGNING_SECONDS,
            ),
            folder=folder,
        ),
        isolated=Cost(
            read=carry,
            write=payload + again,
            peak=payload + again + (OVERHEAD_BYTES if sent else 0),
        ),
        speed=speed,
        parity=estimate.parity,
        head=head + estimate.parity_table + sum(map(_described, entries)),
        exact=not encoded,
    )


def _against(model: FoundModel, form: Form, chunking: Chunking, meter: Meter) -> list[Way]:
    """Against what a site holds, a model has to be read whole to know what it would cost."""
    return [
        held(blob.file)
        if blob.digest in form.held
        else whole(blob.file, form)
        if blob.delta is None
        else Way(blob.file, AS_IT_IS, delta=blob.delta)
        for blob in hashed(model, chunking, meter).blobs
    ]


class _Shelf(IndexShelf):
    """The publisher's indexes, of which a plan makes none."""

    def add(self, builder: IndexBuilder, blob: Digest, size: int) -> None:
        """Nothing is written."""


def _described(entry: Entry) -> int:
    """Bytes of the description of one blob."""
    return _ENTRY_BYTES + (_SEGMENT_BYTES * len(entry.parts) if len(entry.parts) > 1 else 0)


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


def _signed_so_far(home: Path) -> int:
    """Bytes of a bundle's front, but for its own description; 0 where there is no publisher yet."""
    try:
        return open_publisher(home).metadata_size
    except NotFound:
        return 0
