"""Makes Schemathesis ask for a model that there is: else every request would end at its name."""

from __future__ import annotations

from typing import Any

import schemathesis

_OTHERS = ("/api/delete", "/api/create", "/api/pull", "/api/push")


@schemathesis.hook  # type: ignore[untyped-decorator, unused-ignore]
def map_body(context: Any, body: Any) -> Any:
    """Keep what is no name."""
    if isinstance(body, dict) and context.operation.path not in _OTHERS:
        for key in ("model", "source"):
            if isinstance(body.get(key), str) and body[key]:
                body = {**body, key: "tiny"}
    return body


@schemathesis.hook  # type: ignore[untyped-decorator, unused-ignore]
def map_path_parameters(context: Any, parameters: Any) -> Any:
    """The same for a model's own path."""
    if context.operation.path == "/v1/models/{name}" and parameters:
        return {**parameters, "name": "tiny"}
    return parameters


@schemathesis.hook  # type: ignore[untyped-decorator, unused-ignore]
def map_query(context: Any, query: Any) -> Any:
    """Readiness with a model that there is; with any other it is rightly 503."""
    return {"generate": "tiny"} if context.operation.path == "/readyz" and query else query
