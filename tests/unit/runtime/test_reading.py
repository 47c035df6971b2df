"""Thinking and tool calls in the text of an answer, per family, however the text is split."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine.dialect import dialect_of
from runtime.engine.reading import Part, Reader

HERMES = "{% if tools %}<tool_call>{% endif %}<think></think>"
LLAMA = '{"name": f, "parameters": p} <|python_tag|>'
MISTRAL = "[TOOL_CALLS]"
MISTRAL_NEW = "[TOOL_CALLS]name[ARGS]"
CODER = "<tool_call><function=name>"
LFM = "<|tool_call_start|>"
TOOLS = ("weather", "add")


def read(
    template: str, text: str, splits: list[int] | None = None, *, thinking: bool = False
) -> tuple[str, str, list[tuple[str, Any]]]:
    """Content, thinking and calls of an answer that came in pieces."""
    reader = Reader(dialect_of(template), TOOLS, thinking=thinking)
    cuts = sorted({0, len(text), *(at % (len(text) + 1) for at in splits or [])})
    parts: list[Part] = []
    for start, end in pairwise(cuts):
        parts += reader.feed(text[start:end])
    parts += reader.finish()
    content = "".join(p.text for p in parts if p.call < 0 and not p.thinking)
    thought = "".join(p.text for p in parts if p.thinking)
    calls: dict[int, list[str]] = {}
    names: dict[int, str] = {}
    ended: set[int] = set()
    for part in parts:
        if part.call >= 0:
            assert part.call not in ended, "nothing follows a call's last part"
            calls.setdefault(part.call, []).append(part.text)
            if part.name:
                assert part.call not in names, "a call is named once"
                names[part.call] = part.name
            if part.last:
                ended.add(part.call)
    assert sorted(calls) == list(range(len(calls)))
    assert ended == set(calls)
    assert reader.called == bool(calls)
    return content, thought, [(names[n], json.loads("".join(calls[n]))) for n in sorted(calls)]


PARIS = ("weather", {"city": 'Paris }]"{', "days": 2})
SUM = ("add", {"a": 1, "b": [2, {"c": "</tool_call"}]})


def hermes(name: str, arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


CASES: list[tuple[str, str, str, str, list[tuple[str, Any]]]] = [
    (HERMES, "Just text, a < b.", "Just text, a < b.", "", []),
    (HERMES, "<think>\nHm.\n</think>\n\nYes.", "Yes.", "Hm.", []),
    (HERMES, "<thin ice", "<thin ice", "", []),
    (HERMES, hermes(*PARIS), "", "", [PARIS]),
    (HERMES, f"Look:\n\n{hermes(*PARIS)}\n{hermes(*SUM)}", "Look:", "", [PARIS, SUM]),
    (HERMES, f"<think>I ask.</think>{hermes(*PARIS)}", "", "I ask.", [PARIS]),
    (
        HERMES,
        '<tool_call>{"arguments": {"a": 1}, "name": "add"}</tool_call>',
        "",
        "",
        [("add", {"a": 1})],
    ),
    (
        HERMES,
        '<tool_call>{"name": "rm", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "rm", "arguments": {}}</tool_call>',
        "",
        [],
    ),
    (HERMES, "<tool_call>no JSON</tool_call>", "<tool_call>no JSON</tool_call>", "", []),
    (
        LLAMA,
        '{"name": "weather", "parameters": {"city": "Rome"}}',
        "",
        "",
        [("weather", {"city": "Rome"})],
    ),
    (
        LLAMA,
        '<|python_tag|>{"name": "add", "parameters": {"a": 1}}; {"name": "add", "parameters": {}}',
        "",
        "",
        [("add", {"a": 1}), ("add", {})],
    ),
    (LLAMA, '{"answer": 42}', '{"answer": 42}', "", []),
    (LLAMA, '{"name": "Bob", "age": 3}', '{"name": "Bob", "age": 3}', "", []),
    (LLAMA, '{"name": "add", "age": 3}', '{"name": "add", "age": 3}', "", []),
    (LLAMA, "A {brace} within.", "A {brace} within.", "", []),
    (
        MISTRAL,
        '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}}, {"name": "add", "arguments": {}}]',
        "",
        "",
        [("add", {"a": 1}), ("add", {})],
    ),
    (
        MISTRAL_NEW,
        '[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]add[ARGS]{}',
        "",
        "",
        [("add", {"a": 1}), ("add", {})],
    ),
    (
        CODER,
        (
            "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\nx y\n"
            "</parameter>\n</function>\n</tool_call>"
        ),
        "",
        "",
        [("add", {"a": 1, "b": "x y"})],
    ),
    (
        LFM,
        "<|tool_call_start|>[weather(city='Rome', days=2), add(a=-1)]<|tool_call_end|>Wait.",
        "Wait.",
        "",
        [("weather", {"city": "Rome", "days": 2}), ("add", {"a": -1})],
    ),
    (
        LFM,
        "<|tool_call_start|>[weather(__import__('os'))]<|tool_call_end|>",
        "<|tool_call_start|>[weather(__import__('os'))]<|tool_call_end|>",
        "",
        [],
    ),
]


@pytest.mark.parametrize(("template", "text", "content", "thought", "calls"), CASES)
@given(splits=st.lists(st.integers(0, 400), max_size=60))
def test_families(
    template: str,
    text: str,
    content: str,
    thought: str,
    calls: list[tuple[str, Any]],
    splits: list[int],
) -> None:
    assert read(template, text, splits) == (content, thought, calls)
    assert read(template, text, list(range(len(text)))) == (content, thought, calls)


def test_a_prompt_that_ends_inside_of_the_thinking() -> None:
    text = "Let me see.\n</think>\n\nParis."
    assert read(HERMES, text, thinking=True) == ("Paris.", "Let me see.", [])
    assert read(HERMES, "Cut off", thinking=True) == ("", "Cut off", [])


def test_arguments_come_as_they_are_written() -> None:
    reader = Reader(dialect_of(HERMES), TOOLS)
    assert reader.feed('<tool_call>{"name": "add", "arguments": {"a"') == [
        Part('{"a"', call=0, name="add")
    ]
    assert reader.feed(": 1}") == [Part(": 1}", call=0, last=True)]
    assert reader.feed("}\n</tool_call>") == []
    assert reader.finish() == []


def test_a_call_that_is_cut_off_ends() -> None:
    reader = Reader(dialect_of(HERMES), TOOLS)
    reader.feed('<tool_call>{"name": "add", "arguments": {"a"')
    (part,) = reader.finish()
    assert part.last


@given(st.text(max_size=200), st.lists(st.integers(0, 400), max_size=20), st.sampled_from(CASES))
def test_any_text_is_taken(text: str, splits: list[int], case: tuple[Any, ...]) -> None:
    """Hostile or broken answers end as content: nothing is lost, nothing fails."""
    mixed = text + case[1] + text
    assert read_loosely(case[0], mixed, splits) == read_loosely(case[0], mixed, [])


def read_loosely(template: str, text: str, splits: list[int]) -> tuple[str, list[str]]:
    reader = Reader(dialect_of(template), TOOLS)
    cuts = sorted({0, len(text), *(at % (len(text) + 1) for at in splits)})
    parts: list[Part] = []
    for start, end in pairwise(cuts):
        parts += reader.feed(text[start:end])
    parts += reader.finish()
    calls: dict[int, str] = {}
    for part in parts:
        if part.call >= 0:
            calls[part.call] = calls.get(part.call, "") + part.name + part.text
    return "".join(p.text for p in parts if p.call < 0), list(calls.values())
