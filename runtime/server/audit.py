"""The log of requests: who asked which model, how much, when, and what came of it.

JSON lines under ``$SEALIFT_HOME/requests/``, a bounded number of files of a bounded size. A thread
of its own writes them; a slow disk delays nobody. What could not be written is counted.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final

from registry.staging import make_folder
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import UsageError

FOLDER: Final = "requests"
REDACTED: Final = "[redacted]"
_NAME: Final = "requests.jsonl"
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_COMPLAIN_SECONDS: Final = 60
_LOG: Final = logging.getLogger("sealift.audit")


class Redactor:
    """Takes out of texts what a site does not want kept.

    Args:
        patterns: Regular expressions; what matches is replaced by :data:`REDACTED`.

    Raises:
        UsageError: One is none.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._patterns: list[re.Pattern[str]] = []
        for pattern in patterns:
            try:
                self._patterns.append(re.compile(pattern))
            except (re.error, RecursionError, OverflowError) as error:
                raise UsageError(
                    f"audit_redact has {pattern[:64]!r}, which is no regular expression",
                    why=str(error),
                ) from None

    def __call__(self, text: str) -> tuple[str, bool]:
        """The text without what matches, cut to ``AUDIT_TEXT_CHARS``; and whether it was cut.

        It is cut after looking somewhat beyond, so that no half of a match is left at the end.
        """
        most = limits.AUDIT_TEXT_CHARS
        looked = text[: most + limits.AUDIT_TEXT_OVERLAP]
        for pattern in self._patterns:
            looked = pattern.sub(REDACTED, looked)
        return looked[:most], len(text) > most


@dataclass(slots=True)
class Entry:
    """One line.

    Attributes:
        fields: As they are written.
        texts: Prompt and answer, where they are kept; redacted by the thread that writes.
    """

    fields: dict[str, Any]
    texts: dict[str, str] = field(default_factory=dict)


class AuditLog:
    """Writes lines in the background. Make it before the sandbox closes, ``start`` it after.

    Args:
        home: ``$SEALIFT_HOME``.
        size: Bytes after which a new file is begun.
        files: How many are kept, at least 2.
        redact: For prompts and answers.
        lost: Called, in the thread that writes, with the number of lines that could not be.

    Raises:
        StorageFailure: The folder or the file cannot be written.
    """

    def __init__(
        self,
        home: Path,
        *,
        size: int,
        files: int,
        redact: Redactor,
        lost: Callable[[int], None],
    ) -> None:
        folder = home / FOLDER
        with storage_errors(f"cannot keep a log of requests in {folder}"):
            make_folder(folder)
            self._files = _Files(folder / _NAME, size, files)
        self._redact = redact
        self._lost = lost
        self._entries: queue.Queue[Entry | None] = queue.Queue(limits.AUDIT_LINES)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to write."""
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def add(self, entry: Entry) -> None:
        """Have a line written; it is lost if thousands wait already. Never waits."""
        try:
            self._entries.put_nowait(entry)
        except queue.Full:
            self._lost(1)

    def close(self) -> None:
        """Write what waits, and end."""
        if self._thread is not None:
            self._entries.put(None)
            self._thread.join(limits.SHUTDOWN_SECONDS)
        self._files.close()

    def _run(self) -> None:
        while (entry := self._entries.get()) is not None:
            failed = self._files.failed
            self._files.handle(_record(self._line(entry)))
            if self._files.failed > failed:
                self._lost(1)

    def _line(self, entry: Entry) -> str:
        document = dict(entry.fields)
        for name, text in entry.texts.items():
            document[name], cut = self._redact(text)
            if cut:
                document[f"{name}_cut"] = True
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _record(line: str) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": line})


class _Files(RotatingFileHandler):
    """``requests.jsonl`` and the full ones before it, ``.1`` the latest; ours to read alone."""

    def __init__(self, path: Path, size: int, files: int) -> None:
        self.failed = 0
        self._complained = -float(_COMPLAIN_SECONDS)
        super().__init__(path, maxBytes=size, backupCount=files - 1, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, _FLAGS, 0o600)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a power cut took the line's end
            os.write(descriptor, b"\n")
        # What cannot be encoded (half a surrogate pair, from a client) is written as an escape.
        return os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - its name
        self.failed += 1
        error = sys.exc_info()[1]
        if self.stream is not None:  # with half a line in its buffer; the next one opens it anew
            with suppress(OSError, ValueError):
                self.stream.close()
            self.stream = None
        now = time.monotonic()
        if now - self._complained >= _COMPLAIN_SECONDS:
            self._complained = now
            _LOG.error("the log of requests cannot be written: %s", error)
