"""safetensors headers: what the format's own library writes is read; every flaw is refused."""

from __future__ import annotations

import io
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import safetensors
from registry.safetensors import SafetensorInfo, read_header, read_header_file
from schemas import limits
from schemas.errors import MalformedModel, NotFound, StorageFailure

# As safetensors 0.8.0 wrote it, with metadata, a scalar, an empty tensor, a name beyond ASCII.
GENUINE = bytes.fromhex(
    "0001000000000000"
    "7b225f5f6d657461646174615f5f223a7b22666f726d6174223a227074227d2c2263223a7b226474797065223a224936"
    "34222c227368617065223a5b5d2c22646174615f6f666673657473223a5b302c385d7d2c2262223a7b22647479706522"
    "3a22463332222c227368617065223a5b322c335d2c22646174615f6f666673657473223a5b382c33325d7d2c2261223a"
    "7b226474797065223a225538222c227368617065223a5b305d2c22646174615f6f666673657473223a5b33322c33325d"
    "7d2c22c3a4223a7b226474797065223a225538222c227368617065223a5b335d2c22646174615f6f666673657473223a"
    "5b33322c33355d7d7d20202020202020"
    "0700000000000000000000000000803f0000004000004040000080400000a040000102"
)  # fmt: skip


def build(header: Any, data: bytes = b"", *, pad: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text + pad)) + text + pad + data


def entry(
    start: int, end: int, dtype: str = "U8", shape: list[int] | None = None
) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": [end - start] if shape is None else shape,
        "data_offsets": [start, end],
    }


def read(data: bytes) -> safetensors.SafetensorsHeader:
    return read_header(io.BytesIO(data), len(data))


def test_what_the_library_writes_is_read() -> None:
    header = read(GENUINE)
    assert dict(header.metadata) == {"format": "pt"}
    assert header.data_offset == 264
    assert header.file_size == len(GENUINE) == 299
    assert header.tensors == (
        SafetensorInfo("c", "I64", (), 0, 8),
        SafetensorInfo("b", "F32", (2, 3), 8, 24),
        SafetensorInfo("a", "U8", (0,), 32, 0),
        SafetensorInfo("ä", "U8", (3,), 32, 3),
    )


def test_names_in_any_order_give_tensors_in_the_order_of_their_data() -> None:
    header = read(build({"z": entry(2, 3), "a": entry(3, 7), "m": entry(0, 2)}, bytes(7)))
    assert [tensor.name for tensor in header.tensors] == ["m", "z", "a"]


def test_a_file_without_tensors_or_metadata() -> None:
    assert read(build({})).tensors == ()
    assert read(build({"__metadata__": {}})).metadata == {}


@pytest.mark.parametrize(("dtype", "bits"), safetensors.DTYPE_BITS.items())
def test_every_dtype_has_its_size(dtype: str, bits: int) -> None:
    header = read(build({"t": entry(0, bits, dtype, [8])}, bytes(bits)))
    assert header.tensors[0].size_bytes == bits


GOOD = entry(0, 4)
FLAWED = {
    "empty": b"",
    "length-only-half": b"\x02\x00\x00",
    "length-beyond-file": struct.pack("<Q", 100) + b"{}",
    "length-most": struct.pack("<Q", 2**64 - 1) + b"{}",
    "length-0": struct.pack("<Q", 0),
    "no-json": build(b"hello"),
    "not-utf8": build(b'{"\xff":1}'),
    "array": build([]),
    "leading-space": build(b" {}"),
    "trailing-newline": build({}, pad=b"\n"),
    "trailing-object": build(b"{}{}"),
    "name-twice": build(b'{"a":%s,"a":%s}' % ((json.dumps(GOOD).encode(),) * 2), bytes(4)),
    "float": build({"a": {**GOOD, "shape": [4.0]}}, bytes(4)),
    "nested": build({"a": {**GOOD, "shape": [[4]]}}, bytes(4)),
    "deep": build(b'{"a":' * 50_000),
    "metadata-number": build({"__metadata__": {"a": 1}}),
    "metadata-list": build({"__metadata__": ["a"]}),
    "metadata-null": build(b'{"__metadata__":null}'),
    "entry-list": build({"a": [1, 2]}, bytes(4)),
    "entry-without-shape": build({"a": {"dtype": "U8", "data_offsets": [0, 4]}}, bytes(4)),
    "entry-with-more": build({"a": {**GOOD, "also": 1}}, bytes(4)),
    "dtype-unknown": build({"a": {**GOOD, "dtype": "F99"}}, bytes(4)),
    "dtype-list": build({"a": {**GOOD, "dtype": ["U8"]}}, bytes(4)),
    "shape-text": build({"a": {**GOOD, "shape": "4"}}, bytes(4)),
    "shape-negative": build({"a": {**GOOD, "shape": [-2, -2]}}, bytes(4)),
    "shape-bool": build({"a": {**GOOD, "shape": [True, 4]}}, bytes(4)),
    "shape-of-17": build({"a": {**GOOD, "shape": [1] * 16 + [4]}}, bytes(4)),
    "shape-overflow": build({"a": {**GOOD, "shape": [2**62, 2**62]}}, bytes(4)),
    "shape-larger": build({"a": {**GOOD, "shape": [5]}}, bytes(4)),
    "half-byte": build({"a": entry(0, 1, "F4", [3])}, bytes(1)),
    "offsets-one": build({"a": {**GOOD, "data_offsets": [4]}}, bytes(4)),
    "offsets-backwards": build({"a": {**GOOD, "data_offsets": [4, 0]}}, bytes(4)),
    "offsets-huge": build({"a": {**GOOD, "data_offsets": [2**63, 2**63 + 4]}}, bytes(4)),
    "gap-first": build({"a": entry(1, 4)}, bytes(4)),
    "gap": build({"a": entry(0, 2), "b": entry(3, 4)}, bytes(4)),
    "overlap": build({"a": entry(0, 3), "b": entry(2, 4)}, bytes(4)),
    "same-range-twice": build({"a": entry(0, 4), "b": entry(0, 4)}, bytes(4)),
    "data-missing": build({"a": GOOD}, bytes(3)),
    "data-after": build({"a": GOOD}, bytes(5)),
}


@pytest.mark.parametrize("flaw", FLAWED)
def test_a_flawed_file_is_refused(flaw: str) -> None:
    with pytest.raises(MalformedModel):
        read(FLAWED[flaw])


def test_too_much_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SAFETENSORS_HEADER_BYTES", 1000)
    with pytest.raises(MalformedModel, match="allowed are 1000"):
        read(build({"a": GOOD}, bytes(4), pad=b" " * 1000))
    monkeypatch.setattr(limits, "SAFETENSORS_COMMAS", 10)
    with pytest.raises(MalformedModel, match="too many parts"):
        read(build(b'{"a":[%s]}' % (b"{}," * 11)))
    monkeypatch.setattr(limits, "SAFETENSORS_COMMAS", 1000)
    monkeypatch.setattr(limits, "SAFETENSORS_TENSORS", 1)
    with pytest.raises(MalformedModel, match="2 tensors"):
        read(build({"a": entry(0, 1), "b": entry(1, 2)}, bytes(2)))


@given(cut=st.integers(0, len(GENUINE) - 1))
def test_a_cut_file_is_refused(cut: int) -> None:
    with pytest.raises(MalformedModel):
        read(GENUINE[:cut])
    with pytest.raises(MalformedModel):
        read_header(io.BytesIO(GENUINE[: min(cut, 263)]), len(GENUINE))


@given(at=st.integers(0, 263), byte=st.integers(0, 255))
def test_a_changed_header_is_refused_or_still_consistent(at: int, byte: int) -> None:
    data = bytearray(GENUINE)
    data[at] = byte
    try:
        header = read(bytes(data))
    except MalformedModel:
        return
    assert sum(tensor.size_bytes for tensor in header.tensors) + header.data_offset == len(data)


@given(junk=st.binary(max_size=200))
def test_junk_is_refused(junk: bytes) -> None:
    for data in (junk, build(b"{" + junk), build(junk)):
        try:
            read(data)
        except MalformedModel:
            continue


def test_files_are_read_from_disk(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(GENUINE)
    assert read_header_file(path) == read(GENUINE)
    with pytest.raises(NotFound):
        read_header_file(tmp_path / "other")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MalformedModel, match="no regular file"):
        read_header_file(tmp_path / "pipe")
    with pytest.raises((MalformedModel, StorageFailure)):
        read_header_file(tmp_path)
