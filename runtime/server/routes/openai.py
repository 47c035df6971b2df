"""OpenAI's API, under ``/v1/``."""

from __future__ import annotations

import secrets
import time

from aiohttp import web

from runtime.server import embedding, listing, openai
from runtime.server.answering import answer
from runtime.server.exchange import BACKEND, body, json_response
from runtime.server.openai_answers import OpenAIAnswer
from runtime.server.requests import Generation, parse_model


def add_routes(router: web.UrlDispatcher) -> None:
    """Models, chat, completions and embeddings."""
    router.add_get("/v1/models", _models, allow_head=False)
    router.add_get("/v1/models/{name:.+}", _model, allow_head=False)
    router.add_post("/v1/chat/completions", _chat)
    router.add_post("/v1/completions", _completions)
    router.add_post("/v1/embeddings", _embeddings)


async def _models(request: web.Request) -> web.Response:
    return json_response(listing.openai_models(await request.app[BACKEND].models()))


async def _model(request: web.Request) -> web.Response:
    name, reference = parse_model(request.match_info["name"])
    return json_response(listing.openai_model(await request.app[BACKEND].model(reference, name)))


async def _chat(request: web.Request) -> web.StreamResponse:
    return await _answered(request, openai.parse_chat(await body(request)), chat=True)


async def _completions(request: web.Request) -> web.StreamResponse:
    return await _answered(request, openai.parse_completion(await body(request)), chat=False)


async def _embeddings(request: web.Request) -> web.Response:
    wanted = embedding.parse_openai(await body(request))
    event, _ = await embedding.run_task(request.app[BACKEND], wanted)
    return json_response(embedding.openai_document(wanted, event))


async def _answered(request: web.Request, wanted: Generation, *, chat: bool) -> web.StreamResponse:
    reply = OpenAIAnswer(
        wanted, chat=chat, answer_id=secrets.token_hex(12), created=int(time.time())
    )
    return await answer(request, request.app[BACKEND], wanted, reply)
