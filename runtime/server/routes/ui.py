"""The chat page at ``/ui``, and what it tells of a model's origin.

Everything that the page consists of lies in ``runtime/server/ui`` and is read once, before the
front-end confines itself. The page loads nothing from anywhere else: its Content-Security-Policy
allows this server's own script and style, and connections to this server.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from aiohttp import hdrs, web

from registry.arrivals import Arrival
from runtime.models import Model
from runtime.server.exchange import BACKEND, json_response
from runtime.server.ollama import timestamp
from runtime.server.openapi import Operation, described
from runtime.server.openapi.shapes import COUNT, FLAG, JSON, MODEL, OBJECT, STRING, array, result
from runtime.server.requests import parse_model

_TYPES: Final = {
    "index.html": "text/html",
    "app.js": "text/javascript",
    "markdown.js": "text/javascript",
    "style.css": "text/css",
}
# CSP Level 3 and Trusted Types: no inline script or style, no plug-in, no frame around it, and no
# string that becomes markup.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Frame-Options": "DENY",
    hdrs.CACHE_CONTROL: "no-cache",
}


@dataclass(frozen=True, slots=True)
class _Page:
    """One file of the page.

    Attributes:
        data: Its bytes.
        type: Its media type.
        tag: Changes with its bytes.
    """

    data: bytes
    type: str
    tag: str


def _read(name: str, media_type: str) -> _Page:
    data = resources.files("runtime.server").joinpath("ui", name).read_bytes()
    return _Page(data, media_type, hashlib.sha256(data).hexdigest()[:32])


_PAGES: Final = {name: _read(name, media_type) for name, media_type in _TYPES.items()}


def add_routes(router: web.UrlDispatcher) -> None:
    """The page, its parts, and a model's origin."""
    router.add_get("/ui", _to_the_page)
    router.add_get("/ui/", _page)
    router.add_get("/ui/{name}", _page)
    router.add_get("/api/provenance", _provenance, allow_head=False)


_ORIGIN: Final = result(
    ("made", "withdrawn"),
    model=STRING,
    digest=STRING,
    size=COUNT,
    modified_at=STRING,
    license=STRING,
    signed=FLAG,
    trusted=FLAG,
    arrivals=array(
        result(
            publisher=STRING,
            fingerprint=STRING,
            trusted=FLAG,
            signer=STRING,
            keys=array(STRING),
            name=STRING,
            bundle=STRING,
            sequence=COUNT,
            receipt=STRING,
            imported_at=STRING,
        )
    ),
    made=OBJECT,
    withdrawn=OBJECT,
)


@described(Operation("Leads to the chat page.", statuses={308: "It is at /ui/."}))
async def _to_the_page(_: web.Request) -> web.Response:
    return web.Response(status=308, headers={hdrs.LOCATION: "/ui/", **_HEADERS})


@described(Operation("The chat page.", gives={"text/html": {}}, other={304: "It did not change."}))
async def _page(request: web.Request) -> web.Response:
    page = _PAGES.get(request.match_info.get("name", "index.html"))
    if page is None:
        raise web.HTTPNotFound
    headers = {**_HEADERS, hdrs.ETAG: f'"{page.tag}"'}
    if any(tag.value == page.tag for tag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=page.data, content_type=page.type, charset="utf-8", headers=headers)


@described(
    Operation(
        "Where a model came from, and who signed it.",
        gives={JSON: _ORIGIN},
        query={"model": {**MODEL, "x-required": True}},
    )
)
async def _provenance(request: web.Request) -> web.Response:
    """Where a model came from: ``GET /api/provenance?model=NAME``."""
    backend = request.app[BACKEND]
    name, reference = parse_model(request.query.get("model"))
    model = await backend.model(reference, name)
    arrivals = await backend.run(backend.store.catalogue.arrivals, model.digest)
    return json_response(origin(model, arrivals))


def origin(model: Model, arrivals: list[Arrival]) -> dict[str, Any]:
    """What is known of where a model came from.

    Args:
        model: From the catalogue.
        arrivals: The imports that brought it, the newest first.
    """
    document: dict[str, Any] = {
        "model": model.name,
        "digest": str(model.digest),
        "size": model.size,
        "modified_at": timestamp(model.modified),
        "license": model.facts.get("license") or "",
        "signed": bool(arrivals),
        "trusted": any(arrival.trusted for arrival in arrivals),
        "arrivals": [arrival.document() for arrival in arrivals],
    }
    if model.made is not None:
        document["made"] = model.made.document()
    if model.withdrawal is not None:
        document["withdrawn"] = model.withdrawal.document()
    return document
