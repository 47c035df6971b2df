"""A real HTTP server on loopback that answers as a test tells it, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(slots=True)
class Reply:
    """One answer.

    Attributes:
        status: Of HTTP.
        chunks: The body; each is sent at once, as a chunk of its own.
        hold: Keeps the connection open after the chunks until the client goes away.
        broken: Leaves out the end of the body.
    """

    status: int = 200
    chunks: Iterable[bytes] = ()
    hold: bool = False
    broken: bool = False


def document(value: object, status: int = 200) -> Reply:
    """A JSON document as the whole answer."""
    return Reply(status, [json.dumps(value).encode()])


def lines(*values: object, hold: bool = False) -> Reply:
    """NDJSON, one chunk per line."""
    return Reply(chunks=[json.dumps(value).encode() + b"\n" for value in values], hold=hold)


@dataclass(slots=True)
class ScriptedServer:
    """Use it as a context manager.

    Attributes:
        answers: Path to what is answered there; given the request's body.
        asked: Every request so far: path and body.
        left: Set when a client went away while it was held.
    """

    answers: dict[str, Callable[[Any], Reply]] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    _server: ThreadingHTTPServer | None = None
    _thread: threading.Thread | None = None

    @property
    def host(self) -> str:
        """``address:port``."""
        assert self._server is not None
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        assert self._thread is not None
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(script: ScriptedServer) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = json.loads(data) if data else None
                script.asked.append((self.path, body))
                answer = script.answers.get(self.path)
                reply = answer(body) if answer else document({"error": "not here"}, 404)
                self.send_response(reply.status)
                self.send_header("Transfer-Encoding", "chunked")
                self.send_header("Connection", "close")
                self.end_headers()
                for chunk in reply.chunks:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                if reply.hold:
                    self.connection.settimeout(20)
                    if self.rfile.read(1) == b"":
                        script.left.set()
                elif not reply.broken:
                    self.wfile.write(b"0\r\n\r\n")

            do_POST = do_GET  # noqa: N815

            def do_HEAD(self) -> None:
                self.send_response(200 if self.path in script.answers else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Says nothing."""

        return Handler
