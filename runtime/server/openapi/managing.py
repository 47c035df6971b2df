"""What the management of models takes and gives."""

from __future__ import annotations

from typing import Final

from runtime.server.openapi.native import MESSAGE, OPTIONS, streamed
from runtime.server.openapi.shapes import (
    ANY,
    COUNT,
    FLAG,
    MODEL,
    STRING,
    STRINGS,
    Schema,
    array,
    component,
    either,
    result,
    table,
)
from schemas import limits

_DIGEST: Final[Schema] = {"type": "string", "pattern": "^sha256[:-][0-9a-f]{64}$"}
_RECIPE: Final[dict[str, Schema]] = {
    "from": STRING,
    "files": {"type": "object", "maxProperties": 1, "additionalProperties": _DIGEST},
    "template": STRING,
    "license": either(STRING, STRINGS),
    "system": STRING,
    "parameters": OPTIONS,
    "messages": array(MESSAGE, maxItems=limits.PART_MESSAGES),
    "stream": FLAG,
    "quantize": ANY,
    "adapters": ANY,
}
CREATE: Final = component("CreateRequest", table(("model",), model=MODEL, **_RECIPE))
TRANSFER: Final = component(
    "TransferRequest", table(("model",), model=MODEL, insecure=FLAG, stream=FLAG)
)
STATUS: Final = component(
    "Status",
    result(
        ("digest", "total", "completed"),
        status=STRING,
        digest=STRING,
        total=COUNT,
        completed=COUNT,
    ),
)
STATUSES: Final = streamed(STATUS)
