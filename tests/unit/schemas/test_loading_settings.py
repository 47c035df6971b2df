"""Settings of how models are loaded: in the file, in the environment, under Ollama's names."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.models import base_spec
from runtime.options import parse_options
from schemas.errors import MalformedDocument, UsageError
from schemas.settings import Serve, load
from tests.support.models import model


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("OLLAMA_KV_CACHE_TYPE", "q8_0", "kv_cache_type", "q8_0"),
        ("SEALIFT_KV_CACHE_TYPE", "q4_0", "kv_cache_type", "q4_0"),
        ("OLLAMA_FLASH_ATTENTION", "1", "flash_attention", "on"),
        ("OLLAMA_FLASH_ATTENTION", "false", "flash_attention", "off"),
        ("SEALIFT_FLASH_ATTENTION", "auto", "flash_attention", "auto"),
        ("SEALIFT_NUM_GPU", "0", "num_gpu", 0),
        ("SEALIFT_MAIN_GPU", "1", "main_gpu", 1),
        ("SEALIFT_SPLIT_MODE", "row", "split_mode", "row"),
        ("SEALIFT_TENSOR_SPLIT", "3,1.5", "tensor_split", "3,1.5"),
        ("SEALIFT_MAX_MEMORY", "2048", "max_memory", 2048),
    ],
)
def test_the_environment(name: str, text: str, field: str, value: object) -> None:
    assert getattr(load({name: text}).serve, field) == value


@pytest.mark.parametrize(
    "environment",
    [
        {"OLLAMA_KV_CACHE_TYPE": "q5_0"},
        {"SEALIFT_FLASH_ATTENTION": "perhaps"},
        {"SEALIFT_NUM_GPU": "-2"},
        {"SEALIFT_SPLIT_MODE": "column"},
        {"SEALIFT_TENSOR_SPLIT": "3;1"},
        {"SEALIFT_MAX_MEMORY": "-1"},
        {"SEALIFT_KV_CACHE_TYPE": "q8_0", "SEALIFT_FLASH_ATTENTION": "off"},
    ],
)
def test_what_makes_no_sense(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        load(environment)


def test_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        '[serve]\nkv_cache_type = "q4_0"\nflash_attention = "on"\ntensor_split = "2,1"\nnum_gpu = 5\n'
    )
    found = load({"SEALIFT_HOME": str(tmp_path)}).serve
    assert (found.kv_cache_type, found.flash_attention) == ("q4_0", "on")
    spec = base_spec(found)
    assert (spec.kv_type, spec.flash_attention, spec.num_gpu) == ("q4_0", "on", 5)
    assert spec.tensor_split == "2,1"
    (tmp_path / "config.toml").write_text('[serve]\nkv_cache_type = "f17"\n')
    with pytest.raises(MalformedDocument):
        load({"SEALIFT_HOME": str(tmp_path)})


def test_a_request_wins_over_the_settings() -> None:
    base = base_spec(Serve(num_gpu=5, main_gpu=1))
    tiny = model()

    def asked(**options: int) -> tuple[int, int]:
        spec = tiny.worker_spec(parse_options(options), context=0, parallel=1, threads=0, base=base)
        return spec.num_gpu, spec.main_gpu

    assert asked() == (5, 1)
    assert asked(num_gpu=0) == (0, 1), "none is an answer too"
    assert asked(num_gpu=-1, main_gpu=0) == (-1, 0)
