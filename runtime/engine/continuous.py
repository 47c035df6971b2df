"""Continuous batching: many answers at once, one step at a time. Pure; what decodes is a backend.

A step decodes one token of every sequence that answers, then prompt tokens, fewer of them while
others answer, so that running streams keep their pace. What a slot computed stays in it, so a
prompt that begins like an earlier one starts behind the common part.

What else lies in the context, and the shape of batches, change the last bits of logits. So a job
that names a seed starts from nothing, and in an empty context if nobody else is running: as long as
it is alone, the same seed gives the same answer.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from runtime.engine.answer import Answer
from runtime.engine.form import Form
from runtime.engine.prompt import Prompt
from runtime.engine.sampling import Plan, plan
from runtime.engine.slots import Slot, choose, common_prefix
from runtime.messages import Event, Failed, Finished, FinishReason, Job, Started
from schemas import limits
from schemas.errors import SealiftError, WorkerFailed


class Prompts(Protocol):
    """Makes prompts (:class:`runtime.engine.prompt.PromptBuilder`)."""

    def build(self, job: Job) -> Prompt:
        """A job's prompt, and how to read what follows.

        Raises:
            SealiftError: The job is at fault.
        """
        ...


class Backend(Protocol):
    """What decodes: one context with several sequences, one batch, samplers."""

    @property
    def n_vocab(self) -> int:
        """Number of tokens of the model."""
        ...

    @property
    def rows(self) -> int:
        """Rows of the batch; at least as many as there are sequences."""
        ...

    def keep(self, sequence: int, count: int) -> int:
        """Drop all but the first ``count`` positions of a sequence.

        Returns:
            How many are left: ``count``, or 0 if this memory cannot be cut there.
        """
        ...

    def put(
        self, row: int, tokens: Sequence[int], position: int, sequence: int, *, wanted: bool
    ) -> None:
        """Fill rows of the batch from ``row`` on; compute the last one's logits if wanted."""
        ...

    def decode(self, start: int, end: int) -> bool:
        """Decode rows ``start`` to ``end``.

        Returns:
            False if the context has no room for so many at once; nothing changed then.

        Raises:
            WorkerFailed: It cannot be done; the sequences' memory may hold a part.
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


@dataclass(slots=True, eq=False)
class _Sequence:
    """A job that has a slot."""

    job: Job
    slot: Slot
    prompt: list[int]
    marks: Mapping[int, bytes]
    reused: int
    answer: Answer
    sampler: Any
    limit: float
    began: int
    prompt_ns: int = 0
    output: list[int] = field(default_factory=list)
    following: int = -1  # the token to decode next; -1 while the prompt is not done


@dataclass(frozen=True, slots=True, eq=False)
class _Share:
    """Rows of a batch that belong to one sequence.

    Attributes:
        sequence: Whose.
        start: First row.
        tokens: One per row.
        wanted: Whether the last row's logits are.
    """

    sequence: _Sequence
    start: int
    tokens: list[int]
    wanted: bool

    @property
    def end(self) -> int:
        """The row after the last."""
        return self.start + len(self.tokens)

    def halves(self) -> tuple[_Share, _Share]:
        """Two shares in place of one of several rows."""
        middle = len(self.tokens) // 2
        first = _Share(self.sequence, self.start, self.tokens[:middle], wanted=False)
        second = _Share(
            self.sequence, self.start + middle, self.tokens[middle:], wanted=self.wanted
        )
        return first, second


class ContinuousEngine:
    """A :class:`runtime.engine.Engine` over a backend.

    Args:
        backend: What decodes.
        prompts: What makes prompts.
        parallel: Number of sequences.
        n_context: Tokens that prompt and answer of one sequence share.
    """

    def __init__(
        self, backend: Backend, prompts: Prompts, *, parallel: int, n_context: int
    ) -> None:
        self._backend = backend
        self._prompts = prompts
        self._parallel = parallel
        self._n_context = n_context
        self._slots = [Slot(number) for number in range(parallel)]
        self._queue: deque[Job] = deque()
        self._running: list[_Sequence] = []
        self._cancelled: set[int] = set()
        self._turn = 0

    # -- the engine's interface -------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a call of :meth:`step` would do anything."""
        return bool(self._running or self._queue)

    def submit(self, job: Job) -> None:
        """Queue a job. Faults of the job itself come out of :meth:`step` as ``Failed``."""
        self._queue.append(job)

    def cancel(self, job_id: int) -> None:
        """End a job at the next step; unknown ids are ignored."""
        known = (*(s.job for s in self._running), *self._queue)
        if any(job.id == job_id for job in known):
            self._cancelled.add(job_id)

    def step(self) -> list[Event]:
        """Decode once, for all sequences that have something to decode; return what came of it."""
        events: list[Event] = []
        if self._cancelled:
            events += self._end_cancelled()
        while self._queue and len(self._running) < self._parallel:
            events += self._admit(self._queue.popleft())
        if self._running:
            events += self._decode(self._fill())
        return events

    # -- jobs come and go -------------------------------------------------------------------------

    def _end_cancelled(self) -> Iterator[Event]:
        cancelled, self._cancelled = self._cancelled, set()
        for sequence in [s for s in self._running if s.job.id in cancelled]:
            yield self._finish(sequence, "cancelled")
        queue, self._queue = self._queue, deque()
        for job in queue:
            if job.id in cancelled:
                yield Finished(job.id, "cancelled", 0, 0, 0, 0)
            else:
                self._queue.append(job)

    def _admit(self, job: Job) -> list[Event]:
        began = time.monotonic_ns()
        try:
            prompt = self._prompts.build(job)
            samplers = plan(job.sampling, n_vocab=self._backend.n_vocab, n_context=self._n_context)
            sampler = self._backend.sampler(samplers, prompt.tokens, prompt.form)
        except SealiftError as error:
            return [_failed(job, error)]
        fresh = job.sampling.seed >= 0
        if fresh and not self._running:
            self._purge()
        slot = choose(self._slots, () if fresh else prompt.tokens)
        if slot is None:  # never: step() admits only while fewer run than there are slots
            raise WorkerFailed("the engine has no free slot")
        reused = self._reuse(slot, prompt.tokens, fresh=fresh)
        self._turn += 1
        slot.taken, slot.used = True, self._turn
        wanted = job.sampling.num_predict
        self._running.append(
            _Sequence(
                job=job,
                slot=slot,
                prompt=prompt.tokens,
                marks=prompt.marks,
                reused=reused,
                answer=Answer(job.id, job.sampling.stop, prompt.reader),
                sampler=sampler,
                limit=wanted if wanted >= 0 else math.inf,
                began=began,
            )
        )
        return []

    def _reuse(self, slot: Slot, prompt: list[int], *, fresh: bool) -> int:
        """Keep of a slot what the prompt begins with; drop the rest. Returns the tokens kept."""
        # One token at least is decoded: its logits are where the answer begins.
        keep = 0 if fresh else min(common_prefix(slot.cached, prompt), len(prompt) - 1)
        keep = self._backend.keep(slot.id, keep)
        del slot.cached[keep:]
        return keep

    def _finish(self, sequence: _Sequence, reason: FinishReason) -> Finished:
        self._release(sequence)
        now = time.monotonic_ns()
        prompt_ns = sequence.prompt_ns or now - sequence.began
        return Finished(
            job=sequence.job.id,
            reason=reason,
            prompt_tokens=len(sequence.prompt),
            output_tokens=len(sequence.output),
            prompt_ns=prompt_ns,
            eval_ns=now - sequence.began - prompt_ns,
            context=(*sequence.prompt, *sequence.output) if sequence.job.want_context else (),
            stop=sequence.answer.stop,
        )

    def _release(self, sequence: _Sequence) -> None:
        self._running.remove(sequence)
        sequence.slot.taken = False
        self._backend.free(sequence.sampler)

    # -- one step ---------------------------------------------------------------------------------

    def _fill(self) -> list[_Share]:
        """Fill the batch: a token of every answer, then of prompts what there is room for."""
        shares: list[_Share] = []
        row = 0
        for sequence in self._running:
            if sequence.following >= 0:
                shares.append(self._put(row, sequence, [sequence.following], wanted=True))
                row += 1
        room = self._backend.rows - row
        room = min(room, limits.PROMPT_TOKENS_BESIDE) if row else room
        for sequence in self._running:
            if sequence.following < 0 and room > 0:
                done = len(sequence.slot.cached)
                tokens = sequence.prompt[done : done + room]
                last = done + len(tokens) == len(sequence.prompt)
                shares.append(self._put(row, sequence, tokens, wanted=last))
                row += len(tokens)
                room -= len(tokens)
        return shares

    def _put(self, row: int, sequence: _Sequence, tokens: list[int], *, wanted: bool) -> _Share:
        slot = sequence.slot
        self._backend.put(row, tokens, len(slot.cached), slot.id, wanted=wanted)
        return _Share(sequence, row, tokens, wanted=wanted)

    def _decode(self, shares: list[_Share]) -> list[Event]:
        """Decode adjacent rows; one share after the other, then in halves, if there is no room."""
        start, end = shares[0].start, shares[-1].end
        try:
            done = self._backend.decode(start, end)
            if not done and self._purge():
                done = self._backend.decode(start, end)
        except WorkerFailed as error:
            return self._give_up(shares, error)
        if done:
            return self._settle(shares, start)
        if end - start == 1:
            why = "its context has no room left"
            return self._give_up(shares, WorkerFailed("the engine cannot decode", why=why))
        events: list[Event] = []
        for share in shares if len(shares) > 1 else shares[0].halves():
            if share.sequence in self._running:
                events += self._decode([share])
        return events

    def _purge(self) -> bool:
        """Empty the slots that no job has. Returns whether there was anything to empty."""
        idle = [slot for slot in self._slots if not slot.taken and slot.cached]
        for slot in idle:
            self._empty(slot)
        return bool(idle)

    def _empty(self, slot: Slot) -> None:
        self._backend.keep(slot.id, 0)
        slot.cached.clear()

    def _give_up(self, shares: list[_Share], error: WorkerFailed) -> list[Event]:
        for share in shares:
            self._release(share.sequence)
            self._empty(share.sequence.slot)
        return [_failed(share.sequence.job, error) for share in shares]

    def _settle(self, shares: list[_Share], start: int) -> list[Event]:
        """Book what was decoded, and choose the next token where logits are."""
        events: list[Event] = []
        for share in shares:
            share.sequence.slot.cached += share.tokens
            if share.wanted:
                events += self._advance(share.sequence, share.end - 1 - start)
        return events

    def _advance(self, sequence: _Sequence, row: int) -> Iterator[Event]:
        if not sequence.prompt_ns:
            sequence.prompt_ns = time.monotonic_ns() - sequence.began
            yield Started(
                sequence.job.id, len(sequence.prompt), sequence.reused, sequence.prompt_ns
            )
            if not sequence.limit:
                yield self._finish(sequence, "length")
                return
        try:
            free = sequence.answer.thinking
            token = self._backend.choose(row, sequence.sampler, free=free)
        except WorkerFailed as error:
            self._release(sequence)
            yield _failed(sequence.job, error)
            return
        if self._backend.ends(token):
            yield from self._end(sequence, "stop")
            return
        sequence.output.append(token)
        sampling = sequence.job.sampling
        logprob = None
        if sampling.logprobs:
            logprob = self._backend.logprob(row, token, sampling.top_logprobs)
        piece = self._backend.piece(token) or sequence.marks.get(token, b"")
        yield from sequence.answer.feed(piece, logprob)
        sequence.following = token
        if sequence.answer.stopped or self._backend.complete(sequence.sampler):
            yield from self._end(sequence, "stop")
        elif len(sequence.output) >= sequence.limit or len(sequence.slot.cached) >= self._n_context:
            yield from self._end(sequence, "length")

    def _end(self, sequence: _Sequence, reason: FinishReason) -> Iterator[Event]:
        yield from sequence.answer.finish()
        yield self._finish(sequence, reason)

    def close(self) -> None:
        """Drop all jobs, without an event."""
        for sequence in self._running:
            self._backend.free(sequence.sampler)
        self._running.clear()
        self._queue.clear()


def _failed(job: Job, error: SealiftError) -> Failed:
    return Failed(job.id, error.code, error.what, error.why, error.hint)
