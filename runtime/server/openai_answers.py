"""OpenAI's answers: chat completions, text completions and errors. Pure: events in, bytes out.

Source: the OpenAI API reference (openai-openapi 2.3).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from runtime.messages import Call, Finished, Piece, Started
from runtime.server.requests import Generation, Parts, Timing
from schemas.errors import SealiftError

SSE: Final = "text/event-stream"
DONE: Final = b"data: [DONE]\n\n"
# Where the API has a code of its own that clients look for.
_CODES: Final = {"prompt-too-long": "context_length_exceeded", "not-found": "model_not_found"}


def error_document(error: SealiftError) -> dict[str, Any]:
    """OpenAI's error object."""
    status = error.http_status
    kinds = {404: "not_found_error", 499: "api_error"}
    kind = kinds.get(status, "invalid_request_error" if 400 <= status < 500 else "api_error")
    return {
        "error": {
            "message": error.line(),
            "type": kind,
            "param": None,
            "code": _CODES.get(error.code, error.code),
        },
    }


class OpenAIAnswer:
    """Answers of both endpoints (:class:`runtime.server.requests.Answer`).

    Args:
        request: What is being answered.
        chat: Whether the answer is a message.
        answer_id: Unique; repeated in every chunk.
        created: Seconds since 1970; likewise.
    """

    stream_type = SSE

    def __init__(self, request: Generation, *, chat: bool, answer_id: str, created: int) -> None:
        self._request = request
        self._answer_id = answer_id
        self._called = False
        self._chat = chat
        self._common = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{answer_id}",
            "object": "",
            "created": created,
            "model": request.name,
            "system_fingerprint": "fp_sealift",
        }
        self._offset = len(request.echo)
        stream = "chat.completion.chunk" if chat else "text_completion"
        self._stream = {**self._common, "object": stream}
        # Every chunk is this, one choice, and an end: put together by hand, once per token.
        self._head = _dumps(self._stream)[:-1] + ',"choices":['
        self._tail = '],"usage":null}\n\n' if request.include_usage else "]}\n\n"
        self._text = '{"index":0,"delta":{"content":' if chat else '{"index":0,"text":'

    def started(self, started: Started) -> None:
        """Nothing to tell."""

    def opening(self) -> bytes:
        """The role, or the echoed prompt."""
        if self._chat:
            delta = {"role": "assistant", "content": ""}
            return self._chunk(_dumps({"index": 0, "delta": delta, "finish_reason": None}))
        if self._request.echo:
            return self.piece(Piece(0, self._request.echo))
        return b""

    def piece(self, piece: Piece) -> bytes:
        """One chunk."""
        if piece.thinking:
            delta = {"content": "", "reasoning": piece.text}
            return self._chunk(_dumps({"index": 0, "delta": delta, "finish_reason": None}))
        text = json.dumps(piece.text, ensure_ascii=False)
        shut = "}" if self._chat else ""
        logprobs = f'"logprobs":{_dumps(self._logprobs(piece.logprobs))},' if piece.logprobs else ""
        return self._chunk(f'{self._text}{text}{shut},{logprobs}"finish_reason":null}}')

    def call(self, call: Call) -> bytes:
        """One chunk: the name first, then the arguments as they come."""
        self._called = True
        entry: dict[str, Any] = {"index": call.number}
        if call.name:
            entry |= {"id": self._call_id(call.number), "type": "function"}
            entry["function"] = {"name": call.name, "arguments": call.text}
        else:
            entry["function"] = {"arguments": call.text}
        delta = {"tool_calls": [entry]}
        return self._chunk(_dumps({"index": 0, "delta": delta, "finish_reason": None}))

    def closing(self, finished: Finished, timing: Timing) -> bytes:  # noqa: ARG002 - interface
        """The reason, the token counts if asked for, and the end mark."""
        empty: dict[str, Any] = {"delta": {}} if self._chat else {"text": ""}
        last = {"index": 0, **empty, "finish_reason": self._reason(finished)}
        parts = [self._chunk(_dumps(last))]
        if self._request.include_usage:
            usage = {**self._stream, "choices": [], "usage": _usage(finished)}
            parts.append(f"data: {_dumps(usage)}\n\n".encode("utf-8", "replace"))
        return b"".join((*parts, DONE))

    def broken(self, error: SealiftError) -> bytes:
        """The error, and no end mark: what went before is not a complete answer."""
        return f"data: {_dumps(error_document(error))}\n\n".encode("utf-8", "replace")

    def whole(self, pieces: list[Piece | Call], finished: Finished, timing: Timing) -> bytes:  # noqa: ARG002
        """The answer in one document."""
        parts = Parts.of(pieces)
        choice: dict[str, Any] = {"index": 0}
        if self._chat:
            choice["message"] = self._message(parts)
        else:
            choice["text"] = self._request.echo + parts.text
        wanted = self._request.options.sampling.get("logprobs", False)
        choice["logprobs"] = self._logprobs(parts.logprobs) if wanted else None
        choice["finish_reason"] = self._reason(finished)
        kind = "chat.completion" if self._chat else "text_completion"
        document = {**self._common, "object": kind, "choices": [choice], "usage": _usage(finished)}
        return _dumps(document).encode("utf-8", "replace")

    def _chunk(self, choice: str) -> bytes:
        return f"data: {self._head}{choice}{self._tail}".encode("utf-8", "replace")

    def _message(self, parts: Parts) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": parts.text}
        if parts.thinking:
            message["reasoning"] = parts.thinking
        if parts.calls:
            self._called = True
            message["content"] = parts.text or None
            message["tool_calls"] = [
                {
                    "id": self._call_id(number),
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for number, call in enumerate(parts.calls)
            ]
        return message

    def _call_id(self, number: int) -> str:
        return f"call_{self._answer_id}{number}"

    def _reason(self, finished: Finished) -> str:
        reason = _reason(finished)
        return "tool_calls" if self._called and reason == "stop" else reason

    def _logprobs(self, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
        if self._chat:
            return {"content": [{"top_logprobs": [], **entry} for entry in entries]}
        offsets: list[int] = []
        for entry in entries:
            offsets.append(self._offset)
            self._offset += len(str(entry.get("token", "")))
        return {
            "tokens": [entry.get("token") for entry in entries],
            "token_logprobs": [entry.get("logprob") for entry in entries],
            "top_logprobs": [
                {top["token"]: top["logprob"] for top in entry.get("top_logprobs", ())}
                for entry in entries
            ],
            "text_offset": offsets,
        }


def _reason(finished: Finished) -> str:
    return "length" if finished.reason == "length" else "stop"


def _usage(finished: Finished) -> dict[str, int]:
    return {
        "prompt_tokens": finished.prompt_tokens,
        "completion_tokens": finished.output_tokens,
        "total_tokens": finished.prompt_tokens + finished.output_tokens,
    }


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
