"""Weights made smaller: what ``quantize`` of ``/api/create`` names, and the process that does it.

The engine reads a file that somebody uploaded, so it does this, too, in a process that can reach
nothing: of all files it writes one, which waits for it in the store's staging folder.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from registry.gguf.tables import FILE_TYPES
from runtime.messages import QuantizeSpec
from runtime.worker.client import Spawner, ending, reported
from runtime.worker.frames import FrameDecoder, NeedData, encode
from schemas import limits
from schemas.errors import UnsupportedRequest, WorkerFailed

# Of what the engine writes, what needs no importance matrix; with bits per weight, about.
KINDS: Final[Mapping[str, float]] = {
    "F16": 16,
    "BF16": 16,
    "Q8_0": 8.5,
    "Q6_K": 6.6,
    "Q5_K_M": 5.7,
    "Q5_K_S": 5.5,
    "Q5_1": 6,
    "Q5_0": 5.5,
    "Q4_K_M": 4.9,
    "Q4_K_S": 4.6,
    "Q4_1": 5,
    "Q4_0": 4.5,
    "IQ4_NL": 4.5,
    "IQ4_XS": 4.3,
    "Q3_K_L": 4.2,
    "Q3_K_M": 3.9,
    "Q3_K_S": 3.5,
    "Q2_K": 3,
}
_ALIASES: Final = {"Q5_K": "Q5_K_M", "Q4_K": "Q4_K_M", "Q3_K": "Q3_K_M"}
_NUMBERS: Final = {name: number for number, name in FILE_TYPES.items()}
_WHOLE: Final = {"F32": 32, "F16": 16, "BF16": 16}
_LOOK_SECONDS: Final = 0.25  # between two looks at whether it is done
_STATUS_SECONDS: Final = 1.0  # between a socket's end and the launcher's word on why


def parse_kind(text: str) -> str:
    """A type as clients write it, in the spelling of :data:`KINDS`.

    Raises:
        UnsupportedRequest: There is no such type.
    """
    name = text.strip().upper()
    name = _ALIASES.get(name, name)
    if name not in KINDS:
        raise UnsupportedRequest(
            f"unsupported quantization type {text[:40]} - supported types are {', '.join(KINDS)}"
        )
    return name


def check_source(kind: str) -> None:
    """See that weights of a type can be quantized.

    Raises:
        UnsupportedRequest: They are quantized already.
    """
    if kind not in _WHOLE:
        raise UnsupportedRequest(
            "quantization is only supported for F16 and F32 models",
            why=f"these weights are {kind or 'of no one type'}",
            hint="Take the model in full precision",
        )


def expected_bytes(size: int, was: str, kind: str) -> int:
    """How large a file will be, about.

    Args:
        size: Bytes of the file in full precision.
        was: Its type.
        kind: One of :data:`KINDS`.
    """
    return max(int(size * KINDS[kind] / _WHOLE[was]), 1)


async def quantize(
    spawner: Spawner, source: Path, target: Path, kind: str
) -> AsyncGenerator[None, None]:
    """Quantize a GGUF file in a process of its own; yields now and then while that goes on.

    Closing the iterator ends the process. What is in ``target`` is of no use before the end.

    Args:
        spawner: Starts the process.
        source: A GGUF file in full precision.
        target: An empty file.
        kind: One of :data:`KINDS`.

    Raises:
        LoadFailed: The engine refuses the file, or cannot write the other one.
        SandboxUnavailable: The process cannot be confined here.
        WorkerFailed: It could not be started, or died.
    """
    channel, pid = await spawner.spawn()
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    spawner.watch(pid, ended.set_result)
    spec = QuantizeSpec(str(source), str(target), _NUMBERS[kind])
    answer = asyncio.create_task(_ask(channel, spec))
    try:
        while not answer.done():
            await asyncio.wait([answer], timeout=_LOOK_SECONDS)
            yield
        document = await answer
    finally:
        answer.cancel()
        with suppress(asyncio.CancelledError, WorkerFailed, OSError):
            await answer
        spawner.kill(pid)
    if "failed" in document:
        raise reported(document["failed"])
    if "quantized" not in document:
        raise WorkerFailed("the process that quantizes died", why=await _status(ended))


async def _ask(channel: socket.socket, spec: QuantizeSpec) -> dict[str, Any]:
    """Say what to do and wait for the answer; an empty one if the process ends without."""
    reader, writer = await asyncio.open_unix_connection(sock=channel)
    decoder = FrameDecoder()
    try:
        writer.write(encode({"quantize": asdict(spec)}))
        await writer.drain()
        while isinstance(document := decoder.next_document(), NeedData):
            data = await reader.read(limits.IO_CHUNK)
            if not data:
                return {}
            decoder.feed(data)
        return document
    except ConnectionError:
        return {}
    finally:
        writer.close()


async def _status(ended: asyncio.Future[int]) -> str:
    try:
        async with asyncio.timeout(_STATUS_SECONDS):
            return ending(await asyncio.shield(ended))
    except TimeoutError:
        return "it closed its connection"
