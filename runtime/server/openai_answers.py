"""OpenAI's answers: chat completions, text completions and errors. Pure: events in, bytes out.

Source: the OpenAI API reference (openai-openapi 2.3).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from runtime.messages import Call, Finished, Piece, Started
from runtime.server.requests import Generation, Parts, Timing
from schemas.errors import RateLimited, SealiftError

SSE: Final = "text/event-stream"
DONE: Final = b"data: [DONE]\n\n"
# Where the API has a code of its own that clients look for.
_CODES: Final = {
    "prompt-too-long": "context_length_exceeded",
    "not-found": "model_not_found",
    "key-required": "invalid_api_key",
    "rate-limited": "rate_limit_exceeded",
}


def error_document(error: SealiftError) -> dict[str, Any]:
    """OpenAI's error object."""
    status = error.http_status
    kinds = {403: "permission_error", 404: "not_found_error", 499: "api_error"}
    if isinstance(error, RateLimited):
        kinds[status] = error.unit
    kind = kinds.get(status, "invalid_request_error" if 400 <= status < 500 else "api_error")
    return {
        "error": {
            "message": error.line(),
            "type": kind,
            "param": None,
            "code": _CODES.get(error.code, error.code),
        },
    }


class Choice:
    """One of the answers to a request.

    Args:
        chat: Whether it is a message.
        index: Which one.
        frame: What every chunk begins and ends with.
        call_id: What the ids of its tool calls begin with.
        echo: Text to repeat before it.
        logprobs: Whether they were asked for.
    """

    def __init__(
        self,
        *,
        chat: bool,
        index: int,
        frame: tuple[str, str],
        call_id: str,
        echo: str = "",
        logprobs: bool = False,
    ) -> None:
        self._chat = chat
        self._index = index
        self._head, self._tail = frame
        self._call_id = call_id
        self._echo = echo
        self._wants_logprobs = logprobs
        self._called = False
        self._offset = len(echo)
        text = '"delta":{"content":' if chat else '"text":'
        self._text = f'{{"index":{index},{text}'

    def opening(self) -> bytes:
        """The role, or the echoed prompt."""
        if self._chat:
            return self._delta({"role": "assistant", "content": ""})
        return self.piece(Piece(0, self._echo)) if self._echo else b""

    def piece(self, piece: Piece) -> bytes:
        """One chunk."""
        if piece.thinking:
            return self._delta({"content": "", "reasoning": piece.text})
        # Put together by hand: this runs once per token.
        text = json.dumps(piece.text, ensure_ascii=False)
        shut = "}" if self._chat else ""
        logprobs = f'"logprobs":{_dumps(self._logprobs(piece.logprobs))},' if piece.logprobs else ""
        return self._chunk(f'{self._text}{text}{shut},{logprobs}"finish_reason":null}}')

    def call(self, call: Call) -> bytes:
        """One chunk: the name first, then the arguments as they come."""
        self._called = True
        entry: dict[str, Any] = {"index": call.number}
        if call.name:
            entry |= {"id": f"{self._call_id}{call.number}", "type": "function"}
            entry["function"] = {"name": call.name, "arguments": call.text}
        else:
            entry["function"] = {"arguments": call.text}
        return self._delta({"tool_calls": [entry]})

    def last(self, finished: Finished) -> bytes:
        """The reason why it ended."""
        empty: dict[str, Any] = {"delta": {}} if self._chat else {"text": ""}
        reason = self._reason(finished)
        return self._chunk(_dumps({"index": self._index, **empty, "finish_reason": reason}))

    def whole(self, pieces: Iterable[Piece | Call], finished: Finished) -> dict[str, Any]:
        """The answer as a part of one document."""
        parts = Parts.of(pieces)
        choice: dict[str, Any] = {"index": self._index}
        if self._chat:
            choice["message"] = self._message(parts)
        else:
            choice["text"] = self._echo + parts.text
        choice["logprobs"] = self._logprobs(parts.logprobs) if self._wants_logprobs else None
        choice["finish_reason"] = self._reason(finished)
        return choice

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return self._chunk(_dumps({"index": self._index, "delta": delta, "finish_reason": None}))

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
                    "id": f"{self._call_id}{number}",
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for number, call in enumerate(parts.calls)
            ]
        return message

    def _reason(self, finished: Finished) -> str:
        if finished.reason == "length":
            return "length"
        return "tool_calls" if self._called else "stop"

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


class OpenAIAnswer:
    """Answers of both endpoints (:class:`runtime.server.requests.Answer`).

    Args:
        request: What is being answered.
        chat: Whether the answers are messages.
        answer_id: Unique; repeated in every chunk.
        created: Seconds since 1970; likewise.
        echoes: What each choice repeats before it; by default there is one choice.
        copies: How many choices in a row answer the same prompt.
    """

    stream_type = SSE

    def __init__(
        self,
        request: Generation,
        *,
        chat: bool,
        answer_id: str,
        created: int,
        echoes: Sequence[str] | None = None,
        copies: int = 1,
    ) -> None:
        self._copies = copies
        self._chat = chat
        self._include_usage = request.include_usage
        self._cached = 0
        self._common = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{answer_id}",
            "object": "",
            "created": created,
            "model": request.name,
            "system_fingerprint": "fp_sealift",
        }
        stream = "chat.completion.chunk" if chat else "text_completion"
        self._stream = {**self._common, "object": stream}
        head = _dumps(self._stream)[:-1] + ',"choices":['
        tail = '],"usage":null}\n\n' if request.include_usage else "]}\n\n"
        self.choices = [
            Choice(
                chat=chat,
                index=index,
                frame=(head, tail),
                call_id=f"call_{answer_id}{index or ''}",
                echo=echo,
                logprobs=request.options.sampling.get("logprobs", False),
            )
            for index, echo in enumerate([request.echo] if echoes is None else echoes)
        ]

    def started(self, started: Started) -> None:
        """What was cached goes with the token counts."""
        self._cached += started.cached_tokens

    def opening(self) -> bytes:
        """What the choices begin with."""
        return b"".join(choice.opening() for choice in self.choices)

    def piece(self, piece: Piece) -> bytes:
        """One chunk."""
        return self.choices[0].piece(piece)

    def call(self, call: Call) -> bytes:
        """One chunk."""
        return self.choices[0].call(call)

    def closing(self, finished: Finished, timing: Timing) -> bytes:  # noqa: ARG002 - interface
        """The reason, the token counts if asked for, and the end mark."""
        return self.choices[0].last(finished) + self.end([finished])

    def end(self, finished: Sequence[Finished]) -> bytes:
        """The same for all choices, whose last chunks are out."""
        if not self._include_usage:
            return DONE
        usage = {**self._stream, "choices": [], "usage": self._usage(finished)}
        return f"data: {_dumps(usage)}\n\n".encode("utf-8", "replace") + DONE

    def broken(self, error: SealiftError) -> bytes:
        """The error, and no end mark: what went before is not a complete answer."""
        return f"data: {_dumps(error_document(error))}\n\n".encode("utf-8", "replace")

    def whole(self, pieces: list[Piece | Call], finished: Finished, timing: Timing) -> bytes:  # noqa: ARG002
        """The answer in one document."""
        return self.document([pieces], [finished])

    def document(
        self, pieces: Sequence[Iterable[Piece | Call]], finished: Sequence[Finished]
    ) -> bytes:
        """All choices in one document."""
        ended = zip(self.choices, pieces, finished, strict=True)
        document = {
            **self._common,
            "object": "chat.completion" if self._chat else "text_completion",
            "choices": [choice.whole(parts, last) for choice, parts, last in ended],
            "usage": self._usage(finished),
        }
        return _dumps(document).encode("utf-8", "replace")

    def _usage(self, finished: Sequence[Finished]) -> dict[str, Any]:
        prompt = sum(last.prompt_tokens for last in finished[:: self._copies])
        output = sum(last.output_tokens for last in finished)
        thinking = sum(last.thinking_tokens for last in finished)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": min(self._cached, prompt)},
            "completion_tokens_details": {"reasoning_tokens": thinking},
        }


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
