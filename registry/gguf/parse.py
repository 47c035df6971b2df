"""The structure of a GGUF header, walked once within bounds (docs/gguf.md of ggml, versions 2, 3).

Checks, numbered as the code refers to them; those on meaning follow in `registry.gguf.checks`:

1. Magic ``GGUF``; version 2 or 3, little-endian.
2. Counts of keys, tensors and array items: capped, and no more than the bytes left can hold.
3. Every length: within the file and within ``GGUF_HEADER_BYTES``, before anything is allocated.
4. Keys: non-empty, printable ASCII without spaces, at most 65,535 bytes, no two alike.
5. Value types 0 to 12; a bool is 0 or 1; no arrays in arrays.
6. Strings are UTF-8. Excepted: tokens and merges, which some converters write as plain bytes;
   the engine replaces what is not UTF-8 there.
7. Tokens: no two alike as the engine compares them (up to a NUL, empty ones numbered), or it would
   abort the whole process (llama.cpp issue 24885).
8. Chat templates: at most ``GGUF_CHAT_TEMPLATE_BYTES``.
9. ``general.alignment``: a UINT32, a power of two, 8 to ``GGUF_ALIGNMENT``.
10. Tensors: at least one; names non-empty, printable ASCII, under 64 bytes, no two alike; at most
    four dimensions, each at least 1; a type the engine knows; whole blocks in a row.
11. A tensor's offset is the padded sum of the sizes before it; its end is within the file.
12. After the last tensor only its padding may follow, or nothing: bytes that no reader looks at are
    a place to hide things, and neither llama.cpp, its Python package nor Ollama writes any.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from registry.gguf.strings import TOKENS, check_utf8, walk_strings
from registry.gguf.tables import REMOVED_TENSOR_TYPES, SCALAR_CODES, TENSOR_TYPES, ValueType
from registry.gguf.types import GGUFArray, GGUFHeader, GGUFText, GGUFValue, TensorInfo
from registry.gguf.window import Cursor, refuse
from schemas import limits

_TEMPLATES: Final = "tokenizer.chat_template"  # and .NAME, and the list "…templates"
_SCALARS: Final = {kind: struct.Struct("<" + code) for kind, code in SCALAR_CODES.items()}
_LEAST_KEY: Final = 8 + 1 + 4 + 1  # length, one character, type, one byte
_LEAST_TENSOR: Final = 8 + 1 + 4 + 4 + 8  # length, one character, dimensions, type, offset
_DEFAULT_ALIGNMENT: Final = 32
_LEAST_ALIGNMENT: Final = 8
_TEXT_HEAD: Final = 8  # bytes before a string's own: its length
_ARRAY_HEAD: Final = 12  # before an array's items: their type and number
_NOT_YET: Final = memoryview(b"")


@dataclass(slots=True)
class Budget:
    """What all values of a header together may still cost.

    Attributes:
        text_bytes: Bytes of strings to be decoded; what is longer stays as it lies in the file.
        strings: Items in arrays of strings.
    """

    text_bytes: int = limits.GGUF_INLINE_TEXT_BYTES
    strings: int = limits.GGUF_STRINGS


def parse_header(cursor: Cursor, size: int) -> GGUFHeader:
    """Walk a header from its first byte.

    Args:
        cursor: Stands at the start of the file.
        size: The file's size in bytes.

    Raises:
        MalformedModel: Any of the module's checks failed.
    """
    budget = Budget()
    version = _version(cursor)
    tensor_count = cursor.count("tensors", limits.GGUF_TENSORS, _LEAST_TENSOR)
    key_count = cursor.count("metadata keys", limits.GGUF_KEYS, _LEAST_KEY)
    metadata: dict[str, GGUFValue] = {}
    types: dict[str, ValueType] = {}
    spans: dict[str, tuple[int, int]] = {}
    for index in range(key_count):
        key = _key(cursor, index)
        if key in metadata:
            raise refuse(f"key {key[:80]!r} is there twice")  # 4
        types[key] = cursor.value_type(f"the value of {key[:80]!r}")
        start = cursor.position
        metadata[key] = value = _value(cursor, key, types[key], budget)
        if isinstance(value, GGUFArray | GGUFText):
            head = _ARRAY_HEAD if isinstance(value, GGUFArray) else _TEXT_HEAD
            spans[key] = (start + head, cursor.position)
    alignment = _alignment(metadata, types)
    tensors = _tensors(cursor, tensor_count, alignment)
    data_offset = _padded(cursor.position, alignment)
    _check_extent(tensors, data_offset, alignment, size)
    view = memoryview(cursor.data)  # only now, as it moves while it grows
    for key, (start, end) in spans.items():
        value = metadata[key]
        if isinstance(value, GGUFArray | GGUFText):
            metadata[key] = replace(value, raw=view[start:end])
    return GGUFHeader(
        version=version,
        alignment=alignment,
        metadata=MappingProxyType(metadata),
        types=MappingProxyType(types),
        tensors=tensors,
        data_offset=data_offset,
        file_size=size,
    )


def _version(cursor: Cursor) -> int:  # 1
    magic = cursor.take(4, "the magic number")
    if magic != b"GGUF":
        raise refuse(
            f"it starts with {magic!r} where a GGUF file has b'GGUF'",
            "Name a .gguf file; other formats must be converted first",
        )
    version = cursor.u32("the version")
    if version in {2, 3}:
        return version
    if version & 0xFFFF == 0:
        raise refuse("it is big-endian", "Convert it to little-endian with gguf-convert-endian")
    raise refuse(
        f"its format version is {version}, known are 2 and 3",
        "Convert the model again with a current llama.cpp",
    )


def _key(cursor: Cursor, index: int) -> str:  # 4
    what = f"metadata key {index}"
    length = cursor.u64(f"the length of {what}")
    if not 0 < length <= limits.GGUF_KEY_BYTES:
        raise refuse(f"{what} is {length} bytes long, allowed are 1 to {limits.GGUF_KEY_BYTES}")
    raw = cursor.take(length, what)
    if not raw.isascii() or not (key := raw.decode("ascii")).isprintable() or " " in key:
        raise refuse(f"{what} is not printable ASCII without spaces: {raw[:80]!r}")
    return key


def _value(cursor: Cursor, key: str, kind: ValueType, budget: Budget) -> GGUFValue:
    what = f"the value of {key[:80]!r}"
    if kind is ValueType.STRING:
        return _string(cursor, key, what, budget)
    if kind is ValueType.ARRAY:
        return _array(cursor, key, what, budget)
    layout = _SCALARS[kind]
    raw = cursor.take(layout.size, what)
    if kind is ValueType.BOOL and raw > b"\x01":
        raise refuse(f"{what} is the byte {raw[0]} where a bool is 0 or 1")  # 5
    value: bool | int | float = layout.unpack(raw)[0]
    return value


def _string(cursor: Cursor, key: str, what: str, budget: Budget) -> str | GGUFText:
    length = cursor.u64(f"the length of {what}")
    if key.startswith(_TEMPLATES) and length > limits.GGUF_CHAT_TEMPLATE_BYTES:  # 8
        raise refuse(
            f"the chat template {key[:80]!r} is {length} bytes long, "
            f"allowed are {limits.GGUF_CHAT_TEMPLATE_BYTES}"
        )
    start = cursor.position
    cursor.need(start + length, what)
    cursor.position = end = start + length
    if length > budget.text_bytes:
        check_utf8(cursor.data, start, end, what)
        return GGUFText(_NOT_YET)
    budget.text_bytes -= length
    try:
        return cursor.data[start:end].decode("utf-8")
    except UnicodeDecodeError:
        raise refuse(f"{what} is not UTF-8") from None  # 6


def _array(cursor: Cursor, key: str, what: str, budget: Budget) -> GGUFArray:
    kind = cursor.value_type(f"the items of {what}")
    if kind is ValueType.ARRAY:
        raise refuse(f"{what} is an array of arrays, which the engine cannot read")  # 5
    items = f"items in {what}"
    if kind is ValueType.STRING:
        limit = limits.GGUF_VOCABULARY if key == TOKENS else budget.strings
        count = cursor.count(items, limit, 8)
        budget.strings -= count
        walk_strings(cursor, key, count, what)
    else:
        width = _SCALARS[kind].size
        count = cursor.count(items, limits.GGUF_HEADER_BYTES, width)
        start = cursor.position
        cursor.need(start + count * width, what)
        cursor.position = start + count * width
        if kind is ValueType.BOOL and cursor.data[start : cursor.position].strip(b"\x00\x01"):
            raise refuse(f"{what} holds a byte other than 0 and 1 among its bools")  # 5
    return GGUFArray(kind, count, _NOT_YET)


def _alignment(metadata: dict[str, GGUFValue], types: dict[str, ValueType]) -> int:  # 9
    value = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    kind = types.get("general.alignment", ValueType.UINT32)
    if kind is not ValueType.UINT32 or not isinstance(value, int):
        raise refuse(f"general.alignment is {kind.name}, not UINT32")
    if not _LEAST_ALIGNMENT <= value <= limits.GGUF_ALIGNMENT or value & (value - 1):
        raise refuse(
            f"general.alignment is {value}, "
            f"not a power of two from {_LEAST_ALIGNMENT} to {limits.GGUF_ALIGNMENT}"
        )
    return value


def _tensors(cursor: Cursor, count: int, alignment: int) -> tuple[TensorInfo, ...]:  # 10, 11
    if not count:
        raise refuse("it holds no tensors, only metadata or a vocabulary", "Name a whole model")
    tensors: list[TensorInfo] = []
    names: set[str] = set()
    expected = 0
    for index in range(count):
        tensor = _tensor(cursor, index)
        if tensor.name in names:
            raise refuse(f"tensor {tensor.name!r} is there twice")
        if tensor.offset != expected:
            raise refuse(f"tensor {tensor.name!r} is at offset {tensor.offset}, not {expected}")
        names.add(tensor.name)
        tensors.append(tensor)
        expected = _padded(expected + tensor.size_bytes, alignment)
    return tuple(tensors)


def _tensor(cursor: Cursor, index: int) -> TensorInfo:  # 10
    what = f"the name of tensor {index}"
    length = cursor.u64(f"the length of {what}")
    if not 0 < length <= limits.GGUF_TENSOR_NAME_BYTES:
        raise refuse(
            f"{what} is {length} bytes long, allowed are 1 to {limits.GGUF_TENSOR_NAME_BYTES}"
        )
    raw = cursor.take(length, what)
    if not raw.isascii() or not (name := raw.decode("ascii")).isprintable():
        raise refuse(f"{what} is not printable ASCII: {raw!r}")
    what = f"tensor {name!r}"
    rank = cursor.u32(f"the shape of {what}")
    if rank > limits.GGUF_DIMENSIONS:
        raise refuse(f"{what} has {rank} dimensions, allowed are {limits.GGUF_DIMENSIONS}")
    dims = struct.unpack(f"<{rank}Q", cursor.take(8 * rank, f"the shape of {what}"))
    number = cursor.u32(f"the type of {what}")
    offset = cursor.u64(f"the offset of {what}")
    kind = TENSOR_TYPES.get(number)
    if kind is None:
        state = "no longer used" if number in REMOVED_TENSOR_TYPES else "unknown"
        raise refuse(
            f"{what} has type {number}, which is {state}",
            "Quantize the model again with a current llama.cpp",
        )
    if 0 in dims:
        raise refuse(f"{what} has a dimension of 0")
    row = dims[0] if dims else 1
    if row % kind.block:
        raise refuse(f"{what} has rows of {row} elements, not whole {kind.name} blocks")
    size_bytes = kind.block_bytes
    for dim in (row // kind.block, *dims[1:]):
        size_bytes *= dim
    return TensorInfo(name, dims, kind.name, offset, size_bytes)


def _check_extent(
    tensors: tuple[TensorInfo, ...], data_offset: int, alignment: int, size: int
) -> None:  # 11, 12
    for tensor in tensors:
        end = data_offset + tensor.offset + tensor.size_bytes
        if end > size:
            raise refuse(f"tensor {tensor.name!r} ends at byte {end}, the file at byte {size}")
    last = tensors[-1]
    end = _padded(data_offset + last.offset + last.size_bytes, alignment)
    if size > end:
        raise refuse(
            f"{size - end} bytes follow the last tensor, which no reader of models looks at"
        )


def _padded(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment
