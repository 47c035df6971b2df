"""What llama.cpp says, kept for the message of a failed load, and off the terminal."""

from __future__ import annotations

import ctypes
import re
from collections import deque
from typing import Final

import llama_cpp.llama_cpp as lib

from schemas import limits

_CACHE_LINE: Final = re.compile(r"(?:kv_cache|memory_recurrent)\w*: +size = +([0-9.]+) MiB")
_BUFFER_LINE: Final = re.compile(
    r"(\S+) +(model|KV|RS|compute|output) buffer size = +([0-9.]+) MiB"
)
_LOG_LINES: Final = 400
# ggml.h, enum ggml_log_level; llama-cpp-python's own table is an older one.
_LOG_ERROR: Final = 4
_LOG_LEVELS: Final = frozenset({2, 3, _LOG_ERROR})  # information, warnings, errors


class Log:
    """Keeps the engine's last lines, and nothing on the terminal."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_LOG_LINES)
        self._errors: deque[str] = deque(maxlen=4)
        # Kept for the life of the process: llama.cpp holds the pointer.
        self.callback = lib.llama_log_callback(self._take)
        lib.llama_log_set(self.callback, ctypes.c_void_p(0))

    def _take(self, level: int, text: bytes, _data: object) -> None:
        if level not in _LOG_LEVELS:
            return
        line = text.decode("utf-8", "replace").strip()
        self._lines.append(line)
        if level == _LOG_ERROR:
            self._errors.append(line)

    def clear(self) -> None:
        """Forget everything: another model is to be loaded."""
        self._lines.clear()
        self._errors.clear()

    def why(self) -> str:
        """The last errors."""
        return " / ".join(self._errors) or "it gave no reason"

    def cache_bytes(self) -> int:
        """Size of the key/value cache, which the engine tells nobody but its log."""
        sizes = (size for line in self._lines for size in _CACHE_LINE.findall(line))
        return int(sum(map(float, sizes)) * limits.MIB)

    def buffers(self) -> list[tuple[str, str, int]]:
        """What the engine allocated: where, what for, bytes."""
        found = (_BUFFER_LINE.search(line) for line in self._lines)
        return [(m[1], m[2], int(float(m[3]) * limits.MIB)) for m in found if m is not None]


LOG: Final = Log()
