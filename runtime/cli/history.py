"""The lines typed in a session, for the arrow keys; kept in the user's state folder."""

from __future__ import annotations

import contextlib
import os
import readline
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_LINES: Final = 1000
_SWITCHES: Final = ("SEALIFT_NOHISTORY", "OLLAMA_NOHISTORY")


class History:
    """A context manager: reads the history when entered, writes it when left.

    A folder that cannot be written only means that nothing is kept. ``SEALIFT_NOHISTORY=1`` (or
    Ollama's) keeps nothing by choice.

    Args:
        path: The file; by default ``history`` in the user's state folder.
    """

    def __init__(self, path: Path | None = None) -> None:
        from platformdirs import user_state_path

        self._path = path or user_state_path("sealift", appauthor=False) / "history"
        self._keep = not any(os.environ.get(name) for name in _SWITCHES)

    def switch(self, on: bool) -> None:
        """Whether lines typed from now on are remembered, also for the arrow keys."""
        self._keep = on
        readline.set_auto_history(on)

    def __enter__(self) -> Self:
        readline.clear_history()
        readline.set_history_length(_LINES)
        self.switch(self._keep)
        with contextlib.suppress(OSError):  # none yet, or not readable
            readline.read_history_file(self._path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._keep:
            return
        with contextlib.suppress(OSError):  # a comfort, not a duty
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Made before it is written: what people ask their models is nobody else's business.
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            readline.write_history_file(self._path)
