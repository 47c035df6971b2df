"""What every handler does with a request and its answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from aiohttp import hdrs, web

from runtime.server.backend import Backend
from runtime.server.body import parse_body
from runtime.server.ollama import JSON
from runtime.server.record import RECORD, asked_for
from schemas import limits
from schemas.errors import UsageError

BACKEND: Final = web.AppKey("backend", Backend)


async def body(request: web.Request) -> dict[str, Any]:
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
    document = parse_body(data)
    record = request.get(RECORD)
    if record is not None:
        record.asked = asked_for(document)
    return document


def json_response(
    document: dict[str, Any] | list[dict[str, Any]], *, status: int = 200
) -> web.Response:
    """An answer of one JSON document."""
    data = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return web.Response(status=status, body=data, headers={hdrs.CONTENT_TYPE: JSON})
