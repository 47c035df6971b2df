"""``bundle create``: models → layers → signatures → one archive."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from bundler.archive import layout
from bundler.archive.writer import ArchiveWriter
from bundler.descriptor import BundleDescriptor, BundledModel
from bundler.files import check_output, new_file
from bundler.modelpack import PackedModel, pack
from bundler.sources import LocalModel
from bundler.trust.names import model_target
from bundler.trust.publisher import Publisher, SignedModel
from registry import oci
from registry.digest import Digest
from registry.verify import storage_errors
from schemas.errors import StorageFull, UsageError
from schemas.render import Meter


@dataclass(frozen=True, slots=True)
class Created:
    """What came out.

    Attributes:
        path: The bundle.
        size: In bytes.
        descriptor: What it holds.
        fingerprint: Of the root that the far side must have pinned.
    """

    path: Path
    size: int
    descriptor: BundleDescriptor
    fingerprint: Digest


def create_bundle(
    publisher: Publisher,
    sources: Sequence[LocalModel],
    output: Path,
    *,
    passphrase: bytes,
    now: datetime,
    overwrite: bool,
    progress: Meter,
) -> Created:
    """Sign models and write them into one bundle.

    The file appears under its name only when it is complete and on disk; a bundle number that was
    used up by a failed attempt stays unused.

    Raises:
        UsageError: No model, or two under one name.
        AlreadyExists: The output is there and ``overwrite`` is not set.
        ContentMismatch: A source changed since it was hashed.
        TrustError: The keys or the workspace cannot sign this.
        StorageFull, StorageFailure: The disk says no.
    """
    _check_names(sources)
    check_output(output, overwrite=overwrite)
    packed = [pack(source) for source in sources]
    descriptor: BundleDescriptor | None = None

    def describe(sequence: int) -> bytes:
        nonlocal descriptor
        descriptor = BundleDescriptor.build(
            bundle_id=secrets.token_hex(16),
            sequence=sequence,
            issued_at=now,
            publisher=publisher.name,
            models=[(_bundled(model), model.manifest) for model in packed],
        )
        return descriptor.to_bytes()

    _check_space(output, sum(model.closure_bytes for model in packed))
    metadata = publisher.publish(
        [_signed(model) for model in packed], describe, passphrase=passphrase, now=now
    )
    if descriptor is None:
        raise UsageError("the publisher made no descriptor")
    with new_file(output) as file:
        _write(file, descriptor, metadata.members, packed, progress)
        size = os.fstat(file.fileno()).st_size
    return Created(output, size, descriptor, publisher.fingerprint)


def _write(
    file: BinaryIO,
    descriptor: BundleDescriptor,
    trust: Sequence[tuple[str, bytes]],
    packed: Sequence[PackedModel],
    progress: Meter,
) -> None:
    small = {Digest.of(data): data for p in packed for data in (p.manifest_bytes, p.config_bytes)}
    weights = {p.source.digest: p.source for p in packed}
    writer = ArchiveWriter(file)
    writer.add_bytes(layout.LAYOUT_NAME, oci.LAYOUT_FILE)
    for name, data in trust:
        writer.add_bytes(layout.TRUST_FOLDER + name, data)
    writer.add_bytes(layout.DESCRIPTOR_NAME, descriptor.to_bytes())
    writer.add_bytes(layout.INDEX_NAME, descriptor.index())
    for member in descriptor.contents:
        if member.digest in small:
            writer.add_bytes(member.name, small[member.digest])
            continue
        source = weights[member.digest]
        progress.begin(f"writing {source.path.name}", member.size)
        with source.open() as stream:
            writer.add_blob(stream, member.digest, member.size, progress.advance)
    writer.close()


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
