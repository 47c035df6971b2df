"""Stop strings: where an answer ends, found across the borders of tokens."""

from __future__ import annotations

from collections.abc import Iterable


class StopStrings:
    """Passes text through until one of some strings has appeared.

    Text that could be the beginning of a stop string is held back until it is clear that it is not.
    What comes out in all depends on the text only, not on how it was split: everything before the
    stop string that is complete first (of several complete at the same character, the longest).

    Args:
        stops: The strings; empty ones are ignored.
    """

    __slots__ = ("_held", "_stops", "found", "stopped")

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple({stop for stop in stops if stop})
        self._held = ""
        self.stopped = False
        self.found = ""  # the one that stopped it

    def feed(self, text: str) -> str:
        """Take more text; return what may be shown now.

        After a stop string, :attr:`stopped` is true and nothing comes out any more.
        """
        if self.stopped:
            return ""
        if not self._stops:
            return text
        text = self._held + text
        earliest = self._earliest(text)
        if earliest is not None:
            cut, self.found = earliest
            self.stopped = True
            self._held = ""
            return text[:cut]
        keep = self._held_length(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """The text ended here: return what was held back."""
        text, self._held = self._held, ""
        return text

    def _earliest(self, text: str) -> tuple[int, str] | None:
        """Where the text is to be cut, and the stop string that ends first."""
        best: tuple[int, int] | None = None
        for stop in self._stops:
            start = text.find(stop)
            if start >= 0:
                found = (start + len(stop), start)
                best = found if best is None else min(best, found)
        return None if best is None else (best[1], text[best[1] : best[0]])

    def _held_length(self, text: str) -> int:
        """Length of the longest end of the text with which a stop string begins."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:length]):
                    longest = length
                    break
        return longest
