"""OpenAI's API, under ``/v1/``; and reranking, as llama-server has it beside."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from runtime.server import embedding, listing, openai, rerank, responses, responses_answers
from runtime.server.answering import answer
from runtime.server.exchange import BACKEND, body, json_response
from runtime.server.openai_answers import OpenAIAnswer
from runtime.server.openapi import Operation, described
from runtime.server.openapi import openai as shapes
from runtime.server.openapi.openai import streamed
from runtime.server.openapi.shapes import JSON
from runtime.server.requests import Generation, parse_model
from runtime.server.several import answer_all
from schemas.errors import NotFound

_RERANK: Final = ("/v1/rerank", "/v1/reranking", "/rerank", "/reranking")


def add_routes(router: web.UrlDispatcher) -> None:
    """Models, chat, completions, responses, embeddings and reranking."""
    router.add_get("/v1/models", _models, allow_head=False)
    router.add_get("/v1/models/{name:.+}", _model, allow_head=False)
    router.add_post("/v1/chat/completions", _chat)
    router.add_post("/v1/completions", _completions)
    router.add_post("/v1/responses", _responses)
    router.add_post("/v1/responses/input_tokens", _input_tokens)
    router.add_get("/v1/responses/{response_id}", _kept_response, allow_head=False)
    router.add_delete("/v1/responses/{response_id}", _kept_response)
    router.add_post("/v1/embeddings", _embeddings)
    for path in _RERANK:
        router.add_post(path, _rerank)


@described(Operation("All models", gives={JSON: shapes.MODELS}))
async def _models(request: web.Request) -> web.Response:
    return json_response(listing.openai_models(await request.app[BACKEND].models()))


@described(Operation("One model", gives={JSON: shapes.MODEL_OBJECT}))
async def _model(request: web.Request) -> web.Response:
    name, reference = parse_model(request.match_info["name"])
    found = listing.openai_model(await request.app[BACKEND].model(reference, name))
    return json_response({**found, "id": name})  # as it was asked for, as in Ollama


@described(Operation("Continue a conversation", shapes.CHAT, streamed(shapes.CHATTED)))
async def _chat(request: web.Request) -> web.StreamResponse:
    return await _answered(request, openai.parse_chats(await body(request)), chat=True)


@described(Operation("Continue prompts", shapes.COMPLETE, streamed(shapes.COMPLETED)))
async def _completions(request: web.Request) -> web.StreamResponse:
    return await _answered(request, openai.parse_completions(await body(request)), chat=False)


@described(Operation("Answer input items", shapes.RESPOND, streamed(shapes.RESPONDED)))
async def _responses(request: web.Request) -> web.StreamResponse:
    asked = responses.parse_response(await body(request))
    reply = responses_answers.ResponsesAnswer(
        asked, answer_id=secrets.token_hex(12), created=int(time.time())
    )
    return await answer(request, request.app[BACKEND], asked.request, reply)


@described(
    Operation("Count the tokens of input items", shapes.COUNT_INPUT, {JSON: shapes.INPUT_COUNTED})
)
async def _input_tokens(request: web.Request) -> web.Response:
    wanted = responses.parse_count(await body(request))
    event, _ = await embedding.run_task(request.app[BACKEND], wanted)
    return json_response(responses_answers.count_document(event))


@described(Operation("An earlier response: none is kept", gives={JSON: shapes.RESPONDED}))
async def _kept_response(request: web.Request) -> web.Response:
    name = request.match_info["response_id"][:80]
    raise NotFound(f"response '{name}' not found", why="responses are not kept here")


@described(Operation("Texts to vectors", shapes.EMBED, {JSON: shapes.EMBEDDED}))
async def _embeddings(request: web.Request) -> web.Response:
    wanted = embedding.parse_openai(await body(request))
    event, _ = await embedding.run_task(request.app[BACKEND], wanted)
    return json_response(embedding.openai_document(wanted, event))


@described(Operation("Texts by how well they answer", shapes.RERANK, {JSON: shapes.RERANKED}))
async def _rerank(request: web.Request) -> web.Response:
    wanted = rerank.parse_rerank(await body(request))
    event, _ = await embedding.run_task(request.app[BACKEND], wanted.wanted)
    return json_response(rerank.rerank_document(wanted, event))


async def _answered(
    request: web.Request, wanted: Sequence[Generation], *, chat: bool
) -> web.StreamResponse:
    reply = OpenAIAnswer(
        wanted[0],
        chat=chat,
        answer_id=secrets.token_hex(12),
        created=int(time.time()),
        echoes=[each.echo for each in wanted],
        copies=len(wanted) // len({id(each.prompt) for each in wanted}),
    )
    if len(wanted) > 1:
        return await answer_all(request, request.app[BACKEND], wanted, reply)
    return await answer(request, request.app[BACKEND], wanted[0], reply)
