"""``/openapi.json``: what the server answers, told by the handlers themselves.

Source: OpenAPI 3.1.1. Every handler says beside its definition what it takes and gives
(:func:`described`); paths and methods come from the router. So the document holds what is served,
and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from aiohttp import web

from runtime.server.openapi.shapes import (
    ANTHROPIC_ERROR,
    COMPONENTS,
    JSON,
    NATIVE_ERROR,
    OPENAI_ERROR,
    TEXT,
    Schema,
)
from schemas.version import VERSION

Handler = TypeVar("Handler", bound=Callable[[web.Request], Awaitable[web.StreamResponse]])

_DESCRIPTION: Final = (
    "Serves models on this machine, with the APIs of Ollama, OpenAI and Anthropic. Streams are"
    " newline-delimited JSON under /api, server-sent events under /v1."
)
_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_TAGS: Final = (
    ("/v1/messages", "Anthropic", ANTHROPIC_ERROR),
    ("/v1/", "OpenAI", OPENAI_ERROR),
    ("/api/", "Ollama", NATIVE_ERROR),
    ("/", "Server", NATIVE_ERROR),
)


@dataclass(frozen=True, slots=True)
class Operation:
    """What a handler takes and gives.

    Attributes:
        summary: In one line.
        takes: Schema of the JSON body; None for no body.
        gives: Content types and schemas of a good answer; empty for an empty one.
        query: Parameters behind the question mark, and their schemas.
        statuses: Of good answers, and what they mean.
        other: Statuses of answers without a document of their own, and what they mean.
        binary: Whether the body is a file instead of JSON.
    """

    summary: str
    takes: Schema | None = None
    gives: Mapping[str, Schema] = field(default_factory=dict)
    query: Mapping[str, Schema] = field(default_factory=dict)
    statuses: Mapping[int, str] = field(default_factory=lambda: {200: "It is done."})
    other: Mapping[int, str] = field(default_factory=dict)
    binary: bool = False


_OPERATIONS: Final[dict[object, Operation]] = {}


def described(operation: Operation) -> Callable[[Handler], Handler]:
    """Say what a handler takes and gives."""

    def remember(handler: Handler) -> Handler:
        _OPERATIONS[handler] = operation
        return handler

    return remember


def document(router: web.UrlDispatcher) -> dict[str, Any]:
    """The document about all described handlers of a router, as JSON."""
    paths: dict[str, dict[str, Any]] = {}
    for route in router.routes():
        operation = _OPERATIONS.get(route.handler)
        if operation is not None and route.resource is not None:
            path = route.resource.canonical
            method = route.method.lower()
            paths.setdefault(path, {})[method] = _operation(operation, method, path)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Sealift",
            "version": VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"bearer": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": COMPONENTS,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation, method: str, path: str) -> dict[str, Any]:
    tag, error = next((tag, e) for start, tag, e in _TAGS if path.startswith(start))
    words = [method, *re.findall(r"\w+", path), *(["root"] if path.endswith("/") else [])]
    result: dict[str, Any] = {
        "operationId": "_".join(words),
        "summary": operation.summary,
        "tags": [tag],
        "responses": _responses(operation, error, head=method == "head"),
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PARAMETER.findall(path)
    ]
    parameters += [
        {"name": name, "in": "query", "required": schema.get("x-required", False), "schema": schema}
        for name, schema in operation.query.items()
    ]
    if parameters:
        result["parameters"] = parameters
    if operation.binary:
        content: dict[str, Any] = {"application/octet-stream": {}}
        result["requestBody"] = {"required": True, "content": content}
    elif operation.takes is not None:
        content = {JSON: {"schema": operation.takes}}
        result["requestBody"] = {"required": True, "content": content}
    return result


def _responses(operation: Operation, error: Schema, *, head: bool) -> dict[str, Any]:
    good = {kind: {"schema": schema} for kind, schema in operation.gives.items()}
    responses: dict[str, Any] = {}
    for status, meaning in operation.statuses.items():
        responses[str(status)] = {"description": meaning}
        if good and not head:
            responses[str(status)]["content"] = good
    for status, meaning in operation.other.items():
        responses[str(status)] = {"description": meaning}
    # Whatever comes before the handler answers in words: no such path, a bad request line.
    content = {} if head else {"content": {JSON: {"schema": error}, TEXT: {"schema": {}}}}
    responses["default"] = {"description": "An error; what, why and what next.", **content}
    return responses
