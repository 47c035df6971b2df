"""The HTTP surface over real sockets and a real store; the workers are simulated."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.reference import Reference
from schemas import limits
from schemas.settings import Serve
from tests.support.http_server import Site, events, lines, served


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(tmp_path / "home", Serve(origins=("app://mine",))) as found:
        yield found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - states of others, which have no event
            await asyncio.sleep(0.002)


def running(site: Site) -> int:
    return sum(worker.running for worker in site.machine.workers)


# -- general --------------------------------------------------------------------------------------


async def test_root_and_version(site: Site) -> None:
    for method in ("GET", "HEAD"):
        root = await site.client.request(method, "/")
        assert root.status_code == 200
        assert root.text == ("Ollama is running" if method == "GET" else "")
        version = await site.client.request(method, "/api/version")
        assert version.status_code == 200
    assert version.headers["server"] == "sealift"
    assert (await site.client.get("/api/version")).json()["version"]


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/nope", 404, "404 page not found"),
        ("POST", "/v1/nope", 404, "404 page not found"),
        ("GET", "/api/chat", 405, "405 method not allowed"),
        ("POST", "/api/tags", 405, "405 method not allowed"),
        ("PUT", "/", 405, "405 method not allowed"),
    ],
)
async def test_unknown_routes(site: Site, method: str, path: str, status: int, text: str) -> None:
    response = await site.client.request(method, path)
    assert (response.status_code, response.text) == (status, text)
    assert response.headers["content-type"].startswith("text/plain")


async def test_a_slash_too_many_leads_to_the_route(site: Site) -> None:
    slashed = await site.client.get(f"{site.client.base_url}//api/tags/?a=b%2F")
    assert (slashed.status_code, slashed.headers["location"]) == (301, "/api/tags?a=b%2F")
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
    answer = await site.client.post("/api/chat/", json=body, follow_redirects=True)
    assert answer.history[0].status_code == 307
    assert answer.json()["done"]
    for nowhere in ("/nope/", "//evil.example/"):
        assert (await site.client.get(f"{site.client.base_url}{nowhere}")).status_code == 404


async def test_of_several_names_ps_shows_the_last(site: Site) -> None:
    for name in ("tiny", "other", "tiny"):
        if name == "other":
            await site.post("/api/copy", {"source": "tiny", "destination": name})
        await site.post("/api/generate", {"model": name})
        listed = (await site.client.get("/api/ps")).json()["models"]
        assert [model["name"] for model in listed] == [f"{name}:latest"]


@pytest.mark.parametrize(
    "path", ["/api/chat", "/api/generate", "/api/show", "/api/copy", "/v1/chat/completions"]
)
async def test_bad_bodies(site: Site, path: str) -> None:
    for content, text in (
        (b"", "missing request body"),
        (b"{", "the request body is not JSON: "),
        (b"[]", "the request body is not a JSON object"),
        (b"\xff", "the request body is not JSON: "),
        (b"{}", "model is required"),
    ):
        response = await site.client.post(path, content=content)
        assert response.status_code == 400
        document = response.json()
        message = document["error"]["message"] if path.startswith("/v1/") else document["error"]
        assert message.startswith(text)


async def test_a_body_too_large_is_refused_unread(site: Site) -> None:
    head = (
        f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Length: {limits.HTTP_BODY_BYTES + 1}\r\n\r\n"
    )
    answer = await site.raw(head.encode(), b"{" * 100_000)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"the request body is too large" in answer


async def test_bodies_in_memory_are_bounded_together(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HTTP_BODIES_BYTES", 2000)
    site.machine.pace.clear()
    first = asyncio.create_task(site.chat("x" * 1000))
    await until(lambda: running(site) == 1)
    response = await site.chat("x" * 1000)
    assert response.status_code == 503
    assert response.headers["retry-after"]
    site.machine.pace.set()
    assert (await first).status_code == 200
    assert (await site.chat("x" * 1000)).status_code == 200


async def test_a_compressed_body_is_refused(site: Site) -> None:
    response = await site.client.post(
        "/api/chat", content=b"x", headers={"Content-Encoding": "gzip"}
    )
    assert response.status_code == 400
    assert response.json()["error"] == "the request body must not be compressed"


async def test_what_is_no_http_gets_no_traceback(site: Site) -> None:
    answer = await site.raw(b"\x16\x03\x01 secret prompt\r\n\r\n")
    assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert b"Traceback" not in answer


async def test_a_defect_is_answered_without_a_traceback(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret prompt")

    monkeypatch.setattr(type(site.scheduler), "lease", broken)
    response = await site.chat()
    assert response.status_code == 500
    assert response.json() == {
        "error": "internal error. See the server's log",
        "code": "internal",
    }
    assert "ZeroDivisionError in POST /api/chat" in caplog.text
    assert "secret" not in caplog.text


# -- who may ask ----------------------------------------------------------------------------------


async def test_dns_rebinding_is_refused(site: Site) -> None:
    for path, body in (("/", None), ("/api/chat", {"model": "tiny", "messages": []})):
        method = "GET" if body is None else "POST"
        headers = {"Host": "evil.example:11434"}
        response = await site.client.request(method, path, json=body, headers=headers)
        assert response.status_code == 403
    assert site.machine.starts == 0


@pytest.mark.parametrize("origin", ["http://localhost:5173", "app://mine"])
async def test_cors_for_allowed_origins(site: Site, origin: str) -> None:
    preflight = await site.client.options(
        "/api/chat", headers={"Origin": origin, "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == origin
    assert "POST" in preflight.headers["access-control-allow-methods"]
    messages = [{"role": "user", "content": "Hi"}]
    response = await site.client.post(
        "/api/chat", json={"model": "tiny", "messages": messages}, headers={"Origin": origin}
    )
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == origin
    assert response.headers["vary"] == "Origin"


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
async def test_other_origins_are_refused(site: Site, origin: str) -> None:
    for method in ("OPTIONS", "POST"):
        response = await site.client.request(
            method,
            "/api/generate",
            json={"model": "tiny", "prompt": "Hi"},
            headers={"Origin": origin, "Access-Control-Request-Method": "POST"},
        )
        assert response.status_code == 403
        assert "access-control-allow-origin" not in response.headers
    assert site.machine.starts == 0


# -- Ollama ---------------------------------------------------------------------------------------


async def test_a_chat_stream(site: Site) -> None:
    response = await site.chat()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-ndjson"
    first, second, last = lines(response)
    assert first["message"] == {"role": "assistant", "content": "one "}
    assert second["message"]["content"] == "two "
    assert not first["done"]
    assert last["done"]
    assert last["done_reason"] == "stop"
    assert last["prompt_eval_count"] == 2
    assert last["eval_count"] == 2
    assert last["total_duration"] >= last["load_duration"] > 0
    assert isinstance(last["total_duration"], int)


async def test_whole_answers(site: Site) -> None:
    document = (await site.chat(stream=False, options={"num_predict": 1})).json()
    assert document["message"]["content"] == "one "
    assert document["done_reason"] == "length"
    body = {"model": "tiny", "prompt": "a b", "stream": False}
    assert (await site.post("/api/generate", body)).json()["response"] == "a b "


async def test_load_and_unload(site: Site) -> None:
    document = (await site.post("/api/generate", {"model": "tiny"})).json()
    assert (document["done"], document["done_reason"], document["response"]) == (True, "load", "")
    ps = (await site.client.get("/api/ps")).json()["models"]
    assert [entry["name"] for entry in ps] == ["tiny:latest"]
    assert ps[0]["size"] == 1500
    assert ps[0]["context_length"] == 128
    assert ps[0]["expires_at"].endswith("Z")
    body = {"model": "tiny", "messages": [], "keep_alive": 0}
    document = (await site.post("/api/chat", body)).json()
    assert document["done_reason"] == "unload"
    assert document["message"] == {"role": "assistant", "content": ""}
    assert (await site.client.get("/api/ps")).json() == {"models": []}
    document = (await site.post("/api/generate", {"model": "tiny", "keep_alive": -1})).json()
    assert (await site.client.get("/api/ps")).json()["models"][0]["expires_at"].startswith("9999")


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/api/chat", {"model": "x", "messages": []}, 404, "model 'x' not found"),
        ("/api/generate", {"model": "X:y"}, 404, "model 'X:y' not found"),
        ("/api/show", {"model": "x"}, 404, "model 'x' not found"),
        ("/api/show", {"model": "a b"}, 400, "invalid model name"),
        ("/api/copy", {"source": "x", "destination": "y"}, 404, 'model "x" not found'),
        ("/api/copy", {"source": "x", "destination": "!"}, 400, "invalid model name"),
        (
            "/api/generate",
            {"model": "tiny", "prompt": "x", "options": {"temperature": "hot"}},
            400,
            'option "temperature" must be of type float32',
        ),
        (
            "/api/chat",
            {
                "model": "tiny",
                "messages": [{"role": "user"}],
                "tools": [{"function": {"name": "f"}}],
            },
            400,
            '"tiny" does not support tools',
        ),
    ],
)
async def test_errors(site: Site, path: str, body: dict[str, Any], status: int, text: str) -> None:
    response = await site.post(path, body)
    assert (response.status_code, response.json()["error"]) == (status, text)


async def test_tags_and_show(site: Site) -> None:
    (entry,) = (await site.client.get("/api/tags")).json()["models"]
    assert entry["name"] == entry["model"] == "tiny:latest"
    assert len(entry["digest"]) == 64
    assert entry["details"] == {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "288",
        "quantization_level": "F32",
        "context_length": 128,
        "embedding_length": 32,
    }
    assert entry["capabilities"] == ["completion"]
    show = (await site.post("/api/show", {"model": "tiny"})).json()
    assert show["details"] == entry["details"]
    assert show["license"] == "apache-2.0"
    assert show["template"].startswith("{% for m in messages %}")
    assert show["modelfile"].startswith("# Modelfile generated by")
    assert show["model_info"]["general.architecture"] == "llama"
    assert "tensors" not in show
    body = {"name": "tiny", "verbose": True, "system": "S", "options": {"stop": ["x"], "top_k": 3}}
    verbose = (await site.post("/api/show", body)).json()
    assert verbose["tensors"][0] == {
        "name": "token_embd.weight",
        "type": "F32",
        "shape": [32, 8],
    }
    assert verbose["system"] == "S"
    assert "PARAMETER stop x\nPARAMETER top_k 3" in verbose["modelfile"]
    assert [line.split() for line in verbose["parameters"].splitlines()] == [
        ["stop", '"x"'],
        ["top_k", "3"],
    ]


async def test_copy_and_delete(site: Site) -> None:
    response = await site.post("/api/copy", {"source": "tiny", "destination": "me/copy:1"})
    assert (response.status_code, response.content) == (200, b"")
    names = {m["name"] for m in (await site.client.get("/api/tags")).json()["models"]}
    assert names == {"tiny:latest", "me/copy:1"}
    await site.chat(model="me/copy:1")
    response = await site.client.request("DELETE", "/api/delete", json={"model": "me/copy:1"})
    assert (response.status_code, response.content) == (200, b"")
    assert len((await site.client.get("/api/ps")).json()["models"]) == 1, "it has another name"
    response = await site.client.request("DELETE", "/api/delete", json={"model": "me/copy:1"})
    assert response.status_code == 404
    await site.client.request("DELETE", "/api/delete", json={"name": "tiny"})
    assert site.store.catalogue.models() == []
    await until(lambda: site.machine.alive == [])
    assert site.store.catalogue.resolve(Reference.parse("tiny")) is None


# -- OpenAI ---------------------------------------------------------------------------------------


async def test_v1_chat(site: Site) -> None:
    body: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "one two"}]}
    document = (await site.post("/v1/chat/completions", body)).json()
    assert document["object"] == "chat.completion"
    assert document["choices"][0]["message"] == {"role": "assistant", "content": "one two "}
    usage = document["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (2, 2, 4)
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    response = await site.post("/v1/chat/completions", body)
    assert response.headers["content-type"] == "text/event-stream"
    found = events(response)
    deltas = [event["choices"][0]["delta"] for event in found[:-2]]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "one "},
        {"content": "two "},
        {},
    ]
    assert found[-2]["usage"]["total_tokens"] == 4
    assert found[-1] == "[DONE]"
    assert len({event["id"] for event in found[:-1]}) == 1


async def test_v1_completions_of_several_prompts(site: Site) -> None:
    tokens = [ord(letter) for letter in "e f"]
    body: dict[str, Any] = {"model": "tiny", "prompt": ["a b", "c d", tokens], "max_tokens": 2}
    document = (await site.post("/v1/completions", body)).json()
    choices = document["choices"]
    assert [choice["text"] for choice in choices] == ["a b ", "c d ", "e f "]
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    assert document["usage"]["total_tokens"] == 12
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    found = events(await site.post("/v1/completions", body))
    texts = ["", "", ""]
    for event in found[:-2]:
        choice = event["choices"][0]
        texts[choice["index"]] += choice["text"]
    assert texts == ["a b ", "c d ", "e f "]
    assert found[-2]["usage"]["total_tokens"] == 12
    assert found[-1] == "[DONE]"
    assert sum(e["choices"][0]["finish_reason"] == "stop" for e in found[:-2]) == 3


async def test_v1_chat_with_several_answers(site: Site) -> None:
    messages = [{"role": "user", "content": "one two"}]
    body: dict[str, Any] = {"model": "tiny", "messages": messages, "n": 3}
    document = (await site.post("/v1/chat/completions", body)).json()
    assert [c["index"] for c in document["choices"]] == [0, 1, 2]
    assert {c["message"]["content"] for c in document["choices"]} == {"one two "}
    usage = document["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (2, 6), "one prompt, 3 answers"
    body |= {"stream": True}
    found = events(await site.post("/v1/chat/completions", body))
    assert found.pop() == "[DONE]"
    choices = [event["choices"][0] for event in found]
    assert {c["index"] for c in choices if c["delta"].get("role")} == {0, 1, 2}
    assert sum(c["finish_reason"] == "stop" for c in choices) == 3


async def test_one_of_several_prompts_fails(site: Site) -> None:
    site.machine.pace.clear()
    for stream in (False, True):
        body = {"model": "tiny", "prompt": ["a b", "c d"], "stream": stream}
        answer = asyncio.create_task(site.post("/v1/completions", body))
        await until(lambda: running(site) == 1)
        site.machine.alive[0].die()
        document = (await answer).json()
        assert document["error"]["message"].startswith("the worker died")
    assert running(site) == 0


async def test_a_client_of_several_prompts_goes_away(site: Site) -> None:
    site.machine.pace.clear()
    body = {"model": "tiny", "prompt": ["a b", "c d"]}
    answer = asyncio.create_task(site.post("/v1/completions", body))
    await until(lambda: running(site) == 1)
    answer.cancel()
    await until(lambda: running(site) == 0 and site.scheduler.waiting == 0)


async def test_v1_responses(site: Site) -> None:
    body: dict[str, Any] = {"model": "tiny", "instructions": "x", "input": "one two"}
    document = (await site.post("/v1/responses", body)).json()
    assert document["object"] == "response"
    assert document["output"][0]["content"][0]["text"] == "one two "
    response = await site.post("/v1/responses", {**body, "stream": True})
    assert response.headers["content-type"] == "text/event-stream"
    assert "event: response.completed\n" in response.text
    counted = (await site.post("/v1/responses/input_tokens", body)).json()
    assert counted == {"object": "response.input_tokens", "input_tokens": len("> one two")}
    for method in ("GET", "DELETE"):
        gone = await site.client.request(method, f"/v1/responses/{document['id']}")
        assert gone.status_code == 404
        assert "responses are not kept here" in gone.json()["error"]["message"]
    again = {**body, "previous_response_id": document["id"]}
    refused = await site.post("/v1/responses", again)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "unsupported"


async def test_rerank_needs_a_model_for_it(site: Site) -> None:
    body = {"model": "tiny", "query": "a", "documents": ["b"]}
    for path in ("/v1/rerank", "/v1/reranking", "/rerank", "/reranking"):
        response = await site.post(path, body)
        assert response.status_code == 400
        assert '"tiny" does not support reranking' in json.dumps(response.json()).replace("\\", "")
    assert site.machine.starts == 0, "no model was loaded for that"


async def test_v1_completions(site: Site) -> None:
    body = {"model": "library/tiny:latest", "prompt": "a b", "echo": True, "stream": True}
    found = events(await site.post("/v1/completions", body))
    texts = [event["choices"][0]["text"] for event in found[:-1]]
    assert texts == ["a b", "a ", "b ", ""]
    assert found[-2]["choices"][0]["finish_reason"] == "stop"


async def test_v1_models(site: Site) -> None:
    listed = (await site.client.get("/v1/models")).json()
    assert listed["object"] == "list"
    for name in ("tiny", "library/tiny:latest", "library%2Ftiny"):
        found = (await site.client.get(f"/v1/models/{name}")).json()
        assert found == {**listed["data"][0], "id": name.replace("%2F", "/")}
    response = await site.client.get("/v1/models/no/thing")
    assert response.status_code == 404
    assert response.json()["error"] == {
        "message": "model 'no/thing' not found",
        "type": "not_found_error",
        "param": None,
        "code": "model_not_found",
    }


# -- running --------------------------------------------------------------------------------------


async def test_health_and_egress(site: Site) -> None:
    assert (await site.client.get("/healthz")).json() == {"status": "ok"}
    await site.chat()
    ready = (await site.client.get("/readyz")).json()
    assert (ready["models"], ready["loaded"], ready["waiting"]) == (1, 1, 0)
    document = (await site.client.get("/api/sealift/egress")).json()
    front_end, worker = document["processes"]
    # Nobody confined this process, so the attempts must get out: the proof that they are real.
    assert document["egress"] == "POSSIBLE"
    assert "ALLOWED" in {attempt["outcome"] for attempt in front_end["attempts"]}
    assert (worker["process"], worker["model"]) == ("worker", "tiny:latest")
    assert worker["attempts"][0]["outcome"] == "refused"


async def test_a_client_that_goes_away_stops_the_work(site: Site) -> None:
    for stream in (True, False):
        site.machine.pace.set()
        await site.chat()
        site.machine.pace.clear()
        jobs = len(site.machine.workers[0].cancelled)
        body = json.dumps(
            {
                "model": "tiny",
                "stream": stream,
                "messages": [{"role": "user", "content": "a b c"}],
            }
        ).encode()
        _, writer = await asyncio.open_connection("127.0.0.1", site.port)
        head = f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await until(lambda: running(site) == 1)
        writer.close()
        await until(lambda: running(site) == 0)
        assert len(site.machine.workers[0].cancelled) == jobs + 1


async def test_a_client_that_reads_nothing_is_dropped(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HTTP_WRITE_SECONDS", 0.2)
    text = " ".join("x" * 8000 for _ in range(2500))  # more than sockets buffer
    body = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": text}]}).encode()
    head = f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port, limit=1024)
    writer.write(head.encode() + body)
    await until(lambda: running(site) == 1)
    await until(lambda: running(site) == 0)
    assert site.machine.workers[0].cancelled == [1]
    assert not (await reader.read()).endswith(b"0\r\n\r\n"), "it cannot be taken for complete"
    writer.close()


async def test_an_error_before_the_first_piece_has_a_real_status(site: Site) -> None:
    site.machine.broken.add(str(site.store.blobs.path(next(iter(_weights(site))))))
    response = await site.chat()
    assert response.status_code == 500
    assert response.json() == {"error": "the engine refused the model", "code": "load-failed"}


def _weights(site: Site) -> list[Any]:
    (record,) = site.store.catalogue.models()
    return [layer.digest for layer in record.manifest.layers]


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
async def test_an_error_in_mid_stream_is_told_in_the_stream(site: Site, path: str) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "a b"}], "stream": True}
    await site.post(path, body)
    worker = site.machine.workers[0]
    texts: list[str] = []

    async def read() -> None:
        async with site.client.stream("POST", path, json=body) as response:
            assert response.status_code == 200
            async for line in response.aiter_lines():
                if line:
                    texts.append(line.removeprefix("data: "))
                    site.machine.pace.clear()
                    worker.die()

    await read()
    last = json.loads(texts[-1])
    message = last["error"] if path == "/api/chat" else last["error"]["message"]
    assert message == "the worker died: killed"
    assert "[DONE]" not in texts
    site.machine.pace.set()
    assert (await site.post(path, body)).status_code == 200
    assert site.machine.starts == 2


async def test_a_full_queue(tmp_path: Path) -> None:
    async with served(tmp_path / "home", queue=1) as site:
        site.machine.pace.clear()
        tasks = [asyncio.create_task(site.chat())]
        await until(lambda: running(site) == 1)
        tasks.append(asyncio.create_task(site.chat()))
        await until(lambda: site.scheduler.waiting == 1)
        response = await site.chat()
        assert response.status_code == 503
        assert response.headers["retry-after"] == str(limits.RETRY_AFTER_SECONDS)
        assert response.json()["error"] == (
            "server busy, please try again.  maximum pending requests exceeded"
        )
        site.machine.pace.set()
        answers: list[httpx.Response] = await asyncio.gather(*tasks)
        assert [answer.status_code for answer in answers] == [200, 200]


async def test_another_context_length_reloads(site: Site) -> None:
    await site.chat(options={"num_ctx": 64})
    assert site.machine.alive[0].spec.context_length == 64
    await site.chat()
    (worker,) = site.machine.alive
    assert worker.spec.context_length == 128
    assert site.machine.starts == 2


async def test_many_clients_at_once(site: Site) -> None:
    texts = [f"n{number} x" for number in range(30)]
    answers = await asyncio.gather(*(site.chat(text, stream=False) for text in texts))
    assert [answer.json()["message"]["content"].strip() for answer in answers] == texts
    assert site.machine.starts == 1
