"""Answers held to a form: of all tokens only those that some text of that form goes on with.

Forms are JSON Schemas (draft 2020-12), compiled by llguidance within limits. A keyword that it does
not know is refused, not passed over: what comes out in the end is valid by its schema, unless it
was cut off.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from runtime.engine.form import WHITE_SPACE, Form, closed
from schemas import limits
from schemas.errors import UsageError, WorkerFailed

_SPECIAL: Final = b"\xff"  # llguidance's mark of a token that is no text


class Vocabulary(Protocol):
    """What is asked of a model's tokens."""

    size: int
    bos: int
    eos: int

    def piece(self, token: int) -> bytes:
        """What a token adds to the text; nothing for special ones."""
        ...

    def spelling(self, token: int) -> str:
        """A token's own text."""
        ...

    def ends(self, token: int) -> bool:
        """Whether the model says with this token that it is done."""
        ...

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """The tokens of a text."""
        ...


class Constraint:
    """One answer's form, and how far the answer has come in it."""

    __slots__ = ("_matcher", "_size")

    def __init__(self, matcher: Any, size: int) -> None:
        self._matcher = matcher
        self._size = size

    def allows(self, token: int) -> bool:
        """Whether a token may come next."""
        return bool(self._matcher.validate_tokens([token]))

    def mask(self, logits: npt.NDArray[np.float32]) -> None:
        """Make all tokens impossible that may not come next.

        Raises:
            WorkerFailed: The form is too complex at this place.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        allowed = np.unpackbits(bits, bitorder="little", count=self._size)
        logits[allowed == 0] = -np.inf

    def accept(self, token: int) -> None:
        """Go on behind a token that was chosen.

        Raises:
            WorkerFailed: It could not come next.
        """
        if not self._matcher.consume_token(token):
            self._check()

    @property
    def complete(self) -> bool:
        """Whether nothing can follow but the end."""
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            why = str(self._matcher.get_error())
            raise WorkerFailed("the answer cannot be held to its format", why=why)


class Constraints:
    """Makes constraints over one vocabulary.

    Args:
        vocabulary: The model's.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._tokenizer: Any = None

    def make(self, form: Form) -> Constraint:
        """A constraint for one answer.

        Args:
            form: What it is held to.

        Raises:
            UsageError: It is no form, has keywords that are not enforced here, or is too complex.
        """
        if self._tokenizer is None:  # most models are never asked for it; takes 0.3 s
            self._tokenizer = _tokenizer(self._vocabulary)
        bounds = LLParserLimits(
            initial_lexer_fuel=limits.FORMAT_FUEL,
            step_max_items=limits.FORMAT_ITEMS,
            max_lexer_states=limits.FORMAT_STATES,
            max_grammar_size=limits.FORMAT_SYMBOLS,
            precompute_large_lexemes=False,
            verbose_errors=False,
        )
        grammar = _lark(form.text) if form.lark else _schema(form.text)
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=bounds)
        if matcher.is_error():
            raise _refused(matcher.get_error())
        return Constraint(matcher, self._vocabulary.size)


def _lark(text: str) -> Any:
    return LLMatcher.grammar_from_lark(text)


def _schema(text: str) -> Any:
    options: Any = {"whitespace_pattern": WHITE_SPACE, "lenient": False}
    try:
        return LLMatcher.grammar_from_json_schema(closed(json.loads(text)), overrides=options)
    except ValueError as error:
        raise _refused(str(error)) from None


def _refused(why: str) -> UsageError:
    return UsageError("the format cannot be enforced", why=why.split("\n", 1)[0])


class _Tokens:
    """A vocabulary as llguidance wants it."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        every = range(vocabulary.size)
        pieces = [vocabulary.piece(token) for token in every]
        self.eos_token_id = vocabulary.eos
        self.bos_token_id = vocabulary.bos if vocabulary.bos >= 0 else None
        self.special_token_ids = [token for token in every if not pieces[token]]
        self.tokens = [
            piece or _SPECIAL + vocabulary.spelling(token).encode()
            for token, piece in enumerate(pieces)
        ]
        self._tokenize: Callable[..., Sequence[int]] = vocabulary.tokenize

    def __call__(self, text: bytes | str) -> list[int]:
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        return list(self._tokenize(text, special=False))


def _tokenizer(vocabulary: Vocabulary) -> Any:
    ends = [token for token in range(vocabulary.size) if vocabulary.ends(token)]
    return LLTokenizer(
        TokenizerWrapper(_Tokens(vocabulary)),
        n_vocab=vocabulary.size,
        eos_token=ends or [vocabulary.eos],
        slices=LLTokenizer.json_slices(),
    )
