"""Ollama's dialect of generation: ``/api/generate`` and ``/api/chat``.

Source: Ollama's ``docs/api.md``, ``api/types.go`` and ``server/routes.go`` as of v0.33.
Pure: bodies in, requests out; events in, bytes out.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, get_args

from runtime.messages import Call, Chat, Finished, Image, Message, Piece, Role, Started, Text
from runtime.options import Options, parse_options
from runtime.server.body import Fields
from runtime.server.images import from_base64
from runtime.server.requests import (
    ANY_OBJECT,
    INSERT,
    THINKING,
    TOOLS,
    Generation,
    Parts,
    Timing,
    ToolCall,
    check_template,
    image_needs,
    parse_model,
    schema_text,
    tools_of,
)
from schemas import limits
from schemas.errors import SealiftError, UnsupportedRequest, UsageError
from schemas.settings import FOR_EVER, parse_duration_ms

NDJSON: Final = "application/x-ndjson"
JSON: Final = "application/json; charset=utf-8"
_ROLES: Final[dict[str, Role]] = {role: role for role in get_args(Role)}
_LEVELS: Final = ("high", "medium", "low")
_DAY_MS: Final = 24 * 3600 * 1000
_LONGEST_MS: Final = 3650 * _DAY_MS  # ten years; beyond that, "for ever" is the honest word

Clock = Callable[[], datetime]


# -- requests -----------------------------------------------------------------------------------


def parse_generate(body: dict[str, Any]) -> Generation:
    """``POST /api/generate``.

    Raises:
        UsageError: A field is wrong; subclasses tell how.
        UnsupportedRequest: A field asks for what this version does not do.
    """
    fields = Fields(body)
    name, reference = parse_model(fields.text("model"))
    keep_alive = parse_keep_alive(fields.raw("keep_alive"))
    think, needs = _thinking(fields)
    raw = fields.flag("raw", default=False)
    system, template = fields.text("system"), fields.text("template")
    context = _context(fields)
    if raw and (system or template or context):
        raise UsageError("raw mode does not support template, system, or context")
    images = _images(fields)
    suffix = fields.text("suffix") or ""
    if suffix:
        needs |= {INSERT}
    if images and (raw or suffix):
        raise UnsupportedRequest("images need a chat template: not with raw or suffix")
    text = fields.text("prompt") or ""
    prompt: Chat | Text | None = None
    if text and (raw or suffix):
        prompt = Text(text, special=raw, context=context, suffix=suffix)
    elif text:
        turns: tuple[Message, ...] = (Message("system", system),) if system else ()
        turns = (*turns, Message("user", text, images=images))
        needs |= image_needs(turns)
        prompt = Chat(turns, template=check_template(template), context=context)
    return Generation(
        name=name,
        reference=reference,
        prompt=prompt,
        verb="generate",
        options=_options(fields),
        stream=fields.flag("stream", default=True),
        keep_alive_ms=keep_alive,
        needs=frozenset(needs),
        think=think,
        want_context=not raw,
        truncate=_truncate(fields),
        shift=fields.flag("shift", default=False),
        format=_format(fields),
    )


def parse_chat(body: dict[str, Any]) -> Generation:
    """``POST /api/chat``.

    Raises:
        UsageError: A field is wrong; subclasses tell how.
        UnsupportedRequest: A field asks for what this version does not do.
    """
    fields = Fields(body)
    name, reference = parse_model(fields.text("model"))
    keep_alive = parse_keep_alive(fields.raw("keep_alive"))
    think, needs = _thinking(fields)
    tools = tools_of(fields.objects("tools"))
    if tools:
        needs |= {TOOLS}
    messages = tuple(message(entry) for entry in _bounded(fields.objects("messages")))
    needs |= image_needs(messages)
    return Generation(
        name=name,
        reference=reference,
        prompt=Chat(messages, tools=tools) if messages else None,
        verb="chat",
        options=_options(fields),
        stream=fields.flag("stream", default=True),
        keep_alive_ms=keep_alive,
        needs=frozenset(needs),
        think=think,
        truncate=_truncate(fields),
        shift=fields.flag("shift", default=False),
        format=_format(fields),
    )


def parse_keep_alive(value: object) -> int | None:
    """Milliseconds; negative is for ever; None if the request does not say.

    A number is seconds, as in Ollama, and may have a fraction.

    Raises:
        UsageError: Neither a number nor a duration.
    """
    if value is None:
        return None
    if isinstance(value, str):
        milliseconds = parse_duration_ms(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        milliseconds = FOR_EVER if value < 0 else int(min(value, _LONGEST_MS) * 1000)
    else:
        raise UsageError('"keep_alive" must be a number of seconds or a duration such as "5m"')
    return FOR_EVER if milliseconds < 0 or milliseconds > _LONGEST_MS else milliseconds


def _thinking(fields: Fields) -> tuple[bool | None, set[str]]:
    value = fields.raw("think")
    if value is None:
        return None, set()
    if value is False:
        return False, set()
    if value is True or (isinstance(value, str) and value in _LEVELS):
        return True, {THINKING}
    raise UsageError(
        f'invalid think value: {json.dumps(value)[:40]} (must be "high", "medium", "low", true, or '
        "false)"
    )


def _context(fields: Fields) -> tuple[int, ...]:
    items = fields.items("context")
    if len(items) > limits.CONTEXT_TOKENS:
        raise UsageError('"context" is too long')
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < 2**31:
            raise UsageError('"context" must be an array of token ids')
    return tuple(items)


def _truncate(fields: Fields) -> bool:
    """Whether an over-long conversation is cut. ``shift: false`` forbids it as well."""
    return fields.flag("truncate", default=True) and fields.flag("shift", default=True)


def _options(fields: Fields) -> Options:
    options = parse_options(fields.raw("options"))
    top = fields.raw("top_logprobs")
    if top is not None and (
        isinstance(top, bool) or not isinstance(top, int) or not 0 <= top <= limits.TOP_LOGPROBS
    ):
        raise UsageError(f"top_logprobs must be between 0 and {limits.TOP_LOGPROBS}")
    if not fields.flag("logprobs", default=False):
        return options
    return Options({"logprobs": True, "top_logprobs": top or 0}).over(options)


def _format(fields: Fields) -> str:
    value = fields.raw("format")
    if value is None or value == "":
        return ""
    if value == "json":
        return ANY_OBJECT
    if isinstance(value, dict):
        return schema_text(value)
    shown = json.dumps(value)
    shown = shown if len(shown) <= 80 else f"{shown[:80]}…"
    raise UsageError(f'invalid format: {shown}; expected "json" or a valid JSON Schema object')


def _images(fields: Fields) -> tuple[Image, ...]:
    """Base64, each; they stand before the text."""
    items = fields.items("images")
    if not all(isinstance(item, str) for item in items):
        raise UsageError(f'"{fields.name("images")}" must be an array of base64 strings')
    return tuple(map(from_base64, items))


def _bounded(entries: list[Fields]) -> list[Fields]:
    if len(entries) > limits.MAX_MESSAGES:
        raise UsageError(f'"messages" has more than {limits.MAX_MESSAGES} entries')
    return entries


def message(fields: Fields) -> Message:
    """One turn of a conversation, as ``/api/chat`` takes it.

    Raises:
        UsageError: A field is wrong.
        UnsupportedRequest: It has images of a kind that is not taken.
    """
    given = fields.text("role")
    role = _ROLES.get(given or "")
    if role is None:
        raise UsageError(f"invalid role: {str(given)[:40]!r}, must be one of {', '.join(_ROLES)}")
    calls = [_tool_call(call) for call in fields.objects("tool_calls")]
    return Message(
        role=role,
        content=fields.text("content") or "",
        thinking=fields.text("thinking"),
        tool_calls=tuple(calls),
        tool_name=fields.text("tool_name"),
        tool_call_id=fields.text("tool_call_id"),
        images=_images(fields),
    )


def _tool_call(fields: Fields) -> dict[str, Any]:
    function = fields.table("function")
    name = function.text("name") if function else None
    if function is None or not name:
        raise UsageError(f'"{fields.name("function.name")}" is missing')
    arguments = function.table("arguments")
    return {"function": {"name": name, "arguments": arguments.value if arguments else {}}}


# -- answers ------------------------------------------------------------------------------------


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, to the microsecond."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return f"{moment.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def utc_now() -> datetime:
    """The clock that answers carry."""
    return datetime.now(UTC)


def error_line(error: SealiftError) -> bytes:
    """The native error document; also the last line of a stream that broke."""
    return _line({"error": error.line(), "code": error.code})


class NativeAnswer:
    """Answers of ``/api/generate`` and ``/api/chat`` (:class:`runtime.server.requests.Answer`).

    Args:
        name: The model's name as the client wrote it.
        chat: Whether text comes as a ``message`` instead of a ``response``.
        now: The clock.
    """

    stream_type = NDJSON

    def __init__(self, name: str, *, chat: bool, now: Clock = utc_now) -> None:
        self._name = name
        self._chat = chat
        self._now = now
        self._parts = Parts()
        self._call_id = f"call_{secrets.token_hex(4)}"
        self._head = f'{{"model":{json.dumps(name, ensure_ascii=False)},"created_at":"'
        self._open, self._shut = (
            ('","message":{"role":"assistant","content":', "},") if chat else ('","response":', ",")
        )

    def started(self, started: Started) -> None:
        """Nothing to tell."""

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def piece(self, piece: Piece) -> bytes:
        """One line."""
        if piece.thinking:
            return _line({**self._document("", piece.text), "done": False})
        # Put together by hand: this runs once per token of every stream.
        text = json.dumps(piece.text, ensure_ascii=False)
        tail = '"done":false}\n'
        if piece.logprobs:
            tail = f'"logprobs":{_dumps(list(piece.logprobs))},{tail}'
        line = f"{self._head}{timestamp(self._now())}{self._open}{text}{self._shut}{tail}"
        return line.encode("utf-8", "replace")

    def call(self, call: Call) -> bytes:
        """One line, once a call is complete: its arguments are an object here."""
        self._parts.add(call)
        if not call.last:
            return b""
        calls = [self._tool_call(call.number, self._parts.calls[call.number])]
        return _line({**self._document("", calls=calls), "done": False})

    def closing(self, finished: Finished, timing: Timing) -> bytes:
        """The last line, with the metrics."""
        return _line(self._final(self._document(""), finished, timing))

    def broken(self, error: SealiftError) -> bytes:
        """The last line of a stream that broke."""
        return error_line(error)

    def whole(self, pieces: list[Piece | Call], finished: Finished, timing: Timing) -> bytes:
        """The answer in one document."""
        parts = Parts.of(pieces)
        calls = [self._tool_call(number, call) for number, call in enumerate(parts.calls)]
        document = self._document(parts.text, parts.thinking, calls)
        document = self._final(document, finished, timing)
        if parts.logprobs:
            document["logprobs"] = parts.logprobs
        return _line(document)

    def idle(self, reason: str) -> bytes:
        """The answer to a request without a prompt; ``reason`` is ``load`` or ``unload``."""
        return _line({**self._document(""), "done": True, "done_reason": reason})

    def _document(
        self, text: str, thinking: str = "", calls: Sequence[dict[str, Any]] = ()
    ) -> dict[str, Any]:
        document: dict[str, Any] = {"model": self._name, "created_at": timestamp(self._now())}
        extra: dict[str, Any] = {"thinking": thinking} if thinking else {}
        if calls:
            extra["tool_calls"] = list(calls)
        if self._chat:
            document["message"] = {"role": "assistant", "content": text, **extra}
        else:
            document |= {"response": text, **extra}
        return document

    def _tool_call(self, number: int, call: ToolCall) -> dict[str, Any]:
        function = {"index": number, "name": call.name, "arguments": call.value()}
        return {"id": f"{self._call_id}{number}", "function": function}

    @staticmethod
    def _final(document: dict[str, Any], finished: Finished, timing: Timing) -> dict[str, Any]:
        # "cancelled" only ever reaches a client that asked for nothing more: Ollama says "stop".
        document["done"] = True
        document["done_reason"] = "length" if finished.reason == "length" else "stop"
        if finished.context:
            document["context"] = list(finished.context)
        metrics = {
            "total_duration": timing.total_ns,
            "load_duration": timing.load_ns,
            "prompt_eval_count": finished.prompt_tokens,
            "prompt_eval_duration": finished.prompt_ns,
            "eval_count": finished.output_tokens,
            "eval_duration": finished.eval_ns,
        }
        document.update((key, value) for key, value in metrics.items() if value)
        return document


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _line(document: dict[str, Any]) -> bytes:
    return (_dumps(document) + "\n").encode("utf-8", "replace")
