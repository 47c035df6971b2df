"""How a large blob travels: as it is, or in pieces that are zstd frames (RFC 8878) each.

A blob is cut into pieces of ``PIECE_BYTES``, the last one shorter. Each becomes one frame that says
its content's size, needs no dictionary and stands alone, so that all cores work and reading can
start at any piece. For ``zstd-planes2`` and ``-planes4`` the bytes of a piece are put in another
order first: see :mod:`bundler.archive.planes`.

A frame's digest is signed and compared before the frame is opened. It is opened with care even so:
nothing but one frame, of exactly the expected size, and no memory beyond it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from bundler.archive import planes
from schemas import limits
from schemas.errors import MalformedArchive

if TYPE_CHECKING:
    from zstandard import ZstdCompressor

ENTROPY_LEVEL: Final = 0
"""No zstd level: matches are hardly looked for, so nearly all goes into entropy coding.

Measured on weights in byte planes this is both the fastest setting and the smallest result, level
19 included: short matches between mantissas cost more than they save.
"""

QUICK_LEVEL: Final = 3  # zstd's own default
SLOW_LEVEL: Final = 19  # the highest that needs no --ultra

LEAST_SAVING_AUTO: Final = 0.08
"""Of the blob's size. Less is not worth a blob that other tools cannot read in place.

4-bit weights save 5 to 6 %, 8-bit ones 4 %, F32 18 %, F16 15 %, BF16 33 %.
"""
LEAST_SAVING_MAX: Final = 0.01
PLANES_GAIN: Final = 0.05  # of plain zstd's size: planes must beat it by that much
SLOW_GAIN: Final = 0.01  # of the quick level's size: the slow one takes a hundred times as long

_MAGIC: Final = b"\x28\xb5\x2f\xfd"  # RFC 8878, 3.1.1; no skippable, no legacy frames
_BAD: Final = "The publisher's tool wrote a frame that no reader may open; have it bundled again"


class Encoding(enum.StrEnum):
    """How a blob's bytes are stored in a bundle; the words of the descriptor."""

    IDENTITY = "identity"
    ZSTD = "zstd"
    PLANES2 = "zstd-planes2"
    PLANES4 = "zstd-planes4"
    DELTA = "delta"

    @property
    def planes(self) -> int:
        """Bytes per element whose planes are split; 1 where none are."""
        return {Encoding.PLANES2: 2, Encoding.PLANES4: 4}.get(self, 1)

    @property
    def in_pieces(self) -> bool:
        """Whether it is one of the zstd encodings."""
        return self in {Encoding.ZSTD, Encoding.PLANES2, Encoding.PLANES4}

    @property
    def suffix(self) -> str:
        """Of the member's name; empty for identity."""
        return _SUFFIXES[self]


_SUFFIXES: Final = {
    Encoding.IDENTITY: "",
    Encoding.ZSTD: ".zst",
    Encoding.PLANES2: ".zp2",
    Encoding.PLANES4: ".zp4",
    Encoding.DELTA: ".delta",
}


class Compression(enum.StrEnum):
    """What ``--compression`` says."""

    AUTO = "auto"
    NONE = "none"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class ElementHint:
    """What a tensor table says about most of a blob's bytes.

    Attributes:
        element_size: Bytes per element: 2 for BF16 and F16, 4 for F32; 1 for anything else, such
            as quantised blocks, for which planes are not tried.
    """

    element_size: int

    def __post_init__(self) -> None:
        if self.element_size not in {1, 2, 4}:
            raise ValueError("an element is hinted to have 1, 2 or 4 bytes")


@dataclass(frozen=True, slots=True)
class EncodingChoice:
    """How a blob is to be encoded.

    Attributes:
        encoding: Which; never ``DELTA``, which is not chosen by sampling.
        level: zstd's, 1 to 22, or ``ENTROPY_LEVEL``; without meaning for identity.
        ratio: Stored size by raw size, as the sample promises; 1.0 for identity.
    """

    encoding: Encoding
    level: int = ENTROPY_LEVEL
    ratio: float = 1.0

    def __post_init__(self) -> None:
        if self.encoding is Encoding.DELTA:
            raise ValueError("a delta is no choice of the codec's")
        if not 0 <= self.level <= 22:
            raise ValueError("a level is 0 to 22")

    @property
    def slow(self) -> bool:
        """Whether it is worth every core and much memory."""
        return self.level > 9


AS_IT_IS: Final = EncodingChoice(Encoding.IDENTITY)

Sample = Callable[[int, int], bytes]
"""Reads ``length`` bytes at ``offset`` of a blob; both are within it."""


def choose_encoding(
    sample: Sample, size: int, *, mode: Compression, hint: ElementHint | None = None
) -> EncodingChoice:
    """Find out from samples what pays.

    Args:
        sample: Reads bytes of the blob.
        size: Of the blob, in bytes.
        mode: What the user wants.
        hint: From the blob's tensor table; without one, both element sizes are tried.

    Returns:
        Identity unless the saving is at least ``LEAST_SAVING_AUTO`` (``…_MAX``); planes only where
        they are at least ``PLANES_GAIN`` smaller than plain zstd, the slow level only where
        ``MAX`` asks for it and it is at least ``SLOW_GAIN`` smaller than the quick one.
    """
    if mode is Compression.NONE or size < limits.CODED_BYTES:
        return AS_IT_IS
    sizes = (2, 4) if hint is None else (hint.element_size,)
    candidates = [encoding for encoding in _PLANED if encoding.planes in sizes]
    quick = EncodingChoice(Encoding.ZSTD, QUICK_LEVEL)
    plain, *planed = _try_out(
        sample, size, [quick, *(EncodingChoice(encoding, ENTROPY_LEVEL) for encoding in candidates)]
    )
    winners = [one for one in planed if _beats(one, plain, PLANES_GAIN)]
    best = min(winners, key=_by_ratio, default=plain)
    if mode is Compression.MAX and best is plain:
        slow = EncodingChoice(Encoding.ZSTD, SLOW_LEVEL)
        before, after = _try_out(sample, size, [quick, slow], slow=True)
        if _beats(after, before, SLOW_GAIN):  # on samples too short to tell the ratio itself
            best = replace(after, ratio=plain.ratio * after.ratio / before.ratio)
    least = LEAST_SAVING_MAX if mode is Compression.MAX else LEAST_SAVING_AUTO
    return best if best.ratio <= 1 - least else AS_IT_IS


def encode_piece(encoding: Encoding, level: int, raw: bytes | bytearray) -> bytes:
    """One piece as one frame. Releases the GIL for most of its time.

    Args:
        encoding: One of the zstd encodings.
        level: 1 to 22, or ``ENTROPY_LEVEL``.
        raw: 1 to ``PIECE_BYTES`` bytes.
    """
    if not encoding.in_pieces or not 0 < len(raw) <= limits.PIECE_BYTES:
        raise ValueError("only a piece of a zstd encoding can be encoded")
    frame = _compressor(level, len(raw)).compressobj(size=len(raw))
    parts = [frame.compress(block) for block in planes.split(raw, encoding.planes)]
    parts.append(frame.flush())
    return b"".join(parts)


def decode_piece(
    encoding: Encoding,
    stored: bytes | bytearray,
    raw_size: int,
    into: bytearray | None = None,
) -> bytes | bytearray:
    """The inverse of :func:`encode_piece`; the digest of ``stored`` was compared before.

    Args:
        encoding: One of the zstd encodings.
        stored: One frame.
        raw_size: What its content must have, 1 to ``PIECE_BYTES``.
        into: ``raw_size`` bytes of memory, in which planes are merged; see `planes.merge`.

    Raises:
        MalformedArchive: Anything but one whole frame with content of that size, or no piece has
            that size.
    """
    from zstandard import ZstdDecompressor, ZstdError, get_frame_parameters

    if not encoding.in_pieces:
        raise ValueError("only a piece of a zstd encoding can be decoded")
    if not 0 < raw_size <= limits.PIECE_BYTES:
        raise _malformed(f"pieces have 1 to {limits.PIECE_BYTES} bytes, not {raw_size}")
    if len(stored) > stored_limit(raw_size) or bytes(stored[:4]) != _MAGIC:
        raise _malformed("it is no zstd frame of a piece")
    try:
        # Memory is reserved by what the frame's header says, so that is compared first.
        header = get_frame_parameters(stored)
        if header.content_size != raw_size or header.dict_id:
            raise _malformed(f"it declares {header.content_size} bytes of content, not {raw_size}")
        data = ZstdDecompressor().decompress(
            stored, read_across_frames=False, allow_extra_data=False
        )
    except ZstdError as error:
        raise _malformed(str(error)) from None
    if len(data) != raw_size:
        raise _malformed(f"it has {len(data)} bytes of content, not {raw_size}")
    return planes.merge(data, encoding.planes, into)


def stored_limit(raw_size: int) -> int:
    """The most bytes that the frame of a piece can have (``ZSTD_compressBound``)."""
    margin = (128 * limits.KIB - raw_size) >> 11 if raw_size < 128 * limits.KIB else 0
    return raw_size + (raw_size >> 8) + margin


def piece_sizes(size: int) -> Iterable[int]:
    """Raw sizes of the pieces that a blob of ``size`` bytes is cut into."""
    full, rest = divmod(size, limits.PIECE_BYTES)
    yield from (limits.PIECE_BYTES for _ in range(full))
    if rest:
        yield rest


_PLANED: Final = (Encoding.PLANES2, Encoding.PLANES4)


def _compressor(level: int, raw_size: int) -> ZstdCompressor:
    from zstandard import STRATEGY_FAST, ZstdCompressionParameters, ZstdCompressor

    if level == ENTROPY_LEVEL:
        # The smallest table of matches, and only long ones: runs and repeats are still found.
        parameters = ZstdCompressionParameters.from_level(
            1, source_size=raw_size, strategy=STRATEGY_FAST, min_match=7, hash_log=6
        )
    else:
        parameters = ZstdCompressionParameters.from_level(level, source_size=raw_size)
    return ZstdCompressor(compression_params=parameters)


def _try_out(
    sample: Sample, size: int, choices: Iterable[EncodingChoice], *, slow: bool = False
) -> list[EncodingChoice]:
    """The same choices with the ratios that samples promise."""
    count = limits.SLOW_SAMPLES if slow else limits.SAMPLES
    length = limits.SLOW_SAMPLE_BYTES if slow else limits.SAMPLE_BYTES
    raw_total = 0
    totals = dict.fromkeys(choices, 0)
    for offset, wanted in _spread(size, count, length):
        raw = sample(offset, wanted)
        raw_total += len(raw)
        for choice in totals:
            totals[choice] += len(encode_piece(choice.encoding, choice.level, raw))
    return [
        EncodingChoice(choice.encoding, choice.level, total / raw_total)
        for choice, total in totals.items()
    ]


def _spread(size: int, count: int, length: int) -> Iterable[tuple[int, int]]:
    """Ranges in the middle of equal parts, on whole elements; all of it where it is small.

    Not from the very start: tokens and other texts there are unlike the rest.
    """
    if size <= count * length:
        for offset in range(0, size, length):
            yield offset, min(length, size - offset)
        return
    for number in range(count):
        middle = size * (2 * number + 1) // (2 * count)
        yield (middle - length // 2) // 8 * 8, length


def _beats(one: EncodingChoice, other: EncodingChoice, gain: float) -> bool:
    return one.ratio <= other.ratio * (1 - gain)


def _by_ratio(choice: EncodingChoice) -> float:
    return choice.ratio


def _malformed(why: str) -> MalformedArchive:
    return MalformedArchive("a compressed piece cannot be opened", why=why, hint=_BAD)
