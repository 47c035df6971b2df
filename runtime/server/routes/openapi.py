"""The document that describes all routes."""

from __future__ import annotations

import json
from functools import cache

from aiohttp import web

from runtime.server.openapi import Operation, described, document
from runtime.server.openapi.shapes import JSON, OBJECT


def add_routes(router: web.UrlDispatcher) -> None:
    """``/openapi.json``, about the routes that the router has when it is first asked for."""

    @cache
    def text() -> str:
        return json.dumps(document(router), ensure_ascii=False, separators=(",", ":"))

    @described(Operation("This document", gives={JSON: OBJECT}))
    async def openapi(_: web.Request) -> web.Response:
        return web.Response(text=text(), content_type="application/json")

    router.add_get("/openapi.json", openapi, allow_head=False)
