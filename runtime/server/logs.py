"""Log lines on standard error, written by a thread of their own: a slow terminal stops nobody."""

from __future__ import annotations

import json
import logging
import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from typing import Final

from schemas import limits

_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_EXTRA: Final = ("request", "method", "route", "status", "ms")  # of a request, beside its line


class _Bounded(QueueHandler):
    """Drops lines rather than wait or grow while nobody reads standard error."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):
            self.queue.put_nowait(record)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ``at``, ``level``, ``logger``, ``message``, and what was added."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        document: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in _EXTRA:
            value = getattr(record, name, None)
            if value is not None:
                document[name] = value
        return json.dumps(document, separators=(",", ":"))


@contextmanager
def logging_to_stderr(form: str = "text") -> Iterator[None]:
    """Send our loggers, and warnings of asyncio, to standard error while the block runs.

    aiohttp's own loggers are silenced: they would show parts of requests that do not parse.

    Args:
        form: ``text`` or ``json``.
    """
    lines: queue.Queue[logging.LogRecord] = queue.Queue(limits.LOG_LINES)
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(_FORMAT))
    handler = _Bounded(lines)
    listener = QueueListener(lines, output)
    ours, theirs = logging.getLogger("sealift"), logging.getLogger("asyncio")
    ours.setLevel(logging.INFO)
    ours.propagate = False
    aiohttp_log = logging.getLogger("aiohttp")
    aiohttp_log.propagate = False
    aiohttp_log.addHandler(logging.NullHandler())
    for logger in (ours, theirs):
        logger.addHandler(handler)
    listener.start()
    try:
        yield
    finally:
        listener.stop()
        for logger in (ours, theirs):
            logger.removeHandler(handler)
