"""From a job to the tokens of its prompt: rendering, special tokens, length."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import groupby
from typing import Final, Protocol

from runtime.engine.dialect import Dialect, call_grammar, dialect_of, tool_name
from runtime.engine.form import Form
from runtime.engine.guard import Guard
from runtime.engine.marks import Span, at_pictures
from runtime.engine.reading import Reader
from runtime.engine.shortening import without_beginning, without_turns
from runtime.engine.sight import Eyes, Picture, Seen, extra_cells
from runtime.engine.template import CHATML, ChatTemplate
from runtime.messages import Chat, Image, Job, Message, Text
from schemas.errors import (
    MalformedModel,
    PromptTooLong,
    SealiftError,
    UnsupportedRequest,
    UsageError,
)

_TAIL_TOKENS: Final = 12
_ANSWERS: Final = 4  # a shortened conversation leaves one part in so many to its answer
_NO_TEXTS: Final[re.Pattern[str]] = re.compile(r"(?!)")


class Tokenizer(Protocol):
    """What a prompt needs to know of a vocabulary."""

    @property
    def size(self) -> int:
        """Number of tokens."""
        ...

    @property
    def special_texts(self) -> Sequence[str]:
        """How the tokens are spelled that only count with ``special`` set."""
        ...

    @property
    def longest_text(self) -> int:
        """Bytes of the longest spelling of any token."""
        ...

    @property
    def bos(self) -> int:
        """The beginning-of-sequence token; -1 if there is none."""
        ...

    @property
    def add_bos(self) -> bool:
        """Whether the model wants ``bos`` in front."""
        ...

    @property
    def infill(self) -> tuple[int, int, int]:
        """The tokens before the prefix, the suffix and the middle; -1 if there is none."""
        ...

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of a text, nothing added in front or behind."""
        ...

    def piece(self, token: int) -> bytes:
        """What a token adds to the text; nothing for special ones."""
        ...

    def spelling(self, token: int) -> str:
        """A token's own text."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What an answer starts from.

    Attributes:
        tokens: At least one, and fewer than the context holds.
        form: What the answer is held to, if anything.
        reader: Takes the answer apart; None where all of it is content.
        marks: Special tokens that mean something to the reader, and how they are spelled.
        pictures: Where pictures stand; their places hold names (:mod:`runtime.engine.sight`).
    """

    tokens: list[int]
    form: Form | None = None
    reader: Reader | None = None
    marks: Mapping[int, bytes] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()

    @property
    def words(self) -> list[int]:
        """The tokens without pictures."""
        return [token for token in self.tokens if token >= 0] if self.pictures else self.tokens


class SpecialSpellings:
    """Finds special tokens in text.

    Args:
        texts: How they are spelled.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        longest_first = sorted({t for t in texts if t}, key=len, reverse=True)
        either = "|".join(map(re.escape, longest_first))
        self._whole = re.compile(either) if either else _NO_TEXTS
        self._start = re.compile(f"(?={either})") if either else _NO_TEXTS

    def starts(self, text: str) -> list[int]:
        """Offsets at which a special token begins, overlapping ones too."""
        return [match.start() for match in self._start.finditer(text)]

    def find(self, text: str) -> list[str]:
        """Special tokens in the text from left to right, without overlap."""
        return self._whole.findall(text)

    def split(self, text: str) -> list[tuple[str, bool]]:
        """The text as special tokens (true) and what is between them (false)."""
        parts, done = [], 0
        for match in self._whole.finditer(text):
            parts += [(text[done : match.start()], False), (match.group(), True)]
            done = match.end()
        parts.append((text[done:], False))
        return [part for part in parts if part[0]]


def tokenize_spans(
    spans: Sequence[Span], spellings: SpecialSpellings, tokenizer: Tokenizer
) -> list[int]:
    """Tokenise a rendered prompt; only what the template said can become a special token.

    Text is cut at special tokens only, and only around a stretch where a client spelled one, so
    that the common prompt is tokenised in one piece, as it was in training.
    """
    tokens: list[int] = []
    for text, special in _pieces(spans, spellings):
        tokens += tokenizer.tokenize(text, special=special)
    return tokens


def _pieces(spans: Sequence[Span], spellings: SpecialSpellings) -> list[tuple[str, bool]]:
    """(text, whether special tokens in it count)."""
    parts: list[tuple[str, bool]] = []  # special tokens of the template's; all between them joined
    for trusted, neighbours in groupby(spans, key=lambda span: span.trusted):
        whole = "".join(span.text for span in neighbours)
        for text, special in spellings.split(whole) if trusted else [(whole, False)]:
            if parts and not special and not parts[-1][1]:
                parts[-1] = (parts[-1][0] + text, False)
            else:
                parts.append((text, special))
    pieces: list[tuple[str, bool]] = []
    run: list[tuple[str, bool]] = []
    for text, special in parts:
        if special or not spellings.find(text):
            run.append((text, special))
        else:
            pieces += [*_join(run, spellings), (text, False)]
            run = []
    return pieces + _join(run, spellings)


def _join(run: list[tuple[str, bool]], spellings: SpecialSpellings) -> list[tuple[str, bool]]:
    """One piece, unless parts side by side would spell a special token that nobody wrote."""
    whole = "".join(text for text, _ in run)
    if spellings.find(whole) == [text for text, special in run if special]:
        return [(whole, True)] if whole else []
    return run


_Built = tuple[list[int], tuple[Picture, ...]]
_Looked = dict[str, Sequence[list[int] | Seen]]


class _TooLong(Exception):
    """A candidate does not fit; ``tokens`` is exact or a lower bound."""

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens)
        self.tokens = tokens


def _first_fitting(
    attempt: Callable[[Sequence[Message]], _Built], forms: list[list[Message]]
) -> _Built | None:
    """Bisect for the longest form that fits: a template may be slow."""
    best: _Built | None = None
    low, high = 0, len(forms)
    while low < high:
        middle = (low + high) // 2
        try:
            best = attempt(forms[middle])
            high = middle
        except _TooLong:
            low = middle + 1
    return best


class PromptBuilder:
    """Makes prompts for one model.

    Args:
        tokenizer: The model's vocabulary.
        template: The model's chat template; None for the default.
        guard: Runs template code within limits.
        n_context: Tokens that prompt and answer share.
        bos_text: The spelling of the beginning-of-sequence token, for the template.
        eos_text: The same of the end-of-sequence token.
        eyes: What looks at pictures, if the model can see.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: str | None,
        guard: Guard,
        n_context: int,
        *,
        bos_text: str = "",
        eos_text: str = "",
        eyes: Eyes | None = None,
    ) -> None:
        self._eyes = eyes
        self._tokenizer = tokenizer
        self._source = template or CHATML
        self._guard = guard
        self._n_context = n_context
        self._bos_text = bos_text
        self._eos_text = eos_text

    @cached_property
    def _spellings(self) -> SpecialSpellings:
        return SpecialSpellings(self._tokenizer.special_texts)

    @cached_property
    def _template(self) -> ChatTemplate:
        return self._compile(self._source)

    def _compile(self, source: str) -> ChatTemplate:
        return self._guard.run(lambda: ChatTemplate(source, bos=self._bos_text, eos=self._eos_text))

    def build(self, job: Job) -> Prompt:
        """A job's prompt, and how to read what follows.

        Raises:
            PromptTooLong: Also without the messages that may be dropped.
            UsageError: The prompt is at fault.
            MalformedModel: The chat template is.
        """
        context = list(job.prompt.context)
        if any(not 0 <= token < self._tokenizer.size for token in context):
            raise UsageError("the context holds a token that the model does not have")
        form = Form(job.format) if job.format else None
        if not isinstance(job.prompt, Chat):
            return Prompt(self._text(job.prompt, context, job), form)
        if self._eyes is None and any(message.images for message in job.prompt.messages):
            # A picture is never left out in silence.
            raise UnsupportedRequest("this model is missing data required for image input")
        tokens, pictures = self._chat(job.prompt, context, truncate=job.truncate)
        return replace(self._read(job.prompt, tokens, form), pictures=pictures)

    def _read(self, chat: Chat, tokens: list[int], form: Form | None) -> Prompt:
        """What follows the prompt of a conversation, in the model's dialect."""
        dialect = dialect_of(chat.template) if chat.template else self._dialect
        names = [tool_name(tool) for tool in chat.tools]
        if dialect.thinking is None and not names:
            return Prompt(tokens, form)
        special = self._special_marks(dialect)
        if chat.must_call:
            wanted = [tool for tool in chat.tools if tool_name(tool) in chat.must_call]
            text = call_grammar(dialect.calls, wanted, special, many=chat.parallel)
            form = Form(text, lark=True)
        return Prompt(
            tokens,
            form,
            Reader(dialect, names, thinking=self._ends_thinking(dialect, tokens)),
            {token: mark.encode() for mark, token in special.items()},
        )

    def _special_marks(self, dialect: Dialect) -> dict[str, int]:
        """The marks that are special tokens here."""
        found: dict[str, int] = {}
        for mark in dialect.marks:
            tokens = self._tokenizer.tokenize(mark, special=True)
            if len(tokens) == 1 and not self._tokenizer.piece(tokens[0]):
                found[mark] = tokens[0]
        return found

    def _ends_thinking(self, dialect: Dialect, tokens: list[int]) -> bool:
        """Whether the template has opened the thinking already."""
        if dialect.thinking is None:
            return False
        tail = b"".join(
            self._tokenizer.piece(token) or self._tokenizer.spelling(token).encode()
            for token in tokens[-_TAIL_TOKENS:]
            if token >= 0
        )
        return tail.decode("utf-8", "replace").rstrip().endswith(dialect.thinking[0])

    @cached_property
    def _dialect(self) -> Dialect:
        return dialect_of(self._source)

    # -- conversations --------------------------------------------------------------------------

    def _chat(self, chat: Chat, context: list[int], *, truncate: bool) -> _Built:
        template = self._compile(chat.template) if chat.template else self._template
        looked: _Looked = {}

        def attempt(messages: Sequence[Message], room: int = 0) -> _Built:
            spans = self._guard.run(
                lambda: template.render(messages, chat.tools, self._spellings, think=chat.think)
            )
            size = sum(len(span.text) for span in spans)
            self._demand_plausible(size)
            images = [image for message in messages for image in message.images]
            tokens, pictures = self._assemble(context, spans, images, looked)
            cells = len(tokens) + extra_cells(pictures)
            if cells + room >= self._n_context:
                raise _TooLong(cells)
            return self._not_empty(tokens), pictures

        try:
            return attempt(chat.messages)
        except _TooLong as error:
            if truncate:
                # What is shortened shall leave room for an answer too.
                room = self._n_context // _ANSWERS
                turns = without_turns(chat.messages)
                cut = without_beginning(chat.messages, self._n_context)
                for forms, left in ((turns, room), (turns, 0), (cut, room)):
                    if (found := _first_fitting(partial(attempt, room=left), forms)) is not None:
                        return found
            raise self._too_long(error.tokens) from None

    def _assemble(
        self,
        context: list[int],
        spans: Sequence[Span],
        images: Sequence[Image],
        looked: _Looked,
    ) -> _Built:
        """Tokens of the text, with the pictures where the template has put them."""
        if not images:
            tokens = context + tokenize_spans(spans, self._spellings, self._tokenizer)
            return self._with_bos(tokens), ()
        first, *others = at_pictures(spans)
        if len(others) != len(images):
            raise MalformedModel("the model's chat template does not show every image once")
        tokens = self._with_bos(context + tokenize_spans(first, self._spellings, self._tokenizer))
        pictures: list[Picture] = []
        for image, behind in zip(images, others, strict=True):
            for part in self._look(image, looked):
                if isinstance(part, Seen):
                    start, end = len(tokens), len(tokens) + len(part.names)
                    pictures.append(Picture(start, end, part.rows - len(part.names), part.data))
                    tokens += part.names
                else:
                    tokens += part
            tokens += tokenize_spans(behind, self._spellings, self._tokenizer)
        if tokens[-1] < 0:
            raise UnsupportedRequest("a prompt cannot end with an image")
        return tokens, tuple(pictures)

    def _look(self, image: Image, looked: _Looked) -> Sequence[list[int] | Seen]:
        """What a picture becomes; each is decoded once, however often it is tried what fits."""
        found = looked.get(image.data)
        if found is None:
            if self._eyes is None:
                raise UnsupportedRequest("this model is missing data required for image input")
            found = looked[image.data] = self._eyes.look(image)
        return found

    # -- bare text ------------------------------------------------------------------------------

    def _text(self, prompt: Text, context: list[int], job: Job) -> list[int]:
        try:
            self._demand_plausible(len(prompt.text) + len(prompt.suffix))
        except _TooLong as error:
            raise self._too_long(error.tokens) from None
        tokens = self._tokenizer.tokenize(prompt.text, special=prompt.special)
        if prompt.suffix:
            tokens = self._infill(tokens, prompt.suffix)
        tokens = self._with_bos(context + tokens)
        if len(tokens) < self._n_context:
            return self._not_empty(tokens)
        if not job.truncate:
            raise self._too_long(len(tokens))
        # Ollama's rule for bare text: keep the beginning and the end, drop what is between.
        keep = min(max(job.sampling.num_keep, 1), self._n_context // 2)
        return tokens[:keep] + tokens[len(tokens) - (self._n_context - 1 - keep) :]

    def _infill(self, prefix: list[int], suffix: str) -> list[int]:
        before, behind, middle = self._tokenizer.infill
        if min(before, behind, middle) < 0:
            raise UnsupportedRequest("the model does not fill in the middle")
        return [before, *prefix, behind, *self._tokenizer.tokenize(suffix, special=False), middle]

    # -- length ---------------------------------------------------------------------------------

    def _demand_plausible(self, characters: int) -> None:
        """Keep text from the tokenizer that cannot fit whatever its tokens are."""
        if characters > self._n_context * 4:
            least = characters // self._tokenizer.longest_text
            if least >= self._n_context:
                raise _TooLong(least)

    def _with_bos(self, tokens: list[int]) -> list[int]:
        bos = self._tokenizer.bos
        if self._tokenizer.add_bos and bos >= 0 and tokens[:1] != [bos]:
            return [bos, *tokens]
        return tokens

    def _not_empty(self, tokens: list[int]) -> list[int]:
        if tokens:
            return tokens
        if self._tokenizer.bos < 0:
            raise UsageError("the prompt is empty", hint="Write something.")
        return [self._tokenizer.bos]

    def _too_long(self, tokens: int) -> SealiftError:
        return PromptTooLong(
            "the prompt is longer than the model's context",
            why=f"{tokens} tokens or more, {self._n_context} fit with the answer",
            hint="Shorten it, or load the model with a larger num_ctx.",
        )
