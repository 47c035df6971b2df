"""``bundle create``: models → layers → signatures → one archive, or a head and volumes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

from bundler.archive import layout
from bundler.archive.codec import Compression
from bundler.archive.writer import ArchiveWriter
from bundler.clock import parse_rfc3339, rfc3339
from bundler.contents import Entry, Part, closure, spread
from bundler.descriptor import BundleDescriptor, BundledModel
from bundler.files import check_output, free_space
from bundler.making_parity import described, write_parity
from bundler.modelpack import PackedModel, pack
from bundler.parity import Table
from bundler.pipes import PIPE
from bundler.sources import LocalModel
from bundler.storing import Stored, store
from bundler.trust.names import model_target
from bundler.trust.publisher import Publisher, SignedModel, TrustMetadata
from bundler.volumes import Label
from bundler.workbench import Workbench, is_placing, sweep
from registry import oci
from registry.digest import Digest
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import StorageFull, UsageError
from schemas.render import Meter
from schemas.version import VERSION

# What an interrupted attempt signed tells a site what was true then; much older is stale.
_SIGNED_LASTS: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Form:
    """How a bundle is to be written.

    Attributes:
        compression: Whether blobs are encoded where that pays.
        volume_size: Most bytes per volume; None for one file.
        overwrite: Whether files may be there already.
        held: Blobs that the far side has, with their sizes in bytes: left out, or built upon.
        supplements: Id of a bundle for which this one sends what a site lacked.
        parity: How many volumes may get lost or damaged.
    """

    compression: Compression = Compression.AUTO
    volume_size: int | None = None
    overwrite: bool = False
    held: Mapping[Digest, int] = field(default_factory=dict, hash=False)
    supplements: str | None = None
    parity: int = 0

    def __post_init__(self) -> None:
        if self.volume_size is not None and self.volume_size < limits.VOLUME_BYTES_MIN:
            raise UsageError(
                f"volumes of {self.volume_size} bytes are too small",
                hint=f"Give --volume-size at least {limits.VOLUME_BYTES_MIN // limits.MIB}Mi",
            )

        if self.parity and self.volume_size is None:
            raise UsageError("--parity needs volumes", hint="Give --volume-size too")

    @property
    def piece(self) -> int | None:
        """Bytes per segment of a blob that travels as it is; several fit into a volume."""
        if self.volume_size is None:
            return None
        return min(limits.SEGMENT_BYTES, self.volume_size // 64)


@dataclass(frozen=True, slots=True)
class Created:
    """What came out.

    Attributes:
        path: The bundle, or its head.
        volumes: Its volumes, in order.
        size: Of all files, in bytes.
        descriptor: What it holds.
        fingerprint: Of the root that the far side must have pinned.
    """

    path: Path
    volumes: tuple[Path, ...]
    size: int
    descriptor: BundleDescriptor
    fingerprint: Digest


def create_bundle(
    publisher: Publisher,
    sources: Sequence[LocalModel],
    output: Path,
    *,
    form: Form,
    passphrase: bytes,
    now: datetime,
    progress: Meter,
) -> Created:
    """Sign models and write them into one bundle.

    Files appear under their names only when all of them are complete and on disk, the head last.
    Interrupted, it goes on where it was when the same is asked for again: finished encodings are
    taken over, and at most ``limits.SEGMENT_BYTES`` are written twice. So is the bundle's number,
    unless another one was given out meanwhile; a number that is not taken over stays unused.

    Raises:
        UsageError: No model, two under one name, or volumes that are too small.
        AlreadyExists: An output is there and may not be overwritten.
        ContentMismatch: A source changed since it was hashed.
        StoreBusy: Another process is writing this bundle.
        TrustError: The keys or the workspace cannot sign this.
        StorageFull, StorageFailure: The disk says no.
    """
    _check_names(sources)
    sweep(output)
    check_output(output, overwrite=form.overwrite or is_placing(output))
    packed = [pack(source) for source in sources]
    with Workbench(output, _request(publisher, packed, output, form)) as bench:
        overwrite = form.overwrite or bench.placing
        check_output(output, overwrite=overwrite)
        _check_space(output, sum(model.closure_bytes for model in packed) - bench.bytes_used)
        begun = bench.plan(id=secrets.token_hex(16), issued=rfc3339(now))
        blobs = _store(packed, form, bench, progress)
        plan = _plan(packed, blobs, publisher.name, begun, form)
        count = len(plan.volumes)
        parity = form.parity if count else 0
        targets = {0: output} | {n: volume_path(output, n) for n in range(1, count + 1)}
        targets |= {count + n: volume_path(output, n, "p") for n in range(1, parity + 1)}
        for path in targets.values():
            check_output(path, overwrite=overwrite)
        if not bench.placing:
            for number in range(1, count + 1):
                _write_volume(bench, number, plan, blobs, progress)
        table = write_parity(bench, plan, parity, progress) if parity else None
        plan = replace(plan, parity=None if table is None else described(table))
        descriptor, head = _signed_head(
            bench, publisher, packed, plan, passphrase, now, table=table
        )
        if not bench.placing:
            _write_first(bench, descriptor, head, blobs, progress)
        bench.place(targets)
    size = sum(path.stat().st_size for path in targets.values())
    volumes = tuple(path for number, path in sorted(targets.items()) if number)
    return Created(output, volumes, size, descriptor, publisher.fingerprint)


def create_to_pipe(
    publisher: Publisher,
    sources: Sequence[LocalModel],
    sink: BinaryIO,
    spool: Path,
    *,
    form: Form,
    passphrase: bytes,
    now: datetime,
    progress: Meter,
) -> Created:
    """As :func:`create_bundle`, in one file and one pass, to whoever reads the other end.

    Args:
        publisher: Signs.
        sources: Hashed already.
        sink: Opened for unbuffered writing; never sought in.
        spool: A folder of its own for encoded blobs, which must be signed for before they go.
        form: How it is written.
        passphrase: Of the keys.
        now: The clock.
        progress: Told of the bytes.

    Raises:
        UsageError: No model, two under one name, or volumes, which no pipe has.
        ContentMismatch: A source changed since it was hashed.
        TrustError: The keys or the workspace cannot sign this.
        StorageFull, StorageFailure: The disk says no, or nobody reads any more.
    """
    _check_names(sources)
    check_pipe(form)
    packed = [pack(source) for source in sources]
    with Workbench(spool / "bundle", _request(publisher, packed, spool, form)) as bench:
        begun = bench.plan(id=secrets.token_hex(16), issued=rfc3339(now))
        blobs = _store(packed, form, bench, progress)
        plan = _plan(packed, blobs, publisher.name, begun, form)
        descriptor, head = _signed_head(bench, publisher, packed, plan, passphrase, now)
        writer = ArchiveWriter(sink)
        _write_all(writer, descriptor, head, blobs, progress)
    return Created(PIPE, (), writer.position, descriptor, publisher.fingerprint)


def check_pipe(form: Form) -> None:
    """See that a bundle of this form can go through a pipe.

    Raises:
        UsageError: It has volumes.
    """
    if form.volume_size is not None:
        raise UsageError("volumes cannot go through a pipe", hint="Leave out --volume-size")


def volume_path(output: Path, number: int, kind: str = "v") -> Path:
    """``models.bundle.tar`` → ``models.bundle.v001.tar``."""
    return output.with_name(f"{output.stem}.{kind}{number:03}{output.suffix}")


def _request(
    publisher: Publisher, packed: Sequence[PackedModel], output: Path, form: Form
) -> dict[str, Any]:
    """All that decides what will be written: only for the same may work be taken over."""
    return {
        "tool": VERSION,
        "publisher": publisher.name,
        "root": str(publisher.fingerprint),
        "output": output.name,
        "models": [[str(p.source.reference), str(p.descriptor.digest)] for p in packed],
        "compression": str(form.compression),
        "volumeSize": form.volume_size or 0,
        "parity": form.parity,
        "supplements": form.supplements or "",
        "held": sorted([str(digest), size] for digest, size in form.held.items()),
    }


def _store(
    packed: Sequence[PackedModel], form: Form, bench: Workbench, progress: Meter
) -> dict[Digest, Stored]:
    """How each weight file is stored; those that the far side has are left out."""
    sources = {model.source.digest: model.source for model in packed}
    return {
        digest: store(
            source,
            compression=form.compression,
            piece=form.piece,
            bench=bench,
            progress=progress,
        )
        for digest, source in sources.items()
        if digest not in form.held
    }


def _plan(
    packed: Sequence[PackedModel],
    blobs: dict[Digest, Stored],
    publisher: str,
    begun: Mapping[str, str],
    form: Form,
) -> BundleDescriptor:
    """The descriptor, but for the sequence number that publishing draws."""
    bundled = [_bundled(model) for model in packed]
    pairs = ((b.manifest, model.manifest) for b, model in zip(bundled, packed, strict=True))
    weights = {model.source.digest for model in packed}
    contents = tuple(
        blobs[blob.digest].entry if blob.digest in blobs else Entry(blob.digest, blob.size)
        for blob in closure(pairs)
        if blob.digest in blobs or blob.digest not in weights
    )
    large = [entry for entry in contents if entry.digest in blobs]
    needed = (weights - blobs.keys()) | {base for entry in large for base in entry.bases}
    return BundleDescriptor(
        id=begun["id"],
        sequence=1,
        issued_at=begun["issued"],
        publisher=publisher,
        models=tuple(bundled),
        contents=contents,
        requires=tuple((digest, form.held[digest]) for digest in sorted(needed)),
        volumes=tuple(spread(large, form.volume_size)) if form.volume_size else (),
        supplements=form.supplements,
    )


def _signed_head(
    bench: Workbench,
    publisher: Publisher,
    packed: Sequence[PackedModel],
    plan: BundleDescriptor,
    passphrase: bytes,
    now: datetime,
    *,
    table: Table | None = None,
) -> tuple[BundleDescriptor, bytes]:
    """The final descriptor, and all that lies before the large blobs.

    What was signed for an interrupted attempt is taken over as long as it is the publisher's last
    word, and fresh.
    """
    found = bench.signed()
    if found is not None:
        document, head = found
        descriptor = replace(plan, sequence=document["sequence"])
        same = document["head"] == str(Digest.of(head)) and document["descriptor"] == str(
            Digest.of(descriptor.to_bytes())
        )
        last = document["sequence"] == publisher.sequence
        fresh = now - parse_rfc3339(document["signed"]) < _SIGNED_LASTS
        if same and (bench.placing or (last and fresh)):
            return descriptor, head
    trust = publisher.publish(
        [_signed(model) for model in packed],
        lambda sequence: replace(plan, sequence=sequence).to_bytes(),
        passphrase=passphrase,
        now=now,
    )
    descriptor = replace(plan, sequence=trust.sequence)
    head = _head(descriptor, trust, packed, table)
    document = {
        "sequence": trust.sequence,
        "signed": rfc3339(now),
        "descriptor": str(Digest.of(trust.descriptor)),
        "head": str(Digest.of(head)),
    }
    bench.keep_signed(document, head)
    return descriptor, head


def _head(
    descriptor: BundleDescriptor,
    trust: TrustMetadata,
    packed: Sequence[PackedModel],
    table: Table | None,
) -> bytes:
    small = {Digest.of(data): data for p in packed for data in (p.manifest_bytes, p.config_bytes)}
    sink = BytesIO()
    writer = ArchiveWriter(sink)
    writer.add_bytes(layout.LAYOUT_NAME, oci.LAYOUT_FILE)
    for name, data in trust.members:
        writer.add_bytes(layout.TRUST_FOLDER + name, data)
    writer.add_bytes(layout.DESCRIPTOR_NAME, descriptor.to_bytes())
    writer.add_bytes(layout.INDEX_NAME, descriptor.index())
    for entry in descriptor.contents:
        if entry.digest in small:
            writer.add_bytes(entry.name, small[entry.digest])
    if table is not None:
        writer.add_bytes(layout.PARITY_NAME, table.encode())
    return sink.getvalue()


def _write_first(
    bench: Workbench,
    descriptor: BundleDescriptor,
    head: bytes,
    blobs: dict[Digest, Stored],
    progress: Meter,
) -> None:
    """The bundle's one file, or its head."""
    with bench.output(0) as file:
        writer = ArchiveWriter(
            file, start=bench.durable(0), durable=lambda count: bench.note_durable(0, count)
        )
        _write_all(writer, descriptor, head, blobs, progress)


def _write_all(
    writer: ArchiveWriter,
    descriptor: BundleDescriptor,
    head: bytes,
    blobs: dict[Digest, Stored],
    progress: Meter,
) -> None:
    writer.add_raw(head)
    if not descriptor.volumes:
        for entry in descriptor.contents:
            if entry.digest in blobs:
                _write_part(writer, Part.all_of(entry), blobs, progress)
    writer.close()


def _write_volume(
    bench: Workbench,
    number: int,
    plan: BundleDescriptor,
    blobs: dict[Digest, Stored],
    progress: Meter,
) -> None:
    with bench.output(number) as file:
        writer = ArchiveWriter(
            file,
            start=bench.durable(number),
            durable=lambda count: bench.note_durable(number, count),
        )
        writer.add_bytes(layout.VOLUME_NAME, Label(plan.id, number).to_bytes())
        for part in plan.volumes[number - 1]:
            _write_part(writer, part, blobs, progress)
        writer.close()


def _write_part(
    writer: ArchiveWriter, part: Part, blobs: dict[Digest, Stored], progress: Meter
) -> None:
    stored = blobs[part.entry.digest]
    progress.begin(f"writing {stored.label}", part.size)
    with stored.open() as stream:
        with storage_errors(f"cannot read {stored.label}"):
            stream.seek(sum(segment.size for segment in part.entry.parts[: part.first]))
        writer.add_part(part, stream, progress.advance)


def _bundled(model: PackedModel) -> BundledModel:
    reference = model.source.reference
    return BundledModel(reference, model_target(reference), model.descriptor)


def _signed(model: PackedModel) -> SignedModel:
    source = model.source
    return SignedModel(source.reference, model.manifest_bytes, licence=source.facts.license)


def _check_names(sources: Sequence[LocalModel]) -> None:
    if not sources:
        raise UsageError("no model was given", hint="Give the path of a GGUF file")
    names = [str(source.reference) for source in sources]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"two models are called {twice}", hint="Give each its own --name")


def _check_space(output: Path, payload: int) -> None:
    free = free_space(output.parent, f"cannot write {output}")
    if free < payload:
        raise StorageFull(
            f"not enough space for {output.name}",
            why=f"{payload} bytes needed, {free} free",
            hint="Free some space or write to another disk",
        )
