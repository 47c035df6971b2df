"""The HTTP surface: routes, handlers, and the one place where errors become answers."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import hdrs, web

from runtime.server import anthropic, guard, ollama, openai_answers
from runtime.server.answering import STREAM, Stream, write
from runtime.server.backend import Backend
from runtime.server.exchange import BACKEND
from runtime.server.ollama import JSON
from runtime.server.routes import anthropic as anthropic_routes
from runtime.server.routes import native, operations
from runtime.server.routes import openai as openai_routes
from schemas import limits
from schemas.errors import SealiftError, ServerBusy, UsageError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LOG: Final = logging.getLogger("sealift.server")
_ACCESS: Final = logging.getLogger("sealift.access")


@dataclass(slots=True)
class Bodies:
    """Bytes of all request bodies in memory, from their first byte to the end of their answer."""

    bytes: int = 0

    @contextmanager
    def held(self, request: web.Request) -> Iterator[None]:
        """Count one request's body.

        Raises:
            HTTPRequestEntityTooLarge: It announces more than one body may have.
            ServerBusy: All together would be more than ``HTTP_BODIES_BYTES``.
        """
        size = request.content_length or 0
        if request.content_length is None and request.can_read_body:
            size = limits.HTTP_BODY_BYTES  # sent in chunks: it may become as long as that
        if size > limits.HTTP_BODY_BYTES:
            raise web.HTTPRequestEntityTooLarge(limits.HTTP_BODY_BYTES)
        if self.bytes + size > limits.HTTP_BODIES_BYTES:
            raise ServerBusy("server busy, please try again", why="many large requests are waiting")
        self.bytes += size
        try:
            yield
        finally:
            self.bytes -= size


BODIES: Final = web.AppKey("bodies", Bodies)
_BUSY: Final = 503


def make_app(backend: Backend) -> web.Application:
    """The application, ready to be run by an ``AppRunner``."""
    app = web.Application(middlewares=[_guarded], client_max_size=limits.HTTP_BODY_BYTES)
    app[BACKEND] = backend
    app[BODIES] = Bodies()
    app.on_response_prepare.append(_common_headers)
    for routes in (native, openai_routes, anthropic_routes, operations):
        routes.add_routes(app.router)
    return app


def make_runner(backend: Backend) -> web.AppRunner:
    """The application with its manners: no signals, no access log of aiohttp's own."""
    return web.AppRunner(
        make_app(backend),
        access_log=None,
        handle_signals=False,
        # A client that goes away cancels its handler, and with it the job in the worker.
        handler_cancellation=True,
        auto_decompress=False,
        lingering_time=limits.GOODBYE_SECONDS,
        shutdown_timeout=limits.GOODBYE_SECONDS,
    )


# -- around every handler -------------------------------------------------------------------------


@web.middleware
async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Check who asks, then answer; whatever goes wrong becomes an answer of the right dialect."""
    arrived = time.monotonic()
    try:
        with request.app[BODIES].held(request):
            response = _refused(request) or await handler(request)
    except SealiftError as error:
        response = await _failed(request, error)
    except web.HTTPNotFound:
        response = web.Response(status=404, text="404 page not found")
    except web.HTTPMethodNotAllowed as error:
        response = web.Response(
            status=405, text="405 method not allowed", headers={hdrs.ALLOW: error.headers["Allow"]}
        )
    except web.HTTPRequestEntityTooLarge:
        response = _error_response(request, UsageError("the request body is too large"), status=413)
        response.force_close()
    except web.HTTPException as error:
        response = web.Response(status=error.status, text=error.reason)
    except ConnectionError:  # the client went away; there is nobody to answer
        response = _abandoned(request)
    except Exception as error:  # noqa: BLE001 - the last resort: a defect must not reach the client
        _log_defect(request, error)
        response = await _failed(
            request, SealiftError("internal error", hint="See the server's log")
        )
    _ACCESS.info(
        "%s %s %d %.1f ms",
        request.method,
        request.path,
        response.status,
        (time.monotonic() - arrived) * 1000,
    )
    return response


def _log_defect(request: web.Request, error: Exception) -> None:
    """Where it happened, but not what the exception says: that could be part of a prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{f.filename}:{f.lineno} {f.name}" for f in reversed(frames))
    _LOG.error("%s in %s %s: %s", type(error).__name__, request.method, request.path, where)


def _refused(request: web.Request) -> web.Response | None:
    """The answer to a request that goes no further: a wrong host or origin, or a preflight."""
    if not guard.allowed_host(request.headers.get(hdrs.HOST)):
        return _forbidden(request, "this Host is not served here")
    origin = request.headers.get(hdrs.ORIGIN)
    if not guard.allowed_origin(origin, request.app[BACKEND].settings.origins):
        return _forbidden(request, "this Origin is not allowed")
    wants = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_METHOD)
    if request.method == hdrs.METH_OPTIONS and origin is not None and wants is not None:
        return web.Response(status=204, headers=guard.PREFLIGHT)
    return None


def _forbidden(request: web.Request, what: str) -> web.Response:
    return _error_response(request, UsageError(what), status=403)


async def _common_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers[hdrs.SERVER] = "sealift"
    response.headers["X-Content-Type-Options"] = "nosniff"
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None:
        response.headers[hdrs.VARY] = hdrs.ORIGIN
        if guard.allowed_origin(origin, request.app[BACKEND].settings.origins):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin


async def _failed(request: web.Request, error: SealiftError) -> web.StreamResponse:
    """A real status if nothing was sent yet, else the stream's own way to say it."""
    stream: Stream | None = request.get(STREAM)
    if stream is None:
        return _error_response(request, error)
    try:
        await write(request, stream.response, stream.answer.broken(error))
        await stream.response.write_eof()
    except ConnectionError:
        return _abandoned(request)
    return stream.response


def _abandoned(request: web.Request) -> web.StreamResponse:
    stream: Stream | None = request.get(STREAM)
    return stream.response if stream is not None else web.Response(status=499)


def _error_response(
    request: web.Request, error: SealiftError, status: int | None = None
) -> web.Response:
    if request.path.startswith("/v1/messages"):
        body = json.dumps(anthropic.error_document(error, status)).encode()
    elif request.path.startswith("/v1/"):
        body = json.dumps(openai_answers.error_document(error)).encode()
    else:
        body = ollama.error_line(error)
    headers = {hdrs.CONTENT_TYPE: JSON}
    status = status or error.http_status
    if status == _BUSY:
        headers[hdrs.RETRY_AFTER] = str(limits.RETRY_AFTER_SECONDS)
    return web.Response(status=status, body=body, headers=headers)
