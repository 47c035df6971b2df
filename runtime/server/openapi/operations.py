"""What is there for those who run the server."""

from __future__ import annotations

from typing import Final

from runtime.server.openapi.shapes import (
    COUNT,
    FLAG,
    OBJECT,
    STRING,
    array,
    component,
    one_of,
    result,
)

HEALTH: Final = component("Health", result(status=one_of("ok")))
READY: Final = component(
    "Readiness",
    result(
        ("model", "generates", "why"),
        status=one_of("ok", "not ready"),
        models=COUNT,
        loaded=COUNT,
        waiting=COUNT,
        model=STRING,
        generates=FLAG,
        why=STRING,
    ),
)
EGRESS: Final = component(
    "Egress", result(egress=one_of("off", "POSSIBLE"), processes=array(OBJECT))
)
