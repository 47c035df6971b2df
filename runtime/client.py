"""The commands' way to the server: its native API over HTTP, by the standard library.

What comes back is bounded and checked like any other input: a process of somebody else may listen
where our server should.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol, Self

from schemas import limits
from schemas.errors import (
    KeyRequired,
    NotFound,
    RateLimited,
    RemoteError,
    RemoteRefused,
    RemoteUnavailable,
    SealiftError,
    ServerBusy,
    ServingFault,
    UsageError,
)
from schemas.settings import Serve

DEFAULT_PORT: Final = 11434
_START: Final = "Start it with sealift serve"
# What a server listens on everywhere is reached on this machine.
_REACHED: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_BY_STATUS: Final[Mapping[int, type[SealiftError]]] = {
    401: KeyRequired,
    404: NotFound,
    429: RateLimited,
    503: ServerBusy,
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens.

    Attributes:
        host: Name or IP address, without brackets.
        port: 1 to 65535.
        tls: Whether TLS is spoken there.
    """

    host: str
    port: int
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``SEALIFT_HOST`` in the forms that Ollama takes: ``host``, ``host:port``, ``http://…``.

        Raises:
            UsageError: Anything else.
        """
        scheme, found, rest = text.strip().partition("://")
        if found and scheme.lower() not in ("http", "https"):
            raise UsageError(f"cannot talk {scheme} to the server", hint="Write host:port")
        host, port = _split((rest if found else scheme).rstrip("/"))
        if not port.isdecimal() or not port.isascii() or not 0 < int(port[:6]) < 65536:
            raise UsageError(f"{text!r} is no address of a server", hint="Write host:port")
        if any(not c.isprintable() or c in " /?#@[]" for c in host):
            raise UsageError(f"{text!r} is no address of a server", hint="Write host:port")
        tls = bool(found) and scheme.lower() == "https"
        return cls(_REACHED.get(host, host), int(port), tls)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _split(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":") or str(DEFAULT_PORT)
    if text.count(":") > 1:  # a bare IPv6 address
        return text, str(DEFAULT_PORT)
    host, _, port = text.partition(":")
    return host, port or str(DEFAULT_PORT)


class SupportsRead(Protocol):
    """An open file, or what counts as it is read."""

    def read(self, n: int = -1, /) -> bytes:
        """Up to ``n`` bytes, and none only at the end."""
        ...


class Lines:
    """NDJSON, fed in pieces of any size: JSON objects, one per line.

    A pure codec: no sockets. ``feed`` returns what is complete, ``close`` insists that nothing is
    left over.
    """

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Objects completed by these bytes.

        Raises:
            RemoteRefused: A line that is no JSON object, or that never ends.
        """
        start = len(self._rest)
        self._rest += data
        end = self._rest.rfind(b"\n", start) + 1
        if end == 0 and len(self._rest) <= limits.ANSWER_LINE_BYTES:
            return []
        lines = bytes(self._rest[:end]).split(b"\n")
        del self._rest[:end]
        if max(map(len, (*lines, self._rest))) > limits.ANSWER_LINE_BYTES:
            raise RemoteRefused("the server sends a line without end")
        return [_object(line) for line in lines if line.strip()]

    def close(self) -> list[dict[str, Any]]:
        """The last line, if the sender left out its newline."""
        rest, self._rest = bytes(self._rest), bytearray()
        return [_object(rest)] if rest.strip() else []


class Client:
    """Requests to one server; a connection for each.

    Args:
        address: Where it listens.
        key: An API key, if it wants one.
        certificate: PEM file that its certificate is in, where the certificates that this machine
            trusts do not tell.
    """

    def __init__(self, address: Address, *, key: str = "", certificate: str = "") -> None:
        self._address = address
        self._key = key
        self._certificate = certificate

    @classmethod
    def of(cls, serve: Serve, environ: Mapping[str, str] = os.environ) -> Self:
        """The client of the server that these settings describe; its key is ``SEALIFT_API_KEY``.

        Raises:
            UsageError: The address is none.
        """
        address = Address.parse(serve.host)
        pinned = "" if address.tls else serve.tls_cert
        if pinned:
            address = replace(address, tls=True)
        return cls(address, key=environ.get("SEALIFT_API_KEY", ""), certificate=pinned)

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object at a path.

        Raises:
            RemoteUnavailable: Nobody listens.
            SealiftError: The server's own error, as one of ours.
        """
        with self._answer("GET", path, None) as answer:
            return self._whole(answer)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Post a JSON object; errors as :meth:`get`'s."""
        with self._answer("POST", path, body) as answer:
            return self._whole(answer)

    def stream(self, path: str, body: Mapping[str, Any]) -> Generator[dict[str, Any]]:
        """Post a JSON object and yield the answer's as they come; errors as :meth:`get`'s.

        Closing the iterator closes the connection, by which the server knows to stop.
        """
        with self._answer("POST", path, body) as answer:
            lines = Lines()
            while data := self._read(answer, limits.IO_CHUNK, once=True):
                yield from map(_unless_error, lines.feed(data))
            yield from map(_unless_error, lines.close())

    def has_blob(self, digest: str) -> bool:
        """Whether the server has a blob; errors as :meth:`get`'s."""
        with self._exchange("HEAD", f"/api/blobs/{digest}", None, {}, (200, 404)) as answer:
            return answer.status == 200

    def put_blob(self, digest: str, source: SupportsRead, size: int) -> None:
        """Upload a blob from an open file; errors as :meth:`get`'s.

        Args:
            digest: What its bytes hash to.
            source: Read from where it stands.
            size: In bytes.
        """
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        path = f"/api/blobs/{digest}"
        with self._exchange("POST", path, source, headers, (200, 201)) as answer:
            self._read(answer, limits.SETTINGS_BYTES, once=False)

    @contextmanager
    def _answer(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> Iterator[http.client.HTTPResponse]:
        data = None if body is None else json.dumps(body).encode("ascii")
        headers = {"Content-Type": "application/json"} if data is not None else {}
        with self._exchange(method, path, data, headers, (200,)) as answer:
            yield answer

    @contextmanager
    def _exchange(
        self,
        method: str,
        path: str,
        data: bytes | SupportsRead | None,
        headers: dict[str, str],
        good: tuple[int, ...],
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._connection()
        try:
            self._connect(connection)
            with self._translated():
                if self._key:
                    headers["Authorization"] = f"Bearer {self._key}"
                connection.request(method, path, data, headers)
                answer = connection.getresponse()
            if answer.status not in good:
                raise self._refusal(answer)
            yield answer
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        host, port, seconds = self._address.host, self._address.port, limits.CONNECT_SECONDS
        if not self._address.tls:
            return http.client.HTTPConnection(
                host, port, timeout=seconds, blocksize=limits.IO_CHUNK
            )
        context = ssl.create_default_context()
        if self._certificate:  # this very one, whatever name it was reached by
            try:
                context = ssl.create_default_context(cafile=Path(self._certificate).expanduser())
            except OSError as error:
                what = f"cannot use the certificate {self._certificate}"
                raise UsageError(what, why=error.strerror or str(error)) from None
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.check_hostname = False
        return http.client.HTTPSConnection(host, port, timeout=seconds, context=context)

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        try:
            connection.connect()
            connection.sock.settimeout(limits.SILENCE_SECONDS)
        except ConnectionRefusedError:
            raise RemoteUnavailable(f"no server at {self._address}", hint=_START) from None
        except ssl.SSLError as error:
            why = error.reason or str(error)
            what = f"the server at {self._address} cannot be trusted"
            raise RemoteRefused(what, why=why.replace("_", " ").lower()) from None
        except OSError as error:
            why = error.strerror or str(error)
            raise RemoteUnavailable(f"no server at {self._address}", why=why, hint=_START) from None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        where = f"the server at {self._address}"
        try:
            yield
        except TimeoutError:
            raise RemoteUnavailable(f"{where} does not answer") from None
        except http.client.IncompleteRead:
            raise RemoteUnavailable(f"{where} broke off its answer") from None
        except http.client.HTTPException as error:
            raise RemoteRefused(f"{where} does not speak HTTP", why=str(error)) from None
        except OSError as error:
            why = error.strerror or str(error)
            raise RemoteUnavailable(f"{where} went away", why=why) from None

    def _read(self, answer: http.client.HTTPResponse, count: int, *, once: bool) -> bytes:
        with self._translated():
            return answer.read1(count) if once else answer.read(count)

    def _whole(self, answer: http.client.HTTPResponse) -> dict[str, Any]:
        data = self._read(answer, limits.ANSWER_BYTES + 1, once=False)
        if len(data) > limits.ANSWER_BYTES:
            raise RemoteRefused("the server's answer is too large")
        return _unless_error(_object(data)) if data.strip() else {}

    def _refusal(self, answer: http.client.HTTPResponse) -> SealiftError:
        data = self._read(answer, limits.SETTINGS_BYTES, once=False)
        try:
            document = _object(data)
        except RemoteError:
            return RemoteRefused(
                f"the server at {self._address} answered {answer.status}",
                why=data[:200].decode("utf-8", "replace").strip(),
                hint="Check that it is sealift serve",
            )
        return _error(document, answer.status)


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise RemoteRefused("the server's answer is not JSON") from None
    if not isinstance(value, dict):
        raise RemoteRefused("the server's answer is not a JSON object")
    return value


def _unless_error(document: dict[str, Any]) -> dict[str, Any]:
    if "error" in document:
        raise _error(document, 500)
    return document


def _error(document: Mapping[str, Any], status: int) -> SealiftError:
    """The native error body ``{"error": text}`` as one of our errors, by its status."""
    text = str(document.get("error") or f"status {status}").rstrip(".")
    if kind := _BY_STATUS.get(status):
        return kind(text)
    if status != 403 and (kind := _BY_CODE.get(str(document.get("code")))):
        return kind(text)
    if 400 <= status < 500:
        return UsageError(text) if status != 403 else RemoteRefused(text)
    return ServingFault(text)


def _all_kinds(root: type[SealiftError]) -> list[type[SealiftError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in _all_kinds(child))]


_BY_CODE: Final = {kind.code: kind for kind in _all_kinds(SealiftError)[1:]}
