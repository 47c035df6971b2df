"""Each flaw is refused with one clear line; what real files vary in is not."""

from __future__ import annotations

import io
import os
import struct
import time
import tracemalloc
from pathlib import Path

import pytest

from registry.gguf import GGUFArray, GGUFText, read_header, read_header_file
from schemas.errors import MalformedModel, NotFound
from schemas.limits import GGUF_HEADER_BYTES, MIB
from tests.gguf_files import (
    Pieces,
    array,
    broken_variants,
    scalar,
    string,
    strings,
    tensor,
    text,
    tiny_gguf,
    u32,
)

BROKEN = broken_variants()


def test_the_file_that_the_variants_start_from_is_good() -> None:
    data = Pieces().build()
    header = read_header(data, len(data))
    assert (header.version, header.alignment, header.architecture) == (3, 32, "llama")
    assert [(t.name, t.dims, t.type, t.offset, t.size_bytes) for t in header.tensors] == [
        ("token_embd.weight", (32, 4), "Q4_0", 0, 72),
        ("output_norm.weight", (32,), "F32", 96, 128),
    ]
    assert header.data_offset + 96 + 128 == header.file_size == len(data)


def test_names_of_the_variants_are_distinct() -> None:
    names = [name for name, _ in BROKEN]
    assert len(names) == len(set(names)) > 90


@pytest.mark.parametrize(("name", "data"), BROKEN, ids=[name for name, _ in BROKEN])
def test_every_broken_field_is_refused_at_once(name: str, data: bytes) -> None:
    tracemalloc.start()
    began = time.perf_counter()
    try:
        with pytest.raises(MalformedModel) as caught:
            read_header(data, len(data))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - began < 2
    assert peak < 4 * MIB
    line = str(caught.value)
    assert line.startswith("GGUF file refused: ")
    assert "\n" not in line
    assert caught.value.hint
    assert caught.value.exit_code == 16


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("big-endian", "gguf-convert-endian"),
        ("split", "llama-gguf-split"),
        ("mmproj-by-type", "mmproj"),
        ("mmproj-by-architecture", "mmproj"),
        ("adapter", "LoRA"),
        ("architecture-unknown", "'lama'"),
        ("tensor-count-huge", "1152921504606846976 tensors"),
        ("tokens-twice", "token 2 is there twice: b'a'"),
        ("special-id-too-large", "bos_token_id is 4, the vocabulary has 4 tokens"),
        ("trailing-bytes", "4 bytes follow the last tensor"),
        ("tensor-type-4", "no longer used"),
        ("cut-in-data", "ends at byte"),
    ],
)
def test_the_line_says_what_is_wrong(name: str, words: str) -> None:
    data = dict(BROKEN)[name]
    with pytest.raises(MalformedModel) as caught:
        read_header(data, len(data))
    assert words in str(caught.value)


def test_every_cut_is_refused() -> None:
    whole = Pieces().build()
    for end in range(len(whole)):
        with pytest.raises(MalformedModel):
            read_header(whole[:end], end)


@pytest.mark.parametrize(
    ("what", "pieces"),
    [
        ("version 2", Pieces(version=struct.pack("<I", 2))),
        ("no alignment named", Pieces().without("general.alignment")),
        ("no template", Pieces().without("tokenizer.chat_template")),
        ("upper case in a key", Pieces().with_value("x.Quantized_By", string("me"))),
        ("a key of an unknown maker", Pieces().with_value("maker.convert_type", string("hf"))),
        ("one part only", Pieces().with_value("split.count", scalar(2, "H", 1))),
        ("empty array", Pieces().with_value("general.tags", strings())),
        ("array per layer", Pieces().with_value("llama.x", array(5, [bytes(4)] * 3))),
        ("bool array", Pieces().with_value("llama.y", array(7, [b"\x00\x01\x01"], 3))),
        ("integer scores", Pieces().with_value("tokenizer.ggml.scores", array(5, [bytes(4)] * 4))),
        ("a NUL in a name", Pieces().with_value("general.name", string("x\x00"))),
        (
            "tokens that are plain bytes",
            Pieces().with_value("tokenizer.ggml.tokens", strings(b"\xff", b"\xfe", "a", "")),
        ),
        ("merges of bytes", Pieces().with_value("tokenizer.ggml.merges", strings(b"\xff \xfe"))),
        ("scalar tensor", Pieces().with_tensor(1, tensor("s", (), 0, 96)).build()[:-124]),
        ("end not padded", Pieces().with_tensor(1, tensor("s", (25,), 0, 96)).build()[:-28]),
        ("end padded", Pieces().with_tensor(1, tensor("s", (25,), 0, 96)).build()),
    ],
)
def test_what_real_files_vary_in_is_accepted(what: str, pieces: Pieces | bytes) -> None:
    data = pieces if isinstance(pieces, bytes) else pieces.build()
    assert read_header(data, len(data)).file_size == len(data)


def test_no_vocabulary_is_accepted_where_the_size_is_told() -> None:
    pieces = Pieces()
    for key in ("tokens", "scores", "token_type", "merges"):
        pieces = pieces.without(f"tokenizer.ggml.{key}")
    data = pieces.with_value("llama.vocab_size", u32(1)).build()
    assert read_header(data, len(data)).vocabulary_size == 1
    data = pieces.build()
    with pytest.raises(MalformedModel, match="the vocabulary has 0 tokens"):
        read_header(data, len(data))


def test_another_alignment_moves_the_data() -> None:
    pieces = Pieces(
        tensors=(tensor("a", (1,), 0, 0), tensor("b", (1,), 0, 128)),
        data_bytes=0,
    ).with_value("general.alignment", u32(128))
    head = pieces.head()
    data = head + bytes(-len(head) % 128) + bytes(256)
    header = read_header(data, len(data))
    assert header.data_offset % 128 == 0
    assert header.data_offset == len(data) - 256


def test_long_texts_stay_undecoded() -> None:
    long = "\N{GRINNING FACE}" * (MIB // 2)
    data = Pieces().with_value("tokenizer.huggingface.json", string(long)).build()
    value = read_header(data, len(data)).metadata["tokenizer.huggingface.json"]
    assert isinstance(value, GGUFText)
    assert value.text() == long


@pytest.mark.parametrize("at", [0, 1 * MIB - 1, 1 * MIB, 2 * MIB - 1])
def test_a_wrong_byte_in_a_long_text_is_found(at: int) -> None:
    raw = bytearray(b"x" * (2 * MIB))
    raw[at] = 0xC3
    data = Pieces().with_value("tokenizer.huggingface.json", string(bytes(raw))).build()
    with pytest.raises(MalformedModel, match="not UTF-8"):
        read_header(data, len(data))


def test_a_header_beyond_the_limit_is_refused_before_it_is_read() -> None:
    reads: list[int] = []

    class Endless(io.RawIOBase):
        def __init__(self, start: bytes) -> None:
            self.start = io.BytesIO(start)

        def read(self, size: int = -1) -> bytes:
            reads.append(size)
            return self.start.read(size) or bytes(size)

    text_value = struct.pack("<IQ", 8, GGUF_HEADER_BYTES)
    start = Pieces().with_value("x.long", text_value).head()
    with pytest.raises(MalformedModel, match="allowed for a header"):
        read_header(Endless(start), 10 * GGUF_HEADER_BYTES)  # type: ignore[arg-type]
    assert sum(reads) <= 2 * MIB  # what one call asks for, and what it asks again for


def test_the_costliest_header_within_the_limits_stays_bounded() -> None:
    # Arrays of empty strings: the most items for their bytes, and the slowest kind to walk.
    million = struct.pack("<IIQ", 9, 8, 1_000_000) + text("") * 1_000_000
    pieces = Pieces().with_value("x.first", million).with_value("x.second", million)
    data = pieces.build()
    began = time.process_time()
    header = read_header(data, len(data))
    assert time.process_time() - began < 10
    value = header.metadata["x.second"]
    assert isinstance(value, GGUFArray)
    assert value.count == 1_000_000
    data = pieces.with_value("x.third", million).build()
    with pytest.raises(MalformedModel, match="claims 1000000 items"):
        read_header(data, len(data))


def test_many_texts_are_decoded_only_up_to_a_limit() -> None:
    pieces = Pieces()
    for index in range(5):
        pieces = pieces.with_value(f"x.text{index}", string("\N{GRINNING FACE}" * 100_000))
    data = pieces.with_value("x.last", string("short")).build()
    header = read_header(data, len(data))
    kinds = [type(header.metadata[f"x.text{index}"]) for index in range(5)]
    assert kinds == [str, str, GGUFText, GGUFText, GGUFText]
    assert header.text("x.text4") == header.text("x.text0") == "\N{GRINNING FACE}" * 100_000
    assert header.metadata["x.last"] == "short"


def test_strings_across_the_first_read_are_read_whole() -> None:
    tokens = [f"token-{index:06d}" for index in range(60_000)]  # 1.2 MB: the window grows inside
    merges = [f"m{index} x" for index in range(200_000)]
    data = (
        Pieces()
        .without("tokenizer.ggml.scores")
        .without("tokenizer.ggml.token_type")
        .with_value("tokenizer.ggml.tokens", strings(*tokens))
        .with_value("tokenizer.ggml.merges", strings(*merges))
        .with_value("general.tags", strings(*merges))
        .build()
    )
    header = read_header(io.BytesIO(data), len(data))
    assert header.strings("tokenizer.ggml.tokens") == tuple(tokens)
    assert header.strings("tokenizer.ggml.merges") == tuple(merges)
    assert header.strings("general.tags") == tuple(merges)


class Slow(io.RawIOBase):
    """Hands out its bytes in small pieces, as sockets and decompressors do."""

    def __init__(self, data: bytes, piece: int) -> None:
        self.data, self.piece, self.at = data, piece, 0

    def read(self, size: int = -1) -> bytes:
        got = self.data[self.at : self.at + min(size, self.piece)]
        self.at += len(got)
        return got


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_short_reads_change_nothing(piece: int) -> None:
    data = Pieces().build()
    header = read_header(Slow(data, piece), len(data))  # type: ignore[arg-type]
    assert header == read_header(data, len(data))


def test_a_prefix_is_enough_but_the_size_counts() -> None:
    data = Pieces().build()
    header = read_header(memoryview(data), len(data))
    assert read_header(data[: header.data_offset], len(data)) == header
    with pytest.raises(MalformedModel, match="fewer bytes than its size says"):
        read_header(data[:100], len(data))


def test_files_and_descriptors(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "tiny.gguf")
    header = read_header_file(path)
    with path.open("rb") as file:
        os.lseek(file.fileno(), 5, os.SEEK_SET)
        assert read_header_file(file.fileno()) == header
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 5
    assert header.file_size == path.stat().st_size


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(MalformedModel, match="no regular file"):
            read_header_file(path)
    with pytest.raises(NotFound, match="No such file"):
        read_header_file(tmp_path / "absent.gguf")
