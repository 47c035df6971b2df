"""Anthropic's dialect: ``/v1/messages`` and ``/v1/messages/count_tokens``.

Source: the Anthropic API reference, Messages (``anthropic-version: 2023-06-01``). Pure: bodies in,
requests out. What cannot be done here is refused, never left out. Answers:
:mod:`runtime.server.anthropic_answers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from runtime.messages import Chat, Message, Tokenize
from runtime.options import Options, parse_options, parse_stop
from runtime.server.body import Fields
from runtime.server.embedding import Wanted
from runtime.server.images import Content
from runtime.server.requests import (
    THINKING,
    TOOLS,
    Generation,
    image_needs,
    parse_model,
    tools_of,
)
from schemas import limits
from schemas.errors import UnsupportedRequest, UsageError

_FORBIDDEN: Final = ("mcp_servers", "container")


def parse_messages(body: dict[str, Any]) -> Generation:
    """``POST /v1/messages``.

    Raises:
        UsageError: A field is wrong; subclasses tell how.
        UnsupportedRequest: A field asks for what this version does not do.
    """
    fields = Fields(body)
    name, reference = parse_model(fields.text("model"))
    most = fields.integer("max_tokens", 1, limits.CONTEXT_TOKENS)
    if most is None:
        raise UsageError("max_tokens: Field required")
    for forbidden in _FORBIDDEN:
        if fields.raw(forbidden):
            raise UnsupportedRequest(f'"{forbidden}" is not supported')
    chat = _chat(fields)
    think = _thinking(fields)
    needs = image_needs(chat.messages) | ({TOOLS} if chat.tools else set())
    return Generation(
        name=name,
        reference=reference,
        prompt=chat,
        verb="chat",
        options=_options(fields, most),
        stream=fields.flag("stream", default=False),
        needs=frozenset(needs | ({THINKING} if think else set())),
        think=think,
        truncate=False,
    )


def parse_count(body: dict[str, Any]) -> Wanted:
    """``POST /v1/messages/count_tokens``.

    Raises:
        UsageError: A field is wrong; subclasses tell how.
    """
    fields = Fields(body)
    name, reference = parse_model(fields.text("model"))
    return Wanted(name, reference, Tokenize(0, _chat(fields)))


def _chat(fields: Fields) -> Chat:
    entries = fields.objects("messages")
    if not entries:
        raise UsageError("messages: at least one message is required")
    if len(entries) > limits.MAX_MESSAGES:
        raise UsageError(f'"messages" has more than {limits.MAX_MESSAGES} entries')
    system = _text(fields, "system")
    turns = [Message("system", system)] if system else []
    for entry in entries:
        turns += _turns(entry)
    chat = Chat(tuple(turns), tools=_tools(fields))
    choice = fields.table("tool_choice")
    if choice is None:
        return chat
    must = choice.text("type") in ("any", "tool")
    chat = replace(chat, parallel=not choice.flag("disable_parallel_tool_use", default=must))
    names = tuple(tool["function"]["name"] for tool in chat.tools)
    match choice.text("type"):
        case "auto":
            return chat
        case "none":
            return replace(chat, tools=())
        case "any" if names:
            return replace(chat, must_call=names)
        case "tool" if (name := choice.text("name")) in names:
            return replace(chat, must_call=(str(name),))
    raise UsageError('"tool_choice" names none of the "tools"')


def _tools(fields: Fields) -> tuple[dict[str, Any], ...]:
    """As the templates of all models want them: OpenAI's shape."""
    entries = []
    for tool in fields.objects("tools"):
        if tool.text("type") not in (None, "custom"):
            raise UnsupportedRequest(f'tools of type "{tool.text("type")}" are not run here')
        schema = tool.table("input_schema")
        function = {
            "name": tool.text("name") or "",
            "description": tool.text("description") or "",
            "parameters": schema.value if schema else {"type": "object"},
        }
        entries.append(Fields({"type": "function", "function": function}, tool.name("")[:-1]))
    return tools_of(entries)


def _thinking(fields: Fields) -> bool | None:
    table = fields.table("thinking")
    kind = table.text("type") if table else None
    if kind not in (None, "enabled", "disabled", "adaptive"):
        raise UsageError('"thinking.type" must be enabled, disabled or adaptive')
    return True if kind == "enabled" else False if kind == "disabled" else None


def _options(fields: Fields, most: int) -> Options:
    wanted: dict[str, Any] = {"num_predict": most}
    for name in ("temperature", "top_p"):
        number = fields.number(name, 0, 1)
        if number is not None:
            wanted[name] = number
    top_k = fields.integer("top_k", 0, limits.CONTEXT_TOKENS)
    if top_k is not None:
        wanted["top_k"] = top_k
    sampling = dict(parse_options(wanted).sampling)
    if fields.raw("stop_sequences") is not None:
        sampling["stop"] = parse_stop(fields.raw("stop_sequences"))
    return Options(sampling)


def _turns(fields: Fields) -> Iterator[Message]:
    """One entry of ``messages`` as turns: results of tools are turns of their own here."""
    role = fields.text("role")
    if role not in ("user", "assistant"):
        raise UsageError(f'"{fields.name("role")}" must be user or assistant')
    if not isinstance(fields.raw("content"), list):
        yield Message("user" if role == "user" else "assistant", fields.text("content") or "")
    elif role == "assistant":
        yield _assistant_turn(fields)
    else:
        yield from _user_turns(fields)


def _assistant_turn(fields: Fields) -> Message:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in fields.objects("content"):
        match block.text("type"):
            case "text":
                texts.append(block.text("text") or "")
            case "thinking":
                thoughts.append(block.text("thinking") or "")
            case "redacted_thinking":
                pass  # nobody but its author can read it
            case "tool_use":
                calls.append(_call(block))
            case _:
                raise _misplaced(block)
    return Message("assistant", "\n".join(texts), "\n".join(thoughts) or None, tuple(calls))


def _user_turns(fields: Fields) -> Iterator[Message]:
    content = Content()
    for block in fields.objects("content"):
        match block.text("type"):
            case "text":
                content.add_text(block.text("text") or "")
            case "image":
                _add_image(content, block)
            case "tool_result":
                yield _result(block)
            case _:
                raise _misplaced(block)
    if not content.empty:
        yield Message("user", content.text, images=content.images)


def _misplaced(block: Fields) -> UsageError:
    kind = block.text("type")
    if kind in ("document", "search_result", "container_upload"):
        return UnsupportedRequest(f'blocks of type "{kind}" are not taken')
    return UsageError(f'"{block.name("type")}" is no block that may stand there')


def _result(block: Fields) -> Message:
    """What a tool gave back: text, and pictures."""
    content = Content()
    if isinstance(block.raw("content"), list):
        for part in block.objects("content"):
            match part.text("type"):
                case "text":
                    content.add_text(part.text("text") or "")
                case "image":
                    _add_image(content, part)
                case _:
                    raise UnsupportedRequest(f'"{part.name("type")}" is not taken there')
    else:
        content.add_text(block.text("content") or "")
    return Message(
        "tool", content.text, tool_call_id=block.text("tool_use_id"), images=content.images
    )


def _add_image(content: Content, block: Fields) -> None:
    source = block.table("source")
    kind = source.text("type") if source else None
    if source is None or kind not in ("base64", "url"):
        raise UnsupportedRequest(f'"{block.name("source.type")}" must be base64 or a data URL')
    if kind == "base64":
        content.add_base64(source.text("data") or "")
    else:
        content.add_url(source.text("url") or "")


def _call(block: Fields) -> dict[str, Any]:
    name, arguments = block.text("name"), block.table("input")
    if not name:
        raise UsageError(f'"{block.name("name")}" is missing')
    return {"function": {"name": name, "arguments": arguments.value if arguments else {}}}


def _text(fields: Fields, key: str) -> str:
    """A string, or text blocks."""
    if not isinstance(fields.raw(key), list):
        return fields.text(key) or ""
    texts = []
    for block in fields.objects(key):
        if block.text("type") != "text":
            raise UnsupportedRequest(f'"{block.name("type")}" other than text is not taken there')
        texts.append(block.text("text") or "")
    return "\n".join(texts)
