"""A registry as a client sees it: OCI distribution-spec 1.1 over sockets that come connected.

What comes back is bounded, and nothing of it is believed: digests are checked by whoever reads. No
redirect leaves the one host.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from registry import oci
from registry.digest import Digest
from registry.pipeline import Readable
from registry.reference import Reference
from runtime.mirror.address import MirrorAddress
from schemas import limits
from schemas.errors import (
    Cancelled,
    NotFound,
    RemoteError,
    RemoteRefused,
    RemoteUnavailable,
)

Dial = Callable[[], socket.socket]
_MANIFESTS: Final = (oci.IMAGE_MANIFEST, oci.DOCKER_MANIFEST)
_REDIRECTS: Final = frozenset({301, 302, 307, 308})


class _Connection(http.client.HTTPConnection):
    """One whose socket comes connected."""

    def __init__(self, address: MirrorAddress, dial: Dial, tls: ssl.SSLContext | None) -> None:
        super().__init__(address.host, address.port, blocksize=limits.IO_CHUNK)
        self._dial = dial
        self._tls = tls

    def connect(self) -> None:
        """Take a fresh socket, and shake hands over it if the mirror speaks TLS."""
        way = self._dial()
        way.settimeout(limits.MIRROR_SILENCE_SECONDS)
        if self._tls is not None:
            way = self._tls.wrap_socket(way, server_hostname=self.host)
        self.sock = way


class Remote:
    """The mirror during one pull or push. One thread uses it; any other may :meth:`abort` it.

    Args:
        address: Where it is.
        dial: Gives a connected socket.
        tls: For ``https``.
        authorization: The header's value, if the mirror wants one.
    """

    def __init__(
        self,
        address: MirrorAddress,
        dial: Dial,
        tls: ssl.SSLContext | None = None,
        authorization: str = "",
    ) -> None:
        self.address = address
        self._dial = dial
        self._tls = tls
        self._headers = {"Host": address.authority, "User-Agent": "sealift"}
        if authorization:
            self._headers["Authorization"] = authorization
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._aborted = False

    def abort(self) -> None:
        """End what is under way, from another thread."""
        with self._lock:
            self._aborted = True
            if self._socket is not None:
                with suppress(OSError):  # it ended by itself
                    # Below TLS, whose own state belongs to the other thread.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    @property
    def aborted(self) -> bool:
        """Whether somebody ended it."""
        return self._aborted

    # -- the distribution API ---------------------------------------------------------------------

    def manifest(self, reference: Reference) -> tuple[bytes, str]:
        """A manifest's exact bytes, and its media type.

        Raises:
            NotFound: The mirror has none.
            RemoteRefused: It is of another type or too large, or the mirror said no.
            RemoteUnavailable: The mirror does not answer.
        """
        wanted = str(reference.digest) if reference.digest else reference.tag
        path = f"/v2/{reference.repository}/manifests/{wanted}"
        with self._answer("GET", path, {"Accept": ", ".join(_MANIFESTS)}) as answer:
            why = f"{self.address} has no model {reference.local.shortest!r}"
            missing = NotFound(
                "pull model manifest: file does not exist", why=why
            )  # Ollama's words
            self._expect(answer, 200, missing)
            media_type = (answer.headers.get("Content-Type") or "").partition(";")[0].strip()
            data = self._small(answer, limits.MANIFEST_BYTES)
        if media_type not in _MANIFESTS:
            raise RemoteRefused(
                f"{self.address} has no model under this name", why=f"it is {media_type[:80]!r}"
            )
        return data, media_type

    @contextmanager
    def blob(self, repository: str, digest: Digest, offset: int) -> Iterator[tuple[Readable, int]]:
        """A blob's bytes, from ``offset`` or, where the mirror will not, from the start.

        Yields:
            The stream, and the offset that it begins at.

        Raises:
            NotFound, RemoteRefused, RemoteUnavailable: As :meth:`manifest`.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._answer("GET", f"/v2/{repository}/blobs/{digest}", headers) as answer:
            partial = offset and answer.status == 206
            if not partial:
                self._expect(answer, 200, NotFound(f"{self.address} has no blob {digest.short}"))
            yield _Stream(self, answer), offset if partial else 0

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Whether the repository has a blob."""
        with self._answer("HEAD", f"/v2/{repository}/blobs/{digest}") as answer:
            if answer.status == 404:
                return False
            self._expect(answer, 200)
            return True

    def put_blob(self, repository: str, digest: Digest, size: int, source: Readable) -> None:
        """Upload a blob: distribution-spec "Pushing a blob monolithically", POST then PUT.

        Raises:
            RemoteRefused, RemoteUnavailable: The mirror says no, or not a thing.
        """
        with self._answer("POST", f"/v2/{repository}/blobs/uploads/", body=b"") as answer:
            self._expect(answer, 202)
            place = self._own_path(answer.headers.get("Location") or "", answer)
        joint = "&" if "?" in place else "?"
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        target = f"{place}{joint}digest={digest}"
        with self._answer("PUT", target, headers, source) as answer:
            self._expect(answer, 201)

    def put_manifest(self, reference: Reference, data: bytes, media_type: str) -> None:
        """Upload a manifest under its tag; errors as :meth:`put_blob`'s."""
        path = f"/v2/{reference.repository}/manifests/{reference.tag}"
        with self._answer("PUT", path, {"Content-Type": media_type}, data) as answer:
            self._expect(answer, 201)

    # -- below it ---------------------------------------------------------------------------------

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Readable | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """One request on a connection of its own; a GET follows redirects on the same host."""
        for _ in range(limits.MIRROR_REDIRECTS + 1):
            connection = _Connection(self.address, self._dial, self._tls)
            try:
                answer = self._ask(
                    connection, method, path, {**self._headers, **(headers or {})}, body
                )
                if method == "GET" and answer.status in _REDIRECTS:
                    path = self._own_path(answer.headers.get("Location") or "", answer, path)
                    continue
                yield answer
                return
            finally:
                with self._lock:
                    self._socket = None
                connection.close()
        raise RemoteRefused(f"{self.address} redirects without end")

    def _ask(
        self,
        connection: _Connection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | Readable | None,
    ) -> http.client.HTTPResponse:
        with self.translated():
            connection.connect()
            with self._lock:
                self._socket = connection.sock
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            sized = {"Content-Length": str(len(body))} if isinstance(body, bytes) else {}
            for name, value in {**headers, **sized}.items():
                connection.putheader(name, value)
            connection.endheaders(body)  # type: ignore[arg-type]  # ours reads by position
            return connection.getresponse()

    def _own_path(self, location: str, answer: http.client.HTTPResponse, base: str = "/") -> str:
        """The path of a ``Location``, which must be on the mirror itself."""
        parts = urlsplit(urljoin(f"{self.address}{base}", location))
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if not location or (parts.hostname, port) != (self.address.host.lower(), self.address.port):
            raise RemoteRefused(
                f"{self.address} sends us elsewhere",
                why=f"status {answer.status} to {location[:120]!r}",
                hint="Only the mirror's own address may be reached",
            )
        return f"{parts.path}?{parts.query}" if parts.query else parts.path

    def _expect(
        self, answer: http.client.HTTPResponse, status: int, missing: NotFound | None = None
    ) -> None:
        if answer.status == status:
            return
        text = _reason(self._small(answer, limits.MIRROR_ANSWER_BYTES))
        if answer.status == 404 and missing is not None:
            raise missing
        if answer.status in (401, 403):
            raise RemoteRefused(
                f"{self.address} asks for a login, or says no",
                why=text or f"status {answer.status}",
                hint="See the setting mirror_login",
            )
        raise RemoteRefused(f"{self.address} answered {answer.status}", why=text)

    def _small(self, answer: http.client.HTTPResponse, most: int) -> bytes:
        with self.translated():
            data = answer.read(most + 1)
        if len(data) > most:
            raise RemoteRefused(
                f"the answer of {self.address} is too large", why=f"over {most} bytes"
            )
        return data

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Foreign exceptions as ours."""
        try:
            yield
        except RemoteError:
            raise
        except (http.client.HTTPException, OSError) as error:
            if self._aborted:
                raise Cancelled("the transfer was cancelled") from None
            if isinstance(error, ssl.SSLError):
                why = getattr(error, "verify_message", "") or error.reason or "TLS failed"
                raise RemoteRefused(f"{self.address} cannot be trusted", why=str(why)) from None
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise RemoteUnavailable(f"{self.address} broke off", why=str(why)) from None


class _Stream:
    """A response's body, its errors translated."""

    def __init__(self, remote: Remote, answer: http.client.HTTPResponse) -> None:
        self._remote = remote
        self._answer = answer

    def read(self, n: int, /) -> bytes:
        with self._remote.translated():
            return self._answer.read(n)

    def readinto(self, view: memoryview) -> int:
        with self._remote.translated():
            return self._answer.readinto(view)


def _reason(data: bytes) -> str:
    """The first message of an error document (distribution-spec "Error Codes"), or its text."""
    try:
        document: Any = json.loads(data)
        first = document["errors"][0]
        return str(first.get("message") or first.get("code") or "")[:200]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return data[:200].decode("utf-8", "replace").strip()
