"""What every file of a bundle holds, byte by byte or by digest: for checks of media, and parity.

It follows from the head: headers and padding are predicted, segments have digests. The head is
taken as it says of itself; a check of media asks whether bytes are what was written, not who wrote
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundler.archive import layout
from bundler.contents import Part
from bundler.descriptor import BundleDescriptor
from bundler.files import open_regular
from bundler.media import Extent, MediaFile, extents_of_table
from bundler.parity import FileRange, Table
from bundler.reading import read_body, read_front, read_withdrawn
from bundler.trust.claims import claimed_withdrawn
from bundler.volumes import Label, Media
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import MalformedDocument


@dataclass(frozen=True, slots=True)
class Outline:
    """A bundle as its head describes it.

    Attributes:
        head: Its file.
        front: The head's first bytes: all before the large blobs, or all where there are volumes.
        descriptor: Not verified.
        table: The parity table, as far as there is parity.
    """

    head: Path
    front: bytes
    descriptor: BundleDescriptor
    table: Table | None


def outline(head: Path) -> Outline:
    """Read a head; as strictly as an import, but whoever signed it.

    Raises:
        ContentError: It is none, or a broken one.
        NotFound, UsageError, StorageFailure: It cannot be read.
    """
    with open_regular(head) as source:
        front = read_front(source)
        descriptor = BundleDescriptor.from_bytes(front.descriptor_bytes)
        read_withdrawn(front.reader, claimed_withdrawn(front.trust_files))
        body = read_body(front.reader, descriptor, lambda _: None, lambda _: None)
        size = front.reader.position
        with storage_errors(f"cannot read {head}"):
            source.seek(0)
            parts = []
            while size > 0 and (data := source.read(min(size, limits.IO_CHUNK))):
                parts.append(data)
                size -= len(data)
    table = None if body.parity_table is None else table_of(descriptor, body.parity_table)
    return Outline(head, b"".join(parts), descriptor, table)


def table_of(descriptor: BundleDescriptor, data: bytes) -> Table:
    """The parity table of a bundle.

    Raises:
        MalformedDocument: It is of another bundle.
    """
    table, parity = Table.decode(data), descriptor.parity
    lengths = tuple(volume_size(descriptor, n) for n in range(1, len(descriptor.volumes) + 1))
    if parity is None or (table.parity, table.block) != (parity.volumes, parity.block):
        raise MalformedDocument("the parity table is not the one that the bundle describes")
    if table.lengths != lengths:
        raise MalformedDocument("the parity table is of volumes of other sizes")
    return table


def volume_size(descriptor: BundleDescriptor, number: int) -> int:
    """Bytes of a volume's file."""
    label = Label(descriptor.id, number).to_bytes()
    sizes = (part.size for part in descriptor.volumes[number - 1])
    return layout.end_of_archive(layout.member_size(len(label)), sizes)


def parity_front(bundle: str, number: int, size: int) -> bytes:
    """What lies before the parity in a parity volume: its label, and its one member's header."""
    label = Label(bundle, number, parity=True).to_bytes()
    return (
        layout.header(layout.VOLUME_NAME, len(label))
        + label
        + bytes(layout.padding(len(label)))
        + layout.header(f"sealift/parity/{number:03}", size)
    )


def parity_back(front: int, size: int) -> bytes:
    """What lies after the parity, of which ``front`` bytes lie before."""
    padding = layout.padding(size)
    return bytes(padding) + layout.trailer(front + size + padding)


def ranges(seen: Outline, table: Table, media: Media) -> list[FileRange | None]:
    """Where data and parity of all volumes lie; None for those that are not at hand."""
    descriptor = seen.descriptor
    volumes, parity = media.of(descriptor.id), media.parity_of(descriptor.id)
    found: list[FileRange | None] = []
    for number in range(table.data):
        path = volumes.get(number + 1)
        found.append(None if path is None else FileRange(path, table.length(number)))
    for number in range(1, table.parity + 1):
        path, length = parity.get(number), max(table.lengths)
        front = len(parity_front(descriptor.id, number, length))
        found.append(None if path is None else FileRange(path, length, front))
    return found


def media_files(head: Path, media: Media) -> list[MediaFile]:
    """The files of a bundle that are at hand, in the order in which they were written.

    Args:
        head: The bundle, or its head.
        media: Its volumes, as far as they are at hand.

    Raises:
        ContentError: The head is broken.
    """
    seen = outline(head)
    files = [
        MediaFile(path, list(volume_extents(seen.descriptor, number)))
        for number, path in media.of(seen.descriptor.id).items()
        if number <= len(seen.descriptor.volumes)
    ]
    if seen.table is not None:
        files += _parity_files(seen, seen.table, media.parity_of(seen.descriptor.id))
    return [*files, MediaFile(head, list(_first(seen)))]


def _first(seen: Outline) -> Iterator[Extent]:
    for at in range(0, len(seen.front), limits.IO_CHUNK):
        piece = seen.front[at : at + limits.IO_CHUNK]
        yield Extent(at, len(piece), piece)
    if not seen.descriptor.volumes:
        large = [e for e in seen.descriptor.contents if not _is_small(seen, e.name)]
        yield from _members(len(seen.front), [Part.all_of(entry) for entry in large])


def _is_small(seen: Outline, name: str) -> bool:
    """Whether a member lies in the front: its header does."""
    return f"\0{name}\0".encode() in b"\0" + seen.front


def volume_extents(descriptor: BundleDescriptor, number: int) -> Iterator[Extent]:
    """All of a volume's file, from its first byte to its last."""
    label = Label(descriptor.id, number).to_bytes()
    front = (
        layout.header(layout.VOLUME_NAME, len(label)) + label + bytes(layout.padding(len(label)))
    )
    yield Extent(0, len(front), front)
    yield from _members(len(front), descriptor.volumes[number - 1])


def _members(position: int, parts: Sequence[Part]) -> Iterator[Extent]:
    for part in parts:
        header = layout.header(part.name, part.size)
        yield Extent(position, len(header), header)
        position += len(header)
        for segment in part.segments:
            yield Extent(position, segment.size, segment.digest)
            position += segment.size
        if padding := layout.padding(part.size):
            yield Extent(position, padding, bytes(padding))
            position += padding
    trailer = layout.trailer(position)
    yield Extent(position, len(trailer), trailer)


def _parity_files(seen: Outline, table: Table, at_hand: Mapping[int, Path]) -> Iterable[MediaFile]:
    length = max(table.lengths)
    for number, path in sorted(at_hand.items()):
        if number <= table.parity:
            front = parity_front(seen.descriptor.id, number, length)
            back = parity_back(len(front), length)
            data = extents_of_table(table, table.data + number - 1, offset=len(front))
            last = Extent(len(front) + length, len(back), back)
            yield MediaFile(path, [Extent(0, len(front), front), *data, last])
