"""The openai Python SDK, unmodified, against a real server with a real model, sandbox on."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pydantic
import pytest

from tests.serving import Server, install, serving
from tests.support.processes import workers

pytestmark = pytest.mark.model
NAME = "library/smollm2:135m"
ASK: Any = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


@pytest.fixture(scope="module")
def server(model_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("openai") / "home"
    install(home, model_gguf, NAME)
    with serving(home, context_length="512", num_threads="1") as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=NAME, messages=ASK, temperature=0, max_completion_tokens=24
    )
    (choice,) = answer.choices
    assert "Paris" in (choice.message.content or "")
    assert choice.message.role == "assistant"
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    stream = client.chat.completions.create(
        model=NAME,
        messages=ASK,
        temperature=0,
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == choice.message.content
    assert chunks[-2].choices[0].finish_reason == choice.finish_reason
    usage = chunks[-1].usage
    assert usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
    )
    assert usage.prompt_tokens_details
    assert usage.prompt_tokens_details.cached_tokens
    assert len({(c.id, c.created) for c in chunks}) == 1


def test_the_streaming_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=NAME, messages=ASK, temperature=0, max_tokens=8
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].message.content


def test_embeddings(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model=NAME, input=["one", "two"], dimensions=32)
    plain = client.embeddings.create(
        model=NAME, input=["one", "two"], dimensions=32, encoding_format="float"
    )
    assert [len(entry.embedding) for entry in answer.data] == [32, 32]
    assert answer.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-4)
    assert answer.usage.total_tokens > 0


class City(pydantic.BaseModel):
    name: Literal["Paris", "London"]
    people: int = pydantic.Field(ge=1, le=99)


def test_answers_in_a_format(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(
        model=NAME,
        messages=ASK,
        temperature=0,
        max_tokens=60,
        response_format=City,
        logprobs=True,
        top_logprobs=2,
    )
    (choice,) = parsed.choices
    assert isinstance(choice.message.parsed, City)
    assert choice.logprobs
    with pytest.raises(openai.BadRequestError, match="cannot be enforced"):
        client.chat.completions.create(
            model=NAME,
            messages=ASK,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "x"}},
            },
        )


def test_sampling(client: openai.OpenAI) -> None:
    def ask(**fields: Any) -> Any:
        return client.chat.completions.create(model=NAME, messages=ASK, **fields)

    answers = {
        ask(seed=3, temperature=1.5, max_tokens=12).choices[0].message.content for _ in range(2)
    }
    assert len(answers) == 1
    limited = ask(temperature=0, max_tokens=20, max_completion_tokens=2)
    assert limited.choices[0].finish_reason == "length"
    assert limited.usage.completion_tokens == 2
    stopped = ask(temperature=0, max_tokens=24, stop="Par").choices[0]
    assert "Par" not in stopped.message.content
    assert stopped.finish_reason == "stop"
    first = ask(temperature=0, max_tokens=1, logprobs=True, top_logprobs=3).choices[0].logprobs
    assert first
    (entry,) = first.content
    assert entry.logprob <= 0
    assert len(entry.top_logprobs) == 3


def test_several_answers(client: openai.OpenAI) -> None:
    fields: Any = {"model": NAME, "messages": ASK, "n": 3, "temperature": 1.5, "max_tokens": 12}
    answers = client.chat.completions.create(**fields, seed=5)
    texts = [choice.message.content for choice in answers.choices]
    assert len(set(texts)) > 1
    again = client.chat.completions.create(**fields, seed=5)
    assert [choice.message.content for choice in again.choices] == texts
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(**fields, seed=5, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


def test_logit_bias_bans_a_token(client: openai.OpenAI, server: Server) -> None:
    prompt = "The capital of France is"

    def complete(**fields: Any) -> str:
        answer = client.completions.create(
            model=NAME, prompt=prompt, max_tokens=1, temperature=0, **fields
        )
        return str(answer.choices[0].text)

    # Ollama's context tells the ids; a template of the bare text makes it the whole prompt.
    body = {"model": NAME, "prompt": "x", "template": prompt, "stream": False}
    options = {"temperature": 0, "num_predict": 1, "num_ctx": 512}
    token = server.post("/api/generate", {**body, "options": options})["context"][-1]
    plain = complete()
    assert complete() == plain
    assert complete(logit_bias={str(token): -100}) != plain


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=NAME, prompt="The capital of France is", max_tokens=8, temperature=0, logprobs=2
    )
    assert "Paris" in answer.choices[0].text
    logprobs = answer.choices[0].logprobs
    assert logprobs
    assert len(logprobs.tokens or ()) == len(logprobs.token_logprobs or ()) == 8
    pieces = client.completions.create(
        model=NAME, prompt="The capital of France is", max_tokens=8, temperature=0, stream=True
    )
    assert "".join(piece.choices[0].text for piece in pieces) == answer.choices[0].text


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["smollm2:135m"]
    assert client.models.retrieve(NAME).owned_by == "library"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such")


def test_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nope", messages=ASK)
    assert missing.value.code == "model_not_found"
    assert missing.value.type == "not_found_error"
    refused: list[dict[str, Any]] = [
        {"n": 129},
        {"temperature": 3},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        {"messages": []},
    ]
    for fields in refused:
        with pytest.raises(openai.BadRequestError) as wrong:
            client.chat.completions.create(**{"model": NAME, "messages": ASK, **fields})
        assert wrong.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(
            model=NAME, messages=[{"role": "user", "content": "word " * 2000}]
        )
    assert long.value.code == "context_length_exceeded"


def _running(server: Server) -> int:
    return sum(entry["running"] for entry in server.get("/api/ps")["models"])


def test_a_client_that_goes_away_frees_the_worker_at_once(server: Server) -> None:
    server.post("/api/generate", {"model": NAME})
    for stream in (True, False):
        body = json.dumps(
            {
                "model": NAME,
                "prompt": "1, 2, 3, 4,",  # goes on and on, where a story may end at once
                "temperature": 0,
                "max_tokens": 400,
                "stream": stream,
            }
        ).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        with server.connect() as connection:
            connection.sendall(head.encode() + body)
            deadline = time.monotonic() + 30
            while _running(server) == 0 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert _running(server) == 1
            if stream:
                assert connection.recv(1) == b"H"
            connection.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + 2
        while _running(server) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert _running(server) == 0


def test_a_worker_that_is_killed_is_one_error_and_the_next_request_works(
    client: openai.OpenAI, server: Server
) -> None:
    client.chat.completions.create(model=NAME, messages=ASK, max_tokens=1)
    (worker,) = workers(server.process.pid)
    stream = client.chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": "Tell a long story."}], stream=True
    )
    next(stream)
    worker.kill()
    with pytest.raises(openai.APIError, match="worker died"):
        for _ in stream:
            pass
    answer = client.chat.completions.create(model=NAME, messages=ASK, max_tokens=2)
    assert answer.usage


def test_egress_is_off_in_the_front_end_and_in_the_worker(server: Server) -> None:
    server.post("/api/generate", {"model": NAME})
    document = server.get("/api/sealift/egress")
    assert document["egress"] == "off"
    assert [process["process"] for process in document["processes"]] == ["front-end", "worker"]


def test_stopping_ends_running_answers_with_one_clear_error(
    model_gguf: Path, tmp_path: Path
) -> None:
    install(tmp_path / "home", model_gguf, NAME)
    with serving(tmp_path / "home", num_threads="1") as server:
        url = f"{server.url}/v1"
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(
                model=NAME, messages=[{"role": "user", "content": "Tell a story."}], stream=True
            )
            next(stream)
            began = time.monotonic()
            server.process.terminate()
            with pytest.raises(openai.APIError, match="the server is stopping"):
                for _ in stream:
                    pass
            assert server.stop() == 0
            assert time.monotonic() - began < 5
