"""What is told of a model."""

from __future__ import annotations

import hashlib
import json
import struct
import time
from pathlib import Path

import pytest

from registry.gguf import (
    GGUFArray,
    GGUFHeader,
    model_facts,
    model_info,
    read_header,
    read_header_file,
)
from registry.gguf.facts import one_line, parameter_size
from schemas.limits import GGUF_CHAT_TEMPLATE_BYTES
from tests.gguf_files import (
    TEMPLATE,
    Pieces,
    array,
    scalar,
    string,
    strings,
    tensor,
    tiny_gguf,
    u32,
)


def header_of(pieces: Pieces) -> GGUFHeader:
    data = pieces.build()
    return read_header(data, len(data))


def test_facts_of_a_file_written_by_the_formats_own_package(tmp_path: Path) -> None:
    facts = model_facts(read_header_file(tiny_gguf(tmp_path / "tiny.gguf")))
    assert facts.name == "Tiny Test"
    assert facts.architecture == "llama"
    assert facts.parameters == 8 * 32 + 32
    assert facts.parameter_size == "288"
    assert facts.size_label == "1K"
    assert facts.quantization == "F32"
    assert (facts.context_length, facts.embedding_length, facts.block_count) == (128, 32, 1)
    assert facts.license == "apache-2.0"
    assert facts.languages == ("en", "de")
    assert facts.capabilities == ("completion",)
    assert facts.chat_template_sha256 == hashlib.sha256(TEMPLATE.encode()).hexdigest()


def test_tokenizer_facts(tmp_path: Path) -> None:
    header = read_header_file(tiny_gguf(tmp_path / "tiny.gguf"))
    assert header.vocabulary_size == 8
    assert header.tokenizer_model == "llama"
    assert (header.token_id("bos"), header.token_id("eos"), header.token_id("eot")) == (1, 2, None)


@pytest.mark.parametrize(
    ("file_type", "label"),
    [(u32(3), "Q4_1"), (u32(15), "Q4_K_M"), (u32(1024 + 7), "Q8_0"), (u32(999), "Q4_0")],
)
def test_the_quantization_label(file_type: bytes, label: str) -> None:
    header = header_of(Pieces().with_value("general.file_type", file_type))
    assert header.quantization == label


def test_without_a_file_type_the_commonest_tensor_type_counts() -> None:
    assert header_of(Pieces()).quantization == "Q4_0"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (999, "999"),
        (1_000, "1K"),
        (1_500, "2K"),
        (134_515_008, "134.52M"),
        (494_032_768, "494.03M"),
        (7_000_000_000, "7B"),
        (8_030_261_248, "8.0B"),
    ],
)
def test_parameter_sizes_look_like_ollamas(count: int, shown: str) -> None:
    assert parameter_size(count) == shown


@pytest.mark.parametrize(
    ("label", "shown"),
    [("135M", "135M"), ("8x7B", "8x7B"), ("3.8B", "3.8B"), ("\x1b[31mred", "160"), ("", "160")],
)
def test_the_size_label_is_taken_only_if_it_is_one(label: str, shown: str) -> None:
    assert (
        model_facts(header_of(Pieces().with_value("general.size_label", string(label)))).size_label
        == shown
    )


@pytest.mark.parametrize(
    ("template", "capabilities"),
    [
        ("{{ messages }}", ("completion",)),
        ("{%- if tools %}x{% endif %}", ("completion", "tools")),
        ("{# tools #}{{ messages }}", ("completion",)),
        ("these are tools", ("completion",)),
        ("{{ toolset }}", ("completion",)),
        (
            "{{ x }}{% if tools is defined and y %}<think>{% endif %}",
            ("completion", "tools", "thinking"),
        ),
        ("{% if enable_thinking %}{% endif %}", ("completion", "thinking")),
        ("{{ tools", ("completion",)),
    ],
)
def test_capabilities(template: str, capabilities: tuple[str, ...]) -> None:
    header = header_of(Pieces().with_value("tokenizer.chat_template", string(template)))
    assert model_facts(header).capabilities == capabilities


def test_an_embedding_model() -> None:
    header = header_of(Pieces().with_value("llama.pooling_type", u32(1)))
    assert model_facts(header).capabilities == ("embedding",)


@pytest.mark.parametrize("unit", ["{%", "{", "{{", "{#", "{%}"])
def test_looking_for_tools_takes_linear_time(unit: str) -> None:
    template = (unit * GGUF_CHAT_TEMPLATE_BYTES)[:GGUF_CHAT_TEMPLATE_BYTES]
    header = header_of(Pieces().with_value("tokenizer.chat_template", string(template)))
    began = time.process_time()
    model_facts(header)
    assert time.process_time() - began < 2


def test_free_text_comes_out_as_one_printable_line() -> None:
    assert one_line("a\nb\x1b[2J\tc\u202e") == "a b\ufffd[2J c\ufffd"
    assert len(one_line("x" * 10_000)) == 200
    assert one_line(None) == ""


def test_model_info_is_what_ollama_shows() -> None:
    long = array(4, [struct.pack("<I", 7)] * 1025)
    header = header_of(
        Pieces()
        .with_value("general.tags", strings("a", "b"))
        .with_value("llama.long", long)
        .with_value("llama.short", array(5, [struct.pack("<i", -1)] * 2))
        .with_value("llama.nan", scalar(6, "f", float("nan")))
        .with_value("llama.large", scalar(10, "Q", 2**64 - 1))
    )
    info = model_info(header)
    json.dumps(info, allow_nan=False)
    assert list(info) == sorted(info)
    assert info["general.parameter_count"] == 160
    assert info["general.tags"] == ["a", "b"]
    assert info["llama.long"] is None
    assert info["llama.short"] == [-1, -1]
    assert info["llama.nan"] is None
    assert info["llama.large"] == 2**64 - 1
    assert info["tokenizer.ggml.add_bos_token"] is True
    assert "general.name" not in info
    assert "tokenizer.chat_template" not in info
    assert model_info(header, verbose=True)["llama.long"] == [7] * 1025


@pytest.mark.parametrize(
    ("rows", "label"), [(1_000, "32K"), (42_000, "1.3M"), (31_250, "1M"), (4_203_000, "134M")]
)
def test_a_missing_size_label_is_rounded_from_the_tensors(rows: int, label: str) -> None:
    entry = tensor("w", (32, rows), 2, 0)
    header = header_of(Pieces(tensors=(entry,), data_bytes=-(-18 * rows // 32) * 32))
    assert model_facts(header).size_label == label


def test_braces_that_open_nothing() -> None:
    template = string('{"tools": {{ messages }}, {"x": 1}}')
    header = header_of(Pieces().with_value("tokenizer.chat_template", template))
    assert model_facts(header).capabilities == ("completion",)


def test_long_texts_are_shown_on_request_only() -> None:
    header = header_of(Pieces().with_value("tokenizer.huggingface.json", string("{}" * 600_000)))
    assert model_info(header)["tokenizer.huggingface.json"] is None
    assert model_info(header, verbose=True)["tokenizer.huggingface.json"] == "{}" * 600_000


def test_arrays_say_what_they_hold() -> None:
    header = header_of(Pieces())
    tokens = header.metadata["tokenizer.ggml.tokens"]
    scores = header.metadata["tokenizer.ggml.scores"]
    assert isinstance(tokens, GGUFArray)
    assert isinstance(scores, GGUFArray)
    assert (len(tokens), tokens.strings()) == (4, ("a", "b", "c", "d"))
    assert scores.values() == (0.0, -1.0, -2.0, -3.0)
    with pytest.raises(TypeError, match="strings"):
        tokens.values()
    with pytest.raises(TypeError, match="values"):
        scores.strings()
