"""Anthropic's dialect: requests in, answers out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.messages import Call, Chat, Finished, Message, Piece, Started, Tokenize, Tokenized
from runtime.server.anthropic import parse_count, parse_messages
from runtime.server.anthropic_answers import AnthropicAnswer, count_document, error_document
from runtime.server.requests import Timing
from schemas.errors import NotFound, SealiftError, ServerBusy, UsageError

BODY: dict[str, Any] = {
    "model": "tiny",
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "Hi"}],
}
TOOL = {"name": "f", "description": "F", "input_schema": {"type": "object", "properties": {}}}


def chat(**fields: Any) -> Chat:
    prompt = parse_messages({**BODY, **fields}).prompt
    assert isinstance(prompt, Chat)
    return prompt


def test_messages() -> None:
    request = parse_messages(
        {
            **BODY,
            "system": [{"type": "text", "text": "Be brief."}],
            "temperature": 0.5,
            "top_k": 3,
            "stop_sequences": ["END"],
            "metadata": {"user_id": "x"},
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "Hm", "signature": "s"},
                        {"type": "text", "text": "I look."},
                        {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"},
                        {"type": "text", "text": "So?"},
                    ],
                },
            ],
        }
    )
    assert isinstance(request.prompt, Chat)
    assert request.prompt.messages == (
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message(
            "assistant", "I look.", "Hm", ({"function": {"name": "f", "arguments": {"a": 1}}},)
        ),
        Message("tool", "sunny", tool_call_id="t1"),
        Message("user", "So?"),
    )
    sampling = request.options.make_sampling()
    assert (sampling.num_predict, sampling.temperature, sampling.top_k) == (9, 0.5, 3)
    assert sampling.stop == ("END",)
    assert not request.stream


def test_tools() -> None:
    assert chat(tools=[TOOL]).tools[0]["function"]["parameters"] == TOOL["input_schema"]
    forced = chat(tools=[TOOL], tool_choice={"type": "any"})
    assert (forced.must_call, forced.parallel) == (("f",), False)
    more = {"type": "any", "disable_parallel_tool_use": False}
    assert chat(tools=[TOOL], tool_choice=more).parallel
    assert chat(tools=[TOOL], tool_choice={"type": "tool", "name": "f"}).must_call == ("f",)
    assert chat(tools=[TOOL], tool_choice={"type": "none"}).tools == ()
    held = chat(tools=[TOOL], tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert not held.parallel
    assert parse_messages({**BODY, "thinking": {"type": "enabled", "budget_tokens": 9}}).think


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"max_tokens": 0}, "between 1"),
        ({"model": None}, "model is required"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "system", "content": "x"}]}, "user or assistant"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "source.type"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "are not taken"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use"}]}]}, "may stand there"),
        ({"temperature": 1.5}, "between 0 and 1"),
        ({"tool_choice": {"type": "any"}}, "none of the"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "none of the"),
        ({"tools": [{"type": "computer_20250124", "name": "c"}]}, "not run here"),
        ({"tools": [{"input_schema": {}}]}, "function.name"),
        ({"thinking": {"type": "perhaps"}}, "thinking.type"),
        ({"mcp_servers": [{}]}, "not supported"),
    ],
)
def test_refusals(change: dict[str, Any], text: str) -> None:
    with pytest.raises(SealiftError, match=text):
        parse_messages({**BODY, **change})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(st.sampled_from([*BODY, "system", "tools", "tool_choice", "thinking", "stream"]), JSON)
def test_any_field_may_hold_anything(key: str, value: Any) -> None:
    try:
        parse_messages({**BODY, key: value})
        parse_count({**BODY, key: value})
    except SealiftError:
        pass


EVENTS: list[Piece | Call] = [
    Piece(1, "Hm", thinking=True),
    Piece(1, "Look"),
    Piece(1, ":"),
    Call(1, 0, "f", '{"a"', last=False),
    Call(1, 0, "", ": 1}", last=True),
    Call(1, 1, "g", "{}", last=True),
]
DONE = Finished(1, "stop", 5, 2, 3, 4)


def test_an_answer_in_one_document() -> None:
    reply = AnthropicAnswer(parse_messages(BODY), answer_id="x")
    document = json.loads(reply.whole(EVENTS, DONE, Timing(1, 1)))
    assert document["content"] == [
        {"type": "thinking", "thinking": "Hm", "signature": ""},
        {"type": "text", "text": "Look:"},
        {"type": "tool_use", "id": "toolu_x0", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "toolu_x1", "name": "g", "input": {}},
    ]
    assert document["stop_reason"] == "tool_use"
    assert document["usage"] == {"input_tokens": 5, "output_tokens": 2}


@pytest.mark.parametrize(
    ("finished", "reason", "sequence"),
    [
        (DONE, "end_turn", None),
        (Finished(1, "length", 1, 1, 1, 1), "max_tokens", None),
        (Finished(1, "stop", 1, 1, 1, 1, stop="END"), "stop_sequence", "END"),
    ],
)
def test_reasons(finished: Finished, reason: str, sequence: str | None) -> None:
    reply = AnthropicAnswer(parse_messages(BODY), answer_id="x")
    document = json.loads(reply.whole([Piece(1, "Hi")], finished, Timing(1, 1)))
    assert (document["stop_reason"], document["stop_sequence"]) == (reason, sequence)


def test_a_stream_opens_and_closes_every_block() -> None:
    reply = AnthropicAnswer(parse_messages(BODY), answer_id="x")
    reply.started(Started(1, 5, 0, 1))
    data = reply.opening()
    for event in EVENTS:
        data += reply.piece(event) if isinstance(event, Piece) else reply.call(event)
    data += reply.closing(DONE, Timing(1, 1))
    events = [line.split("\n")[1][6:] for line in data.decode().strip().split("\n\n")]
    documents = [json.loads(event) for event in events]
    assert documents[0]["message"]["usage"]["input_tokens"] == 5
    opened: list[int] = []
    for document in documents:
        if document["type"] == "content_block_start":
            assert document["index"] == len(opened)
            opened.append(document["index"])
        elif document["type"].startswith("content_block"):
            assert document["index"] == opened[-1]
    kinds = [d["content_block"]["type"] for d in documents if "content_block" in d]
    assert kinds == ["thinking", "text", "tool_use", "tool_use"]
    assert sum(d["type"] == "content_block_stop" for d in documents) == len(kinds)
    assert documents[-2]["delta"]["stop_reason"] == "tool_use"
    assert documents[-1] == {"type": "message_stop"}


def test_counting_and_errors() -> None:
    wanted = parse_count(BODY)
    assert isinstance(wanted.task, Tokenize)
    assert count_document(Tokenized(1, (1, 2, 3))) == {"input_tokens": 3}
    kinds = [error_document(e)["error"]["type"] for e in (UsageError("x"), NotFound("x"))]
    assert kinds == ["invalid_request_error", "not_found_error"]
    assert error_document(ServerBusy("x"))["error"]["type"] == "overloaded_error"
    assert error_document(SealiftError("x"))["error"]["type"] == "api_error"
