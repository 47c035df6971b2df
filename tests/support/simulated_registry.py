"""A registry in this process that tells what a test has it tell: right, short, wrong, or elsewhere."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from registry.digest import Digest

_BLOB: Final = re.compile(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})")
_MANIFEST: Final = re.compile(r"/v2/(.+)/manifests/(.+)")


@dataclass(slots=True)
class SimulatedRegistry:
    """What it has, and how it misbehaves.

    Attributes:
        blobs: By digest, as text.
        manifests: By tag: bytes and media type.
        asked: Requests so far: method, path, ``Range``.
        cut: Bytes of a blob after which the connection ends; None for all.
        ranges: Whether it heeds ``Range``.
        status: Answers everything with this, if not 0.
        location: Redirects blobs there, if not empty; ``{}`` stands for the path.
        logins: What came as ``Authorization``.
        hang: Sends nothing more once it has sent the headers, until this is set.
    """

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    logins: list[str | None] = field(default_factory=list)
    cut: int | None = None
    ranges: bool = True
    status: int = 0
    location: str = ""
    hang: threading.Event | None = None
    port: int = 0

    def put(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        self.blobs[str(digest)] = data
        return digest


@contextmanager
def simulated_registry(tls: ssl.SSLContext | None = None) -> Iterator[SimulatedRegistry]:
    """Start one, over TLS if a server's context is given; end it afterwards."""
    registry = SimulatedRegistry()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(registry))
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    registry.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield registry
    finally:
        if registry.hang is not None:
            registry.hang.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(registry: SimulatedRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            registry.asked.append((self.command, self.path, self.headers.get("Range", "")))
            registry.logins.append(self.headers.get("Authorization"))
            if registry.status:
                self._send(registry.status, b'{"errors":[{"code":"X","message":"because"}]}')
            elif (match := _MANIFEST.fullmatch(self.path)) and match[2] in registry.manifests:
                data, media_type = registry.manifests[match[2]]
                self._send(200, data, {"Content-Type": f"{media_type}; charset=x"})
            elif (match := _BLOB.fullmatch(self.path)) and match[2] in registry.blobs:
                self._blob(registry.blobs[match[2]])
            else:
                self._send(404, b"nothing here")

        do_HEAD = do_GET  # noqa: N815

        def _blob(self, data: bytes) -> None:
            if registry.location and not self.path.startswith("/there"):
                self._send(307, b"", {"Location": registry.location.format(self.path)})
                return
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(wanted[1]) if wanted and registry.ranges else 0
            rest = data[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if registry.hang is not None:
                self.wfile.write(rest[:1])
                registry.hang.wait(20)
            self.wfile.write(rest if registry.cut is None else rest[: registry.cut])
            self.close_connection = True

        def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Says nothing."""

    return Handler
