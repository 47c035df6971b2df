"""Continuous batching: many answers at once, one step at a time. Pure; what decodes is a backend.

A step computes either the next token of every answer, or a chunk of one prompt; where there is both
to do, they take turns, so running streams keep their pace. A turn is one long chunk, or several
short prompts: the sooner they answer, the more answers are computed at once. What a slot computed
stays in it, or is saved for a while, so a prompt that begins like an earlier one starts behind the
common part.

A job that names a seed gets the same answer whatever else runs: its prompt is computed in chunks
that do not depend on others, reuses only what was made that way, and its next tokens are computed
beside others only where that was seen to make no difference (:mod:`runtime.engine.company`).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

from runtime.engine import nothing
from runtime.engine.answer import Answer
from runtime.engine.backend import Backend
from runtime.engine.company import Company, Kind
from runtime.engine.lookup import MOST, Lookup, Pace
from runtime.engine.places import WORTH, Places
from runtime.engine.prompt import Prompt
from runtime.engine.sampling import plan
from runtime.engine.sight import Picture
from runtime.engine.slots import usable
from runtime.engine.stream import Share, Stream
from runtime.messages import Event, Failed, Finished, FinishReason, Job, Started
from schemas import limits
from schemas.errors import SealiftError, WorkerFailed

_NOBODY: Final[Mapping[Stream, Kind]] = MappingProxyType({})


class Prompts(Protocol):
    """Makes prompts (:class:`runtime.engine.prompt.PromptBuilder`)."""

    def build(self, job: Job) -> Prompt:
        """A job's prompt, and how to read what follows.

        Raises:
            SealiftError: The job is at fault.
        """
        ...


class ContinuousEngine:
    """A :class:`runtime.engine.Engine` over a backend.

    Args:
        backend: What decodes.
        prompts: What makes prompts.
        parallel: Number of sequences.
        n_context: Tokens that prompt and answer of one sequence share.
        memory: Bytes for what lost its slot.
    """

    def __init__(
        self, backend: Backend, prompts: Prompts, *, parallel: int, n_context: int, memory: int = 0
    ) -> None:
        self._backend = backend
        self._prompts = prompts
        self._parallel = parallel
        self._n_context = n_context
        self._places = Places(backend, parallel, memory)
        self._pace = Pace()
        self._company = Company(tries=backend.takes_back)
        self._queue: deque[Job] = deque()
        self._running: list[Stream] = []
        self._cancelled: set[int] = set()
        self._decoded: Callable[[], None] = nothing
        # Prompt tokens that may still be read before running streams get their next token.
        self._turn = limits.PROMPT_TOKENS_BESIDE
        self._chunks = 0

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

    def step(self, decoded: Callable[[], None] = nothing) -> list[Event]:
        """Answer, or read of a prompt; return what came of it."""
        self._decoded = decoded
        events: list[Event] = []
        if self._cancelled:
            events += self._end_cancelled()
        while self._queue and len(self._running) < self._parallel:
            events += self._admit(self._queue.popleft())
        self._catch_up()
        answering = [s for s in self._running if not s.reading or s.almost]
        reading = [s for s in self._running if s.reading and not s.almost and s.leader is None]
        reader = self._next_reader(reading) if reading else None
        if reader is not None and (not answering or reader.chunk <= self._turn):
            self._turn -= reader.chunk
            events += self._read_on(reader, alone=not answering)
        elif answering:
            self._turn = limits.PROMPT_TOKENS_BESIDE
            events += self._answer(answering)
        return events

    # -- jobs come and go -------------------------------------------------------------------------

    def _end_cancelled(self) -> Iterator[Event]:
        cancelled, self._cancelled = self._cancelled, set()
        for stream in [s for s in self._running if s.job.id in cancelled]:
            yield self._finish(stream, "cancelled")
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
            sampler = self._backend.sampler(samplers, prompt.words, prompt.form)
        except SealiftError as error:
            return [_failed(job, error)]
        exact = job.sampling.seed >= 0
        slot = self._places.take(prompt.tokens, exact=exact)
        self._places.leave_whole(slot, prompt.pictures)
        stream = Stream(
            job=job,
            slot=slot,
            prompt=prompt.tokens,
            marks=prompt.marks,
            reused=len(slot.cached),
            answer=Answer(job.id, job.sampling.stop, prompt.reader),
            sampler=sampler,
            limit=self._limit(job),
            began=began,
            exact=exact,
            pictures=prompt.pictures,
        )
        self._follow(stream)
        self._running.append(stream)
        return []

    def _limit(self, job: Job) -> float:
        if job.sampling.num_predict >= 0:
            return job.sampling.num_predict
        # Ollama's bound for answers that may go on for ever.
        return limits.SHIFTED_CONTEXTS * self._n_context if job.shift else math.inf

    def _follow(self, stream: Stream) -> None:
        """Wait for somebody who reads the same beginning just now."""
        best = stream.reused + WORTH - 1
        for other in self._running:
            if other.reading:
                whole = len(other.prompt) if other.exact else other.slot.exact
                known = usable(other.prompt, whole, stream.prompt, exact=stream.exact)
                if known > best:
                    best = stream.wanted = known
                    stream.leader = other

    def _finish(self, stream: Stream, reason: FinishReason) -> Finished:
        self._release(stream)
        now = time.monotonic_ns()
        prompt_ns = stream.prompt_ns or now - stream.began
        return Finished(
            job=stream.job.id,
            reason=reason,
            prompt_tokens=len(stream.prompt) + stream.extra,
            output_tokens=len(stream.output),
            prompt_ns=prompt_ns,
            eval_ns=now - stream.began - prompt_ns,
            context=(
                tuple(token for token in (*stream.prompt, *stream.output) if token >= 0)
                if stream.job.want_context
                else ()
            ),
            stop=stream.answer.stop,
            thinking_tokens=stream.thought,
        )

    def _release(self, stream: Stream) -> None:
        self._running.remove(stream)
        stream.slot.taken = False
        self._backend.free(stream.sampler)
        for other in self._running:
            if other.leader is stream:
                other.wanted = 0  # nobody reads it any more: what is there has to do

    # -- prompts ----------------------------------------------------------------------------------

    def _next_reader(self, reading: Sequence[Stream]) -> Stream:
        """The shortest is done soonest; every other chunk is the oldest's, so that none starves."""
        if self._chunks % 2:
            return reading[0]
        return min(reading, key=lambda stream: stream.left)

    def _catch_up(self) -> None:
        """Those who waited for others to read take over what is there now."""
        for stream in self._running:
            if stream.leader is not None and not stream.waits():
                stream.leader = None
                self._places.fetch(stream.slot, stream.prompt, exact=stream.exact)
                self._places.leave_whole(stream.slot, stream.pictures)
                stream.reused = len(stream.slot.cached)

    def _read_on(self, stream: Stream, *, alone: bool) -> list[Event]:
        self._chunks += 1
        done = len(stream.slot.cached)
        rows = self._backend.rows
        if stream.exact or not alone:
            rows = min(rows, limits.PROMPT_TOKENS_BESIDE)
        picture = stream.next_picture
        if picture is not None:
            if picture.start == done:
                return self._look(stream, picture)
            rows = min(rows, picture.start - done)
        tokens = stream.prompt[done : done + rows]
        wanted = int(done + len(tokens) == len(stream.prompt))
        return self._decode([self._put(0, stream, tokens, wanted)])

    def _look(self, stream: Stream, picture: Picture) -> list[Event]:
        """Compute a picture, whole: nothing else can be computed in between."""
        slot = stream.slot
        self._decoded()  # it takes long
        share = Share(stream, 0, [], 0)
        try:
            done = self._backend.see(picture, picture.start, slot.id)
            if not done and self._places.purge():
                done = self._backend.see(picture, picture.start, slot.id)
        except SealiftError as error:
            return self._give_up([share], error)
        if not done:
            return self._give_up([share], _no_room())
        slot.cached += stream.prompt[picture.start : picture.end]
        return []

    # -- answers ----------------------------------------------------------------------------------

    def _answer(self, answering: Sequence[Stream]) -> list[Event]:
        """The next token of each."""
        if len(self._running) == 1:
            [stream] = answering
            tokens = [*self._next(stream), *self._guesses(stream)]
            began = time.monotonic_ns()
            found = self._decode([self._put(0, stream, tokens, len(tokens))])
            self._pace.tell(len(tokens), time.monotonic_ns() - began)
            return found
        try:
            self._places.close_gap()
        except WorkerFailed as error:
            lost = [s for s in self._running if not s.reading and not s.slot.cached]
            return self._give_up([Share(stream, 0, [], 0) for stream in lost], error)
        together, alone = self._company.split(answering)
        kinds = self._company.kinds(together)
        due = {kind for kind in set(kinds.values()) if self._company.doubtful(kind)}
        doubtful = {stream: kind for stream, kind in kinds.items() if kind in due}
        shares = [self._put(row, s, self._next(s), 1) for row, s in enumerate(together)]
        events = self._decode(shares, doubtful) if shares else []
        for stream in alone:
            events += self._decode([self._put(0, stream, self._next(stream), 1)])
        return events

    def _next(self, stream: Stream) -> list[int]:
        return stream.prompt[-1:] if stream.reading else [stream.following]

    def _guesses(self, stream: Stream) -> list[int]:
        """What may come behind the next token, while nobody else needs the time."""
        if stream.exact or stream.reading or stream.pictures or not self._backend.takes_back:
            return []
        if stream.lookup is None:
            stream.lookup = Lookup([*stream.prompt, *stream.output])
        room = min(self._n_context - len(stream.slot.cached), self._backend.rows) - 1
        most = int(min(room, stream.limit - len(stream.output) - 1, MOST))
        return stream.lookup.guess(most, self._pace.cost)

    # -- one call ---------------------------------------------------------------------------------

    def _put(self, row: int, stream: Stream, tokens: list[int], wanted: int) -> Share:
        slot = stream.slot
        self._backend.put(row, tokens, len(slot.cached), slot.id, wanted=wanted)
        return Share(stream, row, tokens, wanted)

    def _decode(
        self, shares: Sequence[Share], doubtful: Mapping[Stream, Kind] = _NOBODY
    ) -> list[Event]:
        """Decode adjacent rows; one share after the other, then in parts, if there is no room."""
        start, end = shares[0].start, shares[-1].end
        try:
            done = self._backend.decode(start, end)
            if not done and self._places.purge():
                done = self._backend.decode(start, end)
        except WorkerFailed as error:
            return self._give_up(shares, error)
        if done:
            self._decoded()
            return self._settle(shares, start, doubtful)
        if end - start == 1:
            return self._give_up(shares, _no_room())
        events: list[Event] = []
        for share in shares if len(shares) > 1 else shares[0].parts():
            if share.stream in self._running:
                events += self._decode([share])
        return events

    def _give_up(self, shares: Sequence[Share], error: SealiftError) -> list[Event]:
        for share in shares:
            self._release(share.stream)
            self._places.empty(share.stream.slot)
        return [_failed(share.stream.job, error) for share in shares]

    def _settle(
        self, shares: Sequence[Share], start: int, doubtful: Mapping[Stream, Kind]
    ) -> list[Event]:
        """Book what was decoded, and choose the next token where logits are."""
        events: list[Event] = []
        traces = {s: self._backend.trace(s.start - start) for s in shares if s.stream in doubtful}
        for share in shares:
            if share not in traces:
                events += self._book(share, start)
        for share, trace in traces.items():
            events += self._try_alone(share, trace, doubtful[share.stream])
        return events

    def _try_alone(self, share: Share, trace: bytes, kind: Kind) -> list[Event]:
        """Decode a row again, without the others; that is the one that counts."""
        slot = share.stream.slot
        self._backend.keep(slot.id, len(slot.cached))
        again = self._put(0, share.stream, share.tokens, 1)
        try:
            done = self._backend.decode(0, 1)
        except WorkerFailed as error:
            return self._give_up([again], error)
        if not done:
            return self._give_up([again], _no_room())
        self._company.learn(kind, same=trace == self._backend.trace(0))
        return self._book(again, 0)

    def _book(self, share: Share, start: int) -> list[Event]:
        stream, slot = share.stream, share.stream.slot
        if share.wanted > 1:
            return self._book_guesses(share, start)
        if len(share.tokens) == limits.PROMPT_TOKENS_BESIDE and len(slot.cached) == slot.exact:
            slot.exact += len(share.tokens)
        slot.cached += share.tokens
        return list(self._advance(stream, share.end - 1 - start)) if share.wanted else []

    def _book_guesses(self, share: Share, start: int) -> list[Event]:
        """Go on as far as the guesses were right; take back the others."""
        stream, slot = share.stream, share.stream.slot
        events: list[Event] = []
        until = len(slot.cached) + len(share.tokens)
        for offset, token in enumerate(share.tokens):
            if offset and (stream not in self._running or stream.following != token):
                break
            slot.cached.append(token)
            events += self._advance(stream, share.start + offset - start)
        if len(slot.cached) < until:
            self._backend.keep(slot.id, len(slot.cached))
        return events

    def _advance(self, stream: Stream, row: int) -> Iterator[Event]:
        if not stream.prompt_ns:
            stream.prompt_ns = time.monotonic_ns() - stream.began
            tokens = len(stream.prompt) + stream.extra
            yield Started(stream.job.id, tokens, stream.reused, stream.prompt_ns)
            if not stream.limit:
                yield self._finish(stream, "length")
                return
        thinking = stream.answer.thinking
        try:
            token = self._backend.choose(row, stream.sampler, free=thinking)
        except WorkerFailed as error:
            self._release(stream)
            yield _failed(stream.job, error)
            return
        if self._backend.ends(token):
            yield from self._end(stream, "stop")
            return
        stream.output.append(token)
        stream.thought += thinking
        if stream.lookup is not None:
            stream.lookup.tell(token)
        sampling = stream.job.sampling
        logprob = None
        if sampling.logprobs:
            logprob = self._backend.logprob(row, token, sampling.top_logprobs)
        piece = self._backend.piece(token) or stream.marks.get(token, b"")
        yield from stream.answer.feed(piece, logprob)
        stream.following = token
        if stream.answer.stopped or self._backend.complete(stream.sampler):
            yield from self._end(stream, "stop")
        elif len(stream.output) >= stream.limit or not self._has_room(stream):
            yield from self._end(stream, "length")

    def _has_room(self, stream: Stream) -> bool:
        """Whether one more token fits, if need be and wanted without half of what came before."""
        slot = stream.slot
        if len(slot.cached) + stream.extra < self._n_context:
            return True
        if not stream.job.shift or stream.pictures:  # half a picture is none
            return False
        keep = min(max(stream.job.sampling.num_keep, 1), self._n_context // 2)
        until = keep + (self._n_context - keep) // 2
        if not self._backend.cut(slot.id, keep, until):
            return False
        del slot.cached[keep:until]
        slot.exact = 0
        return True

    def _end(self, stream: Stream, reason: FinishReason) -> Iterator[Event]:
        yield from stream.answer.finish()
        yield self._finish(stream, reason)

    def close(self) -> None:
        """Drop all jobs, without an event."""
        for stream in self._running:
            self._backend.free(stream.sampler)
        self._running.clear()
        self._queue.clear()


def _failed(job: Job, error: SealiftError) -> Failed:
    return Failed(job.id, error.code, error.what, error.why, error.hint)


def _no_room() -> WorkerFailed:
    return WorkerFailed("the engine cannot decode", why="its context has no room left")
