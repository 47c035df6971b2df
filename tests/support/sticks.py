"""Bundles by hand in every encoding, in one file or in volumes, and sticks to put them on.

As :mod:`tests.support.bundle_simulator`: written against the format, not with ``bundler.contents``.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import zstandard

from tests.gguf_files import Pieces, tensor
from tests.support.bundle_simulator import (
    Edit,
    Forgery,
    Member,
    blob_name,
    digest,
    dump,
    forge,
    members,
    tar,
    untouched,
)
from tests.support.publisher_simulator import Simulator

SUFFIX: Final = {"zstd": "zst", "zstd-planes2": "zp2", "zstd-planes4": "zp4", "delta": "delta"}
PIECE: Final = 4096
ENCODINGS: Final = ("whole", "identity", "zstd", "zstd-planes2", "zstd-planes4", "delta")
FLOATS: Final = 7000


def weights(seed: int = 0, floats: int = FLOATS) -> bytes:
    """A valid model file of some 28 KiB: several pieces, and floats that compress a little."""
    data = Pieces(
        tensors=(
            tensor("token_embd.weight", (32, 4), 2, 0),
            tensor("output_norm.weight", (floats,), 0, 96),
        ),
        data_bytes=96 + 4 * floats,
    ).build()
    floats_bytes = struct.pack(f"<{floats}f", *((n * 7 + seed) % 997 / 4 for n in range(floats)))
    return data[: len(data) - 4 * floats] + floats_bytes


@dataclass(frozen=True)
class Stored:
    """How one blob travels.

    Attributes:
        encoding: As in the descriptor.
        segments: The stored bytes.
        piece: Raw bytes per segment; 0 for a whole blob.
        bases: Of a delta.
    """

    encoding: str
    segments: tuple[bytes, ...]
    piece: int = 0
    bases: tuple[str, ...] = ()

    def name(self, blob: str) -> str:
        plain = blob_name(blob)
        return plain if self.encoding == "identity" else f"sealift/{plain}.{SUFFIX[self.encoding]}"

    def edit(self, item: dict[str, Any]) -> None:
        """Put it into the blob's entry of the contents table."""
        item["encoding"] = self.encoding
        if self.piece:
            item["piece"] = self.piece
            item["segments"] = [{"size": len(s), "digest": digest(s)} for s in self.segments]
        if self.bases:
            item["bases"] = list(self.bases)


def pieces(data: bytes, piece: int = PIECE) -> list[bytes]:
    return [data[at : at + piece] for at in range(0, len(data), piece)]


def frame(raw: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=True).compress(raw)


def planes(raw: bytes, count: int) -> bytes:
    """All first bytes, then all second ones …; what is left over as it is."""
    body = len(raw) // count * count
    return b"".join(raw[n:body:count] for n in range(count)) + raw[body:]


def recipe(
    size: int, operations: Sequence[tuple[int, int, int]], literals: int, bases: int = 1
) -> bytes:
    """A recipe whose literals travel as they are; operations are base, offset, length."""
    head = struct.pack(
        ">16sQQHBBI", b"sealift recipe\0\1", size, literals, bases, 0, 0, len(operations)
    )
    return head + b"".join(struct.pack(">IQQ", *operation) for operation in operations)


def delta(data: bytes, base: bytes, start: int = 6000, length: int = 9000) -> Stored:
    """``data`` with one range taken out of a base, which must have it at the same place."""
    operations = [(0, 0, start), (1, start, length), (0, 0, len(data) - start - length)]
    literals = data[:start] + data[start + length :]
    head = recipe(len(data), operations, len(literals))
    return Stored("delta", (head, literals), 16 << 20, (digest(base),))


def stored(data: bytes, encoding: str, base: bytes = b"") -> Stored:
    """A blob in one of :data:`ENCODINGS`."""
    if encoding == "whole":
        return Stored("identity", (data,))
    if encoding == "identity":
        return Stored("identity", tuple(pieces(data)), PIECE)
    if encoding == "delta":
        return delta(data, base)
    count = int(encoding[-1]) if "planes" in encoding else 1
    frames = tuple(frame(planes(piece, count)) for piece in pieces(data))
    return Stored(encoding, frames, PIECE)


@dataclass(frozen=True)
class Carried:
    """A signed bundle on its way: one file, or a head and volumes."""

    head: bytes
    volumes: tuple[bytes, ...] = ()
    descriptor: Mapping[str, Any] = field(default_factory=dict)

    def put(self, folder: Path) -> list[Path]:
        """Write all of it to a stick; the head comes first."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / "models.tar"]
        paths[0].write_bytes(self.head)
        for number, data in enumerate(self.volumes, 1):
            paths.append(folder / f"models.v{number:03}.tar")
            paths[-1].write_bytes(data)
        return paths


Layout = Callable[[list[tuple[int, int]]], list[list[tuple[int, int, int]]]]
"""From (number in the contents, segments) of the large entries to the parts of each volume."""


def by_segments(most: int) -> Layout:
    """So many segments per volume, of whatever blobs."""

    def layout(entries: list[tuple[int, int]]) -> list[list[tuple[int, int, int]]]:
        flat = [(number, first) for number, count in entries for first in range(count)]
        volumes = []
        for at in range(0, len(flat), most):
            parts: list[tuple[int, int, int]] = []
            for number, first in flat[at : at + most]:
                if parts and parts[-1][0] == number:
                    parts[-1] = (number, parts[-1][1], parts[-1][2] + 1)
                else:
                    parts.append((number, first, 1))
            volumes.append(parts)
        return volumes

    return layout


def carry(
    simulator: Simulator,
    *models: Forgery,
    encodings: Mapping[str, Stored] | None = None,
    layout: Layout | None = None,
    requires: Mapping[str, int] | None = None,
    left_out: Sequence[str] = (),
    descriptor: Edit = untouched,
    bundle_id: str | None = None,
    sequence: int = 1,
) -> Carried:
    """Sign a bundle as :func:`forge` does, then store its blobs otherwise.

    Args:
        simulator: The publisher.
        models: As for :func:`forge`.
        encodings: Blob to how it travels; others travel whole.
        layout: Of volumes; None makes one file.
        requires: What the far side must hold.
        left_out: Blobs that do not travel at all.
        descriptor: Edits the finished table before it is signed.
        bundle_id: Another id than the one that follows from the models.
        sequence: The bundle's.
    """
    known = {digest(model.weights): model.weights for model in models or (Forgery(),)}
    ways = {blob: Stored("identity", (data,)) for blob, data in known.items()}
    ways.update(encodings or {})
    for blob in left_out:
        ways.pop(blob, None)
    table: dict[str, Any] = {}

    def edit(document: dict[str, Any]) -> None:
        document["contents"] = [c for c in document["contents"] if c["digest"] not in left_out]
        large = []
        for number, item in enumerate(document["contents"]):
            if item["digest"] in ways:
                ways[item["digest"]].edit(item)
                large.append((number, len(ways[item["digest"]].segments)))
        document["requires"] = [{"digest": d, "size": n} for d, n in (requires or {}).items()]
        if layout is not None:
            document["volumes"] = [{"parts": [list(p) for p in v]} for v in layout(large)]
        document["id"] = bundle_id or document["id"]
        descriptor(document)
        table.update(json.loads(dump(document)))

    whole = members(forge(simulator, *models, descriptor=edit, sequence=sequence))
    names = {blob_name(blob) for blob in ways}
    small = [member for member in whole if member.name not in names]
    order = [item["digest"] for item in table["contents"] if item["digest"] in ways]
    if layout is None:
        large_members = [Member.of(ways[d].name(d), b"".join(ways[d].segments)) for d in order]
        return Carried(tar([*small, *large_members]), (), table)
    volumes = tuple(volume(table, number, ways) for number in range(1, len(table["volumes"]) + 1))
    return Carried(tar(small), volumes, table)


def label(bundle: str, number: int, kind: str = "data") -> Member:
    document = {"schemaVersion": 1, "bundle": bundle, "number": number, "kind": kind}
    return Member.of("sealift/volume.json", dump(document))


def volume(table: Mapping[str, Any], number: int, ways: Mapping[str, Stored]) -> bytes:
    found = [label(table["id"], number)]
    for entry, first, count in table["volumes"][number - 1]["parts"]:
        blob = table["contents"][entry]["digest"]
        way = ways[blob]
        name = way.name(blob)
        if count != len(way.segments):
            name = f"sealift/parts/{blob.removeprefix('sha256:')}.{first:06}"
        found.append(Member.of(name, b"".join(way.segments[first : first + count])))
    return tar(found)


class Watched(io.RawIOBase):
    """A file that counts what is read of it, and may do something else at some byte.

    Attributes:
        count: Bytes read so far.
    """

    def __init__(
        self, data: bytes, trap: Callable[[int], None] = lambda _: None, *, seekable: bool = True
    ) -> None:
        super().__init__()
        self._file = io.BytesIO(data)
        self._trap = trap
        self._seekable = seekable
        self.count = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._seekable

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        self._trap(self._file.tell())
        view = memoryview(buffer)[:PIECE]
        count = self._file.readinto(view)
        self.count += count
        return count
