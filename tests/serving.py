"""A real ``sealift serve`` in a process of its own, on a free port, with a home of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from registry import oci
from registry.digest import Digest
from registry.gguf import model_facts, read_header_file
from registry.oci import Descriptor, Manifest
from registry.reference import Reference
from registry.store import Store
from registry.verify import digest_stream

_READY = re.compile(r"listening on (https?)://(\S+):(\d+) ")


def install(home: Path, gguf: Path, *names: str) -> Digest:
    """Put a model into a store under these names, as an import leaves it; returns its digest."""
    size = gguf.stat().st_size
    with gguf.open("rb") as file:
        digest = digest_stream(file, size)
    config = b"{}"
    weights = Descriptor(oci.WEIGHT_RAW, digest, size, {oci.FILEPATH: gguf.name})
    manifest = Manifest(
        config=Descriptor.for_bytes(oci.MODEL_CONFIG, config),
        layers=(weights,),
        artifact_type=oci.MODEL_ARTIFACT,
    )
    data = manifest.to_bytes()
    whole = Descriptor.for_bytes(oci.IMAGE_MANIFEST, data)
    facts = asdict(model_facts(read_header_file(gguf)))
    with Store.open(home) as store, store.blobs.stage() as area, gguf.open("rb") as file:
        area.add(file, digest, size)
        area.add_bytes(config)
        area.add_bytes(data)
        area.install()
        with store.catalogue.transaction() as tx:
            for blob in manifest.blobs:
                tx.put_blob(blob)
            for name in names:
                reference = Reference.parse(name)
                tx.put_manifest(reference.repository, whole, manifest, facts)
                tx.set_tag(reference, whole.digest)
    return whole.digest


@dataclass
class Server:
    """A running server.

    Attributes:
        process: The front-end.
        host: Address, an IPv6 one in brackets.
        port: As it announced it.
        lines: Standard error so far.
        scheme: ``http`` or ``https``.
    """

    process: subprocess.Popen[str]
    host: str
    port: int
    lines: list[str] = field(default_factory=list)
    scheme: str = "http"

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self.host == "0.0.0.0" else self.host  # noqa: S104 - read
        return f"{self.scheme}://{host}:{self.port}"

    def request(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower-case names) and body."""
        data = (
            body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        )
        request = urllib.request.Request(  # noqa: S310 - our own server
            self.url + path,
            data,
            {name.replace("_", "-"): v for name, v in headers.items()},
            method=method,
        )
        try:
            with _DIRECT.open(request, timeout=60) as answer:
                found = answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                found = error.code, dict(error.headers), error.read()
        status, fields, content = found
        return status, {name.lower(): value for name, value in fields.items()}, content

    def post(self, path: str, body: object) -> Any:
        """The JSON document that a good request is answered with."""
        status, _, content = self.request("POST", path, body)
        assert status == 200, content
        return json.loads(content)

    def get(self, path: str) -> Any:
        """The JSON document at a path."""
        status, _, content = self.request("GET", path)
        assert status == 200, content
        return json.loads(content)

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection((self.host.strip("[]"), self.port), timeout=60)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 20) -> int:
        """End it; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout)


MAIN = "import sys; from runtime.cli.main import main; sys.exit(main())"
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextmanager
def serving(home: Path, **settings: str) -> Iterator[Server]:
    """Start ``sealift serve`` on a free port; end it afterwards.

    Args:
        home: ``$SEALIFT_HOME``.
        settings: Environment variables, in lower case and without ``SEALIFT_``.
    """
    environment = {
        **os.environ,
        "SEALIFT_HOME": str(home),
        "SEALIFT_HOST": "127.0.0.1:0",
        **{f"SEALIFT_{name.upper()}": value for name, value in settings.items()},
    }
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "serve"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines: list[str] = []
    match = None
    while match is None:
        line = process.stderr.readline()
        assert line, f"the server ended with {process.wait()}: {''.join(lines)}"
        lines.append(line)
        match = _READY.search(line)
    server = Server(process, match[2], int(match[3]), lines, match[1])
    reader = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
    reader.start()
    try:
        yield server
    finally:
        server.stop(signal.SIGKILL if process.poll() is not None else signal.SIGTERM)
        reader.join(10)
        process.stderr.close()
