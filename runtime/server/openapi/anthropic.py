"""What Anthropic's API takes and gives."""

from __future__ import annotations

from typing import Final

from runtime.server.openapi.shapes import (
    COUNT,
    FLAG,
    MODEL,
    OBJECT,
    STRING,
    Schema,
    array,
    component,
    either,
    maybe,
    number,
    one_of,
    result,
    table,
    whole,
)
from schemas import limits

_NAME: Final[Schema] = {"type": "string", "minLength": 1}
_TEXT: Final = table(("type",), type=one_of("text"), text=STRING)
_IMAGE: Final = table(
    ("type", "source"),
    type=one_of("image"),
    source=either(
        table(("type", "data"), type=one_of("base64"), data=_NAME),
        table(("type", "url"), type=one_of("url"), url=_NAME),
    ),
)
_TEXTS: Final = either(STRING, array(_TEXT))
_TURN: Final = component(
    "MessageTurn",
    either(
        table(
            ("role",),
            role=one_of("user"),
            content=either(
                STRING,
                array(
                    either(
                        _TEXT,
                        _IMAGE,
                        table(
                            ("type",),
                            type=one_of("tool_result"),
                            tool_use_id=STRING,
                            content=either(STRING, array(either(_TEXT, _IMAGE))),
                        ),
                    )
                ),
            ),
        ),
        table(
            ("role",),
            role=one_of("assistant"),
            content=either(
                STRING,
                array(
                    either(
                        _TEXT,
                        table(("type",), type=one_of("thinking"), thinking=STRING),
                        table(("type",), type=one_of("redacted_thinking")),
                        table(("type", "name"), type=one_of("tool_use"), name=_NAME, input=OBJECT),
                    )
                ),
            ),
        ),
    ),
)
_TOOL: Final = table(
    ("name",), type=one_of("custom"), name=_NAME, description=STRING, input_schema=OBJECT
)
_COMMON: Final[dict[str, Schema]] = {
    "model": MODEL,
    "messages": array(_TURN, minItems=1, maxItems=limits.MAX_MESSAGES),
    "system": _TEXTS,
    "tools": array(_TOOL, maxItems=limits.TOOLS),
    "tool_choice": either(
        table(("type",), type=one_of("auto", "none", "any"), disable_parallel_tool_use=FLAG),
        table(("type", "name"), type=one_of("tool"), name=_NAME, disable_parallel_tool_use=FLAG),
    ),
}
MESSAGES: Final = component(
    "MessagesRequest",
    table(
        ("model", "max_tokens", "messages"),
        **_COMMON,
        max_tokens=whole(1, limits.CONTEXT_TOKENS),
        stop_sequences=array(STRING, maxItems=limits.STOP_STRINGS),
        stream=FLAG,
        temperature=number(0, 1),
        top_k=whole(0, limits.CONTEXT_TOKENS),
        top_p=number(0, 1),
        thinking=table(type=one_of("enabled", "disabled", "adaptive")),
    ),
)
ANSWERED: Final = component(
    "MessageAnswer",
    result(
        id=STRING,
        type=one_of("message"),
        role=one_of("assistant"),
        model=STRING,
        content=array(
            either(
                result(type=one_of("text"), text=STRING),
                result(type=one_of("thinking"), thinking=STRING, signature=STRING),
                result(type=one_of("tool_use"), id=STRING, name=STRING, input={}),
            )
        ),
        stop_reason=one_of("end_turn", "max_tokens", "tool_use", "stop_sequence"),
        stop_sequence=maybe(STRING),
        usage=result(input_tokens=COUNT, output_tokens=COUNT),
    ),
)
COUNT_TOKENS: Final = component("CountTokensRequest", table(("model", "messages"), **_COMMON))
COUNTED: Final = component("CountTokensAnswer", result(input_tokens=COUNT))
