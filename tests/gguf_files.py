"""Small GGUF files for tests: valid ones, and one with each header field broken in turn."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import gguf
import numpy as np

TOKENS = ("<unk>", "<s>", "</s>", "a", "b", "ab", "ä", "\N{GRINNING FACE}")
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def tiny_gguf(
    path: Path,
    *,
    name: str = "Tiny Test",
    architecture: str = "llama",
    chat_template: str | None = TEMPLATE,
    licence: str | None = "apache-2.0",
    tensors: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a valid model file of about 4 KiB with the format's own package.

    No engine can run it: it has a vocabulary and two tensors, but no layers. Different ``name``s
    give different bytes. ``tensors`` sets its size.
    """
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("model")
    writer.add_name(name)
    writer.add_size_label("1K")
    if licence is not None:
        writer.add_license(licence)
    writer.add_languages(["en", "de"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(list(TOKENS))
    writer.add_token_scores([-float(index) for index in range(len(TOKENS))])
    writer.add_token_types([2, 3, 3, 1, 1, 1, 1, 1])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    if tensors is None:
        tensors = {
            "token_embd.weight": np.arange(8 * 32, dtype=np.float32).reshape(8, 32) / 256,
            "output_norm.weight": np.ones(32, dtype=np.float32),
        }
    for key, data in tensors.items():
        writer.add_tensor(key, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def text(value: str | bytes) -> bytes:
    """A string as GGUF stores it."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def scalar(kind: int, code: str, value: float) -> bytes:
    """A typed value: type number, then the value."""
    return struct.pack("<I" + code, kind, value)


def u32(value: int) -> bytes:
    return scalar(4, "I", value)


def string(value: str | bytes) -> bytes:
    return struct.pack("<I", 8) + text(value)


def array(kind: int, items: Sequence[bytes], count: int | None = None) -> bytes:
    return struct.pack("<IIQ", 9, kind, len(items) if count is None else count) + b"".join(items)


def strings(*items: str | bytes) -> bytes:
    return array(8, [text(item) for item in items])


def tensor(name: str | bytes, dims: Sequence[int], kind: int, offset: int) -> bytes:
    """One entry of the tensor table."""
    return (
        text(name)
        + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        + struct.pack("<IQ", kind, offset)
    )


@dataclass(frozen=True)
class Pieces:
    """A GGUF file by hand, so that each piece can be replaced by a wrong one."""

    magic: bytes = b"GGUF"
    version: bytes = struct.pack("<I", 3)
    tensor_count: int | None = None
    key_count: int | None = None
    metadata: tuple[tuple[str | bytes, bytes], ...] = field(
        default=(
            ("general.architecture", string("llama")),
            ("general.name", string("Tiny Test")),
            ("general.alignment", u32(32)),
            ("llama.context_length", u32(128)),
            ("tokenizer.ggml.model", string("gpt2")),
            ("tokenizer.ggml.tokens", strings("a", "b", "c", "d")),
            (
                "tokenizer.ggml.scores",
                array(6, [struct.pack("<f", value) for value in (0.0, -1.0, -2.0, -3.0)]),
            ),
            ("tokenizer.ggml.token_type", array(5, [struct.pack("<i", 1)] * 4)),
            ("tokenizer.ggml.merges", strings("a b", "b c")),
            ("tokenizer.ggml.bos_token_id", u32(0)),
            ("tokenizer.ggml.add_bos_token", scalar(7, "B", 1)),
            ("tokenizer.chat_template", string(TEMPLATE)),
        )
    )
    tensors: tuple[bytes, ...] = (
        tensor("token_embd.weight", (32, 4), 2, 0),  # Q4_0: 4 rows of one block of 18 bytes
        tensor("output_norm.weight", (32,), 0, 96),
    )
    data_bytes: int = 96 + 128

    def head(self) -> bytes:
        """The header up to the last tensor's entry."""
        counts = struct.pack(
            "<QQ",
            len(self.tensors) if self.tensor_count is None else self.tensor_count,
            len(self.metadata) if self.key_count is None else self.key_count,
        )
        pairs = b"".join(text(key) + value for key, value in self.metadata)
        return self.magic + self.version + counts + pairs + b"".join(self.tensors)

    def build(self) -> bytes:
        """The whole file."""
        head = self.head()
        return head + bytes(-len(head) % 32) + bytes(self.data_bytes)

    def with_value(self, key: str, value: bytes) -> Pieces:
        """The same with one value replaced, or added at the end."""
        if key in dict(self.metadata):
            pairs = tuple((k, value if k == key else v) for k, v in self.metadata)
        else:
            pairs = (*self.metadata, (key, value))
        return replace(self, metadata=pairs)

    def with_key(self, old: str, new: str | bytes) -> Pieces:
        """The same with one key renamed."""
        return replace(self, metadata=tuple((new if k == old else k, v) for k, v in self.metadata))

    def without(self, key: str) -> Pieces:
        """The same without a key."""
        return replace(self, metadata=tuple((k, v) for k, v in self.metadata if k != key))

    def with_tensor(self, index: int, entry: bytes) -> Pieces:
        """The same with one entry of the tensor table replaced."""
        entries = list(self.tensors)
        entries[index] = entry
        return replace(self, tensors=tuple(entries))


def broken_variants() -> list[tuple[str, bytes]]:
    """Files that must be refused, each with one flaw, named after it."""
    return [
        *_broken_frame(),
        *((name, pieces.build()) for name, pieces in _broken_metadata()),
        *((name, pieces.build()) for name, pieces in _broken_meaning()),
        *((name, pieces.build()) for name, pieces in _broken_tensors()),
    ]


def _broken_frame() -> list[tuple[str, bytes]]:
    good = Pieces()
    whole = good.build()
    head = len(good.head())
    big = struct.pack(">I", 3)
    return [
        ("empty", b""),
        ("magic-only", b"GGUF"),
        ("magic", replace(good, magic=b"GGML").build()),
        ("magic-zip", replace(good, magic=b"PK\x03\x04").build()),
        ("version-0", replace(good, version=bytes(4)).build()),
        ("version-1", replace(good, version=struct.pack("<I", 1)).build()),
        ("version-4", replace(good, version=struct.pack("<I", 4)).build()),
        ("big-endian", replace(good, version=big).build()),
        ("tensor-count-huge", replace(good, tensor_count=2**60).build()),
        ("tensor-count-negative", replace(good, tensor_count=2**64 - 1).build()),
        ("tensor-count-beyond-file", replace(good, tensor_count=60_000).build()),
        ("tensor-count-one-more", replace(good, tensor_count=3).build()),
        ("key-count-huge", replace(good, key_count=2**60).build()),
        ("key-count-beyond-file", replace(good, key_count=16_000).build()),
        ("key-count-one-more", replace(good, key_count=13).build()),
        ("key-count-one-less", replace(good, key_count=11).build()),
        ("cut-in-metadata", whole[:200]),
        ("cut-in-tensor-table", whole[: head - 4]),
        ("cut-before-data", whole[:head]),
        ("cut-in-data", whole[:-1]),
        ("trailing-bytes", whole + b"PK\x05\x06"),
    ]


def _broken_metadata() -> list[tuple[str, Pieces]]:
    good = Pieces()
    name = "general.name"
    nested = struct.pack("<IIQ", 9, 9, 1) + array(4, [bytes(4)])[4:]
    return [
        ("key-empty", good.with_key(name, "")),
        ("key-too-long", good.with_key(name, "k" * 65_536)),
        ("key-twice", good.with_key(name, "general.alignment")),
        ("key-not-utf8", good.with_key(name, b"general.\xff")),
        ("key-not-ascii", good.with_key(name, "general.n\N{LATIN SMALL LETTER A WITH DIAERESIS}")),
        ("key-with-nul", good.with_key(name, "general.name\x00x")),
        ("key-with-space", good.with_key(name, "general name")),
        ("value-type-13", good.with_value(name, struct.pack("<IQ", 13, 0))),
        ("value-type-huge", good.with_value(name, struct.pack("<IQ", 2**32 - 1, 0))),
        ("bool-2", good.with_value("tokenizer.ggml.add_bos_token", scalar(7, "B", 2))),
        ("bool-array-255", good.with_value("x.flags", array(7, [b"\x00\x01\xff"], 3))),
        ("string-not-utf8", good.with_value(name, string(b"\xc3\x28"))),
        ("string-length-huge", good.with_value(name, struct.pack("<IQ", 8, 2**63) + b"x")),
        ("string-length-most", good.with_value(name, struct.pack("<IQ", 8, 2**64 - 1))),
        ("string-beyond-file", good.with_value(name, struct.pack("<IQ", 8, 10_000) + b"x")),
        ("array-of-arrays", good.with_value("x.nested", nested)),
        ("array-type-13", good.with_value("x.array", array(13, [bytes(4)]))),
        ("array-count-huge", good.with_value("x.array", array(4, [bytes(4)], 2**60))),
        ("array-count-overflow", good.with_value("x.array", array(12, [bytes(8)], 2**61 + 1))),
        ("array-beyond-file", good.with_value("x.array", array(4, [bytes(4)], 10_000))),
        ("strings-count-huge", good.with_value("x.array", array(8, [text("a")], 2**60))),
        ("strings-not-utf8", good.with_value("general.tags", strings("ok", b"\xff"))),
        ("strings-length-huge", good.with_value("general.tags", array(8, [b"\xff" * 8]))),
        ("alignment-0", good.with_value("general.alignment", u32(0))),
        ("alignment-3", good.with_value("general.alignment", u32(3))),
        ("alignment-4", good.with_value("general.alignment", u32(4))),
        ("alignment-huge", good.with_value("general.alignment", u32(2**31))),
        ("alignment-u64", good.with_value("general.alignment", scalar(10, "Q", 32))),
        ("alignment-string", good.with_value("general.alignment", string("32"))),
        ("template-too-long", good.with_value("tokenizer.chat_template", string("x" * 262_145))),
        (
            "named-template-too-long",
            good.with_value("tokenizer.chat_template.tool_use", string("x" * 262_145)),
        ),
    ]


def _broken_meaning() -> list[tuple[str, Pieces]]:
    good = Pieces()
    architecture = "general.architecture"
    tokens = "tokenizer.ggml.tokens"
    scores = "tokenizer.ggml.scores"
    types = "tokenizer.ggml.token_type"
    bos = "tokenizer.ggml.bos_token_id"
    zeros = [bytes(4)]
    return [
        ("architecture-missing", good.without(architecture)),
        ("architecture-number", good.with_value(architecture, u32(1))),
        ("architecture-unknown", good.with_value(architecture, string("lama"))),
        ("architecture-nul", good.with_value(architecture, string("llama\x00"))),
        ("mmproj-by-architecture", good.with_value(architecture, string("clip"))),
        ("mmproj-by-type", good.with_value("general.type", string("mmproj"))),
        ("adapter", good.with_value("general.type", string("adapter"))),
        ("imatrix", good.with_value("general.type", string("imatrix"))),
        ("split", good.with_value("split.count", scalar(2, "H", 3))),
        ("split-u32", good.with_value("split.count", u32(3))),
        ("tokens-numbers", good.with_value(tokens, array(5, zeros * 4))),
        ("tokens-string", good.with_value(tokens, string("abcd"))),
        ("tokens-twice", good.with_value(tokens, strings("a", "b", "a", "d"))),
        ("tokens-twice-to-nul", good.with_value(tokens, strings("a", "b", "a\x00b", "d"))),
        ("tokens-twice-as-empty", good.with_value(tokens, strings("[EMPTY_1]", "", "c", "d"))),
        ("tokens-missing", good.without(tokens)),
        ("tokens-too-many", good.with_value(tokens, array(8, [], 524_289))),
        ("scores-short", good.with_value(scores, array(6, zeros * 3))),
        ("scores-long", good.with_value(scores, array(6, zeros * 5))),
        ("scores-doubles", good.with_value(scores, array(12, [bytes(8)] * 4))),
        ("token-types-short", good.with_value(types, array(5, zeros * 3))),
        ("token-types-unsigned", good.with_value(types, array(4, zeros * 4))),
        ("merges-numbers", good.with_value("tokenizer.ggml.merges", array(4, zeros))),
        ("special-id-too-large", good.with_value(bos, u32(4))),
        ("special-id-minus-one", good.with_value(bos, u32(2**32 - 1))),
        ("special-id-signed", good.with_value(bos, scalar(5, "i", 1))),
        ("special-id-string", good.with_value(bos, string("a"))),
        ("template-number", good.with_value("tokenizer.chat_template", u32(1))),
        ("template-array", good.with_value("tokenizer.chat_template", strings("x"))),
    ]


def _broken_tensors() -> list[tuple[str, Pieces]]:
    good = Pieces()
    first, second = "token_embd.weight", "output_norm.weight"
    return [
        ("no-tensors", replace(good, tensors=(), data_bytes=0)),
        ("tensor-name-empty", good.with_tensor(0, tensor("", (32, 4), 2, 0))),
        ("tensor-name-64", good.with_tensor(0, tensor("n" * 64, (32, 4), 2, 0))),
        ("tensor-name-huge", good.with_tensor(0, struct.pack("<Q", 2**62) + b"x" * 40)),
        ("tensor-name-twice", good.with_tensor(1, tensor(first, (32,), 0, 96))),
        ("tensor-name-not-ascii", good.with_tensor(0, tensor(b"\xff", (32, 4), 2, 0))),
        ("tensor-name-with-nul", good.with_tensor(0, tensor("a\x00b", (32, 4), 2, 0))),
        ("tensor-5-dimensions", good.with_tensor(0, tensor(first, (32, 4, 1, 1, 1), 2, 0))),
        ("tensor-dimension-0", good.with_tensor(1, tensor(second, (32, 0), 0, 96))),
        ("tensor-overflow", good.with_tensor(1, tensor(second, (2**32, 2**32), 0, 96))),
        ("tensor-overflow-to-0", good.with_tensor(1, tensor(second, (2**62, 4), 0, 96))),
        ("tensor-dimension-negative", good.with_tensor(1, tensor(second, (2**64 - 32,), 0, 96))),
        ("tensor-type-4", good.with_tensor(0, tensor(first, (32, 4), 4, 0))),
        ("tensor-type-43", good.with_tensor(0, tensor(first, (32, 4), 43, 0))),
        ("tensor-type-huge", good.with_tensor(0, tensor(first, (32, 4), 2**31, 0))),
        ("tensor-half-block", good.with_tensor(0, tensor(first, (16, 8), 2, 0))),
        ("tensor-offset-overlaps", good.with_tensor(1, tensor(second, (32,), 0, 64))),
        ("tensor-offset-unaligned", good.with_tensor(1, tensor(second, (32,), 0, 72))),
        ("tensor-offset-gap", good.with_tensor(1, tensor(second, (32,), 0, 128))),
        ("tensor-offset-huge", good.with_tensor(1, tensor(second, (32,), 0, 2**63))),
        ("tensor-beyond-file", good.with_tensor(1, tensor(second, (64,), 0, 96))),
    ]
