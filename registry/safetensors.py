"""safetensors headers: read within bounds and checked whole (huggingface/safetensors, "Format").

A file is the length of its header (64 bits, little-endian), the header, and the tensors' data. The
header is a JSON object: each tensor's name → its dtype, shape and byte range in the data; and
perhaps ``__metadata__`` → texts by names. The checks, numbered as the code refers to them:

1. The header's length: within the file and ``SAFETENSORS_HEADER_BYTES``, before it is read.
2. It starts with ``{`` and is strict JSON: no name twice, no floats; commas are counted before it
   is parsed, as they bound what it can make; only spaces may follow the object.
3. ``__metadata__`` maps texts to texts.
4. A tensor has exactly dtype, shape and data_offsets; a dtype that the format knows; at most
   ``SAFETENSORS_DIMENSIONS`` dimensions; whole bytes.
5. Its range is as long as dtype and shape say.
6. The ranges cover the data without gap or overlap: bytes that no reader looks at are a place to
   hide things.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, BinaryIO, Final

from schemas import limits, strictjson
from schemas.errors import MalformedDocument, MalformedModel, NotFound, StorageFailure

DTYPE_BITS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "BOOL": 8,
        "F4": 4,
        "F6_E2M3": 6,
        "F6_E3M2": 6,
        "U8": 8,
        "I8": 8,
        "F8_E5M2": 8,
        "F8_E4M3": 8,
        "F8_E8M0": 8,
        "F8_E4M3FNUZ": 8,
        "F8_E5M2FNUZ": 8,
        "I16": 16,
        "U16": 16,
        "F16": 16,
        "BF16": 16,
        "I32": 32,
        "U32": 32,
        "F32": 32,
        "C64": 64,
        "F64": 64,
        "I64": 64,
        "U64": 64,
    }
)
"""Bits per element of every dtype that safetensors 0.8 knows."""

_LENGTH_BYTES: Final = 8
_METADATA: Final = "__metadata__"
_FIELDS: Final = frozenset({"dtype", "shape", "data_offsets"})
_DEPTH: Final = 3  # the object, a tensor, its shape
_DAMAGED: Final = "Fetch the model again from a source you trust; this file is damaged or forged"


@dataclass(frozen=True, slots=True)
class SafetensorInfo:
    """Where a tensor lies and what it is.

    Attributes:
        name: As in the file; any text.
        dtype: One of ``DTYPE_BITS``.
        shape: Elements per dimension, outermost first; empty for a scalar.
        offset: Bytes from the header's ``data_offset``.
        size_bytes: Bytes of data; may be 0.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """A header that passed every check.

    Attributes:
        metadata: Free texts by whoever made the file.
        tensors: All tensors, in the order of their data.
        data_offset: Bytes from the start of the file to the first tensor.
        file_size: Bytes.
    """

    metadata: Mapping[str, str] = field(repr=False)
    tensors: tuple[SafetensorInfo, ...] = field(repr=False)
    data_offset: int
    file_size: int


def read_header(source: BinaryIO, size: int) -> SafetensorsHeader:
    """Read and check the header of a safetensors file.

    Args:
        source: Stands at the file's start; read up to the header's end.
        size: Bytes of the whole file.

    Raises:
        MalformedModel: Any of the module's checks failed.
    """
    if size < _LENGTH_BYTES:
        raise _refuse(f"it has {size} bytes")
    length = int.from_bytes(_exactly(source, _LENGTH_BYTES), "little")
    if length > size - _LENGTH_BYTES:  # 1
        raise _refuse(f"its header of {length} bytes goes on past the end of the file")
    if length > limits.SAFETENSORS_HEADER_BYTES:
        raise _refuse(
            f"its header has {length} bytes, allowed are {limits.SAFETENSORS_HEADER_BYTES}"
        )
    metadata, tensors = _parse(_exactly(source, length))
    data_offset = _LENGTH_BYTES + length
    _check_cover(tensors, size - data_offset)
    return SafetensorsHeader(
        metadata=MappingProxyType(metadata),
        tensors=tensors,
        data_offset=data_offset,
        file_size=size,
    )


def read_header_file(path: str | os.PathLike[str]) -> SafetensorsHeader:
    """Read and check the header of a safetensors file on disk.

    Raises:
        MalformedModel: No regular file, or any check failed.
        NotFound: There is no such file.
        StorageFailure: It cannot be opened or read.
    """
    what = f"cannot read {os.fspath(path)!r}"
    try:
        # Without O_NONBLOCK a named pipe would block for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor, no path
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise _refuse("it is no regular file")
            return read_header(file, found.st_size)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            raise NotFound(what, why=why, hint="Check the file's name") from error
        raise StorageFailure(what, why=why, hint="Check the file's permissions") from error


def _parse(raw: bytes) -> tuple[dict[str, str], tuple[SafetensorInfo, ...]]:
    if not raw.startswith(b"{") or raw.count(b",") > limits.SAFETENSORS_COMMAS:  # 2
        raise _refuse("its header is no JSON object, or one of too many parts")
    text = raw.rstrip(b" ")
    if not text.endswith(b"}"):
        raise _refuse("its header is no JSON object")
    try:
        document = strictjson.parse_object(
            text, what="header", max_bytes=limits.SAFETENSORS_HEADER_BYTES, depth=_DEPTH
        )
    except MalformedDocument as error:
        raise _refuse(error.line()) from None
    metadata = document.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _refuse(f"its {_METADATA} is no map of texts")  # 3
    if len(document) > limits.SAFETENSORS_TENSORS:
        raise _refuse(f"it has {len(document)} tensors, allowed are {limits.SAFETENSORS_TENSORS}")
    tensors = [_tensor(name, entry) for name, entry in document.items()]
    return metadata, tuple(sorted(tensors, key=lambda one: (one.offset, one.size_bytes)))


def _tensor(name: str, entry: Any) -> SafetensorInfo:  # 4, 5
    what = f"tensor {name[:80]!r}"
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        raise _refuse(f"{what} has not just dtype, shape and data_offsets")
    dtype = entry["dtype"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _refuse(f"{what} has the unknown dtype {str(dtype)[:40]!r}")
    shape = _naturals(entry["shape"], f"the shape of {what}")
    if len(shape) > limits.SAFETENSORS_DIMENSIONS:
        raise _refuse(f"{what} has {len(shape)} dimensions")
    offsets = _naturals(entry["data_offsets"], f"the range of {what}")
    if len(offsets) != 2:
        raise _refuse(f"the range of {what} has {len(offsets)} ends")
    start, end = offsets
    bits = DTYPE_BITS[dtype]
    for dim in shape:
        bits *= dim
    if bits % 8 or end - start != bits // 8:
        raise _refuse(f"{what} lies from {start} to {end}, but its elements have {bits} bits")
    return SafetensorInfo(name, dtype, shape, start, end - start)


def _naturals(value: Any, what: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(
        isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value
    ):
        raise _refuse(f"{what} is no list of natural numbers")
    return tuple(value)


def _check_cover(tensors: tuple[SafetensorInfo, ...], data_bytes: int) -> None:  # 6
    end = 0
    for tensor in tensors:
        if tensor.offset != end:
            raise _refuse(f"tensor {tensor.name[:80]!r} starts at {tensor.offset}, not at {end}")
        end += tensor.size_bytes
    if end != data_bytes:
        raise _refuse(f"its tensors have {end} bytes, the file has {data_bytes} of data")


def _exactly(source: BinaryIO, count: int) -> bytes:
    return b"".join(_some(source, count))


def _some(source: BinaryIO, count: int) -> Iterator[bytes]:
    while count:
        data = source.read(count)
        if not data:
            raise _refuse("it is cut off: it holds fewer bytes than its size says")
        count -= len(data)
        yield data


def _refuse(why: str) -> MalformedModel:
    return MalformedModel("safetensors file refused", why=why, hint=_DAMAGED)
