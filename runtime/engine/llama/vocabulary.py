"""A model's tokens."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import llama_cpp.llama_cpp as lib
import numpy as np

from schemas.errors import WorkerFailed

_SPECIAL: Final = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN


class Vocabulary:
    """A model's tokens; a :class:`runtime.engine.prompt.Tokenizer`."""

    def __init__(self, model: Any) -> None:
        self._vocab = lib.llama_model_get_vocab(model)
        self.size: int = lib.llama_vocab_n_tokens(self._vocab)
        self.bos: int = lib.llama_vocab_bos(self._vocab)
        self.eos: int = lib.llama_vocab_eos(self._vocab)
        self.sep: int = lib.llama_vocab_sep(self._vocab)
        self.add_bos: bool = lib.llama_vocab_get_add_bos(self._vocab)
        self.add_eos: bool = lib.llama_vocab_get_add_eos(self._vocab)
        self.add_sep: bool = lib.llama_vocab_get_add_sep(self._vocab)
        self.infill: tuple[int, int, int] = (
            lib.llama_vocab_fim_pre(self._vocab),
            lib.llama_vocab_fim_suf(self._vocab),
            lib.llama_vocab_fim_mid(self._vocab),
        )
        self._pieces: dict[int, bytes] = {}
        self._buffer = ctypes.create_string_buffer(256)

    def ends(self, token: int) -> bool:
        """Whether the model says with this token that it is done."""
        return bool(lib.llama_vocab_is_eog(self._vocab, token))

    def spelling(self, token: int) -> str:
        """A token's own text; empty for "there is none"."""
        if token < 0:
            return ""
        return (lib.llama_vocab_get_text(self._vocab, token) or b"").decode("utf-8", "replace")

    @cached_property
    def special_texts(self) -> Sequence[str]:
        """The spellings of the special tokens."""
        return [
            self.spelling(token)
            for token in range(self.size)
            if lib.llama_vocab_get_attr(self._vocab, token) & _SPECIAL
        ]

    @cached_property
    def longest_text(self) -> int:
        """Bytes of the longest token."""
        return max(len(self.piece(token)) for token in range(self.size)) or 1

    def piece(self, token: int) -> bytes:
        """What a token adds to the text; nothing for special ones."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._make_piece(token)
        return piece

    def _make_piece(self, token: int) -> bytes:
        arguments = (0, False)
        size = lib.llama_token_to_piece(
            self._vocab, token, self._buffer, len(self._buffer), *arguments
        )
        if size >= 0:
            return self._buffer.raw[:size]
        buffer = ctypes.create_string_buffer(-size)
        lib.llama_token_to_piece(self._vocab, token, buffer, -size, *arguments)
        return buffer.raw

    def tokenize(self, text: str, *, special: bool, enclose: bool = False) -> list[int]:
        """The tokens of a text.

        Args:
            text: Any.
            special: Whether special tokens spelled in it count as such.
            enclose: Whether to add the tokens that the model wants around every text.

        Raises:
            WorkerFailed: The engine cannot.
        """
        data = text.encode("utf-8", "replace")
        room = len(data) + 8  # a token per byte and a few that a vocabulary puts in front
        while True:
            tokens = np.empty(room, dtype=np.int32)
            pointer = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            count = lib.llama_tokenize(
                self._vocab, data, len(data), pointer, room, enclose, special
            )
            if count >= 0:
                return [int(token) for token in tokens[:count]]
            if -count <= room:
                raise WorkerFailed("the engine cannot tokenise the prompt")
            room = -count
