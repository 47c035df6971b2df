"""The text of one answer: bytes of tokens in, whole characters out, up to a stop string."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from runtime.engine.reading import Part, Reader
from runtime.engine.stopping import StopStrings
from runtime.messages import Call, Piece

_UTF8 = codecs.getincrementaldecoder("utf-8")


class Answer:
    """Turns tokens into :class:`runtime.messages.Piece` and :class:`runtime.messages.Call` values.

    Characters split over tokens come out when they are whole; bytes that are no UTF-8 come out as
    U+FFFD. A log-probability comes out together with the text of its token, so never for the tokens
    of a stop string.

    Args:
        job: Id of the job.
        stops: Its stop strings.
        reader: Takes the text apart; None where all of it is content.
    """

    __slots__ = ("_decoder", "_entries", "_fed", "_job", "_reader", "_shown", "_stops")

    def __init__(self, job: int, stops: Iterable[str], reader: Reader | None = None) -> None:
        self._job = job
        self._decoder = _UTF8(errors="replace")
        self._stops = StopStrings(stops)
        self._reader = reader
        self._entries: deque[tuple[int, int, dict[str, Any]]] = deque()
        self._fed = 0
        self._shown = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string has appeared."""
        return self._stops.stopped

    @property
    def stop(self) -> str:
        """Which one; empty if none has."""
        return self._stops.found

    @property
    def thinking(self) -> bool:
        """Whether the answer is in its thinking now."""
        return self._reader is not None and self._reader.thinking

    def feed(self, data: bytes, logprob: dict[str, Any] | None = None) -> list[Piece | Call]:
        """Take one token.

        Args:
            data: The token's bytes.
            logprob: What to report about it, if anything.

        Returns:
            What may be shown now.
        """
        text = self._decoder.decode(data)
        start = self._fed
        self._fed += len(text)
        if logprob is not None:
            self._entries.append((start, self._fed, logprob))
        shown = self._stops.feed(text)
        logprobs = self._logprobs(shown)
        if self._reader is None:
            return [Piece(self._job, shown, logprobs)] if shown or logprobs else []
        return list(self._parts(self._reader.feed(shown), logprobs))

    def finish(self) -> list[Piece | Call]:
        """The answer ended: show what was held back. Half a character is dropped."""
        shown = "" if self.stopped else self._stops.flush()
        logprobs = self._logprobs(shown, last=not self.stopped)
        if self._reader is None:
            return [Piece(self._job, shown, logprobs)] if shown or logprobs else []
        parts = [*self._reader.feed(shown), *self._reader.finish()]
        return list(self._parts(parts, logprobs))

    def _parts(
        self, parts: Iterable[Part], logprobs: tuple[dict[str, Any], ...]
    ) -> Iterator[Piece | Call]:
        for part in parts:
            if part.call >= 0:
                yield Call(self._job, part.call, part.name, part.text, part.last)
            else:
                yield Piece(self._job, part.text, logprobs, part.thinking)
                logprobs = ()
        if logprobs:
            yield Piece(self._job, "", logprobs, self.thinking)

    def _logprobs(self, text: str, *, last: bool = False) -> tuple[dict[str, Any], ...]:
        self._shown += len(text)
        logprobs = []
        while self._entries and (last or self._is_shown(*self._entries[0][:2])):
            logprobs.append(self._entries.popleft()[2])
        return tuple(logprobs)

    def _is_shown(self, start: int, end: int) -> bool:
        if self.stopped:
            return start < self._shown
        return end <= self._shown
