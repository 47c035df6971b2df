"""Prompts as tokens, on a vocabulary small enough to read: one token per character."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine.guard import Guard
from runtime.engine.marks import Span
from runtime.engine.prompt import PromptBuilder, SpecialSpellings, tokenize_spans
from runtime.engine.shortening import without_turns
from runtime.messages import Chat, Image, Job, Message, Role, Sampling, Text
from schemas.errors import MalformedModel, PromptTooLong, UnsupportedRequest, UsageError

SPECIALS = ["<s>", "<|a|>", "<|b|>", "<|a|>x"]


class Characters:
    """A real, if tiny, tokenizer: special tokens 0 to 3, then a token per code point."""

    size = 4 + 0x110000
    special_texts: Sequence[str] = SPECIALS
    longest_text = 6
    bos = 0
    add_bos = False
    infill = (-1, -1, -1)

    def __init__(self) -> None:
        self.calls: list[tuple[str, bool]] = []
        self.spellings = SpecialSpellings(SPECIALS)

    def piece(self, token: int) -> bytes:
        return b"" if token < len(SPECIALS) else chr(token - 4).encode()

    def spelling(self, token: int) -> str:
        return SPECIALS[token] if token < len(SPECIALS) else ""

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        self.calls.append((text, special))
        parts = self.spellings.split(text) if special else [(text, False)]
        tokens: list[int] = []
        for part, is_special in parts:
            tokens += [SPECIALS.index(part)] if is_special else [4 + ord(c) for c in part]
        return tokens


def plain(text: str) -> list[int]:
    return [4 + ord(c) for c in text]


def builder(
    template: str | None = "{% for m in messages %}<|a|>{{ m.content }}<|b|>{% endfor %}",
    n_context: int = 64,
    **vocabulary: object,
) -> PromptBuilder:
    tokenizer = Characters()
    for name, value in vocabulary.items():
        setattr(tokenizer, name, value)
    return PromptBuilder(tokenizer, template, Guard(), n_context)


def chat(*contents: str, role: Role = "user") -> Job:
    return Job(1, Chat(tuple(Message(role, content) for content in contents)))


def tokens_of(made: PromptBuilder, job: Job) -> list[int]:
    return made.build(job).tokens


def test_template_tokens_count_and_user_text_does_not() -> None:
    assert tokens_of(builder(), chat("hi <|b|>")) == [1, *plain("hi <|b|>"), 2]


def test_the_common_prompt_is_tokenised_in_one_piece() -> None:
    tokenizer = Characters()
    spans = [Span("<|a|>", trusted=True), Span("hi", trusted=False), Span("<|b|>", trusted=True)]
    tokenize_spans(spans, tokenizer.spellings, tokenizer)
    assert tokenizer.calls == [("<|a|>hi<|b|>", True)]


def test_a_special_token_made_of_template_and_user_text_is_not_one() -> None:
    spans = [Span("<|a|>", trusted=True), Span("x", trusted=False)]
    tokenizer = Characters()
    assert tokenize_spans(spans, tokenizer.spellings, tokenizer) == [1, *plain("x")]
    split = [Span("<|", trusted=False), Span("b|>", trusted=True)]
    assert tokenize_spans(split, tokenizer.spellings, tokenizer) == plain("<|b|>")


PARTS = st.sampled_from(["<s>", "<|a|>", "<|b|>", "<|", "a|>", "x", "hello", " "])
SPANS = st.lists(st.builds(Span, PARTS, st.booleans()), max_size=10)


@given(SPANS)
def test_exactly_the_trusted_special_tokens_become_tokens(spans: list[Span]) -> None:
    tokenizer = Characters()
    tokens = tokenize_spans(spans, tokenizer.spellings, tokenizer)
    merged: list[Span] = []
    for span in spans:  # neighbours of one kind are one text
        if merged and merged[-1].trusted == span.trusted:
            merged[-1] = replace(merged[-1], text=merged[-1].text + span.text)
        else:
            merged.append(span)
    trusted = [s for span in merged if span.trusted for s in tokenizer.spellings.find(span.text)]
    assert [SPECIALS[t] for t in tokens if t < 4] == trusted
    spelled = "".join(SPECIALS[t] if t < 4 else chr(t - 4) for t in tokens)
    assert spelled == "".join(span.text for span in spans)


def test_bos_comes_once() -> None:
    assert tokens_of(builder(add_bos=True), Job(1, Text("hi"))) == [0, *plain("hi")]
    assert tokens_of(builder(add_bos=True), Job(1, Text("<s>hi", special=True))) == [
        0,
        *plain("hi"),
    ]
    assert tokens_of(builder(add_bos=True), Job(1, Text("<s>hi"))) == [0, *plain("<s>hi")]
    assert tokens_of(builder("<s>{{ messages[0].content }}", add_bos=True), chat("hi")) == [
        0,
        *plain("hi"),
    ]
    assert tokens_of(builder(add_bos=True), Job(1, Text("b", context=(0, 70)))) == [
        0,
        70,
        *plain("b"),
    ]


def test_an_empty_prompt_is_bos_or_an_error() -> None:
    assert tokens_of(builder(), Job(1, Text(""))) == [0]
    with pytest.raises(UsageError, match="empty"):
        builder(bos=-1).build(Job(1, Text("")))


def test_context_comes_first_and_is_checked() -> None:
    assert tokens_of(builder(), Job(1, Text("b", context=(70, 71)))) == [70, 71, *plain("b")]
    for token in (-1, 4 + 0x110000):
        with pytest.raises(UsageError, match="context"):
            builder().build(Job(1, Text("b", context=(token,))))


def test_a_picture_is_never_left_out_in_silence() -> None:
    seen = Message("user", "What is it?", images=(Image("aGk="),))
    with pytest.raises(UnsupportedRequest, match="missing data required for image input"):
        builder().build(Job(1, Chat((seen,))))


def test_fill_in_the_middle() -> None:
    job = Job(1, Text("ab", suffix="cd"))
    assert tokens_of(builder(infill=(1, 2, 3)), job) == [1, *plain("ab"), 2, *plain("cd"), 3]
    with pytest.raises(UnsupportedRequest):
        builder().build(job)


@given(st.lists(st.sampled_from(["s", "u", "a"]), min_size=1, max_size=12), st.integers(4, 40))
def test_the_longest_fitting_conversation_is_chosen(roles: list[str], n_context: int) -> None:
    names: dict[str, Role] = {"s": "system", "u": "user", "a": "assistant"}
    messages = tuple(Message(names[r], chr(65 + i) * 2) for i, r in enumerate(roles))
    messages += (Message("user", "zz"),)
    job = Job(1, Chat(messages))
    turns, room = without_turns(messages), n_context // 4
    tries = [([*messages], 0), *((m, room) for m in turns), *((m, 0) for m in turns)]
    fitting = [m for m, left in tries if 4 * len(m) + left < n_context]
    if not fitting:
        with pytest.raises(PromptTooLong):
            builder(n_context=n_context).build(job)
        return
    expected = [t for m in fitting[0] for t in [1, *plain(m.content), 2]]
    assert tokens_of(builder(n_context=n_context), job) == expected


def test_system_messages_and_the_last_one_stay() -> None:
    roles: list[Role] = ["system", "user", "assistant", "user", "assistant", "user"]
    messages = [Message(role, str(i)) for i, role in enumerate(roles)]
    left = [[m.content for m in shorter] for shorter in without_turns(messages)]
    assert left == [["0", "3", "4", "5"], ["0", "5"]]


def test_without_truncation_too_long_is_an_error() -> None:
    job = replace(chat("a" * 30, "b" * 30), truncate=False)
    with pytest.raises(PromptTooLong, match="64 fit"):
        builder().build(job)


def test_one_message_too_long_loses_its_beginning() -> None:
    text = "".join(map(chr, range(33, 127)))
    _, *left, _ = tokens_of(builder(), chat(text))
    assert plain(text)[-len(left) :] == left
    assert 36 < len(left) < 46  # and an answer has room
    with pytest.raises(PromptTooLong, match="16 fit"):
        builder(n_context=16).build(chat(text))


def test_bare_text_keeps_its_beginning_and_its_end() -> None:
    text = "".join(map(chr, range(97, 123))) * 5
    tokens = tokens_of(builder(), Job(1, Text(text), Sampling(num_keep=4)))
    assert tokens == [*plain("abcd"), *plain(text[-59:])]
    assert len(tokens) == 63
    with pytest.raises(PromptTooLong):
        builder().build(Job(1, Text(text), truncate=False))


def test_hopeless_text_never_reaches_the_tokenizer() -> None:
    tokenizer = Characters()
    made = PromptBuilder(tokenizer, None, Guard(), 64)
    with pytest.raises(PromptTooLong):
        made.build(Job(1, Text("a" * 10_000)))
    assert tokenizer.calls == []


def test_a_broken_template_spares_raw_prompts() -> None:
    made = builder("{{")
    with pytest.raises(MalformedModel):
        made.build(chat("hi"))
    assert tokens_of(made, Job(1, Text("hi"))) == plain("hi")
    assert tokens_of(
        made, Job(1, Chat((Message("user", "hi"),), template="{{ messages[0].content }}"))
    )


def test_a_template_with_tools_and_thinking_makes_a_reader() -> None:
    tools: Any = ({"type": "function", "function": {"name": "f"}},)
    template = "<tool_call></think>{% for m in messages %}{{ m.content }}{% endfor %}{{ end }}"
    made = builder(template)
    assert builder().build(chat("hi")).reader is None
    reader = made.build(chat("hi")).reader
    assert reader is not None
    assert not reader.thinking
    opened = builder(template + "<think>\n").build(chat("hi")).reader
    assert opened is not None
    assert opened.thinking
    job = Job(1, Chat((Message("user", "hi"),), tools=tools, must_call=("f",)))
    prompt = made.build(job)
    assert prompt.form is not None
    assert prompt.form.lark
    assert "<tool_call>" in prompt.form.text
    assert made.build(replace(job, prompt=Text("hi"))).reader is None


def test_marks_that_are_special_tokens() -> None:
    made = builder("[TOOL_CALLS]{{ messages[0].content }}", special_texts=[*SPECIALS[:3], "x"])
    assert made.build(chat("hi")).marks == {}


def test_thinking_is_turned_on_and_off() -> None:
    made = builder("{{ '+' if enable_thinking is not defined or enable_thinking else '-' }}")
    message = (Message("user", "hi"),)
    for think, sign in ((None, "+"), (True, "+"), (False, "-")):
        assert tokens_of(made, Job(1, Chat(message, think=think))) == plain(sign)
