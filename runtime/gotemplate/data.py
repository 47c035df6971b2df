"""What Go templates are given: messages, tools and calls by the names that Ollama has for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from runtime.gotemplate.values import JsonList, JsonMap, Record, Value

_TOOL_KEYS: Final = ("type", "items", "function")
_FUNCTION_KEYS: Final = ("name", "description", "parameters")
_PARAMETERS_KEYS: Final = ("type", "$defs", "items", "required", "properties")
_PROPERTY_KEYS: Final = (
    "anyOf",
    "type",
    "items",
    "description",
    "enum",
    "properties",
    "required",
)


def message_of(message: Mapping[str, Any]) -> Record:
    """A message; the argument has the keys that Jinja templates know it by."""
    calls = JsonList(
        _call_of(call, number) for number, call in enumerate(message.get("tool_calls") or ())
    )
    fields = {
        "Role": message["role"],
        "Content": message["content"],
        "Thinking": message.get("thinking") or "",
        "Images": [],  # they stand in the content
        "ToolCalls": calls,
        "ToolName": message.get("tool_name") or "",
        "ToolCallID": message.get("tool_call_id") or "",
    }
    document = {"role": fields["Role"], "content": fields["Content"]}
    for key, name in (("thinking", "Thinking"), ("tool_calls", "ToolCalls")):
        if fields[name]:
            document[key] = fields[name]
    return Record("api.Message", fields, document)


def tools_of(tools: Sequence[Mapping[str, Any]]) -> JsonList:
    """Tools as clients describe them."""
    return JsonList(map(_tool_of, tools))


def _call_of(call: Mapping[str, Any], number: int) -> Record:
    function = _table(call.get("function"))
    given = function.get("arguments")
    arguments = JsonMap(given) if isinstance(given, dict) else given
    fields = {"Name": function.get("name") or "", "Arguments": arguments, "Index": number}
    document = {"name": fields["Name"], "arguments": arguments}
    identity = call.get("id") or ""
    return Record(
        "api.ToolCall",
        {
            "ID": identity,
            "Function": Record("api.ToolCallFunction", fields, document),
        },
        ({"id": identity} if identity else {}) | {"function": document},
    )


def _tool_of(tool: Mapping[str, Any]) -> Record:
    function = _table(tool.get("function"))
    parameters = _parameters_of(_table(function.get("parameters")))
    said = _ordered(function, _FUNCTION_KEYS) | {"parameters": parameters}
    described = Record(
        "api.ToolFunction",
        {
            "Name": function.get("name") or "",
            "Description": function.get("description") or "",
            "Parameters": parameters,
        },
        said,
    )
    kind = tool.get("type") or "function"
    document = {"type": kind} | _ordered(tool, _TOOL_KEYS) | {"function": described}
    fields = {"Type": kind, "Items": tool.get("items"), "Function": described}
    return Record("api.Tool", fields, document)


def _parameters_of(schema: Mapping[str, Any]) -> Record:
    properties = _properties_of(schema)
    kind = schema.get("type") or "object"
    document = {"type": kind} | _ordered(schema, _PARAMETERS_KEYS) | {"properties": properties}
    fields = {
        "Type": kind,
        "Defs": schema.get("$defs"),
        "Items": schema.get("items"),
        "Required": schema.get("required") or [],
        "Properties": properties,
    }
    return Record("api.ToolFunctionParameters", fields, document)


def _properties_of(schema: Mapping[str, Any]) -> JsonMap:
    found = _table(schema.get("properties"))
    return JsonMap(
        (name, _property_of(each) if isinstance(each, dict) else each)
        for name, each in found.items()
    )


def _property_of(schema: Mapping[str, Any]) -> Record:
    either = schema.get("anyOf")
    either = either if isinstance(either, list) else []
    fields: dict[str, Value] = {
        "AnyOf": [_property_of(each) for each in either if isinstance(each, dict)],
        "Type": schema.get("type") or "",
        "Items": schema.get("items"),
        "Description": schema.get("description") or "",
        "Enum": schema.get("enum") or [],
        "Properties": _properties_of(schema),
        "Required": schema.get("required") or [],
    }
    return Record("api.ToolProperty", fields, _ordered(schema, _PROPERTY_KEYS))


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _ordered(table: Mapping[str, Any], first: Sequence[str]) -> dict[str, Any]:
    """A struct's keys in its own order, then whatever else the client wrote."""
    known = [key for key in first if key in table]
    return {key: table[key] for key in [*known, *sorted(set(table) - set(known))]}
