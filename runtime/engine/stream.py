"""A job that has a slot, and its rows of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.engine.answer import Answer
from runtime.engine.lookup import Lookup
from runtime.engine.sight import Picture, extra_cells
from runtime.engine.slots import Slot
from runtime.messages import Job
from schemas import limits


@dataclass(slots=True, eq=False)
class Stream:
    """A job that has a slot.

    Attributes:
        job: What is asked for.
        slot: What it has.
        prompt: Its tokens.
        marks: As of :class:`runtime.engine.prompt.Prompt`.
        reused: Tokens of the prompt that were there already.
        answer: Makes text of tokens.
        sampler: The backend's.
        limit: Most tokens to make.
        began: When, by ``time.monotonic_ns()``.
        exact: Whether the answer must not depend on who else is there: the job names a seed.
        prompt_ns: How long the prompt took; 0 while it is read.
        output: Tokens made.
        thought: How many of them were thinking.
        following: The token to decode next; -1 while the prompt is read.
        leader: Who reads just now what this one waits for.
        wanted: How much of the leader's prompt.
        lookup: Guesses what comes next; made once it is of use.
        pictures: In its prompt, from the first to the last.
    """

    job: Job
    slot: Slot
    prompt: list[int]
    marks: Mapping[int, bytes]
    reused: int
    answer: Answer
    sampler: Any
    limit: float
    began: int
    exact: bool
    prompt_ns: int = 0
    output: list[int] = field(default_factory=list)
    thought: int = 0
    following: int = -1
    leader: Stream | None = None
    wanted: int = 0
    lookup: Lookup | None = None
    pictures: tuple[Picture, ...] = ()

    @property
    def reading(self) -> bool:
        """Whether the prompt is not computed yet."""
        return self.following < 0

    @property
    def left(self) -> int:
        """Tokens of the prompt still to be computed."""
        return len(self.prompt) - len(self.slot.cached)

    @property
    def chunk(self) -> int:
        """Of these, how many are computed at once while others answer; a picture counts as most."""
        if self.next_picture is not None:
            return limits.PROMPT_TOKENS_BESIDE
        return min(self.left, limits.PROMPT_TOKENS_BESIDE)

    @property
    def extra(self) -> int:
        """Cells of the context that its pictures take beyond their positions."""
        return extra_cells(self.pictures) if self.pictures else 0

    @property
    def next_picture(self) -> Picture | None:
        """The first picture that is not computed yet."""
        done = len(self.slot.cached)
        return next((picture for picture in self.pictures if picture.end > done), None)

    @property
    def almost(self) -> bool:
        """Whether one token of the prompt is left, which may go with others' next tokens."""
        return self.reading and not self.exact and self.leader is None and self.left == 1

    def waits(self) -> bool:
        """Whether what it waits for is still being read."""
        leader = self.leader
        return leader is not None and leader.reading and len(leader.slot.cached) < self.wanted


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """Rows of a batch that belong to one stream.

    Attributes:
        stream: Whose.
        start: First row.
        tokens: One per row.
        wanted: How many of the last rows' logits are.
    """

    stream: Stream
    start: int
    tokens: list[int]
    wanted: int

    @property
    def end(self) -> int:
        """The row after the last."""
        return self.start + len(self.tokens)

    def parts(self) -> tuple[Share, ...]:
        """Smaller shares in place of one of several rows; guesses are left out."""
        if self.wanted > 1:
            return (Share(self.stream, self.start, self.tokens[:1], 1),)
        middle = len(self.tokens) // 2
        first = Share(self.stream, self.start, self.tokens[:middle], 0)
        return first, Share(self.stream, self.start + middle, self.tokens[middle:], self.wanted)
