"""Anthropic's messages, under ``/v1/messages``."""

from __future__ import annotations

import secrets

from aiohttp import web

from runtime.server import anthropic, embedding
from runtime.server.answering import answer
from runtime.server.anthropic_answers import AnthropicAnswer, count_document
from runtime.server.exchange import BACKEND, body, json_response
from runtime.server.openapi import Operation, described
from runtime.server.openapi import anthropic as shapes
from runtime.server.openapi.openai import streamed
from runtime.server.openapi.shapes import JSON


def add_routes(router: web.UrlDispatcher) -> None:
    """Messages and the counting of their tokens."""
    router.add_post("/v1/messages", _messages)
    router.add_post("/v1/messages/count_tokens", _count_tokens)


@described(Operation("Continue a conversation", shapes.MESSAGES, streamed(shapes.ANSWERED)))
async def _messages(request: web.Request) -> web.StreamResponse:
    wanted = anthropic.parse_messages(await body(request))
    reply = AnthropicAnswer(wanted, answer_id=secrets.token_hex(12))
    return await answer(request, request.app[BACKEND], wanted, reply)


@described(Operation("Count a conversation's tokens", shapes.COUNT_TOKENS, {JSON: shapes.COUNTED}))
async def _count_tokens(request: web.Request) -> web.Response:
    wanted = anthropic.parse_count(await body(request))
    event, _ = await embedding.run_task(request.app[BACKEND], wanted)
    return json_response(count_document(event))
