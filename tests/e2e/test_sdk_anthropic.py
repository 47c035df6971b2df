"""The anthropic Python SDK, unmodified, against a real server with a real model, sandbox on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from tests.serving import Server, install, serving

pytestmark = pytest.mark.model
# This SDK has no parameter for it any more; the API still has.
GREEDY: Any = {"temperature": 0}
NAME = "library/smollm2:135m"
ASK: Any = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


@pytest.fixture(scope="module")
def server(model_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("anthropic") / "home"
    install(home, model_gguf, NAME)
    with serving(home, context_length="512", num_threads="1") as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as found:
        yield found


def test_messages_and_streams(client: anthropic.Anthropic) -> None:
    fields: Any = {"model": NAME, "messages": ASK, "max_tokens": 24, "extra_body": GREEDY}
    answer = client.messages.create(**fields)
    (block,) = answer.content
    assert block.type == "text"
    assert "Paris" in block.text
    assert answer.stop_reason in ("end_turn", "max_tokens")
    counted = client.messages.count_tokens(model=NAME, messages=ASK)
    assert counted.input_tokens == answer.usage.input_tokens
    with client.messages.stream(**fields) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == block.text
    assert final.usage == answer.usage
    assert final.stop_reason == answer.stop_reason


def test_stop_sequences(client: anthropic.Anthropic) -> None:
    fields: Any = {"model": NAME, "messages": ASK, "max_tokens": 24, "extra_body": GREEDY}
    answer = client.messages.create(**fields, stop_sequences=["aris"])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "aris")


def test_errors(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(model="nope", messages=ASK, max_tokens=5)
    assert missing.value.body == {
        "type": "error",
        "error": {"type": "not_found_error", "message": "model 'nope' not found"},
    }
    tool: Any = {"name": "f", "input_schema": {"type": "object"}}
    with pytest.raises(anthropic.BadRequestError, match="does not support tools"):
        client.messages.create(model=NAME, messages=ASK, max_tokens=5, tools=[tool])
