"""Tools and thinking with a real model under the chat templates of several families."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest

from tests.serving import Server, install, serving

pytestmark = pytest.mark.model

_TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}"
    "<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
_OFFER = "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n{% endif %}"
TEMPLATES = {
    "hermes": _OFFER + "{# <tool_call> #}" + _TURNS,
    "llama": _OFFER + '{# "parameters" <|python_tag|> #}' + _TURNS,
    "mistral": _OFFER + "{# [TOOL_CALLS] #}" + _TURNS,
    "thinker": _OFFER + "{# </think> <tool_call> #}" + _TURNS + "<think>\n",
}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "days": {"enum": [1, 2]}},
            "required": ["city", "days"],
        },
    },
}
ASK: Any = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture(scope="module")
def server(model_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tools")
    home = folder / "home"
    for name, template in TEMPLATES.items():
        file = folder / f"{name}.gguf"
        command = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", "--force"]
        subprocess.run(
            [*command, "--chat-template", template, str(model_gguf), str(file)],
            check=True,
            capture_output=True,
        )
        install(home, file, f"library/{name}:1")
        file.unlink()
    with serving(home, context_length="1024", num_threads="1", max_loaded_models="1") as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def native(server: Server) -> Iterator[ollama.Client]:
    with ollama.Client(server.url) as found:
        yield found


@pytest.mark.parametrize("family", ["hermes", "llama", "mistral"])
def test_a_tool_that_must_be_called_is(client: openai.OpenAI, family: str) -> None:
    fields: Any = {
        "model": f"{family}:1",
        "messages": ASK,
        "tools": [WEATHER],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "temperature": 0,
        "seed": 1,  # or the last bits depend on how much of the prompt was there already
        "max_tokens": 100,
    }
    (choice,) = client.chat.completions.create(**fields).choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    arguments = json.loads(call.function.arguments)
    assert arguments["days"] in (1, 2)
    assert set(arguments) == {"city", "days"}
    with client.chat.completions.stream(**fields) as stream:
        for _ in stream:
            pass
        (streamed,) = stream.get_final_completion().choices
    assert streamed.finish_reason == "tool_calls"
    (again,) = streamed.message.tool_calls or []
    assert json.loads(again.function.arguments) == arguments


def test_an_answer_to_a_tools_result(client: openai.OpenAI) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris", "days": 1}'},
    }
    turns: Any = [
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    answer = client.chat.completions.create(
        model="hermes:1", messages=turns, tools=[WEATHER], temperature=0, max_tokens=30
    )
    assert answer.choices[0].message.content or answer.choices[0].message.tool_calls


def test_thinking_is_apart(native: ollama.Client) -> None:
    options: Any = {"temperature": 0, "num_predict": 40}
    message = native.chat("thinker:1", ASK, options=options).message
    assert message.thinking, "the template has opened the thinking"
    assert "think>" not in (message.content or "")
    pieces = list(native.chat("thinker:1", ASK, options=options, stream=True, think=True))
    assert "".join(p.message.thinking or "" for p in pieces) == message.thinking


def test_a_format_holds_behind_the_thinking_only(native: ollama.Client) -> None:
    schema = {"enum": ["yes", "no"]}
    options: Any = {"temperature": 0, "num_predict": 10}
    message = native.chat("thinker:1", ASK, format=schema, options=options).message
    assert message.thinking
    message = native.chat("hermes:1", ASK, format=schema, options=options).message
    assert json.loads(message.content or "") in ("yes", "no")


def test_tools_of_the_native_dialect(native: ollama.Client) -> None:
    options: Any = {"temperature": 0, "num_predict": 30}
    plain = native.chat("hermes:1", ASK, tools=[WEATHER], options=options)
    assert plain.message.content or plain.message.tool_calls


def test_tools_of_anthropics_dialect(server: Server) -> None:
    tool: Any = {"name": "get_weather", "input_schema": WEATHER["function"]["parameters"]}
    fields: Any = {
        "model": "hermes:1",
        "messages": ASK,
        "max_tokens": 100,
        "extra_body": {"temperature": 0},
        "tools": [tool],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    }
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        answer = client.messages.create(**fields)
        with client.messages.stream(**fields) as stream:
            streamed = stream.get_final_message()
    for message in (answer, streamed):
        content: Any = message.content
        (block,) = content
        assert message.stop_reason == "tool_use"
        assert block.type == "tool_use"
        assert set(block.input) == {"city", "days"}
