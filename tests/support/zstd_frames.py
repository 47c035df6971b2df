"""zstd frames by hand (RFC 8878, 3.1.1), so that each part can be a wrong one."""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAGIC = b"\x28\xb5\x2f\xfd"
SKIPPABLE = b"\x50\x2a\x4d\x18"


def raw_block(data: bytes, *, last: bool = True) -> bytes:
    return (last | len(data) << 3).to_bytes(3, "little") + data


def rle_block(byte: int, count: int, *, last: bool = True) -> bytes:
    """Four bytes that become up to 128 KiB (and the header can say 2 MiB)."""
    return (last | 1 << 1 | count << 3).to_bytes(3, "little") + bytes([byte])


def reserved_block() -> bytes:
    return (1 | 3 << 1).to_bytes(3, "little")


@dataclass(frozen=True)
class Frame:
    """One frame; content size None leaves it out."""

    blocks: bytes
    content_size: int | None
    window: int | None = None  # a window descriptor's byte; None makes a single segment
    dictionary: int | None = None
    checksum: bytes = b""

    def build(self) -> bytes:
        descriptor = (
            (3 << 6 if self.content_size is not None else 0)
            | (0 if self.window is not None else 1 << 5)
            | (1 << 2 if self.checksum else 0)
            | (3 if self.dictionary is not None else 0)
        )
        parts = [MAGIC, bytes([descriptor])]
        if self.window is not None:
            parts.append(bytes([self.window]))
        if self.dictionary is not None:
            parts.append(struct.pack("<I", self.dictionary))
        if self.content_size is not None:
            parts.append(struct.pack("<Q", self.content_size))
        return b"".join([*parts, self.blocks, self.checksum])


def bomb(promised: int, blocks: int) -> bytes:
    """Declares ``promised`` bytes and holds ``blocks`` times 128 KiB."""
    body = b"".join(rle_block(0, 131_072, last=False) for _ in range(blocks - 1))
    return Frame(body + rle_block(0, 131_072), promised).build()


def skippable(data: bytes) -> bytes:
    return SKIPPABLE + struct.pack("<I", len(data)) + data
