"""What travels in a bundle, and how: entries, their stored segments, and where these lie.

An entry is one blob. What is stored of it (the blob itself, or an encoded form) is cut into
segments; a segment is the unit of verification, of resuming, and of spreading over volumes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final

from bundler.archive import layout
from bundler.archive.codec import stored_limit
from bundler.archive.pieces import Segment, check_algorithm
from bundler.archive.recipe import RECIPE_BYTES
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from schemas import limits
from schemas.errors import MalformedDocument

IDENTITY: Final = "identity"
DELTA: Final = "delta"
# Encodings that cut a blob into raw pieces and store each as one independent segment.
PIECEWISE: Final = ("zstd", "zstd-planes2", "zstd-planes4")
_SUFFIX: Final = {"zstd": "zst", "zstd-planes2": "zp2", "zstd-planes4": "zp4", DELTA: "delta"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One blob of a bundle.

    Attributes:
        digest: Of the finished blob.
        size: Of the finished blob, in bytes.
        encoding: How its bytes are stored.
        piece: Raw bytes per segment, the last one shorter; for a delta, stored bytes.
        segments: Of the stored bytes, in order. None for an identity entry in one piece: then the
            blob's own digest is the segment's.
        bases: Delta only: the blobs that the recipe copies from.
    """

    digest: Digest
    size: int
    encoding: str = IDENTITY
    piece: int = limits.SEGMENT_BYTES
    segments: tuple[Segment, ...] | None = None
    bases: tuple[Digest, ...] = ()

    def __post_init__(self) -> None:
        largest = limits.PIECE_BYTES if self.encoding in PIECEWISE else limits.SEGMENT_BYTES
        if not 1 <= self.piece <= largest:
            raise MalformedDocument(f"blob {self.digest.short} has pieces of {self.piece} bytes")
        for digest in (self.digest, *self.bases):
            check_algorithm(digest)
        if not 0 < self.size <= limits.BLOB_BYTES:
            raise MalformedDocument(
                f"blob {self.digest.short} cannot be that large",
                why=f"{self.size} bytes, allowed are 1 to {limits.BLOB_BYTES}",
            )
        if self.segments is None:
            if self.encoding != IDENTITY:
                raise MalformedDocument(f"blob {self.digest.short} is encoded without segments")
            object.__setattr__(self, "segments", (Segment(self.size, self.digest),))
        elif self.encoding != DELTA and len(self.segments) != self._pieces:
            raise MalformedDocument(f"blob {self.digest.short} has a wrong number of segments")
        if any(s.size not in sizes for s, sizes in zip(self.parts, self._possible(), strict=False)):
            raise MalformedDocument(f"blob {self.digest.short} has segments of an impossible size")
        if bool(self.bases) != (self.encoding == DELTA) or self.digest in self.bases:
            raise MalformedDocument(f"blob {self.digest.short} has bases that cannot be")

    @property
    def _pieces(self) -> int:
        return max(1, -(-self.size // self.piece))

    def _possible(self) -> Iterator[range]:
        """The sizes that each segment may have: encoded ones are held in memory."""
        if self.encoding == DELTA:
            yield range(1, RECIPE_BYTES + 1)
            yield from repeat(range(1, stored_limit(limits.PIECE_BYTES) + 1))
        for number in range(len(self.parts)):
            raw_size = self.raw_range(number)[1]
            if self.encoding == IDENTITY:
                yield range(raw_size, raw_size + 1)
            else:
                yield range(1, stored_limit(raw_size) + 1)

    @property
    def parts(self) -> tuple[Segment, ...]:
        """The segments; never None."""
        assert self.segments is not None  # noqa: S101 - set by the constructor
        return self.segments

    @property
    def stored_size(self) -> int:
        """Bytes in the archive."""
        return sum(segment.size for segment in self.parts)

    @property
    def name(self) -> str:
        """The member's name in the archive, when it travels in one."""
        plain = layout.blob_name(str(self.digest))
        if self.encoding == IDENTITY:
            return plain
        return f"sealift/{plain}.{_SUFFIX[self.encoding]}"

    def raw_range(self, index: int) -> tuple[int, int]:
        """Offset and length, in the finished blob, of a segment's bytes; not for deltas."""
        if self.encoding == IDENTITY and len(self.parts) == 1:
            return 0, self.size
        offset = index * self.piece
        return offset, min(self.piece, self.size - offset)

    @classmethod
    def from_document(cls, item: dict[str, Any]) -> Entry:
        """Read one out of a validated descriptor.

        Raises:
            MalformedDocument, InvalidName: It contradicts itself.
        """
        segments = item.get("segments")
        return cls(
            digest=Digest.parse(item["digest"]),
            size=item["size"],
            encoding=item["encoding"],
            piece=item.get("piece", limits.SEGMENT_BYTES),
            segments=None
            if segments is None
            else tuple(Segment(s["size"], Digest.parse(s["digest"])) for s in segments),
            bases=tuple(Digest.parse(base) for base in item.get("bases", ())),
        )

    def document(self) -> dict[str, Any]:
        """The JSON object; what follows from the rest is left out."""
        result: dict[str, Any] = {
            "digest": str(self.digest),
            "size": self.size,
            "encoding": self.encoding,
        }
        if self.encoding != IDENTITY or len(self.parts) > 1:
            result["piece"] = self.piece
            result["segments"] = [{"size": s.size, "digest": str(s.digest)} for s in self.parts]
        if self.bases:
            result["bases"] = [str(base) for base in self.bases]
        return result


@dataclass(frozen=True, slots=True)
class Part:
    """One member of a volume: a run of an entry's segments.

    Attributes:
        entry: Which blob.
        first: Number of the first segment.
        count: How many; all of them for a whole blob.
    """

    entry: Entry
    first: int
    count: int

    def __post_init__(self) -> None:
        if not (0 <= self.first < self.first + self.count <= len(self.entry.parts)):
            raise MalformedDocument(f"a volume has segments that {self.entry.digest.short} has not")

    @classmethod
    def all_of(cls, entry: Entry) -> Part:
        """A member that holds a whole entry."""
        return cls(entry, 0, len(entry.parts))

    @property
    def segments(self) -> Sequence[Segment]:
        """The run itself."""
        return self.entry.parts[self.first : self.first + self.count]

    @property
    def whole(self) -> bool:
        """Whether it is all of the entry."""
        return self.count == len(self.entry.parts)

    @property
    def name(self) -> str:
        """The member's name: the entry's, or a numbered one where it is a run."""
        if self.whole:
            return self.entry.name
        return f"sealift/parts/{self.entry.digest.hex}.{self.first:06}"

    @property
    def size(self) -> int:
        """Stored bytes."""
        return sum(segment.size for segment in self.segments)


def closure(
    models: Iterable[tuple[Descriptor, Manifest]],
    referrers: Iterable[tuple[Descriptor, Manifest]] = (),
) -> tuple[Descriptor, ...]:
    """All blobs that these models and what refers to them consist of, each once, in archive order.

    Manifests first, then configs, then layers: whoever reads in one pass knows what a blob is for
    before it comes. Referrers are small: all of theirs comes before the models' layers.
    """
    pairs, others = list(models), list(referrers)
    ordered = [
        *(descriptor for descriptor, _ in pairs),
        *(descriptor for descriptor, _ in others),
        *(manifest.config for _, manifest in pairs),
        *(blob for _, manifest in others for blob in manifest.blobs),
        *(layer for _, manifest in pairs for layer in manifest.layers),
    ]
    members: dict[Digest, Descriptor] = {}
    for item in ordered:
        known = members.setdefault(item.digest, item)
        if known.size != item.size:
            raise MalformedDocument(
                f"blob {item.digest.short} is declared with two sizes",
                why=f"{known.size} and {item.size} bytes",
            )
    return tuple(members.values())


def spread(entries: Sequence[Entry], volume_size: int) -> Iterator[tuple[Part, ...]]:
    """Distribute entries over volumes, in order, cutting between segments only where needed.

    A blob that fits into an empty volume but not into the rest of this one still begins here: full
    volumes are worth more than whole blobs.

    Args:
        entries: The large ones; what lies in the head is not among them.
        volume_size: Most bytes of one volume's file.

    Yields:
        The parts of each volume.
    """
    parts: list[Part] = []
    room = fresh = volume_size - layout.VOLUME_OVERHEAD
    for entry in entries:
        first = 0
        while first < len(entry.parts):
            count, used = _fit(entry, first, room)
            if count:
                parts.append(Part(entry, first, count))
                first += count
                room -= used
            else:
                if room == fresh:
                    raise MalformedDocument(f"a segment does not fit into {volume_size} bytes")
                yield tuple(parts)
                parts, room = [], fresh
    if parts:
        yield tuple(parts)


def _fit(entry: Entry, first: int, room: int) -> tuple[int, int]:
    """How many segments from ``first`` on fit as one member, and the bytes that they take."""
    count = size = used = 0
    for segment in entry.parts[first:]:
        grown = size + segment.size
        needed = layout.member_size(grown)
        if needed > room:
            break
        count, size, used = count + 1, grown, needed
    return count, used
