"""Ollama's native API, and what Sealift adds to it."""

from __future__ import annotations

from aiohttp import web

from runtime.options import parse_options
from runtime.server import embedding, listing, ollama
from runtime.server.answering import answer, load_or_unload
from runtime.server.body import Fields
from runtime.server.exchange import BACKEND, body, json_response
from runtime.server.openapi import Operation, described
from runtime.server.openapi import native as shapes
from runtime.server.openapi.shapes import JSON, STRING, TEXT
from runtime.server.requests import Generation, parse_model
from schemas.errors import NotFound
from schemas.version import VERSION


def add_routes(router: web.UrlDispatcher) -> None:
    """``/`` and everything under ``/api/`` that Ollama has, or could have."""
    router.add_get("/", _root)  # and HEAD, as of the next two
    router.add_get("/api/version", _version)
    router.add_get("/api/tags", _tags)
    router.add_get("/api/ps", _ps, allow_head=False)
    router.add_post("/api/generate", _generate)
    router.add_post("/api/chat", _chat)
    router.add_post("/api/embed", _embed)
    router.add_post("/api/embeddings", _embeddings)
    router.add_post("/api/tokenize", _tokenize)
    router.add_post("/api/detokenize", _detokenize)
    router.add_post("/api/show", _show)
    router.add_post("/api/copy", _copy)
    router.add_delete("/api/delete", _delete)


@described(Operation("Whether it runs", gives={TEXT: STRING}))
async def _root(_: web.Request) -> web.Response:
    return web.Response(text="Ollama is running")


@described(Operation("The server's version", gives={JSON: shapes.VERSION}))
async def _version(_: web.Request) -> web.Response:
    return json_response({"version": VERSION})


@described(Operation("All models", gives={JSON: shapes.TAGS}))
async def _tags(request: web.Request) -> web.Response:
    return json_response(listing.tags(await request.app[BACKEND].models()))


@described(Operation("Loaded models", gives={JSON: shapes.RUNNING}))
async def _ps(request: web.Request) -> web.Response:
    backend = request.app[BACKEND]
    return json_response(listing.ps(backend.scheduler.loaded(), await backend.withdrawn()))


@described(Operation("Continue a prompt", shapes.GENERATE, shapes.streamed(shapes.GENERATED)))
async def _generate(request: web.Request) -> web.StreamResponse:
    return await _native(request, ollama.parse_generate(await body(request)), chat=False)


@described(Operation("Continue a conversation", shapes.CHAT, shapes.streamed(shapes.CHATTED)))
async def _chat(request: web.Request) -> web.StreamResponse:
    return await _native(request, ollama.parse_chat(await body(request)), chat=True)


async def _native(request: web.Request, wanted: Generation, *, chat: bool) -> web.StreamResponse:
    backend = request.app[BACKEND]
    reply = ollama.NativeAnswer(wanted.name, chat=chat)
    if wanted.prompt is None:
        return await load_or_unload(backend, wanted, reply)
    return await answer(request, backend, wanted, reply)


@described(Operation("Texts to vectors", shapes.EMBED, {JSON: shapes.EMBEDDED}))
async def _embed(request: web.Request) -> web.Response:
    wanted = embedding.parse_embed(await body(request), "input")
    event, timing = await embedding.run_task(request.app[BACKEND], wanted)
    return json_response(embedding.embed_document(wanted, event, timing))


@described(Operation("A text to a vector", shapes.EMBEDDINGS, {JSON: shapes.EMBEDDING}))
async def _embeddings(request: web.Request) -> web.Response:
    wanted = embedding.parse_embed(await body(request), "prompt")
    event, _ = await embedding.run_task(request.app[BACKEND], wanted)
    return json_response(embedding.embedding_document(wanted, event))


@described(Operation("A text to tokens", shapes.TOKENIZE, {JSON: shapes.TOKENIZED}))
async def _tokenize(request: web.Request) -> web.Response:
    return await _tokens(request, embedding.parse_tokenize(await body(request)))


@described(Operation("Tokens to a text", shapes.DETOKENIZE, {JSON: shapes.DETOKENIZED}))
async def _detokenize(request: web.Request) -> web.Response:
    return await _tokens(request, embedding.parse_detokenize(await body(request)))


async def _tokens(request: web.Request, wanted: embedding.Wanted) -> web.Response:
    event, _ = await embedding.run_task(request.app[BACKEND], wanted)
    return json_response(embedding.tokens_document(wanted, event))


@described(Operation("What is known of a model", shapes.SHOW, {JSON: shapes.SHOWN}))
async def _show(request: web.Request) -> web.Response:
    backend = request.app[BACKEND]
    fields = listing.parse_show(await body(request))
    name, reference = parse_model(fields.text("model"))
    verbose = fields.flag("verbose", default=False)
    system, options = fields.text("system"), parse_options(fields.raw("options"))
    model = await backend.model(reference, name)
    header = await backend.header(model)
    projector = await backend.projector_header(model)
    document = await backend.run(
        lambda: listing.show(
            model, header, verbose=verbose, system=system, options=options, projector=projector
        )
    )
    return json_response(document)


@described(Operation("Give a model a second name", shapes.COPY))
async def _copy(request: web.Request) -> web.Response:
    fields = Fields(await body(request))
    _, source = parse_model(fields.text("source"))
    _, target = parse_model(fields.text("destination"))
    try:
        await request.app[BACKEND].copy(source, target)
    except NotFound:
        raise NotFound(f'model "{fields.text("source")}" not found') from None
    return web.Response()


@described(Operation("Take a model's name away", shapes.NAMED))
async def _delete(request: web.Request) -> web.Response:
    fields = Fields(await body(request))
    name, reference = parse_model(fields.text("model") or fields.text("name"))
    await request.app[BACKEND].delete(reference, name)
    return web.Response()
