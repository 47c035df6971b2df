"""Question and text as one sequence, as rerankers were trained on them."""

from __future__ import annotations

import re
from typing import Final

from runtime.engine.llama.vocabulary import Vocabulary
from schemas import limits
from schemas.errors import PromptTooLong

_QUERY: Final = "{query}"
_DOCUMENT: Final = "{document}"
_FIELDS: Final = re.compile(r"(\{query\}|\{document\})")

Part = list[int] | str
"""Tokens, or which of the two texts stands there."""


class Pairs:
    """Makes the sequences of one model.

    A template comes with some models (``tokenizer.chat_template.rerank``); the others take
    ``[BOS] question [EOS] [SEP] text [EOS]``, as llama-server puts it together. Where the
    vocabulary has a separator but no end (BERT's), the text ends with one too, as in training.

    Args:
        vocabulary: Of the model.
        template: Text with ``{query}`` and ``{document}`` in it, or None.
    """

    def __init__(self, vocabulary: Vocabulary, template: str | None) -> None:
        self._vocabulary = vocabulary
        self._parts = self._of_template(template) if template else self._usual()

    def _of_template(self, template: str) -> list[Part]:
        tokenize = self._vocabulary.tokenize
        return [
            piece if piece in (_QUERY, _DOCUMENT) else tokenize(piece, special=True)
            for piece in _FIELDS.split(template)
        ]

    def _usual(self) -> list[Part]:
        v = self._vocabulary
        end = [v.eos if v.eos >= 0 else v.sep] if v.add_eos else []
        head = [v.bos] if v.add_bos else []
        separator = [v.sep] if v.add_sep else []
        between, end = [*end, *separator], end or separator
        parts: list[Part] = [head, _QUERY, between, _DOCUMENT, end]
        return [part if isinstance(part, str) else [t for t in part if t >= 0] for part in parts]

    def tokens(self, query: str, text: str, most: int, *, truncate: bool) -> list[int]:
        """One sequence.

        Args:
            query: The question. What is spelled like a special token in it is text.
            text: The text; likewise.
            most: Tokens that fit.
            truncate: Whether the text may lose its end.

        Raises:
            PromptTooLong: It does not fit.
        """
        size = most * self._vocabulary.longest_text
        if len(query) > size or (len(text) > size and not truncate):
            raise _too_long()
        words = {
            _QUERY: self._vocabulary.tokenize(query, special=False),
            _DOCUMENT: self._vocabulary.tokenize(text[:size], special=False),
        }
        excess = sum(len(words[p] if isinstance(p, str) else p) for p in self._parts) - most
        if excess > 0:
            if not truncate or excess > len(words[_DOCUMENT]):
                raise _too_long()
            words[_DOCUMENT] = words[_DOCUMENT][:-excess]
        found = [t for p in self._parts for t in (words[p] if isinstance(p, str) else p)]
        return found or [max(self._vocabulary.bos, self._vocabulary.eos, 0)]


def _too_long() -> PromptTooLong:
    return PromptTooLong(
        "the input length exceeds the context length",
        hint=f"Send shorter texts (at most {limits.EMBED_TOKENS} tokens), or set truncate",
    )
