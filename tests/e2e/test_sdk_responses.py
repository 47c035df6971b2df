"""The openai Python SDK's Responses, unmodified, against a real server with a real model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pydantic
import pytest

from tests.serving import Server, install, serving
from tests.support.pictures import URL

pytestmark = pytest.mark.model
NAME = "gpt-4o-mini"
TOOLS_NAME = "qwen2.5"
ASK = "What is the capital of France? Answer in one word."
TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{# <tool_call> #}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}"
    "<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "London"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


class City(pydantic.BaseModel):
    name: Literal["Paris", "London"]
    people: Literal[1, 2]


@pytest.fixture(scope="module")
def server(model_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("responses")
    home, tools = folder / "home", folder / "tools.gguf"
    install(home, model_gguf, f"library/{NAME}:latest")
    command = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", "--force"]
    command += ["--chat-template", TEMPLATE, str(model_gguf), str(tools)]
    subprocess.run(command, check=True, capture_output=True)
    install(home, tools, f"library/{TOOLS_NAME}:latest")
    tools.unlink()
    with serving(home, context_length="1024", num_threads="1") as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    fields = {"model": NAME, "input": ASK, "temperature": 0, "max_output_tokens": 24, **fields}
    return client.responses.create(**fields)


def test_a_response_whole_and_streamed(client: openai.OpenAI) -> None:
    response = ask(client, instructions="Be brief.", metadata={"a": "b"})
    assert "Paris" in response.output_text
    assert response.status in ("completed", "incomplete")
    assert response.usage.input_tokens > response.usage.input_tokens_details.cached_tokens
    assert response.metadata == {"a": "b"}
    assert response.store is False
    counted = client.responses.input_tokens.count(model=NAME, input=ASK, instructions="Be brief.")
    assert counted.input_tokens == response.usage.input_tokens
    events = list(ask(client, instructions="Be brief.", stream=True))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == response.output_text
    assert events[-1].response.output_text == response.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_the_streaming_helper(client: openai.OpenAI) -> None:
    with client.responses.stream(
        model=NAME, input=ASK, temperature=0, text_format=City, max_output_tokens=100
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert isinstance(final.output_parsed, City)


def test_parsing(client: openai.OpenAI) -> None:
    response = client.responses.parse(
        model=NAME, input=ASK, temperature=0, text_format=City, max_output_tokens=100
    )
    assert isinstance(response.output_parsed, City)


def test_the_whole_conversation_is_sent_again(client: openai.OpenAI) -> None:
    first = ask(client)
    items: Any = [{"role": "user", "content": ASK}, *first.output]
    second = ask(client, input=[*items, {"role": "user", "content": "And of Spain?"}])
    assert second.output_text
    assert second.usage.input_tokens > first.usage.total_tokens - 24


def test_tools(client: openai.OpenAI) -> None:
    fields: Any = {
        "model": TOOLS_NAME,
        "input": "What is the weather in Paris?",
        "tools": [WEATHER],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_output_tokens": 100,
    }
    response = ask(client, **fields)
    (call,) = [item for item in response.output if item.type == "function_call"]
    assert call.name == "get_weather"
    assert json.loads(call.arguments)["city"] in ("Paris", "London")
    events = list(ask(client, **fields, stream=True))
    (done,) = [e for e in events if e.type == "response.function_call_arguments.done"]
    assert done.arguments == call.arguments
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    turns = [{"role": "user", "content": fields["input"]}, call, output]
    answer = ask(client, **{**fields, "input": turns, "tool_choice": "none"})
    assert answer.output_text


def test_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        ask(client, model="nope")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="nothing is kept"):
        ask(client, previous_response_id="resp_1")
    with pytest.raises(openai.NotFoundError, match="not kept here"):
        client.responses.retrieve("resp_1")
    with pytest.raises(openai.BadRequestError) as long:
        ask(client, input="word " * 3000)
    assert long.value.code == "context_length_exceeded"
    cut = ask(
        client,
        input=[{"role": "user", "content": "word " * 3000}] * 1
        + [{"role": "user", "content": ASK}],
        truncation="auto",
    )
    assert cut.output_text
    picture = {"type": "input_image", "image_url": URL, "detail": "auto"}
    with pytest.raises(openai.BadRequestError, match="missing data required for image input"):
        ask(client, input=[{"role": "user", "content": [picture]}])


def test_several_prompts_and_token_ids(client: openai.OpenAI, server: Server) -> None:
    prompts = ["The capital of France is", "The capital of Spain is"]
    fields: Any = {"model": NAME, "max_tokens": 8, "temperature": 0}
    both = client.completions.create(prompt=prompts, **fields)
    assert [choice.index for choice in both.choices] == [0, 1]
    for prompt, choice in zip(prompts, both.choices, strict=True):
        tokens = server.post("/api/tokenize", {"model": NAME, "text": prompt})["tokens"]
        alone = client.completions.create(prompt=tokens, **fields)
        assert alone.choices[0].text == choice.text
    streamed = ["", ""]
    for chunk in client.completions.create(prompt=prompts, stream=True, **fields):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == [choice.text for choice in both.choices]
