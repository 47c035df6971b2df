"""One request's account, from its first byte to its last: what metrics, limits and the log need.

Filled in while the request is answered (:class:`runtime.watching.Watcher`), read at its end. Runs
once per token, so it does little: two clocks and a counter.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from registry.digest import Digest
from runtime.access.keys import ApiKey
from runtime.access.ratelimit import Limiter, Rates
from runtime.messages import (
    Call,
    Chat,
    Embed,
    Embedded,
    Event,
    Finished,
    Piece,
    Rank,
    Ranked,
    Started,
    Task,
    Text,
)
from runtime.models import Model
from runtime.server.audit import Entry
from runtime.server.metrics import Metrics, ModelMetrics
from schemas import limits
from schemas.errors import Cancelled

_PIECES: Final = (Piece, Call)
_NO_RATES: Final = Rates()
_KEPT_CHARS: Final = limits.AUDIT_TEXT_CHARS + limits.AUDIT_TEXT_OVERLAP


@dataclass(slots=True, eq=False)
class Texts:
    """What was asked and answered, where that is kept.

    Attributes:
        prompts: One per task.
        answer: Pieces, as far as they are kept.
        room: Characters that are still kept of the answer.
    """

    prompts: list[str] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)
    room: int = _KEPT_CHARS

    def add(self, text: str) -> None:
        """Take some more of the answer."""
        if self.room > 0:
            self.answer.append(text[: self.room])
            self.room -= len(text)


@dataclass(slots=True, eq=False)
class Record:
    """One request (:class:`runtime.watching.Watcher`).

    Attributes:
        id: Unique; the answer's ``X-Request-Id``.
        method: Of the request.
        route: Its pattern.
        client: Address that it came from.
        metrics: Where it is counted.
        limiter: Counts it too.
        model_rates: Bounds of every model.
        proofs: When each model last made a token, by the monotonic clock.
        texts: None if prompts and answers are not kept.
        key: Whose request it is; None: nobody's that is known.
        arrived: By the monotonic clock.
        asked: What the request's body names, as the client wrote it.
        model: That was asked for, once it is known.
        status: Of the answer.
        code: Of the error that it ended with; empty for none.
        rejected: Why it was turned away; empty if it was not.
        prompt_tokens: Of all its tasks.
        cached_tokens: Of these, taken over from earlier requests.
        output_tokens: As its worker counted them; of a job that was broken off, as they were seen.
    """

    id: str
    method: str
    route: str
    client: str
    metrics: Metrics
    limiter: Limiter
    model_rates: Rates = _NO_RATES
    proofs: dict[Digest, float] = field(default_factory=dict)
    texts: Texts | None = None
    key: ApiKey | None = None
    arrived: float = field(default_factory=time.monotonic)
    at: float = field(default_factory=time.time)
    asked: str = ""
    model: Model | None = None
    status: int = 0
    code: str = ""
    rejected: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    _queued: float | None = None
    _first: float | None = None
    _last: dict[int, float] = field(default_factory=dict)
    _seen: dict[int, int] = field(default_factory=dict)
    _meters: ModelMetrics | None = None

    # -- while it is answered ---------------------------------------------------------------------

    def resolved(self, model: Model) -> None:
        """This model was asked for.

        Raises:
            RateLimited: It may not answer now.
        """
        if self.model is None:
            self.limiter.admit(str(model.digest), self.model_rates, f"model {model.name}")
        self.model = model
        self._meters = self.metrics.model(model.name)

    def granted(self) -> None:
        """The request's turn has come."""
        if self._queued is None:
            self._queued = time.monotonic() - self.arrived
            if self._meters is not None:
                self._meters.queue.observe(self._queued)

    def submitted(self, task: Task) -> None:
        """A task goes to the worker."""
        if self.texts is not None:
            self.texts.prompts.append(prompt_text(task))

    def happened(self, event: Event) -> None:
        """An event of such a task."""
        if isinstance(event, _PIECES):
            now = time.monotonic()
            job = event.job
            last = self._last.get(job)
            self._last[job] = now
            self._seen[job] = self._seen.get(job, 0) + 1
            if self.model is not None:
                self.proofs[self.model.digest] = now
            if self._meters is not None:
                if last is not None:
                    self._meters.gap.observe(now - last)
                elif self._first is None:
                    self._first = now - self.arrived
                    self._meters.first.observe(self._first)
            if self.texts is not None:
                self.texts.add(event.text)
        elif isinstance(event, Started):
            self.prompt_tokens += event.prompt_tokens
            self.cached_tokens += event.cached_tokens
        elif isinstance(event, Finished):
            self._seen.pop(event.job, None)
            self.output_tokens += event.output_tokens
        elif isinstance(event, Embedded | Ranked):
            self.prompt_tokens += event.prompt_tokens

    # -- at its end -------------------------------------------------------------------------------

    def settle(self) -> None:
        """Count it. What was broken off is counted by the pieces that were seen of it."""
        self.output_tokens += sum(self._seen.values())
        self._seen.clear()
        self.metrics.answered(self.route, self.status, time.monotonic() - self.arrived)
        if self.rejected:
            self.metrics.rejected(self.rejected)
        if self.code:
            self.metrics.failed(self.code)
        if self._meters is not None:
            self._meters.prompt.inc(self.prompt_tokens)
            self._meters.cached.inc(self.cached_tokens)
            self._meters.output.inc(self.output_tokens)
        if self.model is not None:
            self.limiter.charge(str(self.model.digest), self.model_rates, self.tokens)

    @property
    def tokens(self) -> int:
        """Of prompts and answers together."""
        return self.prompt_tokens + self.output_tokens

    @property
    def outcome(self) -> str:
        """``ok``, ``refused``, ``cancelled`` or ``failed``."""
        if self.rejected:
            return "refused"
        if self.code == Cancelled.code:
            return "cancelled"
        return "failed" if self.code or self.status >= 400 else "ok"

    def entry(self) -> Entry:
        """Its line in the log of requests."""
        moment = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = {
            "at": moment.replace("+00:00", "Z"),
            "request": self.id,
            "key": self.key.name if self.key else None,
            "key_id": self.key.id if self.key else None,
            "client": self.client,
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "outcome": self.outcome,
            "ms": round((time.monotonic() - self.arrived) * 1000),
        }
        if self.code or self.rejected:
            fields["code"] = self.code or self.rejected
        if self.asked and self.model is None:
            fields["asked"] = self.asked
        if self.model is not None:
            fields |= {
                "model": self.model.name,
                "manifest": str(self.model.digest),
                "prompt_tokens": self.prompt_tokens,
                "cached_tokens": self.cached_tokens,
                "output_tokens": self.output_tokens,
            }
        for name, seconds in (("queue_ms", self._queued), ("first_token_ms", self._first)):
            if seconds is not None:
                fields[name] = round(seconds * 1000)
        texts = {}
        if self.texts is not None:
            texts = {"prompt": "\n".join(self.texts.prompts), "answer": "".join(self.texts.answer)}
        return Entry(fields, {name: text for name, text in texts.items() if text})


RECORD: Final = web.RequestKey("record", Record)


def asked_for(document: Mapping[str, Any]) -> str:
    """The model that a request's body names, and what it is to be copied to; bounded."""
    found = [document.get(name) for name in ("model", "name", "source", "destination")]
    texts = [value[: limits.NAME_CHARS] for value in found if isinstance(value, str) and value]
    return " -> ".join(texts[:2])


def prompt_text(task: Task) -> str:
    """What a task asks, for people: turns as ``role: text``, without pictures; bounded.

    Not as JSON: what is looked for in it, to be taken out, would not match escaped text.
    """
    texts: Iterable[str] = ()
    if isinstance(task, Embed):
        texts = task.texts
    elif isinstance(task, Rank):
        texts = (task.query, *task.texts)
    elif isinstance(task.prompt, Chat):
        texts = (f"{message.role}: {message.content}" for message in task.prompt.messages)
    elif isinstance(task.prompt, Text):
        texts = (task.prompt.text, task.prompt.suffix)
    kept, room = [], _KEPT_CHARS
    for text in texts:
        kept.append(text[:room])
        room -= len(kept[-1]) + 1
        if room <= 0:
            break
    return "\n".join(filter(None, kept))
