"""Random files against the format's own package, and random damage against everything."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.gguf import GGUFArray, GGUFHeader, GGUFText, GGUFValue, read_header, read_header_file
from registry.gguf.tables import (
    ARCHITECTURES,
    FILE_TYPES,
    SCALAR_CODES,
    TENSOR_TYPES,
    ValueType,
)
from schemas.errors import MalformedModel
from tests.gguf_files import Pieces, array, scalar, string, strings, tensor, tiny_gguf, u32

Plain = bool | int | float | str | list[bool | int | float | str]


def plain(value: GGUFValue) -> Plain:
    """A value as the oracle gives it."""
    if isinstance(value, GGUFText):
        return value.text()
    if isinstance(value, GGUFArray):
        return list(value.strings() if value.type is ValueType.STRING else value.values())
    return value


def assert_same(header: GGUFHeader, path: Path) -> None:
    oracle = gguf.GGUFReader(path)
    fields = {key: f for key, f in oracle.fields.items() if not key.startswith("GGUF.")}
    assert list(header.metadata) == list(fields)
    for key, found in fields.items():
        assert header.types[key].value == found.types[0].value
        # The oracle has no contents() for an empty array.
        expected = found.contents() if len(found.data) else []
        assert plain(header.metadata[key]) == expected, key
    assert header.alignment == oracle.alignment
    assert header.data_offset == oracle.data_offset
    assert len(header.tensors) == len(oracle.tensors)
    for ours, theirs in zip(header.tensors, oracle.tensors, strict=True):
        assert ours.name == theirs.name
        assert ours.dims == tuple(int(dim) for dim in theirs.shape)
        assert ours.type == theirs.tensor_type.name
        assert ours.size_bytes == theirs.n_bytes
        assert ours.elements == theirs.n_elements
        assert header.data_offset + ours.offset == theirs.data_offset


def test_a_file_written_by_the_package(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "tiny.gguf")
    assert_same(read_header_file(path), path)


def test_our_tables_are_the_packages() -> None:
    sizes = {
        int(kind): (kind.name, *size)
        for kind, size in gguf.GGML_QUANT_SIZES.items()
        if kind.name != "Q8_1"  # 40 bytes there, 36 in the engine; never in a file
    }
    ours = {n: (t.name, t.block, t.block_bytes) for n, t in TENSOR_TYPES.items()}
    assert {number: ours[number] for number in sizes} == sizes
    names = {int(t): t.name for t in gguf.LlamaFileType if t.name != "GUESSED"}
    assert {number: f"MOSTLY_{FILE_TYPES[number]}" for number in names if number} == {
        number: name for number, name in names.items() if number
    }
    assert set(gguf.MODEL_ARCH_NAMES.values()) - ARCHITECTURES == {"clip"}


_INTEGERS = {"B": (0, 255), "H": (0, 2**16 - 1), "I": (0, 2**32 - 1), "Q": (0, 2**64 - 1)} | {
    code: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for code, bits in (("b", 8), ("h", 16), ("i", 32), ("q", 64))
}
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@st.composite
def typed(draw: st.DrawFn) -> tuple[ValueType, list[bytes]]:
    """A type and a few encoded items of it."""
    kind = draw(st.sampled_from([k for k in ValueType if k is not ValueType.ARRAY]))
    count = draw(st.integers(0, 5))
    if kind is ValueType.STRING:
        texts = [draw(_TEXT).encode() for _ in range(count)]
        return kind, [struct.pack("<Q", len(item)) + item for item in texts]
    code = SCALAR_CODES[kind]
    if code == "?":
        values: list[float] = [draw(st.integers(0, 1)) for _ in range(count)]
    elif code in "fd":
        floats = st.floats(width=32 if code == "f" else 64, allow_nan=False)
        values = [draw(floats) for _ in range(count)]
    else:
        values = [draw(st.integers(*_INTEGERS[code])) for _ in range(count)]
    return kind, [struct.pack("<" + code, value) for value in values]


@st.composite
def values(draw: st.DrawFn) -> bytes:
    kind, items = draw(typed())
    alone = draw(st.booleans())
    return struct.pack("<I", kind) + items[0] if items and alone else array(kind, items)


@st.composite
def valid_files(draw: st.DrawFn) -> bytes:
    keys = draw(
        st.lists(st.from_regex(r"x\.[a-z0-9_.-]{1,20}", fullmatch=True), unique=True, max_size=6)
    )
    alignment = draw(st.sampled_from([8, 32, 64, 4096]))
    words = draw(st.lists(_TEXT.filter(lambda t: t and "\x00" not in t), unique=True, max_size=9))
    metadata = [
        ("general.architecture", string("llama")),
        ("general.alignment", u32(alignment)),
        ("tokenizer.ggml.tokens", strings(*words)),
        *((key, draw(values())) for key in keys),
    ]
    names = draw(
        st.lists(
            st.from_regex(r"[a-z0-9_.]{1,63}", fullmatch=True), unique=True, min_size=1, max_size=5
        )
    )
    entries, at = [], 0
    for name in names:
        kind = draw(st.sampled_from([n for n in TENSOR_TYPES if n not in {9, 42}]))
        rest = draw(st.lists(st.integers(1, 3), max_size=3))
        block = TENSOR_TYPES[kind].block
        dims = (block * draw(st.integers(1, 3)), *rest)
        entries.append(tensor(name, dims, kind, at))
        size = TENSOR_TYPES[kind].block_bytes * (dims[0] // block)
        for dim in rest:
            size *= dim
        end = at + size
        at = -(-end // alignment) * alignment
    order = draw(st.permutations(metadata))
    head = Pieces(metadata=tuple(order), tensors=tuple(entries)).head()
    return head + bytes(-len(head) % alignment) + bytes(draw(st.sampled_from([end, at])))


@given(data=valid_files())
def test_random_files_read_as_the_package_reads_them(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.gguf"
    path.write_bytes(data)
    assert_same(read_header_file(path), path)


WHOLE = Pieces().build()


@given(
    damage=st.lists(
        st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=8
    ),
    cut=st.integers(0, len(WHOLE)),
)
def test_damage_is_refused_or_harmless(damage: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(WHOLE)
    for at, byte in damage:
        data[at] = byte
    for piece in (bytes(data), bytes(data[:cut])):
        try:
            header = read_header(piece, len(piece))
        except MalformedModel as error:
            assert "\n" not in str(error)  # noqa: PT017 - both outcomes are right
        else:
            assert header.data_offset <= len(piece)
            for value in header.metadata.values():
                plain(value)


@given(
    at=st.integers(8, len(Pieces().head()) - 8),
    number=st.sampled_from([2**31, 2**32, 2**60, 2**63, 2**64 - 1]),
)
def test_huge_numbers_anywhere_cost_nothing(at: int, number: int) -> None:
    data = WHOLE[:at] + struct.pack("<Q", number) + WHOLE[at + 8 :]
    with contextlib.suppress(MalformedModel):
        read_header(data, len(data))


@given(data=st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    for piece in (data, b"GGUF\x03\x00\x00\x00" + data):
        with pytest.raises(MalformedModel):
            read_header(piece, len(piece))


def test_a_float_keeps_its_bits() -> None:
    data = Pieces().with_value("x.f", scalar(6, "f", 1e-5)).build()
    assert (
        read_header(data, len(data)).metadata["x.f"]
        == struct.unpack("<f", struct.pack("<f", 1e-5))[0]
    )
