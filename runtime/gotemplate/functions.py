"""What Go templates may call: Go's own functions, and those that Ollama adds (``template.go``)."""

from __future__ import annotations

import html
import urllib.parse
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from runtime.gotemplate.printing import sprint, sprintf, sprintln
from runtime.gotemplate.values import (
    GoError,
    Record,
    Value,
    bounded,
    equal,
    is_true,
    item_of,
    length,
    less,
    slice_of,
    to_json,
)

_TYPESCRIPT: Final = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}


def _equal_to_any(first: Value, *others: Value) -> bool:
    if not others:
        raise GoError("missing argument for comparison")
    return any(equal(first, other) for other in others)


def _indexed(value: Value, *keys: Value) -> Value:
    for key in keys:
        value = item_of(value, key)
    return value


def _day(offset: int) -> str:
    return (datetime.now().astimezone() + timedelta(days=offset)).strftime("%Y-%m-%d")


def _as_html(text: str) -> str:
    return bounded(html.escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;"))


def _typescript(value: Value) -> str:
    """A tool parameter's type, as TypeScript has it."""
    if not isinstance(value, Record) or "AnyOf" not in value.fields:
        return "any"
    if several := value.fields["AnyOf"]:
        return " | ".join(map(_typescript, several))
    kinds = value.fields["Type"]
    names = [kinds] if isinstance(kinds, str) else kinds
    return " | ".join(_TYPESCRIPT.get(name, "any") for name in names if name) or "any"


FUNCTIONS: Final[Mapping[str, tuple[Callable[..., Any], int, int | None]]] = MappingProxyType(
    {
        "not": (lambda value: not is_true(value), 1, 1),
        "eq": (_equal_to_any, 1, None),
        "ne": (lambda left, right: not equal(left, right), 2, 2),
        "lt": (less, 2, 2),
        "le": (lambda left, right: not less(right, left), 2, 2),
        "gt": (lambda left, right: less(right, left), 2, 2),
        "ge": (lambda left, right: not less(left, right), 2, 2),
        "len": (length, 1, 1),
        "index": (_indexed, 1, None),
        "slice": (slice_of, 1, 4),
        "print": (sprint, 0, None),
        "printf": (sprintf, 1, None),
        "println": (sprintln, 0, None),
        "html": (lambda *values: _as_html(sprint(*values)), 0, None),
        "urlquery": (lambda *values: bounded(urllib.parse.quote_plus(sprint(*values))), 0, None),
        "json": (to_json, 1, 1),
        "currentDate": (lambda *_: _day(0), 0, None),
        "yesterdayDate": (lambda *_: _day(-1), 0, None),
        "toTypeScriptType": (_typescript, 1, 1),
    }
)
"""By name: what it does, and how many arguments it takes, least and most.

``and`` and ``or`` are the evaluator's: they stop at the argument that decides.
"""
