"""``bundle create``: models → layers → signatures → one archive, or a head and volumes."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from bundler.archive import layout
from bundler.archive.codec import Compression
from bundler.archive.writer import ArchiveWriter
from bundler.clock import rfc3339
from bundler.contents import Entry, Part, closure, spread
from bundler.descriptor import BundleDescriptor, BundledModel
from bundler.files import check_output, new_file
from bundler.modelpack import PackedModel, pack
from bundler.sources import LocalModel
from bundler.storing import Stored, store
from bundler.trust.names import model_target
from bundler.trust.publisher import Publisher, SignedModel, TrustMetadata
from bundler.volumes import Label
from registry import oci
from registry.digest import Digest
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import StorageFull, UsageError
from schemas.render import Meter


@dataclass(frozen=True, slots=True)
class Form:
    """How a bundle is to be written.

    Attributes:
        compression: Whether blobs are encoded where that pays.
        volume_size: Most bytes per volume; None for one file.
        overwrite: Whether files may be there already.
        held: Blobs that the far side has, with their sizes in bytes: left out, or built upon.
    """

    compression: Compression = Compression.AUTO
    volume_size: int | None = None
    overwrite: bool = False
    held: Mapping[Digest, int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.volume_size is not None and self.volume_size < limits.VOLUME_BYTES_MIN:
            raise UsageError(
                f"volumes of {self.volume_size} bytes are too small",
                hint=f"Give --volume-size at least {limits.VOLUME_BYTES_MIN // limits.MIB}M",
            )

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

    A file appears under its name only when it is complete and on disk; the head comes last, so
    without it nothing of the bundle counts. A bundle number that was used up by a failed attempt
    stays unused.

    Raises:
        UsageError: No model, two under one name, or volumes that are too small.
        AlreadyExists: An output is there and may not be overwritten.
        ContentMismatch: A source changed since it was hashed.
        TrustError: The keys or the workspace cannot sign this.
        StorageFull, StorageFailure: The disk says no.
    """
    _check_names(sources)
    check_output(output, overwrite=form.overwrite)
    packed = [pack(source) for source in sources]
    _check_space(output, sum(model.closure_bytes for model in packed))
    # Beside the output: what is spooled may be as large as the bundle itself.
    with tempfile.TemporaryDirectory(prefix=f".{output.name[:40]}.", dir=output.parent) as spool:
        blobs = _store(packed, form, Path(spool), progress)
        plan = _plan(packed, blobs, publisher.name, now, form)
        files = _write_volumes(output, plan, blobs, form, progress)
        descriptor, trust = _sign(publisher, packed, plan, passphrase, now)
        with new_file(output) as file:
            writer = ArchiveWriter(file)
            _write_head(writer, descriptor, trust, packed)
            if not descriptor.volumes:
                for entry in descriptor.contents:
                    if entry.digest in blobs:
                        _write_part(writer, Part.all_of(entry), blobs, progress)
            writer.close()
    size = sum(path.stat().st_size for path in (output, *files))
    return Created(output, files, size, descriptor, publisher.fingerprint)


def volume_path(output: Path, number: int, kind: str = "v") -> Path:
    """``models.bundle.tar`` → ``models.bundle.v001.tar``."""
    return output.with_name(f"{output.stem}.{kind}{number:03}{output.suffix}")


def _store(
    packed: Sequence[PackedModel], form: Form, spool: Path, progress: Meter
) -> dict[Digest, Stored]:
    """How each weight file is stored; those that the far side has are left out."""
    sources = {model.source.digest: model.source for model in packed}
    return {
        digest: store(
            source,
            compression=form.compression,
            piece=form.piece,
            spool=spool,
            progress=progress,
        )
        for digest, source in sources.items()
        if digest not in form.held
    }


def _plan(
    packed: Sequence[PackedModel],
    blobs: dict[Digest, Stored],
    publisher: str,
    now: datetime,
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
        id=secrets.token_hex(16),
        sequence=1,
        issued_at=rfc3339(now),
        publisher=publisher,
        models=tuple(bundled),
        contents=contents,
        requires=tuple((digest, form.held[digest]) for digest in sorted(needed)),
        volumes=tuple(spread(large, form.volume_size)) if form.volume_size else (),
    )


def _sign(
    publisher: Publisher,
    packed: Sequence[PackedModel],
    plan: BundleDescriptor,
    passphrase: bytes,
    now: datetime,
) -> tuple[BundleDescriptor, TrustMetadata]:
    trust = publisher.publish(
        [_signed(model) for model in packed],
        lambda sequence: replace(plan, sequence=sequence).to_bytes(),
        passphrase=passphrase,
        now=now,
    )
    return replace(plan, sequence=trust.sequence), trust


def _write_head(
    writer: ArchiveWriter,
    descriptor: BundleDescriptor,
    trust: TrustMetadata,
    packed: Sequence[PackedModel],
) -> None:
    small = {Digest.of(data): data for p in packed for data in (p.manifest_bytes, p.config_bytes)}
    writer.add_bytes(layout.LAYOUT_NAME, oci.LAYOUT_FILE)
    for name, data in trust.members:
        writer.add_bytes(layout.TRUST_FOLDER + name, data)
    writer.add_bytes(layout.DESCRIPTOR_NAME, descriptor.to_bytes())
    writer.add_bytes(layout.INDEX_NAME, descriptor.index())
    for entry in descriptor.contents:
        if entry.digest in small:
            writer.add_bytes(entry.name, small[entry.digest])


def _write_volumes(
    output: Path,
    plan: BundleDescriptor,
    blobs: dict[Digest, Stored],
    form: Form,
    progress: Meter,
) -> tuple[Path, ...]:
    paths = tuple(volume_path(output, n) for n in range(1, len(plan.volumes) + 1))
    for path in paths:
        check_output(path, overwrite=form.overwrite)
    for number, (path, parts) in enumerate(zip(paths, plan.volumes, strict=True), 1):
        with new_file(path) as file:
            writer = ArchiveWriter(file)
            writer.add_bytes(layout.VOLUME_NAME, Label(plan.id, number).to_bytes())
            for part in parts:
                _write_part(writer, part, blobs, progress)
            writer.close()
    return paths


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
    with storage_errors(f"cannot write {output}"):
        stats = os.statvfs(output.parent)
    free = stats.f_bavail * stats.f_frsize
    if free < payload:
        raise StorageFull(
            f"not enough space for {output.name}",
            why=f"{payload} bytes needed, {free} free",
            hint="Free some space or write to another disk",
        )
