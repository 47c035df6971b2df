"""Anthropic's answers: messages, counts of tokens and errors. Pure: events in, bytes out.

Source: the Anthropic API reference, Messages and Streaming (``anthropic-version: 2023-06-01``).
"""

from __future__ import annotations

import json
from typing import Any, Final

from runtime.messages import Call, Event, Finished, Piece, Started, Tokenized
from runtime.server.openai_answers import SSE
from runtime.server.requests import Generation, Parts, Timing
from schemas.errors import SealiftError, WorkerFailed

_KINDS: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


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
