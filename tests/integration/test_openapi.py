"""The document at ``/openapi.json``: it holds what is served, all of it and no more."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from tests.support.http_server import Site, served

# A route's own answers to methods that nobody calls by hand.
_BESIDE = {"head"}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(tmp_path / "home") as found:
        yield found


def _schemas(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if isinstance(node.get("schema"), dict):
            yield node["schema"]
        for value in node.values():
            yield from _schemas(value)
    elif isinstance(node, list):
        for value in node:
            yield from _schemas(value)


async def test_every_route_is_in_it_and_no_more(site: Site) -> None:
    document = (await site.client.get("/openapi.json")).json()
    told = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    routes = {
        (route.method, route.resource.canonical)
        for route in site.runner.app.router.routes()
        if route.resource is not None
    }
    assert told == routes


async def test_it_is_a_sound_document(site: Site) -> None:
    response = await site.client.get("/openapi.json")
    assert response.headers["content-type"].startswith("application/json")
    document = response.json()
    assert document["openapi"] == "3.1.1"
    operations = [o for item in document["paths"].values() for o in item.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert all(operation["summary"] and operation["responses"] for operation in operations)
    components = document["components"]["schemas"]
    used = set(re.findall(r'"#/components/schemas/(\w+)"', response.text))
    assert used <= set(components)
    for schema in [*components.values(), *_schemas(document["paths"])]:
        jsonschema_rs.validator_for({**schema, "components": document["components"]})


async def test_real_answers_are_as_it_says(site: Site) -> None:
    document = (await site.client.get("/openapi.json")).json()

    def check(method: str, path: str, answer: Any) -> None:
        response = document["paths"][path][method]["responses"]["200"]
        schema = response["content"]["application/json"]["schema"]
        whole = {**schema, "components": document["components"]}
        jsonschema_rs.validator_for(whole).validate(answer)

    messages = [{"role": "user", "content": "one two"}]
    requests: dict[str, dict[str, Any]] = {
        "/api/chat": {"messages": messages, "stream": False},
        "/api/generate": {"prompt": "a b", "stream": False},
        "/api/embed": {"input": ["a", "b"]},
        "/api/embeddings": {"prompt": "a"},
        "/api/tokenize": {"text": "a"},
        "/api/detokenize": {"tokens": [65]},
        "/api/show": {},
        "/v1/chat/completions": {"messages": messages},
        "/v1/completions": {"prompt": ["a b", "c"]},
        "/v1/embeddings": {"input": "a"},
        "/v1/responses": {"input": "a b"},
        "/v1/responses/input_tokens": {"input": "a b"},
        "/v1/messages": {"messages": messages, "max_tokens": 5},
        "/v1/messages/count_tokens": {"messages": messages},
    }
    for path, body in requests.items():
        response = await site.post(path, {"model": "tiny", **body})
        assert response.status_code == 200, (path, response.text)
        check("post", path, response.json())
    for path in ("/api/tags", "/api/ps", "/api/version", "/v1/models"):
        check("get", path, (await site.client.get(path)).json())
    check("get", "/v1/models/{name}", (await site.client.get("/v1/models/tiny")).json())


async def test_errors_are_as_it_says(site: Site) -> None:
    document = (await site.client.get("/openapi.json")).json()
    for path, item in document["paths"].items():
        operation = item.get("post")
        if operation is None or "application/json" not in operation["requestBody"]["content"]:
            continue
        response = await site.client.post(path, content=b"{}")
        assert 400 <= response.status_code < 500, path
        schema = operation["responses"]["default"]["content"]["application/json"]["schema"]
        whole = {**schema, "components": document["components"]}
        jsonschema_rs.validator_for(whole).validate(response.json())
