"""What a checked header holds."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from registry.gguf.tables import FILE_TYPE_GUESSED, FILE_TYPES, SCALAR_CODES, ValueType

_LENGTH: Final = struct.Struct("<Q").unpack_from


@dataclass(frozen=True, slots=True)
class GGUFArray:
    """An array of metadata, checked but left as it lies in the file.

    Attributes:
        type: Type of the items; never ``ARRAY``.
        count: Number of items.
        raw: The items' bytes, little-endian; strings with their length prefixes.
    """

    type: ValueType
    count: int
    raw: memoryview = field(repr=False)

    def __len__(self) -> int:
        return self.count

    def values(self) -> tuple[bool | int | float, ...]:
        """All items of a numeric or boolean array.

        Raises:
            TypeError: The array holds strings.
        """
        if self.type is ValueType.STRING:
            raise TypeError("an array of strings has strings()")
        return struct.unpack(f"<{self.count}{SCALAR_CODES[self.type]}", self.raw)

    def byte_strings(self) -> Iterator[bytes]:
        """The items of an array of strings, one by one, as bytes.

        Raises:
            TypeError: The array holds no strings.
        """
        if self.type is not ValueType.STRING:
            raise TypeError(f"an array of {self.type.name} has values()")
        position = 0
        for _ in range(self.count):
            start = position + 8
            position = start + _LENGTH(self.raw, position)[0]
            yield bytes(self.raw[start:position])

    def strings(self) -> tuple[str, ...]:
        """All items of an array of strings.

        Tokens and merges of some vocabularies are not UTF-8; such bytes become U+FFFD.

        Raises:
            TypeError: The array holds no strings.
        """
        return tuple(item.decode("utf-8", "replace") for item in self.byte_strings())


@dataclass(frozen=True, slots=True)
class GGUFText:
    """A string not decoded unasked, as it is long or many are (``GGUF_INLINE_TEXT_BYTES``).

    It is valid UTF-8.

    Attributes:
        raw: Its bytes.
    """

    raw: memoryview = field(repr=False)

    def text(self) -> str:
        """The string itself."""
        return str(self.raw, "utf-8")


GGUFValue = bool | int | float | str | GGUFText | GGUFArray


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies and what it is.

    Attributes:
        name: Printable ASCII, at most 63 characters.
        dims: Elements per dimension, the row length first; empty for a scalar.
        type: Name of the storage type (``"Q4_K"``).
        offset: Bytes from the header's ``data_offset``.
        size_bytes: Bytes of data, without padding.
    """

    name: str
    dims: tuple[int, ...]
    type: str
    offset: int
    size_bytes: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        product = 1
        for dim in self.dims:
            product *= dim
        return product


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """A header that passed every check of `registry.gguf.checks` and `registry.gguf.parse`.

    Attributes:
        version: 2 or 3.
        alignment: Bytes; every tensor starts at a multiple of it.
        metadata: All keys and values in the file's order.
        types: The type of each value, as the file says.
        tensors: All tensors in the file's order, which is also the order of their data.
        data_offset: Bytes from the start of the file to the first tensor.
        file_size: Bytes.
    """

    version: int
    alignment: int
    metadata: Mapping[str, GGUFValue] = field(repr=False)
    types: Mapping[str, ValueType] = field(repr=False)
    tensors: tuple[TensorInfo, ...] = field(repr=False)
    data_offset: int
    file_size: int

    def text(self, key: str) -> str | None:
        """A string of the metadata, or None where it is absent or something else."""
        value = self.metadata.get(key)
        if isinstance(value, GGUFText):
            return value.text()
        return value if isinstance(value, str) else None

    def integer(self, key: str) -> int | None:
        """An integer of the metadata, or None where it is absent or something else."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def strings(self, key: str) -> tuple[str, ...]:
        """An array of strings of the metadata; empty where it is absent or something else."""
        value = self.metadata.get(key)
        if isinstance(value, GGUFArray) and value.type is ValueType.STRING:
            return value.strings()
        return ()

    @property
    def architecture(self) -> str:
        """``general.architecture``; one that the engine knows."""
        return self.text("general.architecture") or ""

    @property
    def name(self) -> str | None:
        """``general.name``: free text by whoever made the file."""
        return self.text("general.name")

    @property
    def size_label(self) -> str | None:
        """``general.size_label``: free text, usually like ``135M`` or ``8x7B``."""
        return self.text("general.size_label")

    @property
    def license(self) -> str | None:
        """``general.license``: an identifier as model hubs use them, or free text."""
        return self.text("general.license")

    @property
    def parameter_count(self) -> int:
        """Elements of all tensors together."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def quantization(self) -> str:
        """The label of ``general.file_type``, else the type that holds most elements."""
        number = self.integer("general.file_type")
        if number is not None and number & ~FILE_TYPE_GUESSED in FILE_TYPES:
            return FILE_TYPES[number & ~FILE_TYPE_GUESSED]
        weight: Counter[str] = Counter()
        for tensor in self.tensors:
            weight[tensor.type] += tensor.elements
        return weight.most_common(1)[0][0]

    @property
    def context_length(self) -> int | None:
        """Tokens that the model was trained for."""
        return self.integer(f"{self.architecture}.context_length")

    @property
    def embedding_length(self) -> int | None:
        """Width of the hidden state."""
        return self.integer(f"{self.architecture}.embedding_length")

    @property
    def block_count(self) -> int | None:
        """Number of layers."""
        return self.integer(f"{self.architecture}.block_count")

    @property
    def chat_template(self) -> str | None:
        """The default chat template (Jinja source, untrusted)."""
        return self.text("tokenizer.chat_template")

    @property
    def tokenizer_model(self) -> str | None:
        """``tokenizer.ggml.model``: ``gpt2`` (BPE), ``llama`` (SentencePiece), ``bert``."""
        return self.text("tokenizer.ggml.model")

    @property
    def vocabulary_size(self) -> int | None:
        """Number of tokens."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, GGUFArray):
            return tokens.count
        return self.integer(f"{self.architecture}.vocab_size")

    def token_id(self, role: str) -> int | None:
        """A special token, by role: ``bos``, ``eos``, ``eot``, ``eom``, ``padding``, ``unknown``.

        Returns:
            Its id, less than `vocabulary_size`, or None where the file names none.
        """
        return self.integer(f"tokenizer.ggml.{role}_token_id")
