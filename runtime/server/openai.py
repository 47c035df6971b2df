"""OpenAI's dialect: ``/v1/chat/completions`` and ``/v1/completions``.

Source: the OpenAI API reference (openai-openapi 2.3). Pure: bodies in, requests out. What cannot be
done here is refused, never left out in silence. Answers: :mod:`runtime.server.openai_answers`.
"""

from __future__ import annotations

from typing import Any, Final

from runtime.messages import Chat, Message, Role, Text
from runtime.options import Options, parse_options, parse_stop
from runtime.server.body import Fields, parse_body
from runtime.server.requests import (
    ANY_OBJECT,
    INSERT,
    THINKING,
    TOOLS,
    Generation,
    parse_model,
    schema_text,
    tools_of,
)
from schemas import limits
from schemas.errors import MalformedDocument, UnsupportedRequest, UsageError

_ROLES: Final[dict[str, Role]] = {
    "system": "system",
    "developer": "system",  # what newer clients call it
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_EFFORTS: Final = ("minimal", "low", "medium", "high", "xhigh")
# The same under both names: bounds as in the API reference.
_NUMBERS: Final = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
}


def parse_chat(body: dict[str, Any]) -> Generation:
    """``POST /v1/chat/completions``.

    Raises:
        UsageError: A field is wrong; subclasses tell how.
        UnsupportedRequest: A field asks for what this version does not do.
    """
    fields = Fields(body)
    name, reference = parse_model(fields.text("model"))
    _refuse(fields, "functions", "function_call", "audio", "prediction", "web_search_options")
    if fields.items("modalities") not in ([], ["text"]):
        raise UnsupportedRequest('"modalities" other than text are not made here')
    entries = fields.objects("messages")
    if not entries:
        raise UsageError("[] is too short - 'messages'")
    if len(entries) > limits.MAX_MESSAGES:
        raise UsageError(f'"messages" has more than {limits.MAX_MESSAGES} entries')
    tools, must_call = _tools(fields)
    think, needs = _effort(fields)
    logprobs = fields.flag("logprobs", default=False)
    top = fields.integer("top_logprobs", 0, limits.TOP_LOGPROBS)
    if top is not None and not logprobs:
        raise UsageError('"top_logprobs" needs "logprobs" to be true')
    return Generation(
        name=name,
        reference=reference,
        prompt=Chat(
            tuple(_message(entry) for entry in entries),
            tools=tools,
            must_call=must_call,
            parallel=fields.flag("parallel_tool_calls", default=True),
        ),
        verb="chat",
        options=_options(fields, logprobs=logprobs, top=top or 0),
        stream=fields.flag("stream", default=False),
        needs=frozenset(needs | ({TOOLS} if tools else set())),
        think=think,
        truncate=False,  # too long is an error here, as in the API reference; never a silent cut
        include_usage=_include_usage(fields),
        format=_format(fields),
    )


def parse_completion(body: dict[str, Any]) -> Generation:
    """``POST /v1/completions``: the prompt is continued as it stands, without a chat template.

    Raises:
        UsageError: A field is wrong; subclasses tell how.
        UnsupportedRequest: A field asks for what this version does not do.
    """
    fields = Fields(body)
    name, reference = parse_model(fields.text("model"))
    best_of = fields.integer("best_of", 1, limits.CHOICES)
    if best_of is not None and best_of > 1:
        raise UnsupportedRequest('"best_of" above 1 is not supported yet')
    prompt = _prompt(fields.raw("prompt"))
    suffix = fields.text("suffix") or ""
    logprobs = fields.integer("logprobs", 0, limits.TOP_LOGPROBS)
    echo = fields.flag("echo", default=False)
    if echo and logprobs is not None:
        raise UnsupportedRequest('"echo" together with "logprobs" is not supported yet')
    return Generation(
        name=name,
        reference=reference,
        prompt=Text(prompt, special=True, suffix=suffix),
        verb="generate",
        options=_options(fields, logprobs=logprobs is not None, top=logprobs or 0),
        stream=fields.flag("stream", default=False),
        needs=frozenset({INSERT} if suffix else ()),
        echo=prompt if echo else "",
        include_usage=_include_usage(fields),
        truncate=False,
    )


def _refuse(fields: Fields, *names: str) -> None:
    for name in names:
        if fields.raw(name):
            raise UnsupportedRequest(f'"{name}" is not supported')


def _format(fields: Fields) -> str:
    table = fields.table("response_format")
    kind = table.text("type") if table else "text"
    if table is None or kind == "text":
        return ""
    if kind == "json_object":
        return ANY_OBJECT
    if kind != "json_schema":
        raise UsageError('"response_format.type" must be text, json_object or json_schema')
    form = table.table("json_schema")
    schema = form.table("schema") if form else None
    if schema is None:
        raise UsageError('"response_format.json_schema.schema" is required')
    return schema_text(schema.value)


def _tools(fields: Fields) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...]]:
    """The tools that may be called, and the names of those of which one must be."""
    tools = tools_of(fields.objects("tools"))
    names = tuple(tool["function"]["name"] for tool in tools)
    choice = fields.raw("tool_choice")
    if choice in (None, "auto"):
        return tools, ()
    if choice == "none":
        return (), ()
    if not tools:
        raise UsageError('"tool_choice" needs "tools"')
    if choice == "required":
        return tools, names
    function = Fields.of(choice, "tool_choice").table("function")
    name = function.text("name") if function else None
    if name not in names:
        raise UsageError('"tool_choice" names none of the "tools"')
    return tools, (str(name),)


def _effort(fields: Fields) -> tuple[bool | None, set[str]]:
    effort = fields.text("reasoning_effort")
    if effort is None:
        return None, set()
    if effort == "none":
        return False, set()
    if effort in _EFFORTS:
        return True, {THINKING}
    raise UsageError(f'"reasoning_effort" must be none or one of {", ".join(_EFFORTS)}')


def _include_usage(fields: Fields) -> bool:
    table = fields.table("stream_options")
    return table is not None and table.flag("include_usage", default=False)


def _prompt(value: object) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return value
    if value is None:
        raise UsageError('"prompt" is required')
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        raise UnsupportedRequest("several prompts in one request are not supported yet")
    if isinstance(value, list) and value:
        raise UnsupportedRequest("prompts of token ids are not supported")
    raise UsageError('"prompt" must be a string')


def _options(fields: Fields, *, logprobs: bool, top: int) -> Options:
    choices = fields.integer("n", 1, limits.CHOICES)
    if choices is not None and choices > 1:
        raise UnsupportedRequest('"n" above 1 is not supported yet')
    wanted: dict[str, Any] = {}
    for name, (low, high) in _NUMBERS.items():
        number = fields.number(name, low, high)
        if number is not None:
            wanted[name] = number
    most = fields.integer("max_completion_tokens", 1, limits.CONTEXT_TOKENS)
    older = fields.integer("max_tokens", 1, limits.CONTEXT_TOKENS)
    if most is not None or older is not None:
        wanted["num_predict"] = most if most is not None else older
    seed = fields.integer("seed", -limits.JSON_INTEGER - 1, limits.JSON_INTEGER)
    if seed is not None:
        wanted["seed"] = abs(seed)  # a negative seed is a seed here; to Ollama it means "draw one"
    sampling = dict(parse_options(wanted).sampling)
    stop = fields.raw("stop")
    if stop is not None:
        sampling["stop"] = parse_stop([stop] if isinstance(stop, str) else stop)
    bias = _logit_bias(fields)
    if bias:
        sampling["logit_bias"] = bias
    if logprobs:
        sampling.update(logprobs=True, top_logprobs=top)
    return Options(sampling)


def _logit_bias(fields: Fields) -> dict[str, float]:
    table = fields.table("logit_bias")
    if table is None:
        return {}
    if len(table.value) > limits.LOGIT_BIASES:
        raise UsageError(f'"logit_bias" has more than {limits.LOGIT_BIASES} entries')
    result: dict[str, float] = {}
    for token in table.value:
        if not (token.isascii() and token.isdecimal() and len(token) <= 9):
            raise UsageError('"logit_bias" must map token ids to numbers')
        value = table.number(token, -100, 100)
        if value:
            result[str(int(token))] = value
    return result


def _message(fields: Fields) -> Message:
    role = _ROLES.get(fields.text("role") or "")
    if role is None:
        raise UsageError(f'"{fields.name("role")}" must be one of {", ".join(_ROLES)}')
    return Message(
        role=role,
        content=_content(fields),
        thinking=fields.text("reasoning"),
        tool_calls=tuple(_tool_call(call) for call in fields.objects("tool_calls")),
        tool_name=fields.text("name") if role == "tool" else None,
        tool_call_id=fields.text("tool_call_id"),
    )


def _content(fields: Fields) -> str:
    if not isinstance(fields.raw("content"), list):
        return fields.text("content") or ""
    texts: list[str] = []
    for part in fields.objects("content"):
        kind = part.text("type")
        if kind in ("text", "refusal"):
            texts.append(part.text(kind) or "")
        elif kind in ("image_url", "input_audio", "file"):
            raise UnsupportedRequest(f'message parts of type "{kind}" are not taken yet')
        else:
            raise UsageError(f'"{part.name("type")}" is not a type of message part')
    return "\n".join(texts)


def _tool_call(fields: Fields) -> dict[str, Any]:
    function = fields.table("function")
    name = function.text("name") if function else None
    if function is None or not name:
        raise UsageError(f'"{fields.name("function.name")}" is missing')
    text = function.text("arguments") or "{}"
    try:
        arguments = parse_body(text.encode("utf-8"))
    except (UsageError, MalformedDocument):
        raise UsageError(
            f'"{function.name("arguments")}" is not a JSON object in a string'
        ) from None
    return {"function": {"name": name, "arguments": arguments}}
