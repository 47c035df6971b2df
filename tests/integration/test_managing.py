"""create and blobs over a real socket and store, with simulated workers; pull and push without a mirror."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from registry.reference import Reference
from runtime.messages import Chat
from runtime.models import Models
from tests.gguf_files import tiny_gguf
from tests.support.http_server import Site, lines, served


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(tmp_path / "home") as found:
        yield found


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def test_a_model_is_made_and_honoured(site: Site) -> None:
    response = await site.post(
        "/api/create",
        {
            "model": "mine",
            "from": "tiny",
            "system": "Be brief.",
            "template": "{% for m in messages %}{{ m.role }}{% endfor %}",
            "parameters": {"temperature": 0.25, "stop": "x", "num_ctx": 64},
            "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}],
            "license": ["MIT", "BSD"],
        },
    )
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-ndjson"
    statuses = [line["status"] for line in lines(response)]
    assert statuses[0].startswith("using existing layer sha256:")
    assert statuses[-2:] == ["writing manifest", "success"]
    show = (await site.post("/api/show", {"model": "mine"})).json()
    assert show["system"] == "Be brief."
    assert show["details"]["parent_model"] == "tiny:latest"
    assert show["made"]["how"] == "created"
    assert "num_ctx                        64" in show["parameters"]
    assert 'stop                           "x"' in show["parameters"]
    assert show["license"] == "MIT\n\nBSD"
    assert [m["content"] for m in show["messages"]] == ["Hi", "Ho"]
    assert "\nSYSTEM Be brief.\n" in show["modelfile"]
    tags = (await site.client.get("/api/tags")).json()["models"]
    assert {m["name"]: m.get("made", {}).get("source") for m in tags} == {
        "mine:latest": "tiny:latest",
        "tiny:latest": None,
    }
    assert (await site.chat(model="mine")).status_code == 200
    spec, job = site.machine.workers[-1].spec, site.machine.workers[-1].jobs[-1]
    assert isinstance(job.prompt, Chat)
    assert (spec.context_length, spec.template) == (
        64,
        "{% for m in messages %}{{ m.role }}{% endfor %}",
    )
    assert [(m.role, m.content) for m in job.prompt.messages] == [
        ("system", "Be brief."), ("user", "Hi"), ("assistant", "Ho"), ("user", "one two"),
    ]  # fmt: skip
    assert (job.sampling.temperature, job.sampling.stop) == (0.25, ("x",))
    assert (
        await site.post("/api/generate", {"model": "mine", "prompt": "Yo", "system": "Other"})
    ).status_code == 200
    job = site.machine.workers[-1].jobs[-1]
    assert isinstance(job.prompt, Chat)
    assert [m.content for m in job.prompt.messages] == ["Other", "Hi", "Ho", "Yo"]
    response = await site.client.request("DELETE", "/api/delete", json={"model": "mine"})
    assert response.status_code == 200


async def test_the_last_line_alone(site: Site) -> None:
    body = {"name": "mine", "from": "tiny", "stream": False}
    response = await site.post("/api/create", body)
    assert response.json() == {"status": "success"}


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({}, 400, "missing request body"),
        ({"from": "tiny"}, 400, "model is required"),
        ({"model": "a/b/c/d", "from": "tiny"}, 400, "invalid model name"),
        ({"model": "m"}, 400, "neither 'from' or 'files' was specified"),
        ({"model": "m", "files": {}}, 400, "no files provided to convert"),
        ({"model": "m", "from": "nope"}, 404, "model 'nope:latest' not found"),
        ({"model": "m", "files": {"a.gguf": "sha256:12"}}, 400, "invalid digest format"),
        ({"model": "m", "files": {"a.gguf": digest(b"x")}}, 400, "blob not found for a.gguf"),
        (
            {"model": "m", "files": dict.fromkeys("abc", digest(b"x"))},
            400,
            "only a model in one",
        ),
        ({"model": "m", "files": {"a.safetensors": digest(b"x")}}, 400, "only a model in one GGUF"),
        ({"model": "m", "files": {"a/..": digest(b"x")}}, 400, "file path must be relative"),
        (
            {"model": "m", "from": "tiny", "quantize": "q4_0"},
            400,
            "create-time quantization is not",
        ),
        (
            {"model": "m", "from": "tiny", "quantize": "q9"},
            400,
            "unsupported quantization type q9",
        ),
        (
            {"model": "m", "from": "tiny", "adapters": {"a": digest(b"x")}},
            400,
            "blob not found for",
        ),
        ({"model": "m", "from": "tiny", "renderer": "x"}, 400, '"renderer" is not supported'),
        (
            {"model": "m", "from": "tiny", "template": "{{ .Prompt }}\n{{ shout }}"},
            400,
            "template error: line 2: function",
        ),
        ({"model": "m", "from": "tiny", "template": "{% if %}"}, 400, "template error"),
        ({"model": "m", "from": "tiny", "template": "{{" + "(" * 9999}, 400, "template error"),
        (
            {"model": "m", "from": "tiny", "parameters": {"heat": 1}},
            400,
            "unknown parameter 'heat'",
        ),
        (
            {"model": "m", "from": "tiny", "parameters": {"top_k": "x"}},
            400,
            'option "top_k" must be of type integer',
        ),
        ({"model": "m", "from": "tiny", "parameters": []}, 400, '"parameters" must be an object'),
        ({"model": "m", "from": "tiny", "license": [1]}, 400, '"license" must be a string'),
        ({"model": "m", "from": "tiny", "system": 1}, 400, '"system" must be a string'),
        (
            {"model": "m", "from": "tiny", "messages": [{"role": "tool"}]},
            400,
            "message role must be",
        ),
        ({"model": "m", "from": "tiny", "system": "x" * 600_000}, 400, '"system" is too large'),
    ],
)
async def test_what_cannot_be_made(
    site: Site, body: dict[str, Any], status: int, error: str
) -> None:
    response = await (site.post("/api/create", body) if body else site.client.post("/api/create"))
    assert response.status_code == status
    assert response.json()["error"].startswith(error)
    assert [m.name for m in Models(site.store).all()] == ["tiny:latest"]


async def test_a_blob_is_uploaded_once(site: Site, tmp_path: Path) -> None:
    data = tiny_gguf(tmp_path / "new.gguf", name="New").read_bytes()
    path = f"/api/blobs/{digest(data)}"
    assert (await site.client.head(path)).status_code == 404
    assert (await site.client.post(path, content=data)).status_code == 201
    head = await site.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert (await site.client.post(path, content=data)).status_code == 200
    assert (await site.client.head(path.replace(":", "-"))).status_code == 200
    body = {"model": "new", "files": {"new.gguf": digest(data)}, "stream": False}
    assert (await site.post("/api/create", body)).json() == {"status": "success"}
    show = (await site.post("/api/show", {"model": "new"})).json()
    assert show["made"]["how"] == "uploaded"
    assert (await site.chat(model="new")).status_code == 200


async def test_a_blob_without_a_length(site: Site) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * 700_000

    data = b"x" * 3_500_000
    assert (
        await site.client.post(f"/api/blobs/{digest(data)}", content=pieces())
    ).status_code == 201
    assert (await site.client.head(f"/api/blobs/{digest(data)}")).status_code == 200


async def test_a_blob_that_is_something_else_leaves_nothing(site: Site, tmp_path: Path) -> None:
    wanted, got = digest(b"a"), digest(b"b")
    response = await site.client.post(f"/api/blobs/{wanted}", content=b"b")
    assert response.status_code == 400
    assert response.json()["error"] == f'digest mismatch, expected "{wanted}", got "{got}"'
    assert (await site.client.head(f"/api/blobs/{wanted}")).status_code == 404
    assert list((tmp_path / "home" / "staging").iterdir()) == []


@pytest.mark.parametrize("name", ["x", "sha256:12", f"sha512:{'0' * 128}", f"sha256:{'Z' * 64}"])
async def test_bad_digests(site: Site, name: str) -> None:
    response = await site.client.post(f"/api/blobs/{name}", content=b"x")
    assert response.status_code == 400
    assert response.json()["error"] == "invalid digest format"
    assert (await site.client.head(f"/api/blobs/{name}")).status_code == 400


async def test_an_upload_that_breaks_off_leaves_nothing(site: Site, tmp_path: Path) -> None:
    path = f"/api/blobs/{digest(b'x' * 3_000_000)}"
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n"
    writer.write(head.encode() + b"x" * 2_000_000)
    await writer.drain()
    staging = tmp_path / "home" / "staging"
    for _ in range(100):
        if list(staging.iterdir()):
            break
        await asyncio.sleep(0.02)
    writer.transport.abort()
    for _ in range(200):
        if not list(staging.iterdir()):
            break
        await asyncio.sleep(0.02)
    assert list(staging.iterdir()) == []


async def test_too_many_uploads(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.limits.UPLOADS", 0)
    response = await site.client.post(f"/api/blobs/{digest(b'x')}", content=b"x")
    assert response.status_code == 503


async def test_a_blob_larger_than_any_body(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.limits.HTTP_BODY_BYTES", 1000)
    data = b"x" * 2000
    assert (await site.client.post(f"/api/blobs/{digest(data)}", content=data)).status_code == 201
    monkeypatch.setattr("schemas.limits.BLOB_BYTES", 3000)
    data = b"y" * 4000
    response = await site.client.post(f"/api/blobs/{digest(data)}", content=data)
    assert response.status_code == 400
    assert "too large" in response.json()["error"]


@pytest.mark.parametrize("path", ["/api/pull", "/api/push"])
@pytest.mark.parametrize("stream", [True, False])
async def test_without_a_mirror_nothing_is_reached(site: Site, path: str, stream: bool) -> None:
    response = await site.post(path, {"model": "tiny", "stream": stream})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error.startswith("this server reaches no other machine: no mirror is configured")
    assert "bundle import" in error


@pytest.mark.parametrize("path", ["/api/pull", "/api/push"])
async def test_transfers_of_nothing(site: Site, path: str) -> None:
    assert (await site.post(path, {})).json()["error"].startswith("model is required")
    assert (
        (await site.post(path, {"model": "a b"})).json()["error"].startswith("invalid model name")
    )


async def test_the_shown_modelfile_makes_the_same_model(site: Site) -> None:
    body = {"model": "mine", "from": "tiny", "system": "x\ny", "parameters": {"seed": 7}}
    await site.post("/api/create", body)
    text = (await site.post("/api/show", {"model": "mine"})).json()["modelfile"]
    assert 'SYSTEM "x\ny"\nPARAMETER seed 7\n' in text
    assert json.dumps(text)
    found = site.store.catalogue.resolve(Reference.parse("mine"))
    assert found is not None
