"""One way to answer every request for text: resolve, wait for a turn, run, render."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from runtime.messages import Call, Event, Failed, Finished, Piece, Started
from runtime.server.backend import Backend
from runtime.server.ollama import JSON, NativeAnswer
from runtime.server.requests import Answer, Generation, Timing, check_capabilities, make_job
from schemas import errors, limits
from schemas.errors import Cancelled, PromptTooLong, SealiftError, WorkerFailed

# Ollama's words, which its clients look for.
TOO_LONG: Final = "the prompt is longer than the context length currently available to the model"
_SMALL_BYTES: Final = 16 * 1024  # below the mark at which asyncio holds writers up (64 KiB)
_HEADERS: Final = {"Cache-Control": "no-cache"}


@dataclass(slots=True, eq=False)
class Stream:
    """A streamed answer under way.

    Kept with its request, so that the one place that turns errors into answers can end it well.
    """

    response: web.StreamResponse
    answer: Answer


STREAM: Final = web.RequestKey("stream", Stream)


async def answer(
    http: web.Request, backend: Backend, request: Generation, reply: Answer
) -> web.StreamResponse:
    """Answer one request for text.

    The model's turn is given back as soon as the last token is there, before a slow client has read
    it all. Cancelling this (a client that went away) cancels the job in the worker at once.

    Raises:
        SealiftError: Before the first byte, or after it: see :class:`Stream`.
    """
    arrived = time.monotonic_ns()
    pieces: list[Piece | Call] = []
    stream: Stream | None = None
    finished: Finished | None = None
    async with turn(backend, request) as events:
        load_ns = time.monotonic_ns() - arrived
        async for event in events:
            if isinstance(event, Piece | Call):
                if not request.stream:
                    pieces.append(event)
                    continue
                if stream is None:
                    stream = await open_stream(http, reply)
                data = reply.piece(event) if isinstance(event, Piece) else reply.call(event)
                if data:
                    await write(http, stream.response, data)
            elif isinstance(event, Started):
                reply.started(event)
            elif isinstance(event, Finished):
                finished = event
            else:
                raise_if_failed(event, too_long=TOO_LONG)
    finished = complete(finished)
    timing = Timing(time.monotonic_ns() - arrived, load_ns)
    if not request.stream:
        return web.Response(
            body=reply.whole(pieces, finished, timing), headers={"Content-Type": JSON}
        )
    if stream is None:
        stream = await open_stream(http, reply)
    await write(http, stream.response, reply.closing(finished, timing))
    await stream.response.write_eof()
    return stream.response


@asynccontextmanager
async def turn(backend: Backend, request: Generation) -> AsyncIterator[AsyncIterator[Event]]:
    """Wait until it is this request's turn; inside, what the worker says to it.

    Raises:
        SealiftError: The model is not there, cannot do it or could not be loaded; or the queue is
            full.
    """
    model = await backend.to_serve(request.reference, request.name)
    check_capabilities(request, model)
    spec = backend.spec(model, request.options)
    async with backend.scheduler.lease(model, spec, request.keep_alive_ms) as lease:
        job = make_job(request, model, lease.job_id)
        async with aclosing(lease.run(job)) as events:
            yield events


def complete(finished: Finished | None) -> Finished:
    """The last word of an answer that nobody broke off.

    Raises:
        WorkerFailed: There was none.
        Cancelled: Somebody did.
    """
    if finished is None:
        raise WorkerFailed("the worker ended an answer without a last word")
    if finished.reason == "cancelled":
        raise Cancelled("the answer was cancelled")
    return finished


async def load_or_unload(
    backend: Backend, request: Generation, reply: NativeAnswer
) -> web.Response:
    """Answer a request without a prompt: load the model, or unload it.

    Raises:
        SealiftError: The model is not there or could not be loaded.
    """
    if request.keep_alive_ms == 0:
        model = await backend.model(request.reference, request.name)
        await backend.scheduler.unload(model)
        body = reply.idle("unload")
    else:
        model = await backend.to_serve(request.reference, request.name)
        spec = backend.spec(model, request.options)
        async with backend.scheduler.lease(model, spec, request.keep_alive_ms):
            body = reply.idle("load")
    return web.Response(body=body, headers={"Content-Type": JSON})


async def open_stream(http: web.Request, reply: Answer) -> Stream:
    """Send the status and what a stream begins with; from here on errors are part of it."""
    response = web.StreamResponse(headers={"Content-Type": reply.stream_type, **_HEADERS})
    stream = Stream(response, reply)
    await response.prepare(http)
    http[STREAM] = stream
    opening = reply.opening()
    if opening:
        await write(http, response, opening)
    return stream


async def write(http: web.Request, response: web.StreamResponse, data: bytes) -> None:
    """Write a chunk; drop a client that reads nothing for ``HTTP_WRITE_SECONDS``.

    Raises:
        ConnectionError: The client is gone, or was dropped.
    """
    transport = http.transport
    if (
        len(data) < _SMALL_BYTES
        and transport is not None
        and transport.get_write_buffer_size() == 0
    ):
        await response.write(data)  # cannot block, so it needs no timer: this runs once per token
        return
    try:
        async with asyncio.timeout(limits.HTTP_WRITE_SECONDS):
            await response.write(data)
    except TimeoutError:
        if transport is not None:
            transport.abort()
        raise ConnectionAbortedError("the client reads nothing") from None


def raise_if_failed(event: Event, *, too_long: str = "") -> None:
    """Raise what a worker reports as failed.

    Args:
        event: Any.
        too_long: Words for a prompt that is too long, instead of the worker's.

    Raises:
        SealiftError: Of the class that the worker names.
    """
    if isinstance(event, Failed):
        kind = _BY_CODE.get(event.code, WorkerFailed)
        what = too_long if too_long and kind is PromptTooLong else event.what
        raise kind(what, why=event.why, hint=event.hint)


def _all_kinds(root: type[SealiftError]) -> list[type[SealiftError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in _all_kinds(child))]


_BY_CODE: Final = {kind.code: kind for kind in _all_kinds(errors.SealiftError)}
