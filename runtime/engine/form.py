"""What answers are held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

# Room for indented JSON, but small models would fill an answer with empty lines.
WHITE_SPACE: Final = r"( |\n[ \t]{0,20})?"
# Where schemas stand in schemas: one each, in lists, and by name (JSON Schema 2020-12 §10).
_ONE: Final = ("items", "additionalProperties")
_MANY: Final = ("anyOf", "oneOf", "prefixItems")
_NAMED: Final = ("properties", "patternProperties", "$defs", "definitions")
# With one of these a schema says itself which members there may be, or leaves it to another one.
_OPENING: Final = frozenset(
    {"additionalProperties", "unevaluatedProperties", "patternProperties", "allOf", "$ref"}
)


@dataclass(frozen=True, slots=True)
class Form:
    """What an answer is held to.

    Attributes:
        text: A JSON Schema as JSON text, or a grammar.
        lark: Whether it is a grammar, in llguidance's dialect of Lark.
    """

    text: str
    lark: bool = False


def closed(schema: Any) -> Any:
    """The same schema with objects that have no members but those they name.

    What JSON Schema leaves open is closed where the schema is silent, as in llama.cpp and Ollama:
    a small model would add members for ever. Whatever is valid by the result is so by the schema.
    """
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    for key in _ONE:
        if key in schema:
            result[key] = closed(schema[key])
    for key in _MANY:
        if isinstance(schema.get(key), list):
            result[key] = [closed(each) for each in schema[key]]
    for key in _NAMED:
        if isinstance(schema.get(key), dict):
            result[key] = {name: closed(each) for name, each in schema[key].items()}
    if schema.get("properties") and schema.keys().isdisjoint(_OPENING):
        result["additionalProperties"] = False
    return result
