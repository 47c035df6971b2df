"""The HTTP surface: routes, handlers, and the one place where errors become answers."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import hdrs, web

from runtime.server import anthropic_answers, guard, ollama, openai_answers
from runtime.server.answering import STREAM, Stream, write
from runtime.server.backend import Backend
from runtime.server.exchange import BACKEND
from runtime.server.governance import GOVERNANCE, Governance, follow_keys, reason_of
from runtime.server.ollama import JSON
from runtime.server.readiness import READINESS, Readiness
from runtime.server.record import RECORD, Record
from runtime.server.routes import anthropic as anthropic_routes
from runtime.server.routes import managing, native, operations
from runtime.server.routes import openai as openai_routes
from runtime.server.routes import openapi as openapi_routes
from runtime.server.routes import ui as ui_routes
from runtime.server.routes.managing import BLOBS
from runtime.watching import WATCHER
from schemas import limits
from schemas.errors import (
    Cancelled,
    KeyRequired,
    RateLimited,
    SealiftError,
    ServerBusy,
    UsageError,
)

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
        if request.path.startswith(BLOBS):  # streamed to the disk, never in memory
            yield
            return
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
_GONE: Final = 499  # nginx's, for a client that did not wait; nobody gets to see it


def make_app(backend: Backend, governance: Governance | None = None) -> web.Application:
    """The application, ready to be run by an ``AppRunner``.

    Args:
        backend: What answers.
        governance: Who may ask; by default everybody on this machine.
    """
    governance = governance or Governance(backend.settings)
    app = web.Application(middlewares=[_guarded], client_max_size=limits.HTTP_BODY_BYTES)
    app[BACKEND] = backend
    app[BODIES] = Bodies()
    app[GOVERNANCE] = governance
    app[READINESS] = Readiness(backend, governance.proofs)
    if governance.keys is not None:
        app.cleanup_ctx.append(follow_keys(backend, governance.keys))
    app.on_shutdown.append(_end_trials)
    app.on_response_prepare.append(_common_headers)
    for routes in (
        native,
        managing,
        openai_routes,
        anthropic_routes,
        operations,
        openapi_routes,
        ui_routes,
    ):
        routes.add_routes(app.router)
    return app


def make_runner(backend: Backend, governance: Governance | None = None) -> web.AppRunner:
    """The application with its manners: no signals, no access log of aiohttp's own."""
    return web.AppRunner(
        make_app(backend, governance),
        access_log=None,
        handle_signals=False,
        # A client that goes away cancels its handler, and with it the job in the worker.
        handler_cancellation=True,
        auto_decompress=False,
        # Of a connection without a request, or with half of one.
        keepalive_timeout=limits.HTTP_IDLE_SECONDS,
        lingering_time=limits.GOODBYE_SECONDS,
        shutdown_timeout=limits.GOODBYE_SECONDS,
    )


async def _end_trials(app: web.Application) -> None:
    await app[READINESS].close()


# -- around every handler -------------------------------------------------------------------------


@web.middleware
async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Keep account of a request; check who asks, answer, and whatever goes wrong is an answer."""
    governance = request.app[GOVERNANCE]
    record = request[RECORD] = governance.begin(request)
    WATCHER.set(record)  # of this request's task alone
    try:
        response = await _answered(request, handler, governance)
        record.status = response.status
        return response
    except asyncio.CancelledError:  # the client went away
        record.status, record.code = _GONE, Cancelled.code
        raise
    finally:
        governance.end(record)
        _log_access(request, record)


def _log_access(request: web.Request, record: Record) -> None:
    spent = (time.monotonic() - record.arrived) * 1000
    _ACCESS.info(
        "%s %s %d %.1f ms",
        request.method,
        request.rel_url.raw_path,  # with its escapes: a decoded newline would begin a line
        record.status,
        spent,
        extra={
            "request": record.id,
            "method": request.method,
            "route": record.route,
            "status": record.status,
            "ms": round(spent, 1),
        },
    )


async def _answered(
    request: web.Request, handler: Handler, governance: Governance
) -> web.StreamResponse:
    try:
        refused = _refused(request, governance)
        if refused is not None:
            return refused
        with request.app[BODIES].held(request):
            return await handler(request)
    except SealiftError as error:
        return await _failed(request, error)
    except web.HTTPNotFound:
        return await _elsewhere(request)
    except web.HTTPMethodNotAllowed as error:
        allowed = {hdrs.ALLOW: error.headers["Allow"]}
        return web.Response(status=405, text="405 method not allowed", headers=allowed)
    except web.HTTPRequestEntityTooLarge:
        request[RECORD].rejected = "body"
        response = _error_response(request, UsageError("the request body is too large"), status=413)
        response.force_close()
        return response
    except web.HTTPException as error:
        return web.Response(status=error.status, text=error.reason)
    except ConnectionError:  # the client went away; there is nobody to answer
        return _abandoned(request)
    except Exception as error:  # noqa: BLE001 - the last resort: a defect must not reach the client
        _log_defect(request, error)
        defect = SealiftError("internal error", hint="See the server's log")
        return await _failed(request, defect)


async def _elsewhere(request: web.Request) -> web.Response:
    """Where a path with a slash too many leads, as in Ollama; nowhere, if that is no route.

    Clients make such paths of a base address that ends with a slash.
    """
    path = "/" + "/".join(part for part in request.rel_url.raw_path.split("/") if part)
    if path != request.rel_url.raw_path:
        meant = request.rel_url.with_path(path, encoded=True, keep_query=True)
        found = await request.app.router.resolve(request.clone(rel_url=meant))
        if found.http_exception is None:
            status = 301 if request.method in (hdrs.METH_GET, hdrs.METH_HEAD) else 307
            return web.Response(status=status, headers={hdrs.LOCATION: meant.raw_path_qs})
    return web.Response(status=404, text="404 page not found")


def _log_defect(request: web.Request, error: Exception) -> None:
    """Where it happened, but not what the exception says: that could be part of a prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{f.filename}:{f.lineno} {f.name}" for f in reversed(frames))
    _LOG.error(
        "%s in %s %s: %s", type(error).__name__, request.method, request.rel_url.raw_path, where
    )


def _refused(request: web.Request, governance: Governance) -> web.Response | None:
    """The answer to a request that goes no further: a wrong host or origin, or a preflight.

    Raises:
        SealiftError: Whoever asks may not, or not now.
    """
    what = governance.stranger(request, request[RECORD])
    if what:
        return _forbidden(request, what)
    if guard.is_preflight(request.method, request.headers):
        return web.Response(status=204, headers=guard.PREFLIGHT)
    governance.admit(request, request[RECORD])
    return None


def _forbidden(request: web.Request, what: str) -> web.Response:
    return _error_response(request, UsageError(what), status=403)


async def _common_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers[hdrs.SERVER] = "sealift"
    response.headers["X-Content-Type-Options"] = "nosniff"
    record = request.get(RECORD)
    if record is not None:
        response.headers["X-Request-Id"] = record.id
        if request.path.startswith("/v1/messages"):
            response.headers["Request-Id"] = record.id  # Anthropic's name for it
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None:
        response.headers[hdrs.VARY] = hdrs.ORIGIN
        if request.app[GOVERNANCE].allows_origin(request):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin


async def _failed(request: web.Request, error: SealiftError) -> web.StreamResponse:
    """A real status if nothing was sent yet, else the stream's own way to say it."""
    record = request[RECORD]
    record.code, record.rejected = error.code, reason_of(error)
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
    request[RECORD].code = Cancelled.code
    stream: Stream | None = request.get(STREAM)
    return stream.response if stream is not None else web.Response(status=_GONE)


def _error_response(
    request: web.Request, error: SealiftError, status: int | None = None
) -> web.Response:
    if request.path.startswith("/v1/messages"):
        body = json.dumps(anthropic_answers.error_document(error, status)).encode()
    elif request.path.startswith("/v1/"):
        body = json.dumps(openai_answers.error_document(error)).encode()
    else:
        body = ollama.error_line(error)
    headers = {hdrs.CONTENT_TYPE: JSON}
    status = status or error.http_status
    if isinstance(error, RateLimited):
        headers[hdrs.RETRY_AFTER] = str(math.ceil(error.seconds))
    elif status == _BUSY:
        headers[hdrs.RETRY_AFTER] = str(limits.RETRY_AFTER_SECONDS)
    elif isinstance(error, KeyRequired):
        headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    return web.Response(status=status, body=body, headers=headers)
