"""Ollama's ways to make, bring and give away models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import aclosing
from typing import Final

from aiohttp import web

from registry.reference import Reference
from registry.store import Store
from runtime.making import Recipe
from runtime.mirror.remote import Remote
from runtime.mirror.transfers import Tell, pull, push
from runtime.server import managing
from runtime.server.answering import STREAM, Stream, write
from runtime.server.backend import Backend
from runtime.server.exchange import BACKEND, body, json_response
from runtime.server.managing import Line
from runtime.server.ollama import NDJSON, NativeAnswer
from runtime.server.openapi import Operation, described
from runtime.server.openapi import managing as shapes
from schemas import limits
from schemas.errors import NotFound, UsageError

BLOBS: Final = "/api/blobs/"


def add_routes(router: web.UrlDispatcher) -> None:
    """Management beside ``show``, ``copy`` and ``delete``."""
    router.add_post("/api/create", _create)
    router.add_head(BLOBS + "{digest}", _has_blob)
    router.add_post(BLOBS + "{digest}", _put_blob)
    router.add_post("/api/pull", _pull)
    router.add_post("/api/push", _push)


@described(Operation("Make a model", shapes.CREATE, shapes.STATUSES))
async def _create(request: web.Request) -> web.StreamResponse:
    backend = request.app[BACKEND]
    document = await body(request)
    recipe, stream = await backend.run(managing.parse_create, document)
    async with aclosing(_made(backend, recipe)) as lines:
        return await _told(request, lines, stream=stream)


async def _made(backend: Backend, recipe: Recipe) -> AsyncGenerator[Line, None]:
    """Make a model; a base that is not here is pulled, where there is a mirror to pull from."""
    try:
        async with aclosing(managing.create(backend, recipe)) as lines:
            async for line in lines:
                yield line
            return
    except NotFound:
        if backend.mirror is None or recipe.base is None:
            raise
    wanted = managing.Transfer(recipe.base, stream=True)
    async with aclosing(managing.transfer(backend, pull, wanted)) as pulled:
        async for line in pulled:
            if line != managing.SUCCESS:  # the last word is the new model's
                yield line
    async with aclosing(managing.create(backend, recipe)) as lines:
        async for line in lines:
            yield line


@described(Operation("Whether a blob is here", other={404: "It is not."}))
async def _has_blob(request: web.Request) -> web.Response:
    backend = request.app[BACKEND]
    digest = managing.parse_digest(request.match_info["digest"])
    found = await backend.run(backend.store.blobs.has, digest)
    return web.Response(status=200 if found else 404)


@described(
    Operation("Upload a blob", statuses={201: "It is new.", 200: "It was here."}, binary=True)
)
async def _put_blob(request: web.Request) -> web.Response:
    """Stream the body to the store; what is there already is read and dropped."""
    backend = request.app[BACKEND]
    digest = managing.parse_digest(request.match_info["digest"])
    if (request.content_length or 0) > limits.BLOB_BYTES:
        raise UsageError("the blob is too large", why=f"over {limits.BLOB_BYTES} bytes")
    if await backend.run(backend.store.blobs.has, digest):
        async for _ in _chunks(request):
            pass
        return web.Response(status=200)
    async with managing.uploading(backend, digest) as upload:
        async for chunk in _chunks(request):
            await backend.run(upload.write, chunk)
        await backend.run(upload.finish)
    return web.Response(status=201)


@described(Operation("Bring a model from the mirror", shapes.TRANSFER, shapes.STATUSES))
async def _pull(request: web.Request) -> web.StreamResponse:
    return await _transfer(request, pull)


@described(Operation("Give a model to the mirror", shapes.TRANSFER, shapes.STATUSES))
async def _push(request: web.Request) -> web.StreamResponse:
    return await _transfer(request, push)


async def _transfer(
    request: web.Request, work: Callable[[Store, Remote, Reference, Tell], None]
) -> web.StreamResponse:
    wanted = managing.parse_transfer(await body(request))
    async with aclosing(managing.transfer(request.app[BACKEND], work, wanted)) as lines:
        return await _told(request, lines, stream=wanted.stream)


async def _told(
    request: web.Request, lines: AsyncIterable[Line], *, stream: bool
) -> web.StreamResponse:
    """All lines as they come, or the last one alone."""
    if stream:
        return await _stream(request, lines)
    last: Line = {}
    async for line in lines:
        last = line
    return json_response(last)


async def _chunks(request: web.Request) -> AsyncIterable[bytes]:
    """The body in pieces of about ``IO_CHUNK``; gives up on a client that sends nothing."""
    parts: list[bytes] = []
    size = 0
    while True:
        try:
            async with asyncio.timeout(limits.HTTP_READ_SECONDS):
                data = await request.content.readany()
        except TimeoutError:
            raise UsageError("the request body did not arrive in time") from None
        parts.append(data)
        size += len(data)
        if size >= limits.IO_CHUNK or (not data and size):
            yield b"".join(parts)
            parts, size = [], 0
        if not data:
            return


async def _stream(request: web.Request, lines: AsyncIterable[Line]) -> web.StreamResponse:
    """NDJSON; an error before the first line has a real status."""
    response: web.StreamResponse | None = None
    async for line in lines:
        if response is None:
            response = web.StreamResponse(
                headers={"Content-Type": NDJSON, "Cache-Control": "no-cache"}
            )
            await response.prepare(request)
            request[STREAM] = Stream(response, NativeAnswer("", chat=False))
        await write(request, response, json.dumps(line).encode() + b"\n")
    if response is None:
        return web.Response(status=204)
    await response.write_eof()
    return response
