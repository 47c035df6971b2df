"""The codec of frames between the front-end and a worker. Pure: bytes in, documents out.

A frame is the length of its body as four bytes, big-endian, then the body: one JSON object in
UTF-8. Strings that came out of somebody's JSON may hold half a surrogate pair, so those pass.
"""

from __future__ import annotations

import enum
import json
from typing import Any, Final

from schemas import limits
from schemas.errors import WorkerFailed

_PREFIX: Final = 4


class NeedData(enum.Enum):
    """What :meth:`FrameDecoder.next_document` returns when no whole frame has arrived."""

    NEED_DATA = enum.auto()


NEED_DATA: Final = NeedData.NEED_DATA


def encode(document: dict[str, Any], *, max_bytes: int = limits.FRAME_BYTES) -> bytes:
    """One frame.

    Raises:
        WorkerFailed: The document is too large for a frame.
    """
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    body = text.encode("utf-8", "surrogatepass")
    if len(body) > max_bytes:
        raise WorkerFailed(
            "a message between front-end and worker is too large",
            why=f"{len(body)} > {max_bytes} bytes",
        )
    return len(body).to_bytes(_PREFIX, "big") + body


class FrameDecoder:
    """Collects bytes and gives out documents.

    Args:
        max_bytes: Longest body; a longer one is refused as soon as its length is known.
    """

    __slots__ = ("_buffer", "_max_bytes")

    def __init__(self, max_bytes: int = limits.FRAME_BYTES) -> None:
        self._buffer = bytearray()
        self._max_bytes = max_bytes

    @property
    def pending(self) -> int:
        """Bytes that wait for the rest of their frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add what was received."""
        self._buffer += data

    def next_document(self) -> dict[str, Any] | NeedData:
        """The next document, or ``NEED_DATA``.

        Raises:
            WorkerFailed: The peer broke the protocol; the connection is of no use any more.
        """
        if len(self._buffer) < _PREFIX:
            return NEED_DATA
        length = int.from_bytes(self._buffer[:_PREFIX], "big")
        if length > self._max_bytes:
            raise WorkerFailed(
                "a frame is too large", why=f"{length} > {self._max_bytes} bytes announced"
            )
        if len(self._buffer) < _PREFIX + length:
            return NEED_DATA
        body = bytes(self._buffer[_PREFIX : _PREFIX + length])
        del self._buffer[: _PREFIX + length]
        return _parse(body)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise WorkerFailed("a frame does not parse", why=type(error).__name__) from error
    if not isinstance(value, dict):
        raise WorkerFailed("a frame is not a JSON object")
    return value
