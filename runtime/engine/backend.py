"""What decodes, as the engine sees it: one context with several sequences, one batch, samplers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from runtime.engine.form import Form
from runtime.engine.sampling import Plan
from runtime.engine.sight import Picture


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """The keys and values of one sequence, saved.

    Attributes:
        data: The backend's own business.
        size: In bytes.
    """

    data: Any
    size: int


class Backend(Protocol):
    """What decodes.

    Every sequence has memory of its own, for as many positions as a context has tokens. Rows of one
    call are computed together; rows of neighbouring sequences, if each has one, in one go.
    """

    @property
    def n_vocab(self) -> int:
        """Number of tokens of the model."""
        ...

    @property
    def rows(self) -> int:
        """Rows of the batch; at least as many as there are sequences."""
        ...

    @property
    def takes_back(self) -> bool:
        """Whether :meth:`keep` can drop the last positions of a sequence and keep the others."""
        ...

    def keep(self, sequence: int, count: int) -> int:
        """Drop all but the first ``count`` positions of a sequence.

        Returns:
            How many are left: ``count``, or 0 if this memory cannot be cut there.
        """
        ...

    def cut(self, sequence: int, start: int, end: int) -> bool:
        """Drop positions ``start`` to ``end``; those behind move up.

        Returns:
            False if this memory cannot do that; nothing changed then.
        """
        ...

    def save(self, sequence: int, most: int) -> State | None:
        """Copy what a sequence holds; None if that is more than ``most`` bytes."""
        ...

    def load(self, sequence: int, state: State) -> bool:
        """Replace what a sequence holds; false if that failed and it is empty now."""
        ...

    def put(
        self, row: int, tokens: Sequence[int], position: int, sequence: int, *, wanted: int
    ) -> None:
        """Fill rows of the batch from ``row`` on; compute the logits of the last ``wanted``."""
        ...

    def decode(self, start: int, end: int) -> bool:
        """Decode rows ``start`` to ``end``.

        Returns:
            False if the context has no room for so many at once; nothing changed then.

        Raises:
            WorkerFailed: It cannot be done; the sequences' memory may hold a part.
        """
        ...

    def see(self, picture: Picture, position: int, sequence: int) -> bool:
        """Compute a picture, all of it, from a position of a sequence on.

        Returns:
            False if the context has no room for it; nothing changed then.

        Raises:
            UnsupportedRequest: It has too many rows that look at each other.
            WorkerFailed: It cannot be done; the sequence's memory may hold a part.
        """
        ...

    def sampler(self, samplers: Plan, prompt: Sequence[int], form: Form | None) -> Any:
        """Build what :meth:`choose` takes.

        Args:
            samplers: What to build.
            prompt: History, for penalties.
            form: What the answer is held to, if anything.

        Raises:
            UsageError: Answers cannot be held to such a form.
        """
        ...

    def free(self, sampler: Any) -> None:
        """Give it back."""
        ...

    def choose(self, row: int, sampler: Any, *, free: bool) -> int:
        """The next token.

        Args:
            row: Whose logits decide, counted from the last decode's ``start``.
            sampler: From :meth:`sampler`.
            free: Whether the answer's form does not hold yet.

        Raises:
            WorkerFailed: The answer's form is too complex here.
        """
        ...

    def trace(self, row: int) -> bytes:
        """The logits of a row, to be compared."""
        ...

    def complete(self, sampler: Any) -> bool:
        """Whether the answer has its whole form, and nothing can follow."""
        ...

    def logprob(self, row: int, token: int, alternatives: int) -> dict[str, Any]:
        """What a client is told about a token's probability, with so many alternatives."""
        ...

    def ends(self, token: int) -> bool:
        """Whether the model says with this token that it is done."""
        ...

    def piece(self, token: int) -> bytes:
        """What a token adds to the text."""
        ...
