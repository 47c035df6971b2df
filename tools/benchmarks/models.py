"""A model file of any size: a valid GGUF header, then random bytes, written in constant memory.

No engine could talk with it, but for everything before the engine it is a model: its header
passes the same checks as a real one's, and random bytes are as incompressible as weights in four
bits are.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

Fill: TypeAlias = Callable[[int], bytes]

_COLUMNS: Final = 4096  # of each tensor, in half-precision numbers
_ROW_BYTES: Final = 2 * _COLUMNS
_TENSOR_BYTES: Final = 64 << 20
_ALIGNMENT: Final = 32
_STEP: Final = 1 << 20  # bytes per write
_STRING: Final = 8  # value types and tensor type, by ggml's docs/gguf.md
_UINT32: Final = 4
_F16: Final = 1
NAMESPACES: Final = "abcdef"  # TUF's 5 MB for one role hold 14,000 models; six roles share them
_TINY: Final = 512  # bytes of tensor data
_SIX_BITS: Final = bytes(number & 63 for number in range(256))


def write_model(path: Path, size: int, *, name: str, fill: Fill = os.urandom) -> Path:
    """Write a model of about ``size`` bytes, on the disk when it returns.

    Args:
        path: Replaced if it is there.
        size: Of the tensor data, in bytes; rounded up to whole rows of 8 KiB.
        name: Stands in the header.
        fill: Makes so many bytes of weights; :func:`hole` leaves the file sparse.
    """
    rows = -(-size // _ROW_BYTES)
    with path.open("wb", buffering=0) as file:
        head = _header(rows, name)
        file.write(head + bytes(-len(head) % _ALIGNMENT))
        left = rows * _ROW_BYTES
        if fill is hole:
            file.truncate(file.tell() + left)
            left = 0
        while left:
            left -= file.write(fill(min(_STEP, left)))
        os.fsync(file.fileno())
    return path


def hole(count: int) -> bytes:
    """Zeros; as ``fill`` they take no room on the disk."""
    return bytes(count)


def compressible(count: int) -> bytes:
    """Random bytes of six bits each, so that an encoding saves a quarter."""
    return os.urandom(count).translate(_SIX_BITS)


def write_header(file: BinaryIO, size: int, *, name: str) -> None:
    """Write the header of a model with one small tensor of ``size`` bytes, an even number.

    Args:
        file: Stands at its beginning; the tensor goes where it stands then.
        size: Of the tensor.
        name: Stands in the header.
    """
    tensor = _text("blk.0.ffn_up.weight") + struct.pack("<IQ", 1, size // 2)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(_keys(name))) + b"".join(_keys(name))
    head += tensor + struct.pack("<IQ", _F16, 0)
    file.write(head + bytes(-len(head) % _ALIGNMENT))


def tiny_models(folder: Path, count: int) -> dict[str, str]:
    """Write many very small models, each like no other; not synced, nobody measures that.

    Returns:
        Names of the files in ``folder`` to names for the models, in :data:`NAMESPACES` by turns.
    """
    for number in range(count):
        with (folder / f"m{number}.gguf").open("wb") as file:
            write_header(file, _TINY, name=f"m{number}")
            file.write(number.to_bytes(8, "little") + os.urandom(_TINY - 8))
    return {f"m{n}.gguf": f"{NAMESPACES[n % len(NAMESPACES)]}/m{n}" for n in range(count)}


def _keys(name: str) -> tuple[bytes, ...]:
    return (
        _text("general.architecture") + _string("llama"),
        _text("general.name") + _string(name),
        _text("general.license") + _string("apache-2.0"),
        _text("general.alignment") + struct.pack("<II", _UINT32, _ALIGNMENT),
        _text("llama.context_length") + struct.pack("<II", _UINT32, 2048),
    )


def _header(rows: int, name: str) -> bytes:
    """Magic to the last entry of the tensor table, as ggml's docs/gguf.md lays it out."""
    keys = _keys(name)
    per_tensor = _TENSOR_BYTES // _ROW_BYTES
    tensors = []
    for number, first in enumerate(range(0, rows, per_tensor)):
        tensors.append(
            _text(f"blk.{number}.ffn_up.weight")
            + struct.pack("<IQQ", 2, _COLUMNS, min(per_tensor, rows - first))
            + struct.pack("<IQ", _F16, first * _ROW_BYTES)
        )
    counts = struct.pack("<IQQ", 3, len(tensors), len(keys))
    return b"GGUF" + counts + b"".join(keys) + b"".join(tensors)


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _string(value: str) -> bytes:
    return struct.pack("<I", _STRING) + _text(value)
