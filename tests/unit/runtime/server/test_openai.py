"""OpenAI's dialect: requests in, answers out, every field honoured or refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.messages import Call, Chat, Finished, Message, Piece, Text, task_document
from runtime.server.openai import parse_chat, parse_chats, parse_completions
from runtime.server.openai_answers import OpenAIAnswer, error_document
from runtime.server.requests import Generation, Timing, make_job
from schemas.errors import (
    NotFound,
    PromptTooLong,
    SealiftError,
    ServerBusy,
    UsageError,
    WorkerFailed,
)
from tests.support.models import model
from tests.support.requests import JSON, bodies

CHAT: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Hi"}],
    "stream": True,
    "stream_options": {"include_usage": True},
    "max_tokens": 5,
    "max_completion_tokens": 7,
    "seed": 1,
    "stop": "x",
    "temperature": 0.5,
    "top_p": 0.5,
    "frequency_penalty": 1,
    "presence_penalty": -1,
    "response_format": {"type": "text"},
    "tools": [],
    "tool_choice": "auto",
    "n": 1,
    "logit_bias": {"12": 5},
    "logprobs": True,
    "top_logprobs": 2,
    "modalities": ["text"],
    "functions": [],
    "user": "me",
}
COMPLETION: dict[str, Any] = {
    "model": "tiny",
    "prompt": "Hi",
    "suffix": "",
    "echo": False,
    "logprobs": 1,
    "best_of": 1,
    "n": 1,
    "stop": ["x"],
    "max_tokens": 3,
    "stream": False,
}
DONE = Finished(1, "stop", 5, 7, 8, 9)
TIMING = Timing(1, 1)


@given(bodies(CHAT))
def test_any_chat_body(body: dict[str, Any]) -> None:
    _check(parse_chat, body)


@given(bodies(COMPLETION))
def test_any_completion_body(body: dict[str, Any]) -> None:
    _check(parse_completions, body)


@given(st.lists(JSON, max_size=3))
def test_any_messages(messages: list[Any]) -> None:
    _check(parse_chat, {"model": "tiny", "messages": messages})


def _check(parse: Any, body: dict[str, Any]) -> None:
    try:
        found = parse(body)
        for request in found if isinstance(found, tuple) else [found]:
            json.dumps(task_document(make_job(request, model(), 1)))
    except SealiftError as error:
        status = error.http_status
        assert 400 <= status < 500


def test_every_field_is_honoured() -> None:
    request = parse_chat(CHAT)
    assert request.stream
    assert request.include_usage
    assert request.prompt == Chat((Message("user", "Hi"),))
    sampling = make_job(request, model(), 1).sampling
    assert sampling.num_predict == 7
    assert (sampling.seed, sampling.stop, sampling.temperature, sampling.top_p) == (
        1,
        ("x",),
        0.5,
        0.5,
    )
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (1, -1)
    assert (sampling.logprobs, sampling.top_logprobs, sampling.logit_bias) == (True, 2, {"12": 5.0})


def test_what_is_left_open_stays_the_models() -> None:
    request = parse_chat({"model": "tiny", "messages": CHAT["messages"]})
    assert request.options.sampling == {}
    assert not request.stream


def test_message_parts_and_roles() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    messages = [
        {"role": "developer", "content": "D"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "2"},
    ]
    prompt = parse_chat({"model": "tiny", "messages": messages}).prompt
    assert isinstance(prompt, Chat)
    assert prompt.messages == (
        Message("system", "D"),
        Message("user", "a\nb"),
        Message("assistant", "", tool_calls=({"function": {"name": "f", "arguments": {"x": 1}}},)),
        Message("tool", "2", tool_call_id="1"),
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"messages": []}, "[] is too short - 'messages'"),
        ({"n": 0}, '"n" must be between 1 and 128'),
        ({"temperature": 3}, '"temperature" must be between 0 and 2'),
        ({"max_tokens": 0}, '"max_tokens" must be between 1 and 16777216'),
        (
            {"response_format": {"type": "json_schema"}},
            '"response_format.json_schema.schema" is required',
        ),
        (
            {"response_format": {"type": "xml"}},
            '"response_format.type" must be text, json_object or json_schema',
        ),
        ({"functions": [{}]}, '"functions" is not supported'),
        ({"modalities": ["audio"]}, '"modalities" other than text are not made here'),
        ({"tool_choice": "required"}, '"tool_choice" needs "tools"'),
        ({"logprobs": False}, '"top_logprobs" needs "logprobs" to be true'),
        ({"logit_bias": {"a": 1}}, '"logit_bias" must map token ids to numbers'),
        ({"logit_bias": {"1": 101}}, '"logit_bias.1" must be between -100 and 100'),
        (
            {"reasoning_effort": "max"},
            '"reasoning_effort" must be none or one of minimal, low, medium, high, xhigh',
        ),
        (
            {"messages": [{"role": "ai"}]},
            '"messages[0].role" must be one of system, developer, user, assistant, tool',
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            '"messages[0].content[0].image_url.url" is missing',
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "file"}]}]},
            'message parts of type "file" are not taken',
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{"function": {"name": "f", "arguments": "["}}],
                    }
                ]
            },
            '"messages[0].tool_calls[0].function.arguments" is not a JSON object in a string',
        ),
    ],
)
def test_refusals(change: dict[str, Any], text: str) -> None:
    with pytest.raises(SealiftError) as caught:
        parse_chats({**CHAT, **change})
    assert caught.value.line() == text
    assert caught.value.http_status == 400


def test_tools_and_the_choice_of_none() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    prompt = parse_chat({**CHAT, "tools": tools, "tool_choice": "none"}).prompt
    assert isinstance(prompt, Chat)
    assert prompt.tools == ()
    with pytest.raises(SealiftError, match='"tiny" does not support tools'):
        make_job(parse_chat({**CHAT, "tools": tools}), model(), 1)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"prompt": None}, '"prompt" is required'),
        ({"prompt": {}}, '"prompt" must be a string, an array of strings or token ids'),
        ({"prompt": []}, '"prompt" must be a string, an array of strings or token ids'),
        ({"prompt": ["a", 1]}, '"prompt[1]" must be a string or an array of token ids'),
        ({"prompt": [[1], [True]]}, '"prompt[1]" must be a string or an array of token ids'),
        ({"prompt": [-1]}, '"prompt[0]" must be a string or an array of token ids'),
        ({"prompt": ["a"] * 129}, '"prompt" has more than 128 entries'),
        ({"best_of": 2}, '"best_of" above 1 is not supported'),
        ({"prompt": ["a", "b"], "n": 65}, '"prompt" and "n" ask for more than 128 answers'),
        ({"echo": True}, '"echo" together with "logprobs" is not supported'),
        (
            {"prompt": [1], "echo": True, "logprobs": None},
            '"echo" of token ids is not supported',
        ),
    ],
)
def test_completion_refusals(change: dict[str, Any], text: str) -> None:
    with pytest.raises(SealiftError) as caught:
        parse_completions({**COMPLETION, **change})
    assert caught.value.line() == text


def test_a_completion_continues_the_bare_text() -> None:
    (request,) = parse_completions({**COMPLETION, "prompt": ["Hi"]})
    assert request.prompt == Text("Hi", special=True)


def test_several_prompts_and_token_ids() -> None:
    requests = parse_completions({**COMPLETION, "prompt": ["Hi", [1, 2]]})
    assert [request.prompt for request in requests] == [
        Text("Hi", special=True),
        Text("", context=(1, 2)),
    ]
    requests = parse_completions({**COMPLETION, "prompt": ["a", "b"], "n": 2, "seed": 7})
    assert [(r.prompt, r.options.sampling["seed"]) for r in requests] == [
        (Text("a", special=True), 7),
        (Text("a", special=True), 8),
        (Text("b", special=True), 7),
        (Text("b", special=True), 8),
    ]
    assert len(parse_chats({**CHAT, "n": 3})) == 3
    (request,) = parse_completions({**COMPLETION, "prompt": [7, 8]})
    assert request.prompt == Text("", context=(7, 8))
    assert request.options.sampling["num_predict"] == 3
    assert request.options.sampling["top_logprobs"] == 1


def _answer(body: dict[str, Any], *, chat: bool) -> OpenAIAnswer:
    request = parse_chat(body) if chat else parse_completions(body)[0]
    return OpenAIAnswer(request, chat=chat, answer_id="7", created=123)


def _events(stream: bytes) -> list[Any]:
    events = stream.decode().split("\n\n")
    assert events.pop() == ""
    assert all(event.startswith("data: ") for event in events)
    return [event if event == "data: [DONE]" else json.loads(event[6:]) for event in events]


def test_a_chat_stream() -> None:
    answer = _answer(CHAT, chat=True)
    entry = {"token": "é", "logprob": -1.0, "bytes": [195, 169], "top_logprobs": []}
    parts = [answer.opening(), answer.piece(Piece(1, "é", (entry,))), answer.closing(DONE, TIMING)]
    opening, piece, last, usage, end = _events(b"".join(parts))
    common = {
        "id": "chatcmpl-7",
        "object": "chat.completion.chunk",
        "created": 123,
        "model": "tiny",
        "system_fingerprint": "fp_sealift",
    }
    assert opening == {
        **common,
        "usage": None,
        "choices": [
            {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        ],
    }
    assert piece == {
        **common,
        "usage": None,
        "choices": [
            {
                "index": 0,
                "delta": {"content": "é"},
                "logprobs": {"content": [entry]},
                "finish_reason": None,
            }
        ],
    }
    assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert usage["choices"] == []
    assert usage["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert end == "data: [DONE]"


def test_no_usage_unless_asked_for() -> None:
    answer = _answer({**CHAT, "stream_options": None}, chat=True)
    events = _events(answer.piece(Piece(1, "x")) + answer.closing(DONE, TIMING))
    assert len(events) == 3
    assert "usage" not in events[0]


def test_a_broken_stream_has_no_end_mark() -> None:
    (event,) = _events(_answer(CHAT, chat=True).broken(WorkerFailed("it died")))
    assert event["error"]["message"] == "it died"


def test_completions_echo_and_logprobs() -> None:
    answer = _answer({**COMPLETION, "echo": True, "logprobs": None}, chat=False)
    opening, piece, *_ = _events(
        answer.opening() + answer.piece(Piece(1, "x")) + answer.closing(DONE, TIMING)
    )
    assert opening["choices"][0]["text"] == "Hi"
    assert piece["choices"][0] == {"index": 0, "text": "x", "finish_reason": None}
    whole = json.loads(answer.whole([Piece(1, "x")], DONE, TIMING))
    assert whole["choices"][0]["text"] == "Hix"
    assert whole["object"] == "text_completion"

    answer = _answer(COMPLETION, chat=False)
    entries = tuple(
        {"token": token, "logprob": -1.0, "top_logprobs": [{"token": token, "logprob": -1.0}]}
        for token in ("ab", "c")
    )
    logprobs = json.loads(answer.whole([Piece(1, "abc", entries)], DONE, TIMING))["choices"][0][
        "logprobs"
    ]
    assert logprobs == {
        "tokens": ["ab", "c"],
        "token_logprobs": [-1.0, -1.0],
        "top_logprobs": [{"ab": -1.0}, {"c": -1.0}],
        "text_offset": [0, 2],
    }


@given(st.text(), st.text())
def test_every_chunk_is_one_event(name: str, text: str) -> None:
    request = Generation(name, parse_chat(CHAT).reference, None, "chat")
    for chat in (True, False):
        answer = OpenAIAnswer(request, chat=chat, answer_id="1", created=1)
        (event,) = _events(answer.piece(Piece(1, text)))
        assert event["model"] == name
        choice = event["choices"][0]
        assert (choice["delta"]["content"] if chat else choice["text"]) == text


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (UsageError("x"), "invalid_request_error", "usage"),
        (PromptTooLong("x"), "invalid_request_error", "context_length_exceeded"),
        (NotFound("x"), "not_found_error", "model_not_found"),
        (ServerBusy("x"), "api_error", "server-busy"),
        (SealiftError("x"), "api_error", "internal"),
    ],
)
def test_error_objects(error: SealiftError, kind: str, code: str) -> None:
    assert error_document(error)["error"] == {
        "message": "x",
        "type": kind,
        "param": None,
        "code": code,
    }


def test_formats() -> None:
    def form(**fields: Any) -> str:
        message = {"role": "user", "content": "Hi"}
        return parse_chat({"model": "tiny", "messages": [message], **fields}).format

    schema = {"type": "object", "properties": {"ä": {"type": "integer"}}}
    assert form() == form(response_format={"type": "text"}) == ""
    assert json.loads(form(response_format={"type": "json_object"})) == {"type": "object"}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert json.loads(form(response_format=wanted)) == schema
    wanted["json_schema"] = {"schema": {"enum": ["x" * 70_000]}}
    with pytest.raises(SealiftError, match="too large"):
        form(response_format=wanted)


TOOLS = [
    {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "g"}},
]


@pytest.mark.parametrize(
    ("choice", "must"),
    [
        (None, ()),
        ("auto", ()),
        ("required", ("f", "g")),
        ({"type": "function", "function": {"name": "g"}}, ("g",)),
    ],
)
def test_the_choice_of_tools(choice: Any, must: tuple[str, ...]) -> None:
    prompt = parse_chat({**CHAT, "tools": TOOLS, "tool_choice": choice}).prompt
    assert isinstance(prompt, Chat)
    assert prompt.must_call == must
    assert prompt.parallel != bool(must)  # a forced call is one, unless more are asked for
    assert len(prompt.tools) == 2
    more = {"tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": True}
    assert parse_chat({**CHAT, **more}).prompt == replace(prompt, parallel=True)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"tools": [{}]}, "function.name"),
        ({"tools": [{"function": {"name": "f", "parameters": 3}}]}, "must be an object"),
        ({"tools": TOOLS, "tool_choice": "sometimes"}, "must be none, auto, required or a tool"),
        ({"tools": TOOLS, "tool_choice": {"function": {"name": "h"}}}, "none of the"),
        ({"tools": TOOLS * 65}, "more than 128 tools"),
    ],
)
def test_bad_tools(change: dict[str, Any], text: str) -> None:
    with pytest.raises(SealiftError, match=text):
        parse_chat({**CHAT, **change})


def test_tool_calls_and_thinking_in_answers() -> None:
    events: list[Piece | Call] = [
        Piece(1, "I ask", thinking=True),
        Call(1, 0, "f", '{"a"', last=False),
        Call(1, 0, "", ": 1}", last=True),
        Call(1, 1, "g", "{}", last=True),
    ]
    done = Finished(1, "stop", 1, 2, 3, 4)
    request = parse_chat(CHAT)
    reply = OpenAIAnswer(request, chat=True, answer_id="x", created=1)
    (choice,) = json.loads(reply.whole(events, done, Timing(1, 1)))["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["reasoning"] == "I ask"
    assert [c["function"]["arguments"] for c in choice["message"]["tool_calls"]] == [
        '{"a": 1}',
        "{}",
    ]
    reply = OpenAIAnswer(request, chat=True, answer_id="x", created=1)
    deltas = [
        json.loads((reply.piece(e) if isinstance(e, Piece) else reply.call(e))[6:])["choices"][0][
            "delta"
        ]
        for e in events
    ]
    assert deltas[0]["reasoning"] == "I ask"
    assert deltas[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a"'}
    assert deltas[2]["tool_calls"] == [{"index": 0, "function": {"arguments": ": 1}"}}]
    assert deltas[1]["tool_calls"][0]["id"] != deltas[3]["tool_calls"][0]["id"]
    assert b'"finish_reason":"tool_calls"' in reply.closing(done, Timing(1, 1))
