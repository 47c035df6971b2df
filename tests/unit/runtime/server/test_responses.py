"""OpenAI's Responses: requests in, answers and their events out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from runtime.messages import (
    Call,
    Chat,
    Finished,
    Image,
    Message,
    Piece,
    Started,
    Tokenize,
    Tokenized,
    task_document,
)
from runtime.server.requests import Timing, make_job
from runtime.server.responses import parse_count, parse_response
from runtime.server.responses_answers import ResponsesAnswer, count_document
from schemas.errors import NotFound, RemoteRefused, SealiftError, ServerBusy, UsageError
from tests.support.models import model
from tests.support.pictures import PNG, URL
from tests.support.requests import JSON, bodies

TOOL: dict[str, Any] = {
    "type": "function",
    "name": "f",
    "description": "F",
    "parameters": {"type": "object", "properties": {}},
    "strict": True,
}
BODY: dict[str, Any] = {
    "model": "tiny",
    "input": "Hi",
    "instructions": "Be short.",
    "max_output_tokens": 7,
    "temperature": 0.5,
    "top_p": 0.25,
    "metadata": {"a": "b"},
    "stream": True,
    "store": True,
    "text": {"format": {"type": "text"}},
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "truncation": "auto",
    "include": ["message.output_text.logprobs"],
    "top_logprobs": 2,
    "reasoning": {"effort": "none"},
    "user": "me",
    "previous_response_id": None,
    "background": False,
}
TIMING = Timing(3_000_000_000, 1)


def chat(**fields: Any) -> Chat:
    prompt = parse_response({"model": "tiny", **fields}).request.prompt
    assert isinstance(prompt, Chat)
    return prompt


@given(bodies(BODY))
def test_any_body(body: dict[str, Any]) -> None:
    _check(body)


@given(st.lists(JSON, max_size=3))
def test_any_input(items: list[Any]) -> None:
    _check({"model": "tiny", "input": items})


@given(JSON, JSON)
def test_any_tools(tools: Any, choice: Any) -> None:
    _check({"model": "tiny", "input": "x", "tools": tools, "tool_choice": choice})


def _check(body: dict[str, Any]) -> None:
    try:
        asked = parse_response(body)
        json.dumps(task_document(make_job(asked.request, model(), 1)))
        json.dumps(dict(asked.echo))
        parse_count(body)
    except SealiftError as error:
        status = error.http_status
        assert 400 <= status < 500


def test_every_field_is_honoured() -> None:
    asked = parse_response(BODY)
    request = asked.request
    assert request.stream
    assert request.truncate
    assert request.think is False
    assert request.prompt == Chat(
        (Message("system", "Be short."), Message("user", "Hi")), parallel=False
    )
    sampling = make_job(request, model(), 1).sampling
    assert (sampling.num_predict, sampling.temperature, sampling.top_p) == (7, 0.5, 0.25)
    assert (sampling.logprobs, sampling.top_logprobs) == (True, 2)
    assert asked.echo["metadata"] == {"a": "b"}
    assert asked.echo["instructions"] == "Be short."


def test_what_is_left_open_stays_the_models() -> None:
    request = parse_response({"model": "tiny", "input": "Hi"}).request
    assert request.options.sampling == {}
    assert not request.stream
    assert not request.truncate


def test_items_become_turns() -> None:
    items = [
        {"role": "developer", "content": "D"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "reasoning", "id": "r", "summary": [], "content": [{"text": "hm"}]},
        {
            "type": "message",
            "role": "assistant",
            "id": "m",
            "status": "completed",
            "content": [{"type": "output_text", "text": "b", "annotations": []}],
        },
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": '{"x":1}'},
        {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "2", "output": "two"},
        {
            "type": "function_call_output",
            "call_id": "1",
            "output": [{"type": "input_text", "text": "one"}],
        },
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": URL, "detail": "auto"},
                {"type": "input_text", "text": "c"},
            ],
        },
    ]
    assert chat(instructions="I", input=items).messages == (
        Message("system", "I\n\nD"),
        Message("user", "a"),
        Message(
            "assistant",
            "b",
            "hm",
            (
                {"function": {"name": "f", "arguments": {"x": 1}}},
                {"function": {"name": "g", "arguments": {}}},
            ),
        ),
        Message("tool", "two", tool_name="g", tool_call_id="2"),
        Message("tool", "one", tool_name="f", tool_call_id="1"),
        Message("user", "c", images=(Image(PNG),)),
    )


def test_tools_and_choices() -> None:
    other = {**TOOL, "name": "g"}
    both = [TOOL, other]
    plain = chat(input="x", tools=both)
    assert [tool["function"]["name"] for tool in plain.tools] == ["f", "g"]
    assert plain.tools[0]["type"] == "function"
    assert plain.must_call == ()
    assert chat(input="x", tools=both, tool_choice="none").tools == ()
    assert chat(input="x", tools=both, tool_choice="required").must_call == ("f", "g")
    one = chat(input="x", tools=both, tool_choice={"type": "function", "name": "g"})
    assert (one.must_call, one.parallel, plain.parallel) == (("g",), False, True)
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"name": "f"}]}
    some = chat(input="x", tools=both, tool_choice=allowed)
    assert [tool["function"]["name"] for tool in some.tools] == ["f"]
    assert some.must_call == ()


def test_formats() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    form = {"type": "json_schema", "name": "x", "schema": schema, "strict": True}
    asked = parse_response({"model": "tiny", "input": "x", "text": {"format": form}})
    assert json.loads(asked.request.format) == schema
    assert asked.echo["text"] == {"format": form}
    asked = parse_response(
        {"model": "t", "input": "x", "text": {"format": {"type": "json_object"}}}
    )
    assert json.loads(asked.request.format) == {"type": "object"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"input": None}, '"input" is required'),
        ({"input": []}, '"input" is required'),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "references to items"),
        ({"input": [{"type": "computer_call_output"}]}, "is not taken"),
        ({"input": [{"role": "ai"}]}, "must be one of system, developer, user, assistant"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "are not taken"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "data URL"),
        ({"input": [{"type": "function_call", "arguments": "{}"}]}, "name"),
        (
            {"input": [{"type": "function_call", "name": "f", "arguments": "["}]},
            "not a JSON object",
        ),
        ({"previous_response_id": "resp_1"}, "nothing is kept between two requests"),
        ({"conversation": "conv_1"}, "nothing is kept between two requests"),
        ({"background": True}, '"background" is not supported'),
        ({"prompt": {"id": "p"}}, "no stored prompts"),
        ({"truncation": "perhaps"}, '"truncation" must be auto or disabled'),
        ({"tools": [{"type": "web_search"}]}, 'tools of type "web_search" are not run here'),
        ({"tool_choice": "required"}, '"tool_choice" needs "tools"'),
        ({"tool_choice": {"type": "mcp"}}, "function or allowed_tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}}, "names none of"),
        ({"text": {"format": {"type": "json_schema"}}}, '"text.format.schema" is required'),
        ({"text": {"format": {"type": "xml"}}}, "text, json_object or json_schema"),
        ({"reasoning": {"effort": "huge"}}, '"reasoning.effort" must be none or one of'),
        ({"metadata": {str(n): "x" for n in range(17)}}, "more than 16"),
        ({"metadata": {"a": "x" * 513}}, "too long"),
        ({"metadata": {"a": 1}}, '"metadata.a" must be a string'),
        ({"max_output_tokens": 0}, "between 1"),
    ],
)
def test_refusals(change: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text.replace(".", "[.]")) as caught:
        parse_response({**BODY, **change})
    assert caught.value.http_status == 400


def test_counting() -> None:
    wanted = parse_count({"model": "tiny", "input": "Hi", "instructions": "I"})
    assert isinstance(wanted.task, Tokenize)
    assert isinstance(wanted.task.prompt, Chat)
    assert len(wanted.task.prompt.messages) == 2
    document = count_document(Tokenized(1, (1, 2, 3)))
    assert document == {"object": "response.input_tokens", "input_tokens": 3}


# -- answers --------------------------------------------------------------------------------------


def answer(**fields: Any) -> ResponsesAnswer:
    asked = parse_response({"model": "tiny", "input": "Hi", **fields})
    reply = ResponsesAnswer(asked, answer_id="7", created=100)
    reply.started(Started(1, 5, 2, 9))
    return reply


def done(reason: Any = "stop") -> Finished:
    return Finished(1, reason, 5, 7, 8, 9, thinking_tokens=3)


EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def read(stream: bytes) -> list[dict[str, Any]]:
    """The events, each as the official types have it, and numbered in order."""
    found = []
    blocks = stream.decode().split("\n\n")
    assert blocks.pop() == ""
    for block in blocks:
        name, _, data = block.partition("\n")
        document = json.loads(data.removeprefix("data: "))
        assert name == f"event: {document['type']}"
        parsed = EVENT.validate_python(document)
        assert parsed.type == document["type"]
        found.append(document)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def test_a_stream_of_text() -> None:
    reply = answer()
    events = read(
        reply.opening()
        + reply.piece(Piece(1, "Hé"))
        + reply.piece(Piece(1, "llo"))
        + reply.closing(done(), TIMING)
    )
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert events[0]["response"]["status"] == "in_progress"
    assert events[0]["response"]["output"] == []
    last = Response.model_validate(events[-1]["response"], strict=True)
    assert last.output_text == "Héllo"
    assert last.status == "completed"
    assert (last.created_at, last.completed_at) == (100, 103)
    assert last.usage
    assert last.usage.total_tokens == 12
    assert last.usage.input_tokens_details.cached_tokens == 2
    assert last.usage.output_tokens_details.reasoning_tokens == 3


PIECES: list[Piece | Call] = [
    Piece(1, "hm", thinking=True),
    Piece(1, "m", thinking=True),
    Piece(1, "So", ({"token": "So", "logprob": -0.5, "bytes": [83, 111], "top_logprobs": []},)),
    Piece(1, ""),
    Call(1, 0, "f", '{"a"', last=False),
    Call(1, 0, "", ":1}", last=True),
    Call(1, 1, "g", "{}", last=True),
]


def test_thinking_text_and_calls_are_items_of_their_own() -> None:
    reply = answer(top_logprobs=1)
    stream = reply.opening()
    for piece in PIECES:
        stream += reply.piece(piece) if isinstance(piece, Piece) else reply.call(piece)
    events = read(stream + reply.closing(done(), TIMING))
    response = events[-1]["response"]
    assert [item["type"] for item in response["output"]] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    reasoning, message, first, second = response["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "hmm"}]
    assert message["content"][0]["logprobs"][0]["token"] == "So"
    assert (first["name"], first["arguments"]) == ("f", '{"a":1}')
    assert (second["name"], second["arguments"]) == ("g", "{}")
    assert len({item["id"] for item in response["output"]}) == 4
    assert first["call_id"] != second["call_id"]
    assert all(item["status"] == "completed" for item in response["output"])
    deltas = [e["delta"] for e in events if e["type"].endswith("arguments.delta")]
    assert "".join(deltas) == '{"a":1}{}'

    whole = json.loads(answer(top_logprobs=1).whole(PIECES, done(), TIMING))
    assert whole == response
    Response.model_validate(whole, strict=True)


def test_what_was_cut_off_says_so() -> None:
    document = json.loads(answer().whole([Piece(1, "x")], done("length"), TIMING))
    assert document["status"] == "incomplete"
    assert document["incomplete_details"] == {"reason": "max_output_tokens"}
    assert document["output"][0]["status"] == "incomplete"
    reply = answer()
    assert read(reply.opening() + reply.closing(done("length"), TIMING))[-1]["type"] == (
        "response.incomplete"
    )


def test_an_empty_answer_is_an_empty_message() -> None:
    response = Response.model_validate(json.loads(answer().whole([], done(), TIMING)))
    assert response.output_text == ""
    assert response.output[0].type == "message"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SealiftError("it broke"), "server_error"),
        (ServerBusy("it broke"), "server_error"),
        (RemoteRefused("it broke"), "server_error"),
        (NotFound("it broke"), "invalid_prompt"),
    ],
)
def test_a_broken_stream(error: SealiftError, code: str) -> None:
    reply = answer()
    events = read(reply.opening() + reply.piece(Piece(1, "x")) + reply.broken(error))
    failed, last = events[-2:]
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": code, "message": "it broke"}
    assert (last["type"], last["message"]) == ("error", "it broke")
    assert last["error"]["message"] == "it broke", "the official client raises it"


def test_the_request_is_repeated() -> None:
    body = {**BODY, "tools": [TOOL], "reasoning": None}
    reply = ResponsesAnswer(parse_response(body), answer_id="7", created=100)
    document = json.loads(reply.whole([Piece(1, "x")], done(), TIMING))
    Response.model_validate(document, strict=True)
    for key in ("instructions", "max_output_tokens", "temperature", "top_p", "metadata", "user"):
        assert document[key] == BODY[key], key
    assert document["tools"] == [{**TOOL, "strict": False}]
    assert document["store"] is False, "nothing is kept, whatever was asked for"
    assert document["previous_response_id"] is None
