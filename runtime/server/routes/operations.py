"""For those who run the server: is it well, is it ready, is it shut off."""

from __future__ import annotations

from aiohttp import web

from runtime.server.exchange import BACKEND, json_response


def add_routes(router: web.UrlDispatcher) -> None:
    """Health and egress."""
    router.add_get("/healthz", _healthz, allow_head=False)
    router.add_get("/readyz", _readyz, allow_head=False)
    router.add_get("/api/sealift/egress", _egress, allow_head=False)


async def _healthz(_: web.Request) -> web.Response:
    """The process runs and its event loop turns."""
    return json_response({"status": "ok"})


async def _readyz(request: web.Request) -> web.Response:
    """The store answers too, and requests are taken."""
    backend = request.app[BACKEND]
    models = await backend.models()
    return json_response(
        {
            "status": "ok",
            "models": len(models),
            "loaded": len(backend.scheduler.loaded()),
            "waiting": backend.scheduler.waiting,
        }
    )


async def _egress(request: web.Request) -> web.Response:
    return json_response(await request.app[BACKEND].egress())
