"""Several answers to one request: run side by side, given as the choices of one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from runtime.messages import LAST, Call, Event, Finished, Piece, Started
from runtime.server.answering import (
    TOO_LONG,
    Stream,
    complete,
    open_stream,
    raise_if_failed,
    turn,
    write,
)
from runtime.server.backend import Backend
from runtime.server.ollama import JSON
from runtime.server.openai_answers import OpenAIAnswer
from runtime.server.requests import Generation

_AHEAD: Final = 64  # events of all prompts that may wait for a slow client


async def answer_all(
    http: web.Request, backend: Backend, requests: Sequence[Generation], reply: OpenAIAnswer
) -> web.StreamResponse:
    """Answer several requests as one, each the choice of its number.

    Each waits for a turn of its own, so they are as fast as there are slots. The first that fails
    ends them all; cancelling this cancels them all.

    Args:
        http: The request that they came in.
        backend: What answers.
        requests: At least one; all streamed or none.
        reply: With as many choices.

    Raises:
        SealiftError: As of :func:`runtime.server.answering.answer`.
    """
    events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue(_AHEAD)

    async def run(index: int, request: Generation) -> None:
        last: Event | None = None
        async with turn(backend, request) as heard:
            async for last in heard:
                await events.put((index, last))
        if not isinstance(last, LAST):
            complete(None)

    try:
        async with asyncio.TaskGroup() as group:
            for index, request in enumerate(requests):
                group.create_task(run(index, request))
            answering = _Answering(http, reply, streamed=requests[0].stream)
            while answering.open:
                index, event = await events.get()
                await answering.take(index, event)
    except ExceptionGroup as errors:
        raise _first(errors) from None
    return await answering.end()


class _Answering:
    """Events of all choices, on their way out."""

    def __init__(self, http: web.Request, reply: OpenAIAnswer, *, streamed: bool) -> None:
        self._http = http
        self._reply = reply
        self._streamed = streamed
        self._stream: Stream | None = None
        self._pieces: list[list[Piece | Call]] = [[] for _ in reply.choices]
        self._finished: dict[int, Finished] = {}

    @property
    def open(self) -> bool:
        """Whether there is more to come."""
        return len(self._finished) < len(self._reply.choices)

    async def take(self, index: int, event: Event) -> None:
        """One event of a choice."""
        choice = self._reply.choices[index]
        if isinstance(event, Started):
            self._reply.started(event)
        elif isinstance(event, Finished):
            self._finished[index] = complete(event)
            await self._send(choice.last(event))
        elif not isinstance(event, Piece | Call):
            raise_if_failed(event, too_long=TOO_LONG)
        elif not self._streamed:
            self._pieces[index].append(event)
        else:
            await self._send(
                choice.piece(event) if isinstance(event, Piece) else choice.call(event)
            )

    async def end(self) -> web.StreamResponse:
        """The complete answer."""
        finished = [self._finished[index] for index in range(len(self._finished))]
        if self._stream is None:
            body = self._reply.document(self._pieces, finished)
            return web.Response(body=body, headers={"Content-Type": JSON})
        await write(self._http, self._stream.response, self._reply.end(finished))
        await self._stream.response.write_eof()
        return self._stream.response

    async def _send(self, data: bytes) -> None:
        if not self._streamed:
            return
        if self._stream is None:
            self._stream = await open_stream(self._http, self._reply)
        await write(self._http, self._stream.response, data)


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    """What went wrong first; whatever else there is mostly follows from it."""
    found: Exception = errors
    while isinstance(found, ExceptionGroup):
        found = found.exceptions[0]
    return found
