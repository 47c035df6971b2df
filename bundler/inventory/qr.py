"""A report as a series of QR codes: off a screen, or off paper, where no medium may leave.

Each code holds one frame, in the characters that QR packs most tightly (ISO/IEC 18004
alphanumeric), none of which a scanner or a keyboard will change::

    frame   ::= "SEALIFT/1/" id "/" index "/" total "/" crc "/" chunk
    id      ::= 16 hexadecimal digits, upper case: of the SHA-256 of all chunks together
    index   ::= from 1; total ::= up to 9999; decimal
    crc     ::= 8 hexadecimal digits, upper case: CRC-32 of id "/" index "/" total "/" chunk
    chunk   ::= base32 without padding (RFC 4648 §6) of a run of bytes

The bytes are zlib's of: key length (u16), key, signature length (u16), signature, type length
(u16), payload type, payload. The report's text follows from these.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from bundler.inventory import report
from schemas import limits
from schemas.errors import MalformedDocument, UnsupportedRequest

if TYPE_CHECKING:
    import segno

_FRAME: Final = re.compile(
    r"SEALIFT/1/([0-9A-F]{16})/([1-9][0-9]{0,3})/([1-9][0-9]{0,3})/([0-9A-F]{8})/([A-Z2-7]+)"
)
_HEAD_CHARS: Final = len("SEALIFT/1/") + 16 + 2 * 5 + 8 + 2
_LENGTH: Final = struct.Struct(">H")
_QUIET: Final = 4  # modules around a code (ISO/IEC 18004 §6.3.8)
_LEAST_VERSION: Final = 4  # fits 80 columns by 24 lines; below, the header outweighs the chunk
_MOST_VERSION: Final = 40
PNG_VERSION: Final = 25  # 117 modules: what phones read off paper and screens without trouble


def version_for(columns: int, rows: int) -> int:
    """The largest QR version that a terminal shows whole, two modules to a line.

    Raises:
        UnsupportedRequest: The terminal is too small for any.
    """
    room = min(columns, 2 * rows) - 2 * _QUIET
    version = min((room - 17) // 4, _MOST_VERSION)  # a side has 17 + 4 * version modules
    if version < _LEAST_VERSION:
        needed = 17 + 4 * _LEAST_VERSION + 2 * _QUIET
        raise UnsupportedRequest(
            "the terminal is too small for QR codes",
            why=f"{columns} columns and {rows} lines; {needed} and {-(-needed // 2)} are needed",
            hint="Make the window larger, or have PNG files written",
        )
    return version


def frames(data: bytes, *, version: int = PNG_VERSION) -> list[str]:
    """The texts of a report's codes.

    Args:
        data: A report's file.
        version: QR version, 4 to 40; larger codes are fewer and harder to read.

    Raises:
        MalformedDocument: No report.
        UnsupportedRequest: It needs more codes than anybody scans.
    """
    packed = zlib.compress(_pack(data), 9)
    size = (_capacity(version) - _HEAD_CHARS) * 5 // 8
    chunks = [packed[at : at + size] for at in range(0, len(packed), size)]
    if len(chunks) > limits.QR_FRAMES:
        raise UnsupportedRequest(
            "the report is too large for QR codes",
            why=f"it would take {len(chunks)}",
            hint="Leave small blobs out, or carry the file",
        )
    series = hashlib.sha256(packed).hexdigest()[:16].upper()
    return [_frame(series, n, len(chunks), chunk) for n, chunk in enumerate(chunks, 1)]


@dataclass(slots=True)
class Joiner:
    """Takes frames in any order, some of them twice, until the report is whole."""

    _series: str = ""
    _total: int = 0
    _chunks: dict[int, bytes] = field(default_factory=dict)

    @property
    def missing(self) -> list[int]:
        """Numbers of the frames that have not come; empty before the first one."""
        return [n for n in range(1, self._total + 1) if n not in self._chunks]

    @property
    def complete(self) -> bool:
        """Whether all have come."""
        return self._total > 0 and len(self._chunks) == self._total

    def add(self, text: str) -> bool:
        """Take one frame, as a scanner gives it.

        Returns:
            Whether it is a new one.

        Raises:
            MalformedDocument: No frame, misread, or of another report.
        """
        line = text.strip().removeprefix("QR-Code:")
        if len(line) > limits.QR_FRAME_CHARS:
            raise MalformedDocument("a QR code is longer than any can be")
        match = _FRAME.fullmatch(line)
        if match is None:
            raise MalformedDocument("a QR code is not of a Sealift report", why=line[:40])
        series, index, total = match[1], int(match[2]), int(match[3])
        chunk = _from_base32(match[5])
        if index > total or _frame(series, index, total, chunk) != line:
            raise MalformedDocument(f"QR code {index} was misread", hint="Scan it again")
        if self._total and (series, total) != (self._series, self._total):
            raise MalformedDocument(
                f"QR code {index} is of another report", hint="Scan the codes of one report only"
            )
        self._series, self._total = series, total
        known = self._chunks.setdefault(index, chunk)
        if known != chunk:
            raise MalformedDocument(f"QR code {index} has come with two contents")
        return known is chunk

    def data(self) -> bytes:
        """The report's file.

        Raises:
            MalformedDocument: Frames are missing, or together they are no report.
        """
        if not self.complete:
            missing = self.missing
            shown = ", ".join(str(n) for n in missing[:_SHOWN])
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            raise MalformedDocument(
                "the series of QR codes is not complete",
                why=f"{shown}{more} of {self._total} are missing" if missing else "there is none",
                hint="Scan these and run it again",
            )
        packed = b"".join(self._chunks[n] for n in range(1, self._total + 1))
        if hashlib.sha256(packed).hexdigest()[:16].upper() != self._series:
            raise MalformedDocument("the QR codes do not fit together", hint="Scan them again")
        return _unpack(_inflate(packed))


_SHOWN: Final = 12  # numbers in a message


def join(texts: Iterable[str]) -> bytes:
    """The report's file out of its frames, in any order; empty lines are skipped.

    Raises:
        MalformedDocument: As :meth:`Joiner.add` and :meth:`Joiner.data`.
    """
    joiner = Joiner()
    for text in texts:
        if text.strip():
            joiner.add(text)
    return joiner.data()


def terminal(frame: str, *, colour: bool = True) -> str:
    """One code in half-block characters, a newline after each line.

    Args:
        frame: Out of :func:`frames`.
        colour: Set white on black, so that a light terminal does not show it inverted.
    """
    out = io.StringIO()
    _code(frame).terminal(out, border=_QUIET, compact=True)
    lines = out.getvalue().splitlines()
    if colour:
        lines = [f"\x1b[97;40m{line}\x1b[0m" for line in lines]
    return "".join(f"{line}\n" for line in lines)


def png(frame: str, *, scale: int = 6) -> bytes:
    """One code as a PNG file.

    Args:
        frame: Out of :func:`frames`.
        scale: Pixels per module.
    """
    out = io.BytesIO()
    _code(frame).save(out, kind="png", scale=scale, border=_QUIET)
    return out.getvalue()


def _code(frame: str) -> segno.QRCode:
    import segno

    return segno.make_qr(frame, mode="alphanumeric", error="l", boost_error=True)


def _capacity(version: int) -> int:
    """Alphanumeric characters of a code at level L (ISO/IEC 18004 table 7)."""
    if not _LEAST_VERSION <= version <= _MOST_VERSION:
        raise UnsupportedRequest(
            f"no QR version {version}", why=f"{_LEAST_VERSION} to {_MOST_VERSION} are of use"
        )
    from segno.consts import ERROR_LEVEL_L, SYMBOL_CAPACITY

    capacity = cast("Mapping[int, Mapping[int, int]]", SYMBOL_CAPACITY)
    bits = capacity[version][ERROR_LEVEL_L]
    length_bits = 9 if version < 10 else 11 if version < 27 else 13
    return (bits - 4 - length_bits) * 2 // 11  # two characters in 11 bits, after the mode


def _frame(series: str, index: int, total: int, chunk: bytes) -> str:
    text = base64.b32encode(chunk).rstrip(b"=").decode("ascii")
    crc = zlib.crc32(f"{series}/{index}/{total}/{text}".encode("ascii"))
    return f"SEALIFT/1/{series}/{index}/{total}/{crc:08X}/{text}"


def _from_base32(text: str) -> bytes:
    try:
        return base64.b32decode(text + "=" * (-len(text) % 8))
    except binascii.Error:
        raise MalformedDocument("a QR code was misread", hint="Scan it again") from None


def _pack(data: bytes) -> bytes:
    signed = report.parse(data)
    parts = (signed.public, signed.signature, signed.kind.encode("ascii"))
    packed = b"".join(_LENGTH.pack(len(part)) + part for part in parts) + signed.payload
    if _unpack(packed) != data:
        raise MalformedDocument("the report has text around it that does not follow from it")
    return packed


def _unpack(data: bytes) -> bytes:
    from bundler.trust.site import Signed

    parts = []
    for _ in range(3):
        (size,) = _LENGTH.unpack(data[:2].ljust(2, b"\0"))
        parts.append(data[2 : 2 + size])
        if len(parts[-1]) != size:
            raise MalformedDocument("the QR codes end too early")
        data = data[2 + size :]
    try:
        kind = parts[2].decode("ascii")
    except UnicodeDecodeError:
        raise MalformedDocument("the report is of an unknown kind") from None
    signed = Signed(data, kind, parts[0], parts[1])
    return report.render(signed, report.about_payload(kind, data))


def _inflate(packed: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(packed, limits.REPORT_BYTES)
    except zlib.error as error:
        raise MalformedDocument("the QR codes are of no report", why=str(error)) from None
    if not inflater.eof or inflater.unused_data:
        raise MalformedDocument("the QR codes are of no report", why="too long, or cut off")
    return data
