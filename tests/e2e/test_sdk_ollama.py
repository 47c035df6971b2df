"""The ollama Python SDK, unmodified, against a real server with a real model, sandbox on."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from tests.serving import Server, install, serving

pytestmark = pytest.mark.model
NAME = "smollm2:135m"
ASK = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
GREEDY = {"temperature": 0, "num_predict": 24, "num_ctx": 512}


@pytest.fixture(scope="module")
def server(model_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("ollama") / "home"
    install(home, model_gguf, "library/smollm2:135m")
    with serving(home, num_threads="1") as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[ollama.Client]:
    with ollama.Client(server.url) as found:
        yield found


def test_chat_streaming_and_not_give_the_same(client: ollama.Client) -> None:
    whole = client.chat(NAME, ASK, options=GREEDY)
    assert "Paris" in (whole.message.content or "")
    assert whole.message.role == "assistant"
    assert whole.done
    assert whole.done_reason in ("stop", "length")
    assert whole.eval_count
    assert whole.prompt_eval_count
    assert whole.eval_duration
    chunks = list(client.chat(NAME, ASK, options=GREEDY, stream=True))
    assert len(chunks) > 1
    assert "".join(chunk.message.content or "" for chunk in chunks) == whole.message.content
    assert chunks[-1].done
    assert chunks[-1].prompt_eval_count == whole.prompt_eval_count, "cached tokens count too"
    assert not any(chunk.done for chunk in chunks[:-1])


def test_generate_and_its_context(client: ollama.Client) -> None:
    first = client.generate(NAME, "My name is Ada. Remember it.", options=GREEDY)
    assert first.response
    assert first.context
    again = client.generate(NAME, "What is my name?", context=list(first.context), options=GREEDY)
    assert again.response
    assert (again.prompt_eval_count or 0) > len(first.context)
    pieces = list(client.generate(NAME, "Count to five.", options=GREEDY, stream=True))
    assert "".join(piece.response or "" for piece in pieces)
    raw = client.generate(NAME, "The capital of France is", raw=True, options=GREEDY)
    assert "Paris" in (raw.response or "")
    assert raw.context is None


def test_system_and_template(client: ollama.Client) -> None:
    template = "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}"
    plain = client.generate(NAME, "Hi", options={**GREEDY, "num_predict": 1})
    small = client.generate(NAME, "Hi", template=template, options={**GREEDY, "num_predict": 1})
    with_system = client.generate(
        NAME, "Hi", template=template, system="Be very brief", options={**GREEDY, "num_predict": 1}
    )
    counts = [answer.prompt_eval_count or 0 for answer in (plain, small, with_system)]
    assert counts[1] < counts[2] < counts[0]


def test_sampling_options(client: ollama.Client) -> None:
    options = {"seed": 7, "temperature": 1.5, "num_predict": 12, "num_ctx": 512}
    answers = {client.chat(NAME, ASK, options=options).message.content for _ in range(2)}
    assert len(answers) == 1, "the same seed gives the same answer"
    limited = client.chat(NAME, ASK, options={**GREEDY, "num_predict": 2})
    assert (limited.done_reason, limited.eval_count) == ("length", 2)
    stopped = client.chat(NAME, ASK, options={**GREEDY, "stop": ["Par"]})
    assert "Par" not in (stopped.message.content or "")
    assert stopped.done_reason == "stop"


def test_logprobs(client: ollama.Client) -> None:
    answer = client.chat(
        NAME, ASK, options={**GREEDY, "num_predict": 3}, logprobs=True, top_logprobs=2
    )
    assert answer.logprobs
    assert len(answer.logprobs) == 3
    for entry in answer.logprobs:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs or ()) == 2


def test_list_show_ps_copy_delete(client: ollama.Client) -> None:
    (listed,) = client.list().models
    assert listed.model == NAME
    assert listed.details
    assert listed.details.quantization_level == "Q4_1"
    shown = client.show(NAME)
    assert shown.details
    assert shown.details.family == "llama"
    assert shown.modelinfo
    assert shown.modelinfo["llama.context_length"] == 8192
    assert shown.capabilities == ["completion"]
    assert "<|im_start|>" in (shown.template or "")
    client.chat(NAME, ASK, options={**GREEDY, "num_predict": 1})
    (running,) = client.ps().models
    assert running.model == NAME
    assert running.context_length == 512
    assert running.expires_at
    assert client.copy(NAME, "me/again").status == "success"
    assert {model.model for model in client.list().models} == {NAME, "me/again:latest"}
    assert client.delete("me/again").status == "success"


def test_answers_in_a_format(client: ollama.Client) -> None:
    options: dict[str, Any] = {"temperature": 0, "num_predict": 200}
    answer = client.chat(NAME, ASK, format="json", options=options)
    if answer.done_reason == "stop":
        assert isinstance(json.loads(answer.message.content or ""), dict)
    schema = {
        "type": "object",
        "properties": {
            "capital": {"type": "string", "maxLength": 12},
            "people": {"type": "integer", "minimum": 1, "maximum": 9000000},
        },
        "required": ["capital", "people"],
    }
    for extra in ({}, {"temperature": 1.5, "seed": 3}):
        text = client.generate(
            NAME, "France?", format=schema, options={**options, **extra}
        ).response
        found = json.loads(text or "")
        assert len(found["capital"]) <= 12
        assert 1 <= found["people"] <= 9000000
    pieces = client.chat(NAME, ASK, format=schema, options=options, stream=True)
    streamed = "".join(piece.message.content or "" for piece in pieces)
    assert set(json.loads(streamed)) >= {"capital", "people"}


def test_embeddings(client: ollama.Client) -> None:
    def near(one: Sequence[float], other: Sequence[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    texts = ["A cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates rose."]
    answer = client.embed(NAME, texts)
    cat, kitten, rates = answer.embeddings
    assert near(cat, cat) == pytest.approx(1, abs=1e-5)
    assert near(cat, kitten) > near(cat, rates)
    assert answer.prompt_eval_count
    alone = client.embed(NAME, texts[0]).embeddings[0]
    assert near(alone, cat) > 0.999, "neighbours in a batch change nothing"
    assert client.embeddings(NAME, texts[0]).embedding == pytest.approx(list(alone), abs=1e-4)
    short = client.embed(NAME, texts[0], dimensions=64).embeddings[0]
    assert len(short) == 64
    assert near(short, short) == pytest.approx(1, abs=1e-5)
    assert client.embed(NAME, "").embeddings == []
    long, small = "word " * 300, {"num_ctx": 256}
    assert len(client.embed(NAME, long, options=small).embeddings) == 1
    with pytest.raises(ollama.ResponseError, match="input length exceeds the context length"):
        client.embed(NAME, long, truncate=False, options=small)
    with pytest.raises(ollama.ResponseError, match='model "nope" not found, try pulling it first'):
        client.embed("nope", "x")
    text = client.generate(NAME, "The capital of France is", raw=True, options={"num_predict": 4})
    assert text.response, "a model that embeds still generates"


def test_tokens_there_and_back(server: Server) -> None:
    def post(path: str, **body: Any) -> Any:
        return httpx.post(f"{server.url}{path}", json={"model": NAME, **body}, timeout=60).json()

    text = "Wörter, words & <|im_start|>"
    tokens = post("/api/tokenize", text=text)["tokens"]
    assert post("/api/detokenize", tokens=tokens)["text"] == text
    special = post("/api/tokenize", text=text, parse_special=True)["tokens"]
    assert len(special) < len(tokens)
    chat = post("/api/tokenize", messages=ASK)["tokens"]
    assert len(chat) == client_count(server)
    assert "no such token" in post("/api/detokenize", tokens=[10**6])["error"]


def client_count(server: Server) -> int:
    """What a chat says that its prompt has."""
    body = {"model": NAME, "messages": ASK, "stream": False, "options": {"num_predict": 1}}
    return int(
        httpx.post(f"{server.url}/api/chat", json=body, timeout=60).json()["prompt_eval_count"]
    )


def test_load_and_unload(client: ollama.Client) -> None:
    assert client.generate(NAME, "", keep_alive="1m").done_reason == "load"
    assert len(client.ps().models) == 1
    assert client.generate(NAME, "", keep_alive=0).done_reason == "unload"
    assert client.ps().models == []


def test_errors(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="model 'nope' not found") as caught:
        client.chat("nope", ASK)
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="does not support tools") as caught:
        client.chat(NAME, ASK, tools=[{"type": "function", "function": {"name": "f"}}])
    assert caught.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="does not support thinking"):
        client.chat(NAME, ASK, think=True)
    with pytest.raises(ollama.ResponseError, match="cannot be enforced") as caught:
        client.chat(NAME, ASK, format={"type": "nonsense"})
    assert caught.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="invalid image input"):
        client.generate(NAME, "x", images=[base64.b64encode(b"x").decode()])
    with pytest.raises(ollama.ResponseError, match="must be of type integer"):
        client.chat(NAME, ASK, options={"top_k": "many"})


def test_of_a_prompt_too_long_the_end_is_answered(client: ollama.Client) -> None:
    question = "word " * 2000 + ASK[0]["content"]
    long = [{"role": "user", "content": question}]
    answer = client.chat(NAME, long, options={**GREEDY, "num_ctx": 128})
    assert 76 < (answer.prompt_eval_count or 0) <= 96  # a quarter is for the answer
    assert "Paris" in (answer.message.content or "")


def test_a_prompt_too_long_may_not_be_cut(server: Server) -> None:
    long = {"model": NAME, "prompt": "word " * 2000, "options": {"num_ctx": 128}}
    for kept in ("truncate", "shift"):
        answer = httpx.post(f"{server.url}/api/generate", json={**long, kept: False})
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(
            "the prompt is longer than the context length currently available to the model"
        )


async def test_the_asynchronous_client(server: Server) -> None:
    async with ollama.AsyncClient(server.url) as client:
        pieces = [
            piece.message.content or ""
            async for piece in await client.chat(NAME, ASK, options=GREEDY, stream=True)
        ]
    assert "Paris" in "".join(pieces)
