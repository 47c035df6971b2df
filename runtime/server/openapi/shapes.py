"""Words for JSON Schemas (draft 2020-12), and what all of the API has in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

Schema = dict[str, Any]

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
SSE: Final = "text/event-stream"
TEXT: Final = "text/plain"

COMPONENTS: Final[dict[str, Schema]] = {}
"""Schemas that have a name."""


def component(name: str, schema: Schema) -> Schema:
    """Give a schema a name; returns a reference to it."""
    COMPONENTS[name] = schema
    return {"$ref": f"#/components/schemas/{name}"}


def either(*schemas: Schema) -> Schema:
    """Any of these."""
    return {"anyOf": list(schemas)}


def maybe(schema: Schema) -> Schema:
    """The same, or null, which counts as absent."""
    kind = schema.get("type")
    if kind == "null":
        return schema
    if isinstance(kind, str) and "enum" not in schema:
        return {**schema, "type": [kind, "null"]}
    return either(schema, {"type": "null"})


def array(items: Schema, **bounds: int) -> Schema:
    """An array of these."""
    return {"type": "array", "items": items, **bounds}


def one_of(*values: object) -> Schema:
    """One of these values."""
    return {"enum": list(values)}


def table(required: Sequence[str] = (), /, **members: Schema) -> Schema:
    """An object. Members that are not required may be null as well; others are ignored."""
    shown = {name: s if name in required else maybe(s) for name, s in members.items()}
    return {"type": "object", "required": list(required), "properties": shown}


def result(optional: Sequence[str] = (), /, **members: Schema) -> Schema:
    """An object of an answer: all members are there but for the optional ones."""
    required = [name for name in members if name not in optional]
    return {"type": "object", "required": required, "properties": members}


ANY: Final[Schema] = {}
STRING: Final[Schema] = {"type": "string"}
FLAG: Final[Schema] = {"type": "boolean"}
INTEGER: Final[Schema] = {"type": "integer"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
NUMBER: Final[Schema] = {"type": "number"}
OBJECT: Final[Schema] = {"type": "object"}
NULL: Final[Schema] = {"type": "null"}
STRINGS: Final = array(STRING)


def whole(low: int, high: int) -> Schema:
    """An integer within bounds."""
    return {"type": "integer", "minimum": low, "maximum": high}


def number(low: float, high: float) -> Schema:
    """A number within bounds."""
    return {"type": "number", "minimum": low, "maximum": high}


MODEL: Final[Schema] = {"type": "string", "minLength": 1, "description": "A model's name."}
NATIVE_ERROR: Final = component("NativeError", result(("code",), error=STRING, code=STRING))
OPENAI_ERROR: Final = component(
    "OpenAIError",
    result(
        error=result(message=STRING, type=STRING, param={"type": ["string", "null"]}, code=STRING)
    ),
)
ANTHROPIC_ERROR: Final = component(
    "AnthropicError",
    result(type=one_of("error"), error=result(type=STRING, message=STRING)),
)
