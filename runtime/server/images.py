"""Pictures in requests: bounded, and measured by their own headers before they are decoded. Pure.

Source: PNG (third edition, 5.2 and 11.2.1), JPEG (ITU T.81, B.1 and B.2.2). A picture is held to
its size in bytes and in pixels, so that a small file cannot become a large one in the worker.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from runtime.messages import Image
from schemas import limits
from schemas.errors import UnsupportedRequest, UsageError

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8\xff"
_SCAN: Final = b"\xff\xda"  # SOS; in what a scan holds no other marker follows 0xFF
_OTHERS: Final = {b"GIF8": "GIF", b"RIFF": "WebP", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_DATA: Final = "data:"
_BASE64: Final = ";base64"
# Markers of frames, which tell the size: SOF0 to SOF15 without DHT, JPG and DAC (table B.1).
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE: Final = frozenset((0x01, *range(0xD0, 0xD8)))  # markers without a length
_SEGMENTS: Final = 4096  # before the frame; cameras write some ten


def from_base64(text: str, at: int = 0) -> Image:
    """A picture as Ollama and Anthropic take it.

    Args:
        text: PNG or JPEG, in base64.
        at: Where it stands in its message's content.

    Raises:
        UsageError: Not base64, not a picture, or too large.
        UnsupportedRequest: A picture of another kind.
    """
    if len(text) > limits.IMAGE_BYTES * 4 // 3 + 4:
        raise _too_large()
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("invalid image input", why="it is not base64") from None
    if len(data) > limits.IMAGE_BYTES:
        raise _too_large()
    width, height = _size(data)
    if not (width and height):
        raise UsageError("invalid image input", why="it has no width or height")
    if width * height > limits.IMAGE_PIXELS:
        raise _too_large()
    if data.startswith(_JPEG) and data.count(_SCAN) > limits.IMAGE_SCANS:
        raise UsageError("invalid image input", why="the JPEG has too many scans")
    return Image(text, at, width * height)


def from_url(url: str, at: int = 0) -> Image:
    """A picture as OpenAI's clients send it: a data URL (RFC 2397), or bare base64.

    Raises:
        UsageError: As :func:`from_base64`.
        UnsupportedRequest: It would have to be fetched, or is of another kind.
    """
    if not url.startswith(_DATA):
        if url.partition(":")[0].lower() in ("http", "https"):
            # Ollama's words.
            raise UnsupportedRequest(
                "image URLs are not currently supported, please use base64 encoded data instead"
            )
        return from_base64(url, at)
    head, comma, text = url[len(_DATA) :].partition(",")
    kind = head.lower().removesuffix(_BASE64)
    if not comma or not head.lower().endswith(_BASE64):
        raise UsageError("invalid image input", why="the data URL is not in base64")
    if kind and not kind.startswith("image/"):
        raise UsageError("invalid image input", why="the data URL is not of an image")
    return from_base64(text, at)


class Content:
    """A message's content, gathered from its parts: texts, with pictures between them."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._length = 0
        self._images: list[Image] = []

    def add_text(self, text: str) -> None:
        """A part of text; a line break goes between two of them."""
        self._length += len(text) + bool(self._texts)
        self._texts.append(text)

    def add_url(self, url: str) -> None:
        """A picture after all text so far; errors as of :func:`from_url`."""
        self._images.append(from_url(url, self._length))

    def add_base64(self, text: str) -> None:
        """The same for one without a URL."""
        self._images.append(from_base64(text, self._length))

    @property
    def text(self) -> str:
        """All texts."""
        return "\n".join(self._texts)

    @property
    def images(self) -> tuple[Image, ...]:
        """All pictures."""
        return tuple(self._images)

    @property
    def empty(self) -> bool:
        """Whether there was no part."""
        return not (self._texts or self._images)


def _size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels."""
    if data.startswith(_PNG):
        if data[12:16] != b"IHDR" or len(data) < 24:
            raise UsageError("invalid image input", why="the PNG has no header")
        return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if data.startswith(_JPEG):
        return _jpeg_size(data)
    for magic, name in _OTHERS.items():
        if data.startswith(magic):
            raise UnsupportedRequest(f"images of type {name} are not taken", why="PNG and JPEG are")
    raise UsageError("invalid image input", why="it is neither PNG nor JPEG")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Walk the segments before the first frame."""
    at = 2
    for _ in range(_SEGMENTS):
        if data[at : at + 1] != b"\xff" or at + 4 > len(data):
            break
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes may precede a marker
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker in _FRAMES:
            frame = data[at + 5 : at + 9]
            if len(frame) < 4:
                break
            return int.from_bytes(frame[2:]), int.from_bytes(frame[:2])
        else:
            at += 2 + max(int.from_bytes(data[at + 2 : at + 4]), 2)
    raise UsageError("invalid image input", why="the JPEG has no frame")


def _too_large() -> UsageError:
    return UsageError(
        "the image is too large",
        why=f"over {limits.IMAGE_BYTES >> 20} MiB or {limits.IMAGE_PIXELS // 10**6} million pixels",
    )
