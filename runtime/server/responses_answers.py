"""Answers of ``/v1/responses``: one document, or events that build it. Pure: events in, bytes out.

Source: the OpenAI API reference, Responses and its streaming events (openai-openapi 2.3). Thinking
is given as it is, as ``reasoning_text`` of a reasoning item, not as a summary.
"""

from __future__ import annotations

import json
from typing import Any, Final

from runtime.messages import Call, Event, Finished, Piece, Started, Tokenized
from runtime.server.openai_answers import SSE, error_document
from runtime.server.requests import Timing
from runtime.server.responses import Asked
from schemas.errors import SealiftError, WorkerFailed

_NS: Final = 10**9
_TOO_MANY: Final = 429


def count_document(event: Event) -> dict[str, Any]:
    """``/v1/responses/input_tokens``'s answer."""
    if not isinstance(event, Tokenized):
        raise WorkerFailed("the worker answered something else")
    return {"object": "response.input_tokens", "input_tokens": len(event.tokens)}


class ResponsesAnswer:
    """An answer of ``/v1/responses`` (:class:`runtime.server.requests.Answer`).

    Args:
        asked: What is being answered.
        answer_id: Unique.
        created: Seconds since 1970.
    """

    stream_type = SSE

    def __init__(self, asked: Asked, *, answer_id: str, created: int) -> None:
        self._id = answer_id
        self._events = 0
        self._cached = 0
        self._items: list[dict[str, Any]] = []  # complete, but for the last one while it is open
        self._open = False
        self._texts: list[str] = []  # of the open item
        self._logprobs: list[dict[str, Any]] = []  # likewise
        self._response = {
            "id": f"resp_{answer_id}",
            "object": "response",
            "created_at": created,
            "completed_at": None,
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": asked.request.name,
            "output": [],
            "previous_response_id": None,
            "service_tier": "default",
            "store": False,
            **asked.echo,
            "usage": None,
        }

    # -- what every answer offers -----------------------------------------------------------------

    def started(self, started: Started) -> None:
        """What was cached goes with the token counts."""
        self._cached = started.cached_tokens

    def opening(self) -> bytes:
        """The response, still empty."""
        return b"".join(
            self._event(f"response.{what}", response=self._response)
            for what in ("created", "in_progress")
        )

    def piece(self, piece: Piece) -> bytes:
        """Some of a message's text, or of thinking."""
        if not (piece.text or piece.logprobs):
            return b""
        opened = self._open_part(thinking=piece.thinking)
        self._texts.append(piece.text)
        if piece.thinking:
            return opened + self._event(
                "response.reasoning_text.delta", **self._place(), content_index=0, delta=piece.text
            )
        logprobs = list(piece.logprobs)
        self._logprobs += logprobs
        return opened + self._event(
            "response.output_text.delta",
            **self._place(),
            content_index=0,
            delta=piece.text,
            logprobs=logprobs,
        )

    def call(self, call: Call) -> bytes:
        """Some of a tool call."""
        parts = []
        if call.name:
            parts.append(self._close("completed"))
            item = {"type": "function_call", "name": call.name, "arguments": ""}
            item["call_id"] = f"call_{self._id}{call.number}"
            parts.append(self._open_item("fc", item))
        if call.text:
            self._texts.append(call.text)
            kind = "response.function_call_arguments.delta"
            parts.append(self._event(kind, **self._place(), delta=call.text))
        if call.last:
            parts.append(self._close("completed"))
        return b"".join(parts)

    def closing(self, finished: Finished, timing: Timing) -> bytes:
        """The end of what is open, and the response as a whole."""
        ended = self._end(finished, timing)
        return ended + self._event(f"response.{self._response['status']}", response=self._response)

    def broken(self, error: SealiftError) -> bytes:
        """The response, failed; then the error as this API's clients raise it."""
        document = error_document(error)["error"]
        status = error.http_status
        code = "invalid_prompt" if 400 <= status < 500 else "server_error"
        code = "rate_limit_exceeded" if status == _TOO_MANY else code
        self._response |= {
            "status": "failed",
            "error": {"code": code, "message": document["message"]},
            "output": self._items,
        }
        failed = self._event("response.failed", response=self._response)
        told = {key: document[key] for key in ("code", "message", "param")}
        return failed + self._event("error", **told, error=document)

    def whole(self, pieces: list[Piece | Call], finished: Finished, timing: Timing) -> bytes:
        """The response in one document."""
        for event in pieces:
            if isinstance(event, Piece):
                self.piece(event)
            else:
                self.call(event)
        self._end(finished, timing)
        return _dumps(self._response).encode("utf-8", "replace")

    # -- items ------------------------------------------------------------------------------------

    def _open_part(self, *, thinking: bool) -> bytes:
        """The item that text goes to, opened unless it is open already."""
        kind = "reasoning" if thinking else "message"
        if self._open and self._items[-1]["type"] == kind:
            return b""
        closed = self._close("completed")
        if thinking:
            opened = self._open_item("rs", {"type": kind, "summary": [], "content": []})
        else:
            opened = self._open_item("msg", {"type": kind, "role": "assistant", "content": []})
        part = self._event(
            "response.content_part.added", **self._place(), content_index=0, part=self._part()
        )
        return closed + opened + part

    def _open_item(self, prefix: str, item: dict[str, Any]) -> bytes:
        identity = {"id": f"{prefix}_{self._id}{len(self._items)}", "status": "in_progress"}
        self._items.append({**identity, **item})
        self._open = True
        self._texts.clear()
        self._logprobs.clear()
        return self._event(
            "response.output_item.added", output_index=len(self._items) - 1, item=self._items[-1]
        )

    def _close(self, status: str) -> bytes:
        if not self._open:
            return b""
        self._open = False
        item, text = self._items[-1], "".join(self._texts)
        item["status"] = status
        if item["type"] == "function_call":
            item["arguments"] = text
            kind = "response.function_call_arguments.done"
            done = self._event(kind, **self._place(), name=item["name"], arguments=text)
        else:
            part = self._part()
            item["content"] = [part]
            place = {**self._place(), "content_index": 0}
            name = part["type"]
            extra = {"logprobs": part["logprobs"]} if name == "output_text" else {}
            done = self._event(f"response.{name}.done", **place, text=text, **extra)
            done += self._event("response.content_part.done", **place, part=part)
        return done + self._event(
            "response.output_item.done", output_index=len(self._items) - 1, item=item
        )

    def _part(self) -> dict[str, Any]:
        """The content of the item that is open, or just was."""
        text = "".join(self._texts)
        if self._items[-1]["type"] == "reasoning":
            return {"type": "reasoning_text", "text": text}
        logprobs = list(self._logprobs)
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1}

    # -- the response -----------------------------------------------------------------------------

    def _end(self, finished: Finished, timing: Timing) -> bytes:
        cut = finished.reason == "length"
        ended = b"" if self._items else self._open_part(thinking=False)
        ended += self._close("incomplete" if cut else "completed")
        self._response |= {
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "completed_at": self._response["created_at"] + timing.total_ns // _NS,
            "output": self._items,
            "usage": {
                "input_tokens": finished.prompt_tokens,
                "input_tokens_details": {
                    "cached_tokens": self._cached,
                    "cache_write_tokens": 0,
                },
                "output_tokens": finished.output_tokens,
                "output_tokens_details": {"reasoning_tokens": finished.thinking_tokens},
                "total_tokens": finished.prompt_tokens + finished.output_tokens,
            },
        }
        return ended

    def _event(self, kind: str, **fields: Any) -> bytes:
        document = {"type": kind, "sequence_number": self._events, **fields}
        self._events += 1
        return f"event: {kind}\ndata: {_dumps(document)}\n\n".encode("utf-8", "replace")


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
