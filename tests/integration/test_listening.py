"""How many connections there may be, and what comes of more."""

from __future__ import annotations

import asyncio
import ipaddress
import resource
import socket
from contextlib import suppress

import pytest

from runtime.server.listening import bind, make_room
from schemas import limits


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
        await writer.drain()
    await closed(writer)


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def test_too_many_connections_are_closed_and_room_comes_back() -> None:
    with bind(ipaddress.ip_address("127.0.0.1"), 0) as listener:
        listener.most = 3
        port = listener.getsockname()[1]
        server = await asyncio.start_server(echo, sock=listener)
        async with server:

            async def works(writer: asyncio.StreamWriter, reader: asyncio.StreamReader) -> bytes:
                try:
                    writer.write(b"x")
                    return await asyncio.wait_for(reader.read(1), 10)
                except ConnectionError:
                    return b""

            pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
            answers = [await works(writer, reader) for reader, writer in pairs]
            assert sorted(answers) == [b"", b"", b"x", b"x", b"x"]
            for _, writer in pairs:
                await closed(writer)
            async with asyncio.timeout(10):
                while True:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    answer = await works(writer, reader)
                    await closed(writer)
                    if answer == b"x":
                        break
                    await asyncio.sleep(0.01)


def test_room_is_what_the_process_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"limit": (1024, 1500)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: now["limit"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: now.update(limit=pair))
    assert make_room() == 1500 - limits.OTHER_DESCRIPTORS
    assert now["limit"] == (1500, 1500)
    now["limit"] = (1024, resource.RLIM_INFINITY)
    assert make_room() == limits.HTTP_CONNECTIONS
    now["limit"] = (100_000, 100_000)
    assert make_room() == limits.HTTP_CONNECTIONS
    assert now["limit"] == (100_000, 100_000)
    now["limit"] = (64, 64)
    assert make_room() == 16


def test_a_listener_listens_already() -> None:
    with bind(ipaddress.ip_address("::1"), 0) as listener:
        listener.listen(1)
        with socket.create_connection(("::1", listener.getsockname()[1])):
            pass
