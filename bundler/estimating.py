"""How models would travel, found out before they are read: exact where nothing is encoded.

Used before a bundle is made, and by ``bundle plan`` instead of that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from bundler.archive import layout
from bundler.archive.codec import AS_IT_IS, EncodingChoice, choose_encoding, piece_sizes
from bundler.archive.pieces import Segment
from bundler.chunks.recipes import Delta
from bundler.contents import DELTA, IDENTITY, Entry, Part, spread
from bundler.extents import parity_back, parity_front
from bundler.files import open_regular
from bundler.forms import Form
from bundler.parity import choose_block
from bundler.parity.table import table_bytes
from bundler.sources import FoundModel, SourceFile
from bundler.volumes import Label
from registry.digest import Digest
from registry.verify import storage_errors
from schemas import limits

_ANY_ID = "0" * 32  # all ids of bundles are as long as this one


@dataclass(frozen=True, slots=True)
class Way:
    """How a file would travel.

    Attributes:
        file: Which.
        choice: Its encoding, if it travels whole.
        held: Whether the far side has it already.
        delta: How it is made of what the far side has.
    """

    file: SourceFile
    choice: EncodingChoice
    held: bool = False
    delta: Delta | None = None

    @property
    def encoded(self) -> int:
        """Bytes that have to be encoded."""
        if self.held:
            return 0
        if self.delta is not None:
            return self.delta.recipe.literal_size
        return self.file.size if self.choice.ratio < 1 else 0


@dataclass(frozen=True)
class Estimate:
    """What would be written.

    Attributes:
        ways: How each file would travel.
        form: How the bundle is written.
    """

    ways: Sequence[Way]
    form: Form

    @cached_property
    def sent(self) -> tuple[Way, ...]:
        """Those that travel."""
        return tuple(way for way in self.ways if not way.held)

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Of the right sizes, as far as they are known; their digests mean nothing."""
        return tuple(_entry(number, way, self.form) for number, way in enumerate(self.sent))

    @cached_property
    def spread(self) -> tuple[tuple[Part, ...], ...]:
        """The parts of each volume.

        Raises:
            MalformedDocument: The volumes would be too small.
        """
        size = self.form.volume_size
        return tuple(spread(self.entries, size)) if size else ()

    @cached_property
    def volumes(self) -> tuple[int, ...]:
        """Bytes of each volume's file."""
        return tuple(_volume_size(n, parts) for n, parts in enumerate(self.spread, 1))

    @cached_property
    def parity(self) -> tuple[int, ...]:
        """Bytes of each parity volume's file.

        Raises:
            UnsupportedRequest: Too many volumes.
        """
        if not (self.form.parity and self.volumes):
            return ()
        choose_block(self.volumes, self.form.parity)
        longest = max(self.volumes)
        fronts = [len(parity_front(_ANY_ID, n, longest)) for n in range(1, self.form.parity + 1)]
        return tuple(front + longest + len(parity_back(front, longest)) for front in fronts)

    @property
    def parity_table(self) -> int:
        """Bytes of the table in the head."""
        if not self.parity:
            return 0
        return table_bytes(
            self.volumes, self.form.parity, choose_block(self.volumes, self.form.parity)
        )

    @property
    def carry(self) -> int:
        """Bytes that travel, but for the head: the files' own, as they are stored."""
        return sum(entry.stored_size for entry in self.entries)

    @property
    def spooled(self) -> int:
        """Bytes that are written twice: encoded before anything can be signed."""
        return sum(entry.stored_size for entry in self.entries if entry.encoding != IDENTITY)

    @property
    def written(self) -> int:
        """Bytes that the disk takes, but for the head."""
        outputs = sum(self.volumes) + sum(self.parity) if self.volumes else self.members
        return self.spooled + outputs

    @property
    def members(self) -> int:
        """Bytes of all large members in one file, headers and padding included."""
        return sum(layout.member_size(entry.stored_size) for entry in self.entries)


def ways_of(found: Iterable[FoundModel], form: Form) -> list[Way]:
    """How files would travel whole, from samples of each; the same path is taken once.

    Raises:
        StorageFailure: One cannot be read.
    """
    files = {file.path: file for model in found for file in model.files}
    return [whole(file, form) for file in files.values()]


def whole(file: SourceFile, form: Form) -> Way:
    """How one file would travel whole."""
    with open_regular(file.path) as source, storage_errors(f"cannot read {file.path}"):
        fd = source.fileno()
        choice = choose_encoding(
            lambda offset, length: os.pread(fd, length, offset), file.size, mode=form.compression
        )
    return Way(file, choice)


def held(file: SourceFile) -> Way:
    """Of a file that is there already."""
    return Way(file, AS_IT_IS, held=True)


def _entry(number: int, way: Way, form: Form) -> Entry:
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


def _volume_size(number: int, parts: Iterable[Part]) -> int:
    label = layout.member_size(len(Label(_ANY_ID, number).to_bytes()))
    return layout.end_of_archive(label, (part.size for part in parts))
