"""Anthropic's dialect: ``/v1/messages`` and ``/v1/messages/count_tokens``.

Source: the Anthropic API reference, Messages (``anthropic-version: 2023-06-01``). Pure: bodies in,
requests out; events in, bytes out. What this version cannot do is refused, never left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from runtime.messages import (
    Call,
    Chat,
    Event,
    Finished,
    Message,
    Piece,
    Started,
    Tokenize,
    Tokenized,
)
from runtime.options import Options, parse_options, parse_stop
from runtime.server.body import Fields
from runtime.server.embedding import Wanted
from runtime.server.openai_answers import SSE
from runtime.server.requests import (
    THINKING,
    TOOLS,
    Generation,
    Parts,
    Timing,
    parse_model,
    tools_of,
)
from schemas import limits
from schemas.errors import SealiftError, UnsupportedRequest, UsageError, WorkerFailed

_KINDS: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_FORBIDDEN: Final = ("mcp_servers", "container")


# -- requests -----------------------------------------------------------------------------------


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
    needs = {TOOLS} if chat.tools else set()
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
    chat = replace(chat, parallel=not choice.flag("disable_parallel_tool_use", default=False))
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
        return
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
            case "tool_use" if role == "assistant":
                calls.append(_call(block))
            case "tool_result" if role == "user":
                content = _text(block, "content")
                yield Message("tool", content, tool_call_id=block.text("tool_use_id"))
            case "image" | "document" as kind:
                raise UnsupportedRequest(f'blocks of type "{kind}" are not taken yet')
            case _:
                raise UsageError(f'"{block.name("type")}" is no block that may stand there')
    if role == "assistant":
        thinking = "\n".join(thoughts) or None
        yield Message("assistant", "\n".join(texts), thinking, tuple(calls))
    elif texts:
        yield Message("user", "\n".join(texts))


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


# -- answers ------------------------------------------------------------------------------------


def error_document(error: SealiftError, status: int | None = None) -> dict[str, Any]:
    """Anthropic's error object."""
    status = status or error.http_status
    other = "invalid_request_error" if 400 <= status < 500 else "api_error"
    return {
        "type": "error",
        "error": {"type": _KINDS.get(status, other), "message": error.line()},
    }


def count_document(event: Event) -> dict[str, Any]:
    """``/v1/messages/count_tokens``'s answer."""
    if not isinstance(event, Tokenized):
        raise WorkerFailed("the worker answered something else")
    return {"input_tokens": len(event.tokens)}


class AnthropicAnswer:
    """An answer of ``/v1/messages`` (:class:`runtime.server.requests.Answer`).

    Args:
        request: What is being answered.
        answer_id: Unique.
    """

    stream_type = SSE

    def __init__(self, request: Generation, *, answer_id: str) -> None:
        self._request = request
        self._id = answer_id
        self._prompt_tokens = 0
        self._index = -1  # of the block that is open
        self._block = ""  # its type
        self._called = False

    def started(self, started: Started) -> None:
        """The prompt's length goes with the stream's beginning."""
        self._prompt_tokens = started.prompt_tokens

    def opening(self) -> bytes:
        """``message_start``."""
        usage = {"input_tokens": self._prompt_tokens, "output_tokens": 0}
        return _event("message_start", message=self._message([], None, None, usage))

    def piece(self, piece: Piece) -> bytes:
        """Some of a text or thinking block."""
        if not piece.text:
            return b""
        if piece.thinking:
            opened = self._open("thinking", {"thinking": "", "signature": ""})
            delta = {"type": "thinking_delta", "thinking": piece.text}
        else:
            opened = self._open("text", {"text": ""})
            delta = {"type": "text_delta", "text": piece.text}
        return opened + _event("content_block_delta", index=self._index, delta=delta)

    def call(self, call: Call) -> bytes:
        """Some of a ``tool_use`` block."""
        self._called = True
        parts = []
        if call.name:
            parts.append(self._close())
            block = {"id": self._call_id(call.number), "name": call.name, "input": {}}
            parts.append(self._open("tool_use", block))
        delta = {"type": "input_json_delta", "partial_json": call.text}
        parts.append(_event("content_block_delta", index=self._index, delta=delta))
        if call.last:
            parts.append(self._close())
        return b"".join(parts)

    def closing(self, finished: Finished, timing: Timing) -> bytes:  # noqa: ARG002 - interface
        """``message_delta`` with the reason, and ``message_stop``."""
        reason, stop = self._reason(finished)
        delta = {"stop_reason": reason, "stop_sequence": stop}
        return b"".join(
            (
                self._close(),
                _event("message_delta", delta=delta, usage=_usage(finished)),
                _event("message_stop"),
            )
        )

    def broken(self, error: SealiftError) -> bytes:
        """The error, and no end: what went before is not a complete answer."""
        return _sse("error", error_document(error))

    def whole(self, pieces: list[Piece | Call], finished: Finished, timing: Timing) -> bytes:  # noqa: ARG002
        """The answer in one document."""
        parts = Parts.of(pieces)
        self._called = bool(parts.calls)
        blocks: list[dict[str, Any]] = []
        if parts.thinking:
            blocks.append({"type": "thinking", "thinking": parts.thinking, "signature": ""})
        if parts.text:
            blocks.append({"type": "text", "text": parts.text})
        for number, call in enumerate(parts.calls):
            block = {"id": self._call_id(number), "name": call.name, "input": call.value()}
            blocks.append({"type": "tool_use", **block})
        reason, stop = self._reason(finished)
        return _dumps(self._message(blocks, reason, stop, _usage(finished))).encode()

    def _message(
        self,
        content: list[dict[str, Any]],
        reason: str | None,
        stop: str | None,
        usage: dict[str, int],
    ) -> dict[str, Any]:
        return {
            "id": f"msg_{self._id}",
            "type": "message",
            "role": "assistant",
            "model": self._request.name,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": stop,
            "usage": usage,
        }

    def _reason(self, finished: Finished) -> tuple[str, str | None]:
        if finished.reason == "length":
            return "max_tokens", None
        if self._called:
            return "tool_use", None
        if finished.stop:
            return "stop_sequence", finished.stop
        return "end_turn", None

    def _open(self, kind: str, block: dict[str, Any]) -> bytes:
        if self._block == kind and kind != "tool_use":
            return b""
        closed = self._close()
        self._index += 1
        self._block = kind
        content = {"type": kind, **block}
        return closed + _event("content_block_start", index=self._index, content_block=content)

    def _close(self) -> bytes:
        if not self._block:
            return b""
        self._block = ""
        return _event("content_block_stop", index=self._index)

    def _call_id(self, number: int) -> str:
        return f"toolu_{self._id}{number}"


def _usage(finished: Finished) -> dict[str, int]:
    return {"input_tokens": finished.prompt_tokens, "output_tokens": finished.output_tokens}


def _event(kind: str, **fields: Any) -> bytes:
    return _sse(kind, {"type": kind, **fields})


def _sse(kind: str, document: dict[str, Any]) -> bytes:
    return f"event: {kind}\ndata: {_dumps(document)}\n\n".encode("utf-8", "replace")


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
