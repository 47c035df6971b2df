"""Regions: by the tensor table where there is one, always without a gap."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from bundler.archive.codec import ElementHint
from bundler.chunks.regions import (
    Cut,
    Region,
    element_hint,
    plain_regions,
    read_table,
    regions_of,
    table_regions,
)
from registry.gguf import GGUFHeader
from registry.safetensors import SafetensorsHeader
from tests.gguf_files import Pieces, tiny_gguf
from tests.support.deltas import noise, safetensors_file


def covered(regions: list[Region], size: int) -> bool:
    position = 0
    for region in regions:
        assert region.offset == position
        position += region.length
    return position == size


def test_gguf_is_cut_into_header_tensors_and_padding() -> None:
    data = Pieces().build()
    with io.BytesIO(data) as file:
        header = read_table(file, len(data))
    assert isinstance(header, GGUFHeader)
    regions = list(table_regions(header))
    assert covered(regions, len(data))
    assert [region.cut for region in regions] == [Cut.FINE, Cut.FIXED, Cut.FIXED, Cut.FIXED]
    assert [region.length for region in regions] == [header.data_offset, 72, 24, 128]


def test_padding_after_the_last_tensor_is_a_region_too() -> None:
    first = Pieces().tensors[0]
    data = Pieces(tensors=(first,), data_bytes=96).build()
    regions = list(regions_of(io.BytesIO(data), len(data)))
    assert [region.length for region in regions[1:]] == [72, 24]
    assert covered(regions, len(data))


def test_safetensors_is_cut_by_its_table(tmp_path: Path) -> None:
    path = safetensors_file(tmp_path / "m", {"a": noise(10, 1), "empty": b"", "b": noise(20, 2)})
    size = path.stat().st_size
    with path.open("rb") as file:
        header = read_table(file, size)
        assert isinstance(header, SafetensorsHeader)
        regions = list(table_regions(header))
    assert covered(regions, size)
    assert [region.length for region in regions[1:]] == [10, 20]


@pytest.mark.parametrize("data", [b"", b"x", b"GGUF but not really", b"PK\x03\x04" * 100])
def test_anything_else_is_one_region(data: bytes) -> None:
    regions = list(regions_of(io.BytesIO(data), len(data)))
    assert regions == list(plain_regions(len(data)))
    assert covered(regions, len(data))
    assert all(region.cut is Cut.COARSE for region in regions)


def test_a_flawed_model_is_cut_like_any_file() -> None:
    data = Pieces().build()[:-1]
    assert [region.cut for region in regions_of(io.BytesIO(data), len(data))] == [Cut.COARSE]


@pytest.mark.parametrize(("dtype", "expected"), [(np.float16, 2), (np.float32, 4)])
def test_the_table_hints_at_the_element_size(
    tmp_path: Path, dtype: type[np.floating], expected: int
) -> None:
    large = {"token_embd.weight": np.zeros((64, 64), dtype=dtype)}
    path = tiny_gguf(tmp_path / "m.gguf", tensors=large)
    with path.open("rb") as file:
        assert element_hint(read_table(file, path.stat().st_size)) == ElementHint(expected)


def test_quantised_and_unknown_elements_give_no_size(tmp_path: Path) -> None:
    data = Pieces(tensors=Pieces().tensors[:1], data_bytes=96).build()
    assert element_hint(read_table(io.BytesIO(data), len(data))) == ElementHint(1)
    assert element_hint(None) is None
    path = safetensors_file(tmp_path / "m", {})
    with path.open("rb") as file:
        assert element_hint(read_table(file, path.stat().st_size)) is None


def test_regions_have_bytes() -> None:
    for offset, length in [(-1, 5), (0, 0)]:
        with pytest.raises(ValueError, match="at least one byte"):
            Region(offset, length, Cut.FIXED)
