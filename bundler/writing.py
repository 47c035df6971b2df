"""Writing what was signed: the bundle's one file, or its head and volumes."""

from __future__ import annotations

from collections.abc import Mapping

from bundler.archive import layout
from bundler.archive.writer import ArchiveWriter
from bundler.contents import Part
from bundler.descriptor import BundleDescriptor
from bundler.storing import Stored
from bundler.volumes import Label
from bundler.workbench import Workbench
from registry.digest import Digest
from registry.verify import storage_errors
from schemas.render import Meter


def write_first(
    bench: Workbench,
    descriptor: BundleDescriptor,
    head: bytes,
    blobs: Mapping[Digest, Stored],
    progress: Meter,
) -> None:
    """The bundle's one file, or its head."""
    with bench.output(0) as file:
        writer = ArchiveWriter(
            file, start=bench.durable(0), durable=lambda count: bench.note_durable(0, count)
        )
        write_all(writer, descriptor, head, blobs, progress)


def write_all(
    writer: ArchiveWriter,
    descriptor: BundleDescriptor,
    head: bytes,
    blobs: Mapping[Digest, Stored],
    progress: Meter,
) -> None:
    """The head, and the large blobs of a bundle in one file."""
    writer.add_raw(head)
    if not descriptor.volumes:
        for entry in descriptor.contents:
            if entry.digest in blobs:
                _write_part(writer, Part.all_of(entry), blobs, progress)
    writer.close()


def write_volume(
    bench: Workbench,
    number: int,
    plan: BundleDescriptor,
    blobs: Mapping[Digest, Stored],
    progress: Meter,
) -> None:
    """One volume; what is durable of it from an earlier attempt is kept."""
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
    writer: ArchiveWriter, part: Part, blobs: Mapping[Digest, Stored], progress: Meter
) -> None:
    stored = blobs[part.entry.digest]
    progress.begin(f"writing {stored.label}", part.size)
    with stored.open() as stream:
        with storage_errors(f"cannot read {stored.label}"):
            stream.seek(sum(segment.size for segment in part.entry.parts[: part.first]))
        writer.add_part(part, stream, progress.advance)
