"""Log lines on standard error, written by a thread of their own: a slow terminal stops nobody."""

from __future__ import annotations

import logging
import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import QueueHandler, QueueListener
from typing import Final

from schemas import limits

_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _Bounded(QueueHandler):
    """Drops lines rather than wait or grow while nobody reads standard error."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):
            self.queue.put_nowait(record)


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Send our loggers, and warnings of asyncio, to standard error while the block runs.

    aiohttp's own loggers are silenced: they would show parts of requests that do not parse.
    """
    lines: queue.Queue[logging.LogRecord] = queue.Queue(limits.LOG_LINES)
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(logging.Formatter(_FORMAT))
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
