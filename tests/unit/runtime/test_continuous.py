"""Continuous batching over a simulated context: every answer is what it would be alone.

The simulator is no mock: it keeps positions and tokens per sequence as llama.cpp does, refuses what
llama.cpp refuses, and its "model" makes the next token from everything before it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runtime.engine.backend import State
from runtime.engine.continuous import ContinuousEngine
from runtime.engine.form import Form
from runtime.engine.prompt import Prompt
from runtime.engine.sampling import Plan
from runtime.engine.sight import Picture
from runtime.messages import Event, Failed, Finished, Job, Piece, Sampling, Started, Text
from schemas.errors import PromptTooLong, UsageError, WorkerFailed

VOCABULARY = 64
END = 63
CONTEXT = 40
PICTURE = [-100, -101, -102]  # what a P in a prompt stands for


def following(tokens: Sequence[int]) -> int:
    state = 7
    for token in tokens:
        state = (state * 31 + token + 1) % 1009
    return END if state % 23 == 0 else state % 26


def tokens_of(prompt: str) -> list[int]:
    places = (PICTURE if letter == "P" else [ord(letter) - 97] for letter in prompt)
    return list(itertools.chain.from_iterable(places))


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


def unbounded(prompt: str) -> tuple[list[int], Sampling]:
    return [ord(c) - 97 for c in prompt], Sampling()


PROMPTS = ["".join(each) for each in itertools.product("abcd", repeat=6)]
TALKATIVE = next(prompt for prompt in PROMPTS if len(alone(*spoken(prompt))[0]) == 20)
ENDLESS = next(prompt for prompt in PROMPTS if alone(*unbounded(prompt))[1] == "length")


class Prompts:
    def build(self, job: Job) -> Prompt:
        assert isinstance(job.prompt, Text)
        if len(job.prompt.text) >= CONTEXT:
            raise PromptTooLong("too long")
        tokens = tokens_of(job.prompt.text)
        starts = [at for at, token in enumerate(tokens) if token == PICTURE[0]]
        pictures = tuple(Picture(at, at + len(PICTURE), 0, PICTURE) for at in starts)
        return Prompt(tokens, Form(job.format) if job.format else None, pictures=pictures)


@dataclass
class Left:
    """How many tokens an answer has before its form is complete; never, if negative."""

    tokens: int


class SimulatedContext:
    """A cache of so many cells in all.

    Attributes:
        takes_back: Whether a sequence can lose its last positions and keep the others.
        sociable: Whether rows come out otherwise beside rows of a neighbouring sequence.
    """

    n_vocab = VOCABULARY

    def __init__(
        self, rows: int, cells: int, *, partial: bool = True, sociable: bool = False
    ) -> None:
        self.rows = rows
        self.cells = cells
        self.takes_back = partial
        self.sociable = sociable
        self.memory: dict[int, list[int]] = {}
        self.batch: list[tuple[int, int, int, bool] | None] = [None] * rows
        self.outputs: dict[int, int] = {}
        self.samplers = 0
        self.decodes: list[list[int]] = []
        self.copies = 0
        self.fail_at = -1
        self.disturbed: set[int] = set()

    def keep(self, sequence: int, count: int) -> int:
        tokens = self.memory.setdefault(sequence, [])
        assert count <= len(tokens)
        if 0 < count < len(tokens) and not self.takes_back:
            count = 0
        del tokens[count:]
        return count

    def cut(self, sequence: int, start: int, end: int) -> bool:
        tokens = self.memory[sequence]
        assert 0 <= start < end <= len(tokens)
        if self.takes_back:
            del tokens[start:end]
        return self.takes_back

    def save(self, sequence: int, most: int) -> State | None:
        tokens = self.memory.get(sequence, [])
        return State(list(tokens), len(tokens)) if 0 < len(tokens) <= most else None

    def load(self, sequence: int, state: State) -> bool:
        self.copies += 1
        self.memory[sequence] = []
        if sum(map(len, self.memory.values())) + state.size > self.cells:
            return False
        self.memory[sequence] = list(state.data)
        return True

    def put(
        self, row: int, tokens: Sequence[int], position: int, sequence: int, *, wanted: int
    ) -> None:
        for offset, token in enumerate(tokens):
            last = offset >= len(tokens) - wanted
            self.batch[row + offset] = (token, position + offset, sequence, last)

    def decode(self, start: int, end: int) -> bool:
        assert 0 <= start < end <= self.rows
        entries = [entry for entry in self.batch[start:end] if entry is not None]
        assert len(entries) == end - start
        self.decodes.append([sequence for _, _, sequence, _ in entries])
        if len(self.decodes) == self.fail_at:
            raise WorkerFailed("the engine cannot decode")
        if sum(map(len, self.memory.values())) + end - start > self.cells:
            return False
        self.outputs = {}
        present = {sequence for _, _, sequence, _ in entries} if self.sociable else set()
        self.disturbed = set()
        for row, (token, position, sequence, wanted) in enumerate(entries):
            tokens = self.memory.setdefault(sequence, [])
            assert position == len(tokens) < CONTEXT, "positions follow each other"
            assert token >= 0, "a picture is no token"
            tokens.append(token)
            if wanted:
                chosen = following(tokens)
                if present & {sequence - 1, sequence + 1}:
                    self.disturbed.add(row)
                if row in self.disturbed and chosen != END:
                    chosen = (chosen + 1) % 26
                self.outputs[row] = chosen
        return True

    def see(self, picture: Picture, position: int, sequence: int) -> bool:
        tokens = self.memory.setdefault(sequence, [])
        assert position == len(tokens)
        if sum(map(len, self.memory.values())) + len(PICTURE) > self.cells:
            return False
        tokens += picture.data
        return True

    def trace(self, row: int) -> bytes:
        return bytes([self.outputs[row], row in self.disturbed])

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


def engine(context: SimulatedContext, parallel: int, memory: int = 0) -> ContinuousEngine:
    return ContinuousEngine(context, Prompts(), parallel=parallel, n_context=CONTEXT, memory=memory)


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
    prompt=st.text("ab", min_size=1, max_size=CONTEXT - 1)
    | st.text("abPP", max_size=12).map(lambda text: f"{text}b"),
    num_predict=st.integers(-1, 30).filter(bool),
    stop=st.sampled_from([(), ("a",), ("xyz", "q")]),
    seed=st.integers(-1, 0),
    cancel_after=st.none() | st.integers(0, 12),
)


@pytest.fixture(autouse=True)
def small_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that short prompts have several chunks and are worth a copy."""
    monkeypatch.setattr("schemas.limits.PROMPT_TOKENS_BESIDE", 4)
    monkeypatch.setattr("runtime.engine.places.WORTH", 3)
    monkeypatch.setattr("runtime.engine.continuous.WORTH", 3)


# Two slots are to change places, and there is no room for a copy of one beside both.
CROWDED = [
    Plot("b", -1, (), 0, None),
    Plot("a", 18, (), 0, None),
    Plot("b", -1, (), 0, None),
    Plot("a", 1, (), 0, 3),
    Plot("aaaa", -1, (), 0, None),
    Plot("a", 1, (), 0, 5),
    Plot("PPPPPPPPPb", -1, (), 0, None),
    Plot("aaaaaa", -1, (), 0, None),
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@example(plots=CROWDED, parallel=3, more_rows=0, partial=False, cells_short=49, memory=0, apart=0)
@given(
    plots=st.lists(PLOTS, min_size=1, max_size=8),
    parallel=st.integers(1, 4),
    more_rows=st.integers(0, 12),
    partial=st.booleans(),
    cells_short=st.integers(0, 60),
    memory=st.sampled_from([0, 20, 1000]),
    apart=st.integers(0, 3),
)
def test_every_answer_is_what_it_would_be_alone(
    plots: list[Plot],
    parallel: int,
    more_rows: int,
    partial: bool,
    cells_short: int,
    memory: int,
    apart: int,
) -> None:
    context = SimulatedContext(
        parallel + more_rows, max(CONTEXT, CONTEXT * parallel - cells_short), partial=partial
    )
    subject = engine(context, parallel, memory)
    events: list[Event] = []
    late = [
        job(number, plot.prompt, num_predict=plot.num_predict, stop=plot.stop, seed=plot.seed)
        for number, plot in enumerate(plots)
    ]
    steps = 0
    while subject.busy or late:
        if late and steps >= apart * (len(plots) - len(late)):
            subject.submit(late.pop(0))
        for number, plot in enumerate(plots):
            if plot.cancel_after == steps:
                subject.cancel(number)
        events += subject.step()
        steps += 1
        assert steps < 5_000
    assert context.samplers == 0
    assert not any(slot.taken for slot in subject._places.slots)
    for slot in subject._places.slots:
        assert slot.cached == context.memory.get(slot.id, [])
        assert slot.exact <= len(slot.cached)
    for number, plot in enumerate(plots):
        last = [event for event in events if event.job == number][-1]
        if isinstance(last, Failed):
            assert cells_short
            continue
        found = answer(events, number)
        expected = alone(
            tokens_of(plot.prompt),
            Sampling(num_predict=plot.num_predict, stop=plot.stop),
        )
        if found[1] == "cancelled":
            assert expected[0].startswith(found[0])
        else:
            assert found == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(plots=st.lists(PLOTS, min_size=2, max_size=8), parallel=st.integers(2, 4))
def test_a_seeded_answer_does_not_depend_on_company(plots: list[Plot], parallel: int) -> None:
    context = SimulatedContext(40, CONTEXT * parallel, sociable=True)
    subject = engine(context, parallel)
    for number, plot in enumerate(plots):
        subject.submit(
            job(number, plot.prompt, num_predict=plot.num_predict, stop=plot.stop, seed=number % 2)
        )
    events = drain(subject)
    for number, plot in enumerate(plots):
        sampling = Sampling(num_predict=plot.num_predict, stop=plot.stop)
        assert answer(events, number) == alone(tokens_of(plot.prompt), sampling)


def test_who_waits_for_a_job_whose_slot_is_given_away_goes_on() -> None:
    subject = engine(SimulatedContext(40, CONTEXT * 3, sociable=True), 3)
    short = "PaPbaPbabaPab"
    for number, (prompt, most) in enumerate((("a", -1), (short, 1), (short, 1), ("a", 1))):
        subject.submit(job(number, prompt, num_predict=most, seed=number % 2))
    events = drain(subject)
    assert answer(events, 2) == alone(tokens_of(short), Sampling(num_predict=1))


def test_seeded_answers_are_computed_together_where_that_makes_no_difference() -> None:
    context = SimulatedContext(64, 4 * CONTEXT)
    subject = engine(context, 4)
    for number in range(4):
        subject.submit(job(number, TALKATIVE, num_predict=20, seed=number))
    drain(subject)
    together = sum(len(rows) == 4 for rows in context.decodes)
    assert together >= 15
    assert sum(len(rows) == 1 for rows in context.decodes) < 4 * 10


def test_a_prompt_that_begins_like_the_last_is_not_decoded_again() -> None:
    context = SimulatedContext(64, CONTEXT)
    subject = engine(context, 1)
    subject.submit(job(1, "abcabcabc", num_predict=1))
    assert next(e for e in drain(subject) if isinstance(e, Started)).cached_tokens == 0
    subject.submit(job(2, "abcabcxyz", num_predict=1))
    assert next(e for e in drain(subject) if isinstance(e, Started)).cached_tokens == 6
    subject.submit(job(3, "abcabcxyz", num_predict=1))
    assert next(e for e in drain(subject) if isinstance(e, Started)).cached_tokens == 8


def test_a_seed_reuses_only_what_was_computed_in_whole_chunks() -> None:
    context = SimulatedContext(64, 2 * CONTEXT)
    subject = engine(context, 1)
    cached = []
    for number, (prompt, seed) in enumerate(
        [("abcabcabcab", -1), ("abcabcabcab", 3), ("abcabcabcab", 3), ("abcabcabxy", 3)]
    ):
        subject.submit(job(number, prompt, num_predict=1, seed=seed))
        cached += [e.cached_tokens for e in drain(subject) if isinstance(e, Started)]
    # The first one was read in one go, so nothing of it counts; then chunks of four.
    assert cached == [0, 0, 8, 8]


def test_a_prompt_whose_slot_was_taken_comes_back_from_memory() -> None:
    for memory, expected in ((100, 8), (5, 0)):
        context = SimulatedContext(64, CONTEXT)
        subject = engine(context, 1, memory)
        cached = []
        for number, prompt in enumerate(["abcabcabc", "xyzzyxyzzy", "abcabcabc"]):
            subject.submit(job(number, prompt, num_predict=1))
            cached += [e.cached_tokens for e in drain(subject) if isinstance(e, Started)]
        assert cached == [0, 0, expected]
        assert subject._places.attic.bytes <= memory


def test_a_prompt_is_copied_from_a_slot_that_somebody_else_has() -> None:
    context = SimulatedContext(64, 2 * CONTEXT)
    subject = engine(context, 2)
    subject.submit(job(1, TALKATIVE, num_predict=20))
    subject.step()
    subject.submit(job(2, TALKATIVE, num_predict=5))
    [started] = [e for e in drain(subject) if isinstance(e, Started)]
    assert started.cached_tokens == len(TALKATIVE) - 1
    assert context.copies == 1


def test_the_same_prompt_at_once_is_computed_once() -> None:
    prompt = "abcabcabcabc"
    context = SimulatedContext(8, 4 * CONTEXT)
    subject = engine(context, 4)
    for number in range(4):
        subject.submit(job(number, prompt, num_predict=3))
    events = drain(subject)
    assert sum(len(rows) for rows in context.decodes) < len(prompt) + 4 * 4
    for number in range(4):
        expected = alone([ord(c) - 97 for c in prompt], Sampling(num_predict=3))
        assert answer(events, number) == expected


def test_whoever_waits_for_a_prompt_goes_on_when_its_reader_leaves() -> None:
    prompt = "abcabcabcabcabc"
    context = SimulatedContext(4, 2 * CONTEXT)
    subject = engine(context, 2)
    subject.submit(job(1, prompt, num_predict=3))
    subject.submit(job(2, prompt, num_predict=3))
    subject.step()
    subject.cancel(1)
    events = drain(subject)
    expected = alone([ord(c) - 97 for c in prompt], Sampling(num_predict=3))
    assert answer(events, 2) == expected


class Told(SimulatedContext):
    """Writes down what it does: a D for each decoding, a c for each token chosen."""

    log = ""

    def decode(self, start: int, end: int) -> bool:
        self.log += "D"
        return super().decode(start, end)

    def choose(self, row: int, sampler: Any, *, free: bool) -> int:
        self.log += "c"
        return super().choose(row, sampler, free=free)


def test_between_decoding_and_choosing_is_time_for_others() -> None:
    context = Told(8, 100)

    def told() -> None:
        context.log += "."

    subject = engine(context, 2)
    for number, prompt in enumerate(["abc", "bca"]):
        subject.submit(job(number, prompt, num_predict=4))
    while subject.busy:
        subject.step(told)
    assert re.fullmatch(r"(D\.c*)+", context.log)
    assert context.log.count("c") == 8


def test_gaps_between_slots_are_closed() -> None:
    context = SimulatedContext(64, 3 * CONTEXT)
    subject = engine(context, 3)
    subject.submit(job(0, TALKATIVE, num_predict=20))
    subject.submit(job(1, "b", num_predict=2))
    subject.submit(job(2, TALKATIVE, num_predict=20))
    events = drain(subject)
    assert answer(events, 2) == alone(*spoken(TALKATIVE))
    assert context.decodes.count([0, 2]) <= 1
    assert context.decodes.count([0, 1]) > 5


class Forgetful(SimulatedContext):
    """Loads nothing that was saved."""

    def load(self, sequence: int, state: State) -> bool:
        self.memory[sequence] = []
        return False


def test_slots_that_lose_all_as_they_change_places_do_not_pretend() -> None:
    """Else the next prompt that begins alike goes on from what is somebody else's."""
    context = Forgetful(64, 3 * CONTEXT)
    subject = engine(context, 3)
    subject.submit(job(0, TALKATIVE, num_predict=20))
    subject.submit(job(1, TALKATIVE, num_predict=4))
    subject.submit(job(2, TALKATIVE, num_predict=20))
    events = drain(subject)
    assert [event.job for event in events if isinstance(event, Failed)] == [2]
    assert answer(events, 0) == alone(*spoken(TALKATIVE))
    for slot in subject._places.slots:
        assert slot.cached == context.memory.get(slot.id, [])


def test_a_context_is_shifted_where_that_is_wanted() -> None:
    context = SimulatedContext(8, CONTEXT)
    subject = engine(context, 1)
    sampling = Sampling(num_predict=CONTEXT + 10, num_keep=2)
    for shift in (False, True):
        subject.submit(Job(int(shift), Text(ENDLESS), sampling, shift=shift))
        finished = drain(subject)[-1]
        assert isinstance(finished, Finished)
        if shift:
            assert finished.output_tokens > CONTEXT - len(ENDLESS) + 1
        else:
            assert finished.output_tokens == CONTEXT - len(ENDLESS) + 1
    context.takes_back = False
    subject.submit(Job(9, Text(ENDLESS), sampling, shift=True))
    finished = drain(subject)[-1]
    assert isinstance(finished, Finished)
    assert finished.output_tokens == CONTEXT - len(ENDLESS) + 1


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    context = SimulatedContext(8, 2 * CONTEXT)
    subject = engine(context, 2)
    subject.submit(job(1, "a" * 39, num_predict=1))
    subject.submit(job(2, "bcb", num_predict=1))
    order = [event.job for event in drain(subject) if isinstance(event, Started)]
    assert order == [2, 1]


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


def test_running_answers_keep_their_pace_beside_a_long_prompt() -> None:
    subject = engine(SimulatedContext(64, 2 * CONTEXT), 2)
    subject.submit(job(1, TALKATIVE, num_predict=20))
    subject.step()
    subject.submit(job(2, "z" * 30, num_predict=1))
    per_step = [subject.step() for _ in range(12)]
    assert sum(any(e.job == 1 for e in events) for events in per_step) == 6
    assert not any(e.job == 2 for events in per_step for e in events)


@pytest.mark.parametrize("fail_at", range(1, 9))
def test_a_failed_decode_ends_its_jobs_and_the_engine_goes_on(fail_at: int) -> None:
    context = SimulatedContext(64, 2 * CONTEXT)
    subject = engine(context, 2)
    context.fail_at = fail_at
    for number in (1, 2):
        subject.submit(job(number, TALKATIVE, num_predict=20))
    events = drain(subject)
    failed = {event.job for event in events if isinstance(event, Failed)}
    assert failed
    for number in {1, 2} - failed:
        assert answer(events, number) == alone(*spoken(TALKATIVE))
    assert context.samplers == 0
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
