"""The HTTP surface: routes, handlers, and the one place where errors become answers."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import hdrs, web

from runtime.options import parse_options
from runtime.server import anthropic, embedding, guard, listing, ollama, openai
from runtime.server.answering import STREAM, Stream, answer, load_or_unload, write
from runtime.server.backend import Backend
from runtime.server.body import Fields, parse_body
from runtime.server.ollama import JSON
from runtime.server.requests import Generation, parse_model
from schemas import limits
from schemas.errors import NotFound, SealiftError, ServerBusy, UsageError
from schemas.version import VERSION

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LOG: Final = logging.getLogger("sealift.server")
_ACCESS: Final = logging.getLogger("sealift.access")
BACKEND: Final = web.AppKey("backend", Backend)


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
    router = app.router
    router.add_get("/", _root)  # and HEAD, as of the next two
    router.add_get("/api/version", _version)
    router.add_get("/api/tags", _tags)
    gets: tuple[tuple[str, Handler], ...] = (
        ("/healthz", _healthz),
        ("/readyz", _readyz),
        ("/api/ps", _ps),
        ("/api/sealift/egress", _egress),
        ("/v1/models", _v1_models),
        ("/v1/models/{name:.+}", _v1_model),
    )
    for path, handler in gets:
        router.add_get(path, handler, allow_head=False)
    posts: tuple[tuple[str, Handler], ...] = (
        ("/api/generate", _generate),
        ("/api/chat", _chat),
        ("/api/embed", _embed),
        ("/api/embeddings", _embeddings),
        ("/api/tokenize", _tokenize),
        ("/api/detokenize", _tokenize),
        ("/api/show", _show),
        ("/api/copy", _copy),
        ("/v1/chat/completions", _v1_chat),
        ("/v1/completions", _v1_completions),
        ("/v1/embeddings", _v1_embeddings),
        ("/v1/messages", _messages),
        ("/v1/messages/count_tokens", _count_tokens),
    )
    for path, handler in posts:
        router.add_post(path, handler)
    router.add_delete("/api/delete", _delete)
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
        body = json.dumps(openai.error_document(error)).encode()
    else:
        body = ollama.error_line(error)
    headers = {hdrs.CONTENT_TYPE: JSON}
    status = status or error.http_status
    if status == _BUSY:
        headers[hdrs.RETRY_AFTER] = str(limits.RETRY_AFTER_SECONDS)
    return web.Response(status=status, body=body, headers=headers)


async def _body(request: web.Request) -> dict[str, Any]:
    """The request's JSON object.

    Raises:
        UsageError: None came, too slowly, or in an encoding.
        MalformedDocument: It is not JSON.
    """
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise UsageError("the request body must not be compressed")
    try:
        async with asyncio.timeout(limits.HTTP_READ_SECONDS):
            data = await request.read()
    except TimeoutError:
        raise UsageError("the request body did not arrive in time") from None
    return parse_body(data)


def _json(document: dict[str, Any]) -> web.Response:
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: JSON})


# -- Ollama ---------------------------------------------------------------------------------------


async def _root(_: web.Request) -> web.Response:
    return web.Response(text="Ollama is running")


async def _version(_: web.Request) -> web.Response:
    return _json({"version": VERSION})


async def _tags(request: web.Request) -> web.Response:
    return _json(listing.tags(await request.app[BACKEND].models()))


async def _ps(request: web.Request) -> web.Response:
    backend = request.app[BACKEND]
    return _json(listing.ps(backend.scheduler.loaded(), await backend.withdrawn()))


async def _generate(request: web.Request) -> web.StreamResponse:
    return await _native(request, ollama.parse_generate(await _body(request)), chat=False)


async def _chat(request: web.Request) -> web.StreamResponse:
    return await _native(request, ollama.parse_chat(await _body(request)), chat=True)


async def _native(request: web.Request, wanted: Generation, *, chat: bool) -> web.StreamResponse:
    backend = request.app[BACKEND]
    reply = ollama.NativeAnswer(wanted.name, chat=chat)
    if wanted.prompt is None:
        return await load_or_unload(backend, wanted, reply)
    return await answer(request, backend, wanted, reply)


async def _embed(request: web.Request) -> web.Response:
    wanted = embedding.parse_embed(await _body(request), "input")
    event, timing = await embedding.run_task(request.app[BACKEND], wanted)
    return _json(embedding.embed_document(wanted, event, timing))


async def _embeddings(request: web.Request) -> web.Response:
    wanted = embedding.parse_embed(await _body(request), "prompt")
    event, _ = await embedding.run_task(request.app[BACKEND], wanted)
    return _json(embedding.embedding_document(wanted, event))


async def _tokenize(request: web.Request) -> web.Response:
    parse = embedding.parse_tokenize
    if request.path.endswith("/detokenize"):
        parse = embedding.parse_detokenize
    wanted = parse(await _body(request))
    event, _ = await embedding.run_task(request.app[BACKEND], wanted)
    return _json(embedding.tokens_document(wanted, event))


async def _show(request: web.Request) -> web.Response:
    backend = request.app[BACKEND]
    fields = listing.parse_show(await _body(request))
    name, reference = parse_model(fields.text("model"))
    verbose = fields.flag("verbose", default=False)
    system, options = fields.text("system"), parse_options(fields.raw("options"))
    model = await backend.model(reference, name)
    header = await backend.header(model)
    document = await backend.run(
        lambda: listing.show(model, header, verbose=verbose, system=system, options=options)
    )
    return _json(document)


async def _copy(request: web.Request) -> web.Response:
    fields = Fields(await _body(request))
    _, source = parse_model(fields.text("source"))
    _, target = parse_model(fields.text("destination"))
    try:
        await request.app[BACKEND].copy(source, target)
    except NotFound:
        raise NotFound(f'model "{fields.text("source")}" not found') from None
    return web.Response()


async def _delete(request: web.Request) -> web.Response:
    fields = Fields(await _body(request))
    name, reference = parse_model(fields.text("model") or fields.text("name"))
    await request.app[BACKEND].delete(reference, name)
    return web.Response()


# -- OpenAI ---------------------------------------------------------------------------------------


async def _v1_models(request: web.Request) -> web.Response:
    return _json(listing.openai_models(await request.app[BACKEND].models()))


async def _v1_model(request: web.Request) -> web.Response:
    name, reference = parse_model(request.match_info["name"])
    return _json(listing.openai_model(await request.app[BACKEND].model(reference, name)))


async def _v1_chat(request: web.Request) -> web.StreamResponse:
    return await _v1(request, openai.parse_chat(await _body(request)), chat=True)


async def _v1_completions(request: web.Request) -> web.StreamResponse:
    return await _v1(request, openai.parse_completion(await _body(request)), chat=False)


async def _v1_embeddings(request: web.Request) -> web.Response:
    wanted = embedding.parse_openai(await _body(request))
    event, _ = await embedding.run_task(request.app[BACKEND], wanted)
    return _json(embedding.openai_document(wanted, event))


async def _v1(request: web.Request, wanted: Generation, *, chat: bool) -> web.StreamResponse:
    reply = openai.OpenAIAnswer(
        wanted, chat=chat, answer_id=secrets.token_hex(12), created=int(time.time())
    )
    return await answer(request, request.app[BACKEND], wanted, reply)


# -- Anthropic ------------------------------------------------------------------------------------


async def _messages(request: web.Request) -> web.StreamResponse:
    wanted = anthropic.parse_messages(await _body(request))
    reply = anthropic.AnthropicAnswer(wanted, answer_id=secrets.token_hex(12))
    return await answer(request, request.app[BACKEND], wanted, reply)


async def _count_tokens(request: web.Request) -> web.Response:
    wanted = anthropic.parse_count(await _body(request))
    event, _ = await embedding.run_task(request.app[BACKEND], wanted)
    return _json(anthropic.count_document(event))


# -- our own --------------------------------------------------------------------------------------


async def _healthz(_: web.Request) -> web.Response:
    """The process runs and its event loop turns."""
    return _json({"status": "ok"})


async def _readyz(request: web.Request) -> web.Response:
    """The store answers too, and requests are taken."""
    backend = request.app[BACKEND]
    models = await backend.models()
    return _json(
        {
            "status": "ok",
            "models": len(models),
            "loaded": len(backend.scheduler.loaded()),
            "waiting": backend.scheduler.waiting,
        }
    )


async def _egress(request: web.Request) -> web.Response:
    return _json(await request.app[BACKEND].egress())
