"""Ollama's dialect: requests in, answers out, exact texts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.messages import Call, Chat, Finished, Message, Piece, Text, task_document
from runtime.server.ollama import (
    NativeAnswer,
    error_line,
    parse_chat,
    parse_generate,
    parse_keep_alive,
    timestamp,
)
from runtime.server.requests import Generation, Timing, make_job
from schemas.errors import InvalidName, SealiftError, UnsupportedRequest, UsageError
from tests.support.models import FACTS, model
from tests.support.pictures import PNG
from tests.support.requests import JSON, bodies

GENERATE: dict[str, Any] = {
    "model": "tiny",
    "prompt": "Hi",
    "suffix": "",
    "system": "S",
    "template": "{{ messages }}",
    "context": [1, 2],
    "stream": False,
    "raw": False,
    "format": "",
    "keep_alive": "5m",
    "images": [],
    "options": {"temperature": 0},
    "think": False,
    "truncate": True,
    "shift": True,
    "logprobs": True,
    "top_logprobs": 3,
}
CHAT: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Hi"}],
    "tools": [],
    "stream": True,
    "format": None,
    "keep_alive": 0,
    "options": {},
    "think": None,
}
TIMING = Timing(total_ns=10, load_ns=4)


@given(bodies(GENERATE))
def test_any_generate_body(body: dict[str, Any]) -> None:
    _check(parse_generate, body)


@given(bodies(CHAT))
def test_any_chat_body(body: dict[str, Any]) -> None:
    _check(parse_chat, body)


@given(st.lists(JSON, max_size=3), st.lists(JSON, max_size=3))
def test_any_messages_and_tools(messages: list[Any], tools: list[Any]) -> None:
    _check(parse_chat, {"model": "tiny", "messages": messages, "tools": tools})


def _check(parse: Any, body: dict[str, Any]) -> None:
    try:
        request: Generation = parse(body)
        if request.prompt is not None:
            json.dumps(task_document(make_job(request, model(), 1)))
    except SealiftError as error:
        status = error.http_status
        assert 400 <= status < 500


def test_generate_makes_a_conversation() -> None:
    request = parse_generate({"model": "TINY", "prompt": "Hi", "system": "Be brief"})
    assert request.name == "TINY"
    assert str(request.reference) == "library/tiny:latest"
    assert request.stream
    assert request.want_context
    assert request.prompt == Chat((Message("system", "Be brief"), Message("user", "Hi")))


def test_raw_is_taken_as_it_stands() -> None:
    request = parse_generate({"model": "tiny", "prompt": "<s>Hi", "raw": True, "stream": False})
    assert request.prompt == Text("<s>Hi", special=True)
    assert not request.want_context
    assert not request.stream


@pytest.mark.parametrize("body", [{"prompt": ""}, {}, {"keep_alive": 0}])
def test_no_prompt_loads_or_unloads(body: dict[str, Any]) -> None:
    for request in (
        parse_generate({"model": "tiny", **body}),
        parse_chat({"model": "tiny", **body}),
    ):
        assert request.prompt is None
        assert request.unloads == ("keep_alive" in body)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"model": ""}, "model is required"),
        ({}, "model is required"),
        ({"model": "no/such/name/x"}, "invalid model name"),
        ({"raw": True, "system": "x"}, "raw mode does not support template, system, or context"),
        ({"raw": True, "context": [1]}, "raw mode does not support template, system, or context"),
        ({"format": "xml"}, 'invalid format: "xml"; expected "json" or a valid JSON Schema object'),
        ({"format": [1]}, 'invalid format: [1]; expected "json" or a valid JSON Schema object'),
        ({"options": {"top_p": "x"}}, 'option "top_p" must be of type float32'),
        ({"top_logprobs": 21}, "top_logprobs must be between 0 and 20"),
        (
            {"think": "hard"},
            'invalid think value: "hard" (must be "high", "medium", "low", true, or false)',
        ),
        ({"context": ["a"]}, '"context" must be an array of token ids'),
        ({"stream": "no"}, '"stream" must be true or false'),
        ({"images": ["aGk="]}, "invalid image input: it is neither PNG nor JPEG"),
        ({"images": [1]}, '"images" must be an array of base64 strings'),
        (
            {"images": [PNG], "raw": True},
            "images need a chat template: not with raw or suffix",
        ),
    ],
)
def test_refusals(body: dict[str, Any], text: str) -> None:
    with pytest.raises(SealiftError) as caught:
        parse_generate(
            {"prompt": "Hi", **({"model": "tiny"} if body and "model" not in body else {}), **body}
        )
    assert caught.value.line() == text
    assert caught.value.http_status == 400


def test_a_bad_name_is_told_as_such() -> None:
    with pytest.raises(InvalidName):
        parse_chat({"model": "a b", "messages": []})


def test_templates_in_both_languages_are_taken() -> None:
    for template in ("{{ .System }}", "{% if messages %}{{ messages[0].content }}{% endif %}"):
        prompt = parse_generate({"model": "tiny", "prompt": "Hi", "template": template}).prompt
        assert isinstance(prompt, Chat)
        assert prompt.template == template
    with pytest.raises(UsageError, match="line 1: unexpected EOF"):
        parse_generate({"model": "tiny", "prompt": "Hi", "template": "{{ range $i, $m := .M }}"})


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        (None, None),
        (0, 0),
        ("0", 0),
        (90, 90_000),
        (0.5, 500),
        ("1h30m", 5_400_000),
        (-1, -1),
        ("-1m", -1),
        (10**12, -1),
        (1e300, -1),
    ],
)
def test_keep_alive(value: object, milliseconds: int | None) -> None:
    assert parse_keep_alive(value) == milliseconds


@pytest.mark.parametrize("value", ["soon", True, [], {}, ""])
def test_keep_alive_refused(value: object) -> None:
    with pytest.raises(UsageError):
        parse_keep_alive(value)


def test_the_models_own_settings_fill_what_is_left_open() -> None:
    from runtime.options import Options

    own = model(
        options=Options({"temperature": 0.1, "stop": ("END",)}),
        system="I am tiny",
        messages=(Message("user", "1"), Message("assistant", "2")),
    )
    job = make_job(parse_chat({**CHAT, "options": {"top_k": 3}}), own, 7)
    assert job.id == 7
    assert (job.sampling.temperature, job.sampling.top_k, job.sampling.stop) == (0.1, 3, ("END",))
    assert isinstance(job.prompt, Chat)
    assert [m.content for m in job.prompt.messages] == ["I am tiny", "1", "2", "Hi"]
    said = [{"role": "system", "content": "You are big"}, *CHAT["messages"]]
    job = make_job(parse_chat({**CHAT, "messages": said}), own, 8)
    assert isinstance(job.prompt, Chat)
    assert [m.content for m in job.prompt.messages] == ["You are big", "1", "2", "Hi"]


F = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("change", "capabilities", "text"),
    [
        ({}, ["embedding"], '"tiny" does not support chat'),
        ({"tools": [F]}, ["completion"], '"tiny" does not support tools'),
        ({"think": True}, ["completion"], '"tiny" does not support thinking'),
    ],
)
def test_capabilities(change: dict[str, Any], capabilities: list[str], text: str) -> None:
    request = parse_chat({**CHAT, **change})
    with pytest.raises(UnsupportedRequest) as caught:
        make_job(request, model(facts={**FACTS, "capabilities": capabilities}), 1)
    assert caught.value.line() == text


def test_tool_calls_and_thinking_in_answers() -> None:
    events: list[Piece | Call] = [
        Piece(1, "I", thinking=True),
        Piece(1, " ask", thinking=True),
        Piece(1, "So:"),
        Call(1, 0, "f", '{"a"', last=False),
        Call(1, 0, "", ": 1}", last=True),
        Call(1, 1, "g", "{}", last=True),
    ]
    done = Finished(1, "stop", 1, 2, 3, 4)
    for chat in (True, False):

        def key(document: Any, *, chat: bool = chat) -> Any:
            return document["message"] if chat else document

        whole = key(json.loads(NativeAnswer("tiny", chat=chat).whole(events, done, Timing(1, 1))))
        assert whole["thinking"] == "I ask"
        first, second = (call["function"] for call in whole["tool_calls"])
        assert first == {"index": 0, "name": "f", "arguments": {"a": 1}}
        assert second == {"index": 1, "name": "g", "arguments": {}}
        reply = NativeAnswer("tiny", chat=chat)
        lines = [
            json.loads(line)
            for event in events
            if (line := reply.piece(event) if isinstance(event, Piece) else reply.call(event))
        ]
        assert [key(line).get("thinking") for line in lines] == ["I", " ask", None, None, None]
        assert [len(key(line).get("tool_calls", ())) for line in lines] == [0, 0, 0, 1, 1]


def test_tool_turns_reach_the_template() -> None:
    turns = [
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
        {"role": "tool", "tool_name": "f", "content": "2"},
    ]
    prompt = parse_chat({"model": "tiny", "messages": turns}).prompt
    assert isinstance(prompt, Chat)
    assert prompt.messages[0].tool_calls == ({"function": {"name": "f", "arguments": {"a": 1}}},)
    assert prompt.messages[1].tool_name == "f"


def test_answers() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    answer = NativeAnswer('t"ny', chat=True, now=lambda: moment)
    line = answer.piece(Piece(1, 'é"\n', ({"token": "é", "logprob": -0.5},)))
    assert line.endswith(b"\n")
    assert json.loads(line) == {
        "model": 't"ny',
        "created_at": "2026-01-02T03:04:05.000678Z",
        "message": {"role": "assistant", "content": 'é"\n'},
        "logprobs": [{"token": "é", "logprob": -0.5}],
        "done": False,
    }
    done = Finished(1, "length", 5, 7, 0, 9)
    assert json.loads(answer.closing(done, TIMING)) == {
        "model": 't"ny',
        "created_at": "2026-01-02T03:04:05.000678Z",
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "length",
        "total_duration": 10,
        "load_duration": 4,
        "prompt_eval_count": 5,
        "eval_count": 7,
        "eval_duration": 9,
    }


def test_a_whole_generate_answer() -> None:
    answer = NativeAnswer("tiny", chat=False)
    done = Finished(1, "stop", 5, 7, 8, 9, context=(1, 2, 3))
    document = json.loads(answer.whole([Piece(1, "a"), Piece(1, "b")], done, TIMING))
    assert document["response"] == "ab"
    assert document["context"] == [1, 2, 3]
    assert document["done_reason"] == "stop"


@given(st.text(), st.text())
def test_every_line_is_one_line_of_json(name: str, text: str) -> None:
    for chat in (True, False):
        line = NativeAnswer(name, chat=chat).piece(Piece(1, text))
        assert line.count(b"\n") == 1
        document = json.loads(line)
        assert document["message"]["content"] == text if chat else document["response"] == text


def test_errors() -> None:
    assert json.loads(error_line(UsageError("model is required"))) == {
        "error": "model is required",
        "code": "usage",
    }


def test_timestamps_are_utc() -> None:
    assert timestamp(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00.000000Z"
