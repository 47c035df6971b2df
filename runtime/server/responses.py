"""OpenAI's newer dialect: ``/v1/responses`` and ``/v1/responses/input_tokens``.

Source: the OpenAI API reference, Responses (openai-openapi 2.3). Pure: bodies in, requests out.
Nothing is kept between two requests, so a conversation is sent whole each time; what would need a
memory, or a tool that runs on the server, is refused. Answers:
:mod:`runtime.server.responses_answers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from runtime.messages import Chat, Message, Role, Tokenize
from runtime.options import Options, parse_options
from runtime.server.body import Fields
from runtime.server.embedding import Wanted
from runtime.server.images import Content
from runtime.server.openai import arguments_of, effort_of, numbers_of
from runtime.server.requests import (
    ANY_OBJECT,
    TOOLS,
    Generation,
    image_needs,
    parse_model,
    schema_text,
    tools_of,
)
from schemas import limits
from schemas.errors import UnsupportedRequest, UsageError

_ROLES: Final[dict[str, Role]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_STATELESS: Final = "nothing is kept between two requests"
_MEMORY: Final = ("previous_response_id", "conversation")
_LOGPROBS: Final = "message.output_text.logprobs"
_ECHOED: Final = ("prompt_cache_key", "safety_identifier", "user")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a response.

    Attributes:
        request: What is to be done.
        echo: What the answer repeats of the request.
    """

    request: Generation
    echo: Mapping[str, Any] = field(default_factory=dict, hash=False)


def parse_response(body: dict[str, Any]) -> Asked:
    """``POST /v1/responses``.

    Raises:
        UsageError: A field is wrong; subclasses tell how.
        UnsupportedRequest: A field asks for what is not done here.
    """
    fields = Fields(body)
    name, reference = parse_model(fields.text("model"))
    _refuse(fields)
    chat = _chat(fields)
    reasoning = fields.table("reasoning") or Fields({}, "reasoning")
    think, needs = effort_of(reasoning, "effort")
    needs |= image_needs(chat.messages) | ({TOOLS} if chat.tools else set())
    truncation = fields.text("truncation") or "disabled"
    if truncation not in ("auto", "disabled"):
        raise UsageError('"truncation" must be auto or disabled')
    form, form_echo = _format(fields)
    request = Generation(
        name=name,
        reference=reference,
        prompt=chat,
        verb="chat",
        options=_options(fields),
        stream=fields.flag("stream", default=False),
        needs=frozenset(needs),
        think=think,
        truncate=truncation == "auto",
        format=form,
    )
    echo = {
        "instructions": fields.text("instructions"),
        "max_output_tokens": request.options.sampling.get("num_predict"),
        "max_tool_calls": fields.integer("max_tool_calls", 1, limits.JSON_INTEGER),
        "metadata": _metadata(fields),
        "parallel_tool_calls": chat.parallel,
        "reasoning": {"effort": reasoning.text("effort"), "summary": None},
        "temperature": request.options.sampling.get("temperature"),
        "text": {"format": form_echo},
        "tool_choice": fields.raw("tool_choice") or "auto",
        "tools": [_flat(tool) for tool in _tools(fields)],
        "top_logprobs": request.options.sampling.get("top_logprobs", 0),
        "top_p": request.options.sampling.get("top_p"),
        "truncation": truncation,
        **{key: fields.text(key) for key in _ECHOED},
    }
    return Asked(request, echo)


def parse_count(body: dict[str, Any]) -> Wanted:
    """``POST /v1/responses/input_tokens``.

    Raises:
        UsageError: A field is wrong; subclasses tell how.
    """
    fields = Fields(body)
    name, reference = parse_model(fields.text("model"))
    _refuse(fields)
    return Wanted(name, reference, Tokenize(0, _chat(fields)))


def _refuse(fields: Fields) -> None:
    for key in _MEMORY:
        if fields.raw(key) is not None:
            hint = 'Send the whole conversation as "input"'
            raise UnsupportedRequest(f'"{key}" is not supported', why=_STATELESS, hint=hint)
    if fields.flag("background", default=False):
        raise UnsupportedRequest('"background" is not supported', why=_STATELESS)
    if fields.raw("prompt"):
        raise UnsupportedRequest('"prompt" is not supported', why="there are no stored prompts")


def _metadata(fields: Fields) -> dict[str, Any]:
    table = fields.table("metadata")
    pairs = table.value if table else {}
    if table is None:
        return {}
    if len(pairs) > limits.METADATA_PAIRS:
        raise UsageError(f'"metadata" has more than {limits.METADATA_PAIRS} entries')
    for key in pairs:
        if len(table.text(key) or "") > limits.METADATA_CHARS:
            raise UsageError(f'"{table.name(key)}" is too long')
    return pairs


def _format(fields: Fields) -> tuple[str, dict[str, Any]]:
    """The schema that the answer is held to, and ``text.format`` as the answer repeats it."""
    text = fields.table("text")
    table = text.table("format") if text else None
    kind = table.text("type") if table else "text"
    if table is None or kind == "text":
        return "", {"type": "text"}
    if kind == "json_object":
        return ANY_OBJECT, {"type": kind}
    if kind != "json_schema":
        raise UsageError('"text.format.type" must be text, json_object or json_schema')
    schema = table.table("schema")
    if schema is None:
        raise UsageError('"text.format.schema" is required')
    known: dict[str, Any] = {
        key: table.raw(key) for key in ("name", "description", "strict") if key in table.value
    }
    return schema_text(schema.value), {"type": kind, **known, "schema": schema.value}


def _options(fields: Fields) -> Options:
    wanted = numbers_of(fields)
    most = fields.integer("max_output_tokens", 1, limits.CONTEXT_TOKENS)
    if most is not None:
        wanted["num_predict"] = most
    sampling = dict(parse_options(wanted).sampling)
    top = fields.integer("top_logprobs", 0, limits.TOP_LOGPROBS)
    if top or _LOGPROBS in fields.items("include"):
        sampling.update(logprobs=True, top_logprobs=top or 0)
    return Options(sampling)


# -- tools --------------------------------------------------------------------------------------


def _tools(fields: Fields) -> tuple[dict[str, Any], ...]:
    """As the templates of all models want them: the shape of chat completions."""
    entries = []
    for tool in fields.objects("tools"):
        if tool.text("type") != "function":
            raise UnsupportedRequest(f'tools of type "{tool.text("type")}" are not run here')
        parameters = tool.table("parameters")
        function = {
            "name": tool.text("name"),
            "description": tool.text("description") or "",
            "parameters": parameters.value if parameters else {"type": "object"},
        }
        entries.append(Fields({"type": "function", "function": function}, tool.name("")[:-1]))
    return tools_of(entries)


def _flat(tool: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", **tool["function"], "strict": False}


def _choose(chat: Chat, fields: Fields) -> Chat:
    """A conversation in which the tools may, or must, be called that ``tool_choice`` says."""
    choice = fields.raw("tool_choice")
    if isinstance(choice, dict):
        table = Fields(choice, "tool_choice")
        if table.text("type") == "function":
            return _must(_only(chat, [table]))
        if table.text("type") != "allowed_tools":
            raise UnsupportedRequest('"tool_choice.type" must be function or allowed_tools')
        chat = _only(chat, table.objects("tools"))
        choice = table.text("mode")
    if choice in (None, "auto"):
        return chat
    if choice == "none":
        return replace(chat, tools=())
    if choice != "required":
        raise UsageError('"tool_choice" must be none, auto, required or an object')
    if not chat.tools:
        raise UsageError('"tool_choice" needs "tools"')
    return _must(chat)


def _only(chat: Chat, chosen: list[Fields]) -> Chat:
    names = {entry.text("name") for entry in chosen}
    tools = tuple(tool for tool in chat.tools if tool["function"]["name"] in names)
    if len({tool["function"]["name"] for tool in tools}) < len(names) or not names:
        raise UsageError('"tool_choice" names none of the "tools"')
    return replace(chat, tools=tools)


def _must(chat: Chat) -> Chat:
    return replace(chat, must_call=tuple(tool["function"]["name"] for tool in chat.tools))


# -- the conversation ---------------------------------------------------------------------------


def _chat(fields: Fields) -> Chat:
    turns = _Turns()
    instructions = fields.text("instructions")
    if instructions:
        turns.add(Message("system", instructions))
    given = fields.raw("input")
    if isinstance(given, str):
        turns.add(Message("user", given))
    else:
        items = fields.objects("input")
        if not items:
            raise UsageError('"input" is required')
        if len(items) > limits.MAX_MESSAGES:
            raise UsageError(f'"input" has more than {limits.MAX_MESSAGES} entries')
        for item in items:
            turns.take(item)
    chat = _choose(Chat(turns.all(), tools=_tools(fields)), fields)
    parallel = fields.flag("parallel_tool_calls", default=not chat.must_call)
    return replace(chat, parallel=parallel)


class _Turns:
    """Input items as turns: what an assistant thought, said and called makes one turn."""

    def __init__(self) -> None:
        self._turns: list[Message] = []
        self._names: dict[str, str] = {}  # of tools, by the ids of their calls

    def all(self) -> tuple[Message, ...]:
        """The turns so far."""
        return tuple(self._turns)

    def add(self, message: Message) -> None:
        """A turn of its own; several system texts at the beginning are one."""
        if message.role == "system" and [turn.role for turn in self._turns] == ["system"]:
            first = self._turns[0]
            message = replace(first, content=f"{first.content}\n\n{message.content}")
            self._turns.clear()
        self._turns.append(message)

    def take(self, item: Fields) -> None:
        """One input item.

        Raises:
            UsageError: It is wrong.
            UnsupportedRequest: It is of a kind that is not taken.
        """
        match item.text("type"):
            case None | "message":
                self._message(item)
            case "function_call":
                self._call(item)
            case "function_call_output":
                call = item.text("call_id") or ""
                content = _content(item, "output")
                self.add(
                    Message(
                        "tool",
                        content.text,
                        tool_name=self._names.get(call),
                        tool_call_id=call,
                        images=content.images,
                    )
                )
            case "reasoning":
                self._reasoning(item)
            case "item_reference":
                hint = "Send the item itself"
                raise UnsupportedRequest(
                    "references to items are not supported", why=_STATELESS, hint=hint
                )
            case kind:
                raise UnsupportedRequest(f'input of type "{kind}" is not taken')

    def _message(self, item: Fields) -> None:
        role = _ROLES.get(item.text("role") or "")
        if role is None:
            raise UsageError(f'"{item.name("role")}" must be one of {", ".join(_ROLES)}')
        content = _content(item, "content")
        if role != "assistant":
            self.add(Message(role, content.text, images=content.images))
            return
        if self._open is not None and not (self._open.content or self._open.tool_calls):
            self._turns[-1] = replace(self._open, content=content.text)
        else:
            self.add(Message("assistant", content.text))

    def _reasoning(self, item: Fields) -> None:
        parts = item.objects("content") or item.objects("summary")
        text = "\n".join(part.text("text") or "" for part in parts)
        if text:  # what is encrypted, nobody but its author can read
            self.add(Message("assistant", "", thinking=text))

    def _call(self, item: Fields) -> None:
        name = item.text("name")
        if not name:
            raise UsageError(f'"{item.name("name")}" is missing')
        self._names[item.text("call_id") or ""] = name
        call = {"function": {"name": name, "arguments": arguments_of(item)}}
        if self._open is None:
            self.add(Message("assistant", "", tool_calls=(call,)))
        else:
            self._turns[-1] = replace(self._open, tool_calls=(*self._open.tool_calls, call))

    @property
    def _open(self) -> Message | None:
        """The assistant's turn that is not over yet."""
        return self._turns[-1] if self._turns and self._turns[-1].role == "assistant" else None


def _content(item: Fields, key: str) -> Content:
    """A string, or parts."""
    content = Content()
    if not isinstance(item.raw(key), list):
        content.add_text(item.text(key) or "")
        return content
    for part in item.objects(key):
        match part.text("type"):
            case "input_text" | "output_text" | "text":
                content.add_text(part.text("text") or "")
            case "refusal":
                content.add_text(part.text("refusal") or "")
            case "input_image":
                url = part.text("image_url")
                if not url:
                    raise UnsupportedRequest(f'"{part.name("image_url")}" must be a data URL')
                content.add_url(url)
            case kind:
                raise UnsupportedRequest(f'message parts of type "{kind}" are not taken')
    return content
