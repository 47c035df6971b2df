"""For those who run the server: is it well, is it ready, how busy is it, is it shut off."""

from __future__ import annotations

from aiohttp import hdrs, web

from runtime.access.roles import ASKING
from runtime.server.exchange import BACKEND, json_response
from runtime.server.governance import GOVERNANCE
from runtime.server.metrics import gauges
from runtime.server.openapi import Operation, described
from runtime.server.openapi import operations as shapes
from runtime.server.openapi.shapes import JSON, STRING, TEXT
from runtime.server.readiness import READINESS
from schemas.errors import SealiftError


def add_routes(router: web.UrlDispatcher) -> None:
    """Health, readiness, metrics and egress."""
    router.add_get("/healthz", _healthz, allow_head=False)
    router.add_get("/readyz", _readyz, allow_head=False)
    router.add_get("/metrics", _metrics, allow_head=False)
    router.add_get("/api/sealift/egress", _egress, allow_head=False)


@described(Operation("Whether the process runs", gives={JSON: shapes.HEALTH}))
async def _healthz(_: web.Request) -> web.Response:
    """The process runs and its event loop turns."""
    return json_response({"status": "ok"})


@described(
    Operation(
        "Whether requests can be answered",
        gives={JSON: shapes.READY},
        query={"generate": STRING},
        statuses={200: "Ready.", 503: "Not ready."},
    )
)
async def _readyz(request: web.Request) -> web.Response:
    """The store answers too, requests are taken, and a model generates if one is named."""
    backend, governance = request.app[BACKEND], request.app[GOVERNANCE]
    asked = request.query.get("generate", "")
    if asked:
        governance.demand(request, ASKING)  # it may load a model that nobody else asked for
    document = {
        "status": "ok",
        "models": len(await backend.models()),
        "loaded": len(backend.scheduler.loaded()),
        "waiting": backend.scheduler.waiting,
    }
    name = asked or backend.settings.ready_model
    if not name:
        return json_response(document)
    try:
        verdict = (await request.app[READINESS].check(name)).document()
    except SealiftError as error:
        verdict = {"model": name, "generates": False, "why": error.line()}
    if verdict["generates"]:
        return json_response(document | verdict)
    return json_response(document | {"status": "not ready"} | verdict, status=503)


@described(
    Operation(
        "Figures for Prometheus",
        gives={TEXT: STRING, "application/openmetrics-text": STRING},
    )
)
async def _metrics(request: web.Request) -> web.Response:
    """For Prometheus: text, or OpenMetrics where it asks for that."""
    backend, metrics = request.app[BACKEND], request.app[GOVERNANCE].metrics
    now = gauges(
        backend.scheduler.loaded(),
        backend.scheduler.waiting,
        metrics.started,
        request.app[GOVERNANCE].certificate_expires,
    )
    accept = request.headers.get(hdrs.ACCEPT, "")
    body, content_type = await backend.run(metrics.render, accept, now)
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})


@described(Operation("Try every way out of every process", gives={JSON: shapes.EGRESS}))
async def _egress(request: web.Request) -> web.Response:
    return json_response(await request.app[BACKEND].egress())
