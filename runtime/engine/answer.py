"""The text of one answer: bytes of tokens in, whole characters out, up to a stop string."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable
from typing import Any

from runtime.engine.stopping import StopStrings
from runtime.messages import Piece

_UTF8 = codecs.getincrementaldecoder("utf-8")


class Answer:
    """Turns tokens into :class:`runtime.messages.Piece` values.

    Characters split over tokens come out when they are whole; bytes that are no UTF-8 come out as
    U+FFFD. A log-probability comes out together with the text of its token, so never for the tokens
    of a stop string.

    Args:
        job: Id of the job.
        stops: Its stop strings.
    """

    __slots__ = ("_decoder", "_entries", "_fed", "_job", "_shown", "_stops")

    def __init__(self, job: int, stops: Iterable[str]) -> None:
        self._job = job
        self._decoder = _UTF8(errors="replace")
        self._stops = StopStrings(stops)
        self._entries: deque[tuple[int, int, dict[str, Any]]] = deque()
        self._fed = 0
        self._shown = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string has appeared."""
        return self._stops.stopped

    def feed(self, data: bytes, logprob: dict[str, Any] | None = None) -> Piece | None:
        """Take one token.

        Args:
            data: The token's bytes.
            logprob: What to report about it, if anything.

        Returns:
            What may be shown now, or None.
        """
        text = self._decoder.decode(data)
        start = self._fed
        self._fed += len(text)
        if logprob is not None:
            self._entries.append((start, self._fed, logprob))
        return self._piece(self._stops.feed(text))

    def finish(self) -> Piece | None:
        """The answer ended: show what was held back. Half a character is dropped."""
        return None if self.stopped else self._piece(self._stops.flush(), last=True)

    def _piece(self, text: str, *, last: bool = False) -> Piece | None:
        self._shown += len(text)
        logprobs = []
        while self._entries and (last or self._is_shown(*self._entries[0][:2])):
            logprobs.append(self._entries.popleft()[2])
        return Piece(self._job, text, tuple(logprobs)) if text or logprobs else None

    def _is_shown(self, start: int, end: int) -> bool:
        if self.stopped:
            return start < self._shown
        return end <= self._shown
