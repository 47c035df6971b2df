"""Clients of a chat server, as light as they come: they must not take the processors they measure.

They speak HTTP/1.1 over a plain socket, write down when bytes came, and read them only afterwards.
The same ones, with the same questions, for every server.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tools.benchmarks.process import BenchError

_SHOWN: Final = re.compile(rb'"content":"(?!")')  # a chunk with some text
_USED: Final = re.compile(rb'"prompt_tokens":(\d+)')
_END: Final = b"0\r\n\r\n"  # of a chunked body (RFC 9112 §7.1)
_READ_BYTES: Final = 1 << 16
_LONGEST: Final = 120  # seconds for one answer
_SUBJECTS: Final = (
    "a lighthouse", "the sea", "a long train ride", "an old violin", "winter in the hills",
    "a market at dawn", "the first telescope", "a lost letter", "two sisters", "a garden wall",
    "the night shift", "a paper boat", "an empty theatre", "the last ferry", "a stubborn mule",
    "a broken clock", "the glass maker",
)  # fmt: skip
_WORDS: Final = (
    "river", "stone", "copper", "window", "harbour", "letter", "winter", "engine", "market",
    "silver", "forest", "bridge", "candle", "garden", "mirror", "station", "ladder", "meadow",
    "carpet", "island", "pepper", "saddle", "thunder",
)  # fmt: skip


@dataclass(slots=True)
class Record:
    """One answer as it came.

    Attributes:
        sent: When the question was sent, by ``time.perf_counter()``.
        reads: When bytes came, and which.
    """

    sent: float
    reads: list[tuple[float, bytes]] = field(default_factory=list)

    @property
    def shown(self) -> list[float]:
        """When each piece of text came; several at once came at the same time."""
        return [at for at, data in self.reads for _ in _SHOWN.findall(data)]

    @property
    def first(self) -> float:
        """Seconds from the question to the first text.

        Raises:
            BenchError: None came.
        """
        shown = self.shown
        if not shown:
            text = b"".join(data for _, data in self.reads)[-500:].decode(errors="replace")
            msg = f"an answer without text: {text}"
            raise BenchError(msg)
        return shown[0] - self.sent

    @property
    def prompt_tokens(self) -> int:
        """As the server counted them; 0 if it did not tell."""
        found = _USED.findall(b"".join(data for _, data in self.reads))
        return int(found[-1]) if found else 0


class Connection:
    """A connection that is kept.

    Args:
        port: On this machine.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: dict[str, Any], record: Record | None = None) -> Record:
        """One request; the record of its answer, filled while it comes.

        Raises:
            BenchError: It failed.
        """
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        record = record or Record(0.0)
        record.sent = time.perf_counter()
        try:
            async with asyncio.timeout(_LONGEST):
                kept = self._writer is not None
                try:
                    await self._exchange(head.encode() + data, record)
                except ConnectionError:
                    if not kept or record.reads:
                        raise
                    self.close()  # the server had hung up since the last answer
                    await self._exchange(head.encode() + data, record)
        except (OSError, TimeoutError) as error:
            msg = f"{path} on port {self._port}: {type(error).__name__} {error}"
            raise BenchError(msg) from None
        if b" 200 " not in record.reads[0][1][:16]:
            answer = b"".join(data for _, data in record.reads)
            msg = f"{path} on port {self._port}: {answer[:400].decode(errors='replace')}"
            raise BenchError(msg)
        return record

    async def _exchange(self, request: bytes, record: Record) -> None:
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(request)
        await self._read(self._reader, record)

    async def _read(self, reader: asyncio.StreamReader, record: Record) -> None:
        left: int | None = None
        tail = b""
        while True:
            data = await reader.read(_READ_BYTES)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            record.reads.append((time.perf_counter(), data))
            if len(record.reads) == 1:
                head, _, begun = data.partition(b"\r\n\r\n")
                found = re.search(rb"content-length: *(\d+)", head.lower())
                left = int(found[1]) - len(begun) if found else None
                data = begun  # a head may end like a chunked body
            elif left is not None:
                left -= len(data)
            tail = (tail + data)[-len(_END) :]
            if (left is None and tail == _END) or (left is not None and left <= 0):
                return

    def close(self) -> None:
        """Hang up, whatever is under way."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


def chat(model: str, question: str, tokens: int, **fields: Any) -> dict[str, Any]:
    """A body for ``/v1/chat/completions``: a stream, sampled the same way by all servers."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens,
        "temperature": 0.8,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **fields,
    }


def questions() -> Iterator[str]:
    """Questions without end, none twice, that are answered at length."""
    for number in itertools.count():
        subject = _SUBJECTS[number % len(_SUBJECTS)]
        yield f"Tell me a long story about {subject}, with {number} characters in it."


def filler(words: int, first: int) -> str:
    """So many words; texts with another ``first`` differ from the first word on."""
    chosen = (_WORDS[(first * 7 + n * (first + 3)) % len(_WORDS)] for n in range(words))
    return f"{first}: " + " ".join(chosen)


async def rate(
    port: int, clients: int, body: Callable[[str], dict[str, Any]], seconds: float, warm: float = 2
) -> float:
    """Pieces of text per second with so many clients, each asking again as soon as it was answered.

    Args:
        port: Of the server.
        clients: How many.
        body: Of a question.
        seconds: Of the window that counts.
        warm: Before it.
    """
    asked = questions()
    records: list[Record] = []

    async def client() -> None:
        connection = Connection(port)
        try:
            while True:
                records.append(record := Record(0.0))
                await connection.post("/v1/chat/completions", body(next(asked)), record)
        finally:
            connection.close()

    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    await asyncio.wait(tasks, timeout=warm, return_when=asyncio.FIRST_EXCEPTION)
    began = time.perf_counter()
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    ended = time.perf_counter()
    await _stop(tasks)
    shown = sum(began <= at < ended for record in records for at in record.shown)
    if not shown:
        msg = f"port {port} gave no text in {seconds} s"
        raise BenchError(msg)
    return shown / (ended - began)


async def firsts(
    port: int, clients: int, bodies: list[dict[str, Any]]
) -> tuple[list[float], list[int]]:
    """Seconds to the first text, and tokens of the prompts, asked by so many clients in turn.

    Answers that end before they begin are left out.

    Raises:
        BenchError: Most of several did.
    """
    left = iter(bodies)
    found: list[Record] = []

    async def client() -> None:
        connection = Connection(port)
        try:
            for body in left:
                found.append(record := Record(0.0))
                await connection.post("/v1/chat/completions", body, record)
        finally:
            connection.close()

    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    try:
        await asyncio.gather(*tasks)
    finally:
        await _stop(tasks)
    spoken = [record for record in found if record.shown]
    if len(found) > 1 and 2 * len(spoken) < len(found):
        msg = f"port {port} gave no text to {len(found) - len(spoken)} of {len(found)} questions"
        raise BenchError(msg)
    return [record.first for record in spoken], [record.prompt_tokens for record in spoken]


async def gaps(
    port: int, streams: list[dict[str, Any]], late: dict[str, Any], after: float
) -> tuple[list[float], float]:
    """Seconds between texts of running streams while a long prompt is read.

    Returns:
        The gaps that overlap with the time from the late question to its first text; that time.
    """
    records = [Record(0.0) for _ in streams]
    connections = [Connection(port) for _ in (*streams, late)]
    tasks = [
        asyncio.create_task(connection.post("/v1/chat/completions", body, record))
        for connection, body, record in zip(connections, streams, records, strict=False)
    ]
    await asyncio.wait(tasks, timeout=after, return_when=asyncio.FIRST_EXCEPTION)
    try:
        last = await connections[-1].post("/v1/chat/completions", late)
    finally:
        await _stop(tasks)
        for connection in connections:
            connection.close()
    until = last.sent + last.first
    found = [
        later - earlier
        for record in records
        for earlier, later in itertools.pairwise(record.shown)
        if later > last.sent and earlier < until
    ]
    return found, last.first


async def requests(
    port: int, clients: int, path: str, body: dict[str, Any], count: int
) -> tuple[float, list[float]]:
    """Requests per second, and the seconds that each took."""
    left = iter(range(count))
    took: list[float] = []

    async def client() -> None:
        connection = Connection(port)
        try:
            for _ in left:
                record = await connection.post(path, body)
                took.append(record.reads[-1][0] - record.sent)
        finally:
            connection.close()

    began = time.perf_counter()
    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    try:
        await asyncio.gather(*tasks)
    finally:
        await _stop(tasks)
    return count / (time.perf_counter() - began), took


async def _stop(tasks: list[asyncio.Task[Any]]) -> None:
    """End what runs; a task that failed tells why."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
