"""The commands' client: a pure line codec, and a real connection to a real, scripted server."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.client import Address, Client, Lines
from schemas import limits
from schemas.errors import (
    NotFound,
    RemoteRefused,
    RemoteUnavailable,
    SealiftError,
    ServerBusy,
    ServingFault,
    UsageError,
)
from tests.support.scripted_server import Reply, ScriptedServer, document, lines

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=6)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as started:
        yield started


def client_of(server: ScriptedServer) -> Client:
    return Client(Address.parse(server.host))


# -- lines ----------------------------------------------------------------------------------------


@given(OBJECTS, st.data())
def test_lines_are_the_same_however_they_are_cut(
    objects: list[dict[str, Any]], data: st.DataObject
) -> None:
    whole = b"".join(json.dumps(o, ensure_ascii=False).encode() + b"\n" for o in objects)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    codec, found = Lines(), []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        found += codec.feed(whole[start:end])
    assert found + codec.close() == objects


def test_byte_by_byte() -> None:
    codec = Lines()
    fed = [codec.feed(bytes([byte])) for byte in b'{"a":1}\n\n{"b":2}\n']
    assert [o for found in fed for o in found] == [{"a": 1}, {"b": 2}]
    assert codec.close() == []


def test_a_last_line_needs_no_newline() -> None:
    codec = Lines()
    assert codec.feed(b'{"a":1}\n{"b":2}') == [{"a": 1}]
    assert codec.close() == [{"b": 2}]
    assert codec.close() == []


@pytest.mark.parametrize(
    "data", [b"[]\n", b"nonsense\n", b'{"a":\n', b"\xff\n", b"[" * 9999 + b"\n"]
)
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteRefused):
        Lines().feed(data)


def test_half_an_object_at_the_end_is_refused() -> None:
    codec = Lines()
    codec.feed(b'{"a":')
    with pytest.raises(RemoteRefused):
        codec.close()


def test_a_line_without_end_is_refused_before_memory_is_full() -> None:
    codec = Lines()
    for _ in range(limits.ANSWER_LINE_BYTES // limits.IO_CHUNK):
        assert codec.feed(b" " * limits.IO_CHUNK) == []
    with pytest.raises(RemoteRefused, match="line without end"):
        codec.feed(b" ")


# -- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("127.0.0.1:11434", "127.0.0.1:11434"),
        ("127.0.0.1", "127.0.0.1:11434"),
        ("localhost:80", "localhost:80"),
        (":8080", "127.0.0.1:8080"),
        ("0.0.0.0:11434", "127.0.0.1:11434"),
        ("http://127.0.0.1:11434/", "127.0.0.1:11434"),
        ("HTTP://localhost", "localhost:11434"),
        ("[::1]:99", "[::1]:99"),
        ("::1", "[::1]:11434"),
        ("[::]", "[::1]:11434"),
    ],
)
def test_addresses_in_every_form_that_ollama_takes(text: str, shown: str) -> None:
    assert str(Address.parse(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "ftp://a:1",
        "a:0",
        "a:65536",
        "a:x",
        "a:-1",
        "a:\uff11",
        "a b:1",
        "a/b:1",
        "u@a:1",
        "a\n:1",
    ],
)
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Address.parse(text)


# -- a real connection ----------------------------------------------------------------------------


def test_a_document(server: ScriptedServer) -> None:
    server.answers["/api/ps"] = lambda _: document({"models": []})
    assert client_of(server).get("/api/ps") == {"models": []}


def test_a_body_is_json(server: ScriptedServer) -> None:
    server.answers["/api/show"] = lambda body: document({"got": body})
    sent = {"model": "ä\ud83d", "n": 0.5}
    assert client_of(server).post("/api/show", sent) == {"got": sent}


def test_an_empty_answer_is_an_empty_object(server: ScriptedServer) -> None:
    server.answers["/api/copy"] = lambda _: Reply()
    assert client_of(server).post("/api/copy", {}) == {}


def test_a_stream(server: ScriptedServer) -> None:
    server.answers["/api/chat"] = lambda _: lines({"a": 1}, {"a": 2}, {"done": True})
    assert list(client_of(server).stream("/api/chat", {})) == [{"a": 1}, {"a": 2}, {"done": True}]


def test_pieces_come_as_they_are_sent(server: ScriptedServer) -> None:
    """The answer is held open, so only what was sent so far can have come."""
    server.answers["/api/chat"] = lambda _: lines({"a": 1}, hold=True)
    stream = client_of(server).stream("/api/chat", {})
    assert next(stream) == {"a": 1}
    assert not server.left.is_set()
    stream.close()
    assert server.left.wait(10), "closing the stream closes the connection"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, UsageError),
        (403, RemoteRefused),
        (404, NotFound),
        (413, UsageError),
        (500, ServingFault),
        (503, ServerBusy),
        (507, ServingFault),
    ],
)
def test_the_servers_errors_are_ours(
    server: ScriptedServer, status: int, kind: type[SealiftError]
) -> None:
    server.answers["/api/show"] = lambda _: document({"error": "model 'x' not found"}, status)
    with pytest.raises(kind, match="model 'x' not found") as caught:
        client_of(server).post("/api/show", {})
    assert type(caught.value) is kind


def test_an_error_inside_a_stream(server: ScriptedServer) -> None:
    server.answers["/api/chat"] = lambda _: lines({"a": 1}, {"error": "the worker died"})
    stream = client_of(server).stream("/api/chat", {})
    assert next(stream) == {"a": 1}
    with pytest.raises(ServingFault, match="the worker died"):
        next(stream)


def test_a_stream_that_breaks_off(server: ScriptedServer) -> None:
    server.answers["/api/chat"] = lambda _: Reply(chunks=[b'{"a":1}\n'], broken=True)
    stream = client_of(server).stream("/api/chat", {})
    assert next(stream) == {"a": 1}
    with pytest.raises(RemoteUnavailable):
        next(stream)


def test_a_status_without_our_error_document(server: ScriptedServer) -> None:
    server.answers["/api/ps"] = lambda _: Reply(502, [b"<html>\x1b[2J"])
    with pytest.raises(RemoteRefused, match="answered 502") as caught:
        client_of(server).get("/api/ps")
    assert "\x1b" not in caught.value.line()


def test_a_document_that_is_too_large(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ANSWER_BYTES", 100)
    server.answers["/api/ps"] = lambda _: document({"a": "x" * 100})
    with pytest.raises(RemoteRefused, match="too large"):
        client_of(server).get("/api/ps")


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(RemoteUnavailable) as caught:
        Client(Address.parse(address)).get("/api/ps")
    assert caught.value.line() == f"no server at {address}. Start it with sealift serve"


def test_somebody_who_speaks_no_http_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            with listener.accept()[0] as peer:
                peer.recv(100)
                peer.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(RemoteRefused, match="does not speak HTTP"):
            Client(Address("127.0.0.1", listener.getsockname()[1])).get("/api/ps")
        thread.join()
