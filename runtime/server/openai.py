"""OpenAI's dialect: ``/v1/chat/completions`` and ``/v1/completions``.

Source: the OpenAI API reference (openai-openapi 2.3). Pure: bodies in, requests out. What cannot be
done here is refused, never left out in silence. Answers: :mod:`runtime.server.openai_answers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from runtime.messages import Chat, Message, Role, Text
from runtime.options import Options, parse_options, parse_stop
from runtime.server.body import Fields, parse_body
from runtime.server.images import Content
from runtime.server.requests import (
    ANY_OBJECT,
    INSERT,
    THINKING,
    TOOLS,
    Generation,
    image_needs,
    parse_model,
    schema_text,
    tools_of,
)
from schemas import limits
from schemas.errors import MalformedDocument, UnsupportedRequest, UsageError

ROLES: Final[dict[str, Role]] = {
    "system": "system",
    "developer": "system",  # what newer clients call it
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
EFFORTS: Final = ("minimal", "low", "medium", "high", "xhigh")
# The same under both names: bounds as in the API reference.
NUMBERS: Final = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
}


def parse_chats(body: dict[str, Any]) -> tuple[Generation, ...]:
    """``POST /v1/chat/completions``: a request for each of the ``n`` answers.

    Raises:
        UsageError: A field is wrong; subclasses tell how.
        UnsupportedRequest: A field asks for what this version does not do.
    """
    return tuple(_copies(parse_chat(body), Fields(body)))


def parse_chat(body: dict[str, Any]) -> Generation:
    """The same for one answer.

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
    messages = tuple(_message(entry) for entry in entries)
    tools, must_call = _tools(fields)
    think, needs = effort_of(fields, "reasoning_effort")
    needs |= image_needs(messages) | ({TOOLS} if tools else set())
    logprobs = fields.flag("logprobs", default=False)
    top = fields.integer("top_logprobs", 0, limits.TOP_LOGPROBS)
    if top is not None and not logprobs:
        raise UsageError('"top_logprobs" needs "logprobs" to be true')
    return Generation(
        name=name,
        reference=reference,
        prompt=Chat(
            messages,
            tools=tools,
            must_call=must_call,
            # A call that must be made is one, unless more are asked for: small models repeat it.
            parallel=fields.flag("parallel_tool_calls", default=not must_call),
        ),
        verb="chat",
        options=_options(fields, logprobs=logprobs, top=top or 0),
        stream=fields.flag("stream", default=False),
        needs=frozenset(needs),
        think=think,
        truncate=False,  # too long is an error here, as in the API reference; never a silent cut
        include_usage=_include_usage(fields),
        format=_format(fields),
    )


def parse_completions(body: dict[str, Any]) -> tuple[Generation, ...]:
    """``POST /v1/completions``: prompts are continued as they stand, without a chat template.

    Returns:
        A request for each of the ``n`` answers to each prompt, the first prompt's first.

    Raises:
        UsageError: A field is wrong; subclasses tell how.
        UnsupportedRequest: A field asks for what this version does not do.
    """
    fields = Fields(body)
    name, reference = parse_model(fields.text("model"))
    best_of = fields.integer("best_of", 1, limits.CHOICES)
    if best_of is not None and best_of > 1:
        raise UnsupportedRequest('"best_of" above 1 is not supported')
    prompts = _prompts(fields.raw("prompt"))
    suffix = fields.text("suffix") or ""
    logprobs = fields.integer("logprobs", 0, limits.TOP_LOGPROBS)
    echo = fields.flag("echo", default=False)
    if echo and logprobs is not None:
        raise UnsupportedRequest('"echo" together with "logprobs" is not supported')
    if echo and not all(isinstance(prompt, str) for prompt in prompts):
        raise UnsupportedRequest('"echo" of token ids is not supported')
    request = Generation(
        name=name,
        reference=reference,
        prompt=None,
        verb="generate",
        options=_options(fields, logprobs=logprobs is not None, top=logprobs or 0),
        stream=fields.flag("stream", default=False),
        needs=frozenset({INSERT} if suffix else ()),
        include_usage=_include_usage(fields),
        truncate=False,
    )
    asked = (
        replace(request, prompt=Text(prompt, special=True, suffix=suffix), echo=prompt * echo)
        if isinstance(prompt, str)
        else replace(request, prompt=Text("", context=prompt, suffix=suffix))
        for prompt in prompts
    )
    copies = tuple(copy for one in asked for copy in _copies(one, fields))
    if len(copies) > limits.CHOICES:
        raise UsageError(f'"prompt" and "n" ask for more than {limits.CHOICES} answers')
    return copies


def _copies(request: Generation, fields: Fields) -> Iterator[Generation]:
    """``n`` of a request; a seed is that of the first, and those of the others follow from it."""
    seed = request.options.sampling.get("seed")
    for number in range(fields.integer("n", 1, limits.CHOICES) or 1):
        if number == 0 or seed is None:
            yield request
        else:
            options = parse_options({"seed": seed + number}).over(request.options)
            yield replace(request, options=options)


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
    if isinstance(choice, str):
        raise UsageError('"tool_choice" must be none, auto, required or a tool')
    function = Fields.of(choice, "tool_choice").table("function")
    name = function.text("name") if function else None
    if name not in names:
        raise UsageError('"tool_choice" names none of the "tools"')
    return tools, (str(name),)


def effort_of(fields: Fields, key: str) -> tuple[bool | None, set[str]]:
    """Whether to think, and what that asks of the model. How hard makes no difference here.

    Raises:
        UsageError: It is none of the API's words.
    """
    effort = fields.text(key)
    if effort is None:
        return None, set()
    if effort == "none":
        return False, set()
    if effort in EFFORTS:
        return True, {THINKING}
    raise UsageError(f'"{fields.name(key)}" must be none or one of {", ".join(EFFORTS)}')


def _include_usage(fields: Fields) -> bool:
    table = fields.table("stream_options")
    return table is not None and table.flag("include_usage", default=False)


def _prompts(value: object) -> list[str | tuple[int, ...]]:
    """A text or token ids, or several of them."""
    if isinstance(value, str) or (isinstance(value, list) and _are_tokens(value)):
        value = [value]
    if value is None:
        raise UsageError('"prompt" is required')
    if not isinstance(value, list) or not value:
        raise UsageError('"prompt" must be a string, an array of strings or token ids')
    if len(value) > limits.CHOICES:
        raise UsageError(f'"prompt" has more than {limits.CHOICES} entries')
    prompts: list[str | tuple[int, ...]] = []
    for at, item in enumerate(value):
        if isinstance(item, str):
            prompts.append(item)
        elif isinstance(item, list) and _are_tokens(item) and len(item) <= limits.CONTEXT_TOKENS:
            prompts.append(tuple(item))
        else:
            raise UsageError(f'"prompt[{at}]" must be a string or an array of token ids')
    return prompts


def _are_tokens(items: list[Any]) -> bool:
    return bool(items) and all(type(item) is int and 0 <= item < 2**31 for item in items)


def _options(fields: Fields, *, logprobs: bool, top: int) -> Options:
    wanted = numbers_of(fields)
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


def numbers_of(fields: Fields) -> dict[str, Any]:
    """The sampling numbers that both of OpenAI's APIs have.

    Raises:
        UsageError: One is none, or out of its bounds.
    """
    found = {name: fields.number(name, *bounds) for name, bounds in NUMBERS.items()}
    return {name: number for name, number in found.items() if number is not None}


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
    role = ROLES.get(fields.text("role") or "")
    if role is None:
        raise UsageError(f'"{fields.name("role")}" must be one of {", ".join(ROLES)}')
    content = _content(fields)
    return Message(
        role=role,
        content=content.text,
        thinking=fields.text("reasoning"),
        tool_calls=tuple(_tool_call(call) for call in fields.objects("tool_calls")),
        tool_name=fields.text("name") if role == "tool" else None,
        tool_call_id=fields.text("tool_call_id"),
        images=content.images,
    )


def _content(fields: Fields) -> Content:
    content = Content()
    if not isinstance(fields.raw("content"), list):
        content.add_text(fields.text("content") or "")
        return content
    for part in fields.objects("content"):
        kind = part.text("type")
        if kind in ("text", "refusal"):
            content.add_text(part.text(kind) or "")
        elif kind == "image_url":
            content.add_url(_image_url(part))
        elif kind in ("input_audio", "file"):
            raise UnsupportedRequest(f'message parts of type "{kind}" are not taken')
        else:
            raise UsageError(f'"{part.name("type")}" is not a type of message part')
    return content


def _image_url(part: Fields) -> str:
    """``{"url": …}``, or the URL itself as older clients send it."""
    if isinstance(part.raw("image_url"), str):
        return str(part.raw("image_url"))
    table = part.table("image_url")
    url = table.text("url") if table else None
    if not url:
        raise UsageError(f'"{part.name("image_url.url")}" is missing')
    return url


def _tool_call(fields: Fields) -> dict[str, Any]:
    function = fields.table("function")
    name = function.text("name") if function else None
    if function is None or not name:
        raise UsageError(f'"{fields.name("function.name")}" is missing')
    return {"function": {"name": name, "arguments": arguments_of(function)}}


def arguments_of(fields: Fields) -> dict[str, Any]:
    """The member ``arguments``: a JSON object in a string.

    Raises:
        UsageError: It is something else.
    """
    text = fields.text("arguments") or "{}"
    try:
        return parse_body(text.encode("utf-8"))
    except (UsageError, MalformedDocument):
        raise UsageError(f'"{fields.name("arguments")}" is not a JSON object in a string') from None
