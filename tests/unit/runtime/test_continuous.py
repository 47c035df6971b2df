"""Continuous batching over a simulated context: every answer is what it would be alone.

The simulator is no mock: it keeps positions and tokens per sequence as llama.cpp does, refuses what
llama.cpp refuses, and its "model" makes the next token from everything before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine.continuous import ContinuousEngine
from runtime.engine.form import Form
from runtime.engine.prompt import Prompt
from runtime.engine.sampling import Plan
from runtime.messages import Event, Failed, Finished, Job, Piece, Sampling, Started, Text
from schemas.errors import PromptTooLong, UsageError, WorkerFailed

VOCABULARY = 64
END = 63
CONTEXT = 40


def following(tokens: Sequence[int]) -> int:
    state = 7
    for token in tokens:
        state = (state * 31 + token + 1) % 1009
    return END if state % 23 == 0 else state % 26


def letters(tokens: Sequence[int]) -> str:
    return "".join(chr(97 + token) for token in tokens)


def alone(prompt: Sequence[int], sampling: Sampling) -> tuple[str, str]:
    """What a job answers with nobody else around: text and reason."""
    tokens = list(prompt)
    output: list[int] = []
    while True:
        token = following(tokens)
        if token == END:
            return letters(output), "stop"
        output.append(token)
        text = letters(output)
        for stop in sampling.stop:
            if text.endswith(stop):
                return text[: -len(stop)], "stop"
        if len(output) == sampling.num_predict or len(tokens) >= CONTEXT:
            return text, "length"
        tokens.append(token)


def spoken(prompt: str) -> tuple[list[int], Sampling]:
    return [ord(c) - 97 for c in prompt], Sampling(num_predict=20)


class Prompts:
    def build(self, job: Job) -> Prompt:
        assert isinstance(job.prompt, Text)
        if len(job.prompt.text) >= CONTEXT:
            raise PromptTooLong("too long")
        tokens = [ord(c) - 97 for c in job.prompt.text]
        return Prompt(tokens, Form(job.format) if job.format else None)


@dataclass
class Left:
    """How many tokens an answer has before its form is complete; never, if negative."""

    tokens: int


class SimulatedContext:
    """A unified cache of so many cells; ``partial`` as of models that can lose a part."""

    n_vocab = VOCABULARY

    def __init__(self, rows: int, cells: int, *, partial: bool = True) -> None:
        self.rows = rows
        self.cells = cells
        self.partial = partial
        self.memory: dict[int, list[int]] = {}
        self.batch: list[tuple[int, int, int, bool] | None] = [None] * rows
        self.outputs: dict[int, int] = {}
        self.samplers = 0
        self.decodes = 0
        self.fail_at = -1

    def keep(self, sequence: int, count: int) -> int:
        tokens = self.memory.setdefault(sequence, [])
        assert count <= len(tokens)
        if 0 < count < len(tokens) and not self.partial:
            count = 0
        del tokens[count:]
        return count

    def put(
        self, row: int, tokens: Sequence[int], position: int, sequence: int, *, wanted: bool
    ) -> None:
        for offset, token in enumerate(tokens):
            last = offset == len(tokens) - 1
            self.batch[row + offset] = (token, position + offset, sequence, wanted and last)

    def decode(self, start: int, end: int) -> bool:
        assert 0 <= start < end <= self.rows
        self.decodes += 1
        if self.decodes == self.fail_at:
            raise WorkerFailed("the engine cannot decode")
        if sum(map(len, self.memory.values())) + end - start > self.cells:
            return False
        self.outputs = {}
        for row in range(start, end):
            entry = self.batch[row]
            assert entry is not None
            token, position, sequence, wanted = entry
            tokens = self.memory.setdefault(sequence, [])
            assert position == len(tokens) < CONTEXT, "positions follow each other"
            tokens.append(token)
            if wanted:
                self.outputs[row - start] = following(tokens)
        return True

    def sampler(self, samplers: Plan, prompt: Sequence[int], form: Form | None) -> Any:
        """The form is a number of tokens here; "none" is one that answers cannot be held to."""
        if form is not None and form.text == "none":
            raise UsageError("the format cannot be enforced")
        self.samplers += 1
        return Left(int(form.text) if form else -1)

    def free(self, sampler: Any) -> None:
        self.samplers -= 1

    def choose(self, row: int, sampler: Any, *, free: bool) -> int:
        sampler.tokens -= 1
        return self.outputs[row]

    def complete(self, sampler: Any) -> bool:
        return bool(sampler.tokens == 0)

    def logprob(self, row: int, token: int, alternatives: int) -> dict[str, Any]:
        return {"token": letters([token]), "logprob": -1.0}

    def ends(self, token: int) -> bool:
        return token == END

    def piece(self, token: int) -> bytes:
        return letters([token]).encode()


def engine(context: SimulatedContext, parallel: int) -> ContinuousEngine:
    return ContinuousEngine(context, Prompts(), parallel=parallel, n_context=CONTEXT)


def job(number: int, prompt: str, **sampling: Any) -> Job:
    return Job(number, Text(prompt), Sampling(**sampling))


def drain(subject: ContinuousEngine) -> list[Event]:
    events: list[Event] = []
    steps = 0
    while subject.busy:
        events += subject.step()
        steps += 1
        assert steps < 10_000
    return events


def answer(events: list[Event], number: int) -> tuple[str, str]:
    mine = [event for event in events if event.job == number]
    assert isinstance(mine[0], Started | Finished)
    assert isinstance(mine[-1], Finished)
    assert sum(isinstance(event, Finished | Failed) for event in mine) == 1
    return "".join(e.text for e in mine if isinstance(e, Piece)), mine[-1].reason


@dataclass(frozen=True)
class Plot:
    prompt: str
    num_predict: int
    stop: tuple[str, ...]
    seed: int
    cancel_after: int | None


PLOTS = st.builds(
    Plot,
    prompt=st.text("ab", min_size=1, max_size=CONTEXT - 1),
    num_predict=st.integers(-1, 30).filter(bool),
    stop=st.sampled_from([(), ("a",), ("xyz", "q")]),
    seed=st.integers(-1, 0),
    cancel_after=st.none() | st.integers(0, 12),
)


@given(
    st.lists(PLOTS, min_size=1, max_size=8),
    st.integers(1, 4),
    st.integers(0, 12),
    st.booleans(),
    st.integers(0, 60),
)
def test_every_answer_is_what_it_would_be_alone(
    plots: list[Plot], parallel: int, more_rows: int, partial: bool, cells_short: int
) -> None:
    context = SimulatedContext(
        parallel + more_rows, max(CONTEXT, CONTEXT * parallel - cells_short), partial=partial
    )
    subject = engine(context, parallel)
    events: list[Event] = []
    for number, plot in enumerate(plots):
        subject.submit(
            job(number, plot.prompt, num_predict=plot.num_predict, stop=plot.stop, seed=plot.seed)
        )
    steps = 0
    while subject.busy:
        for number, plot in enumerate(plots):
            if plot.cancel_after == steps:
                subject.cancel(number)
        events += subject.step()
        steps += 1
        assert steps < 5_000
    assert context.samplers == 0
    for number, plot in enumerate(plots):
        last = [event for event in events if event.job == number][-1]
        if isinstance(last, Failed):
            assert cells_short
            continue
        found = answer(events, number)
        expected = alone(
            [ord(c) - 97 for c in plot.prompt],
            Sampling(num_predict=plot.num_predict, stop=plot.stop),
        )
        if found[1] == "cancelled":
            assert expected[0].startswith(found[0])
        else:
            assert found == expected


def test_a_prompt_that_begins_like_the_last_is_not_decoded_again() -> None:
    context = SimulatedContext(64, CONTEXT)
    subject = engine(context, 1)
    subject.submit(job(1, "abcabcabc", num_predict=1))
    assert next(e for e in drain(subject) if isinstance(e, Started)).cached_tokens == 0
    subject.submit(job(2, "abcabcxyz", num_predict=1))
    assert next(e for e in drain(subject) if isinstance(e, Started)).cached_tokens == 6
    subject.submit(job(3, "abcabcxyz", num_predict=1))
    assert next(e for e in drain(subject) if isinstance(e, Started)).cached_tokens == 8


def test_a_seed_starts_from_nothing_in_an_empty_context() -> None:
    context = SimulatedContext(64, 2 * CONTEXT)
    subject = engine(context, 2)
    for number in range(2):
        subject.submit(job(10 + number, "bbb", num_predict=1))
        drain(subject)
        subject.submit(job(number, "abcabcabc", num_predict=1, seed=3))
        started = [e for e in drain(subject) if isinstance(e, Started)]
        assert started[0].cached_tokens == 0
        assert [len(tokens) for tokens in context.memory.values() if tokens] == [9]


def test_cancelling_frees_the_slot_within_a_step() -> None:
    subject = engine(SimulatedContext(64, CONTEXT), 1)
    subject.submit(job(1, "ab"))
    subject.submit(job(2, "cd", num_predict=1))
    subject.step()
    subject.cancel(1)
    events = subject.step()
    assert next(e for e in events if e.job == 1 and isinstance(e, Finished)).reason == "cancelled"
    assert any(isinstance(e, Started) and e.job == 2 for e in events)


def test_cancelling_somebody_in_the_queue() -> None:
    subject = engine(SimulatedContext(64, CONTEXT), 1)
    subject.submit(job(1, "ab", num_predict=3))
    subject.submit(job(2, "cd"))
    subject.step()
    subject.cancel(2)
    subject.cancel(99)
    events = drain(subject)
    assert answer(events, 2) == ("", "cancelled")


def test_a_bad_job_harms_nobody() -> None:
    subject = engine(SimulatedContext(64, 2 * CONTEXT), 2)
    subject.submit(job(1, "a" * CONTEXT))
    subject.submit(job(2, "ab", temperature=float("nan")))
    subject.submit(job(3, "ab", num_predict=4))
    events = drain(subject)
    assert {e.job: e.code for e in events if isinstance(e, Failed)} == {
        1: "prompt-too-long",
        2: "usage",
    }
    assert answer(events, 3) == alone([0, 1], Sampling(num_predict=4))


def test_nothing_to_predict_only_reads_the_prompt() -> None:
    subject = engine(SimulatedContext(64, CONTEXT), 1)
    subject.submit(job(1, "ab", num_predict=0))
    events = drain(subject)
    assert [type(event) for event in events] == [Started, Finished]
    assert answer(events, 1) == ("", "length")


def test_running_answers_keep_their_pace_beside_a_long_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("schemas.limits.PROMPT_TOKENS_BESIDE", 4)
    subject = engine(SimulatedContext(64, 2 * CONTEXT), 2)
    talkative = next(p for p in ("a", "b", "ab", "ba", "aab") if len(alone(*spoken(p))[0]) > 10)
    subject.submit(job(1, talkative, num_predict=20))
    subject.step()
    subject.submit(job(2, "a" * 30, num_predict=1))
    per_step = [subject.step() for _ in range(6)]
    assert all(any(e.job == 1 for e in events) for events in per_step)
    assert not any(e.job == 2 for events in per_step for e in events)


def test_a_failed_decode_ends_its_jobs_and_the_engine_goes_on() -> None:
    context = SimulatedContext(64, 2 * CONTEXT)
    subject = engine(context, 2)
    context.fail_at = 2
    subject.submit(job(1, "ab"))
    subject.submit(job(2, "cd"))
    events = drain(subject)
    assert {e.job: e.code for e in events if isinstance(e, Failed)} == {
        1: "worker-failed",
        2: "worker-failed",
    }
    subject.submit(job(3, "ab", num_predict=5))
    assert answer(drain(subject), 3) == alone([0, 1], Sampling(num_predict=5))


def test_idle_slots_give_up_their_cells() -> None:
    context = SimulatedContext(64, CONTEXT)
    subject = engine(context, 2)
    subject.submit(job(1, "a" * 30, num_predict=1))
    drain(subject)
    subject.submit(job(2, "b" * 30, num_predict=1))
    assert answer(drain(subject), 2) == alone([1] * 30, Sampling(num_predict=1))


def test_token_ids_come_along_where_asked_for() -> None:
    subject = engine(SimulatedContext(64, CONTEXT), 1)
    subject.submit(Job(1, Text("ab"), Sampling(num_predict=3), want_context=True))
    finished = drain(subject)[-1]
    assert isinstance(finished, Finished)
    assert finished.context[:2] == (0, 1)
    assert len(finished.context) == 2 + finished.output_tokens


def test_log_probabilities_come_per_token() -> None:
    subject = engine(SimulatedContext(64, CONTEXT), 1)
    subject.submit(job(1, "ab", num_predict=3, logprobs=True))
    pieces = [e for e in drain(subject) if isinstance(e, Piece)]
    assert [entry["token"] for piece in pieces for entry in piece.logprobs] == [
        piece.text for piece in pieces
    ]


def test_closing_gives_samplers_back() -> None:
    context = SimulatedContext(64, CONTEXT)
    subject = engine(context, 1)
    subject.submit(job(1, "ab"))
    subject.step()
    subject.close()
    assert context.samplers == 0
    assert not subject.busy


def test_an_answer_ends_when_its_form_is_complete() -> None:
    context = SimulatedContext(8, 100)
    engine = ContinuousEngine(context, Prompts(), parallel=2, n_context=CONTEXT)
    sampling = Sampling(num_predict=9)
    engine.submit(Job(1, Text("abc"), sampling, format="2"))
    engine.submit(Job(2, Text("abc"), sampling))
    engine.submit(Job(3, Text("abc"), sampling, format="none"))
    events: list[Event] = []
    while engine.busy:
        events += engine.step()
    ends = {event.job: event for event in events if isinstance(event, Finished | Failed)}
    held, free, refused = ends[1], ends[2], ends[3]
    assert isinstance(held, Finished)
    assert (held.reason, held.output_tokens) == ("stop", 2)
    assert isinstance(free, Finished)
    assert free.output_tokens > 2
    assert isinstance(refused, Failed)
    assert refused.code == "usage"
    assert context.samplers == 0
