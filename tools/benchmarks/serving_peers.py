"""The servers that are measured beside each other: ours, and llama-server of the same llama.cpp."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

from tools.benchmarks.process import BenchError
from tools.benchmarks.site import Bench, Site
from tools.benchmarks.tokens import ended, free_port

NAME: Final = "library/smollm2:135m"
_START_SECONDS: Final = 60
_PAUSE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Setting:
    """What both servers are started with.

    Attributes:
        slots: Answers made at once.
        context: Tokens of each.
        threads: That compute.
    """

    slots: int
    context: int
    threads: int


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that is up.

    Attributes:
        name: For tables.
        port: On this machine.
        pid: Of its first process.
    """

    name: str
    port: int
    pid: int


class Servers:
    """Starts both.

    Args:
        bench: Where the commands are.
        site: Has the model in its store.
        store: Of the site.
        model: The same as a file.
        program: llama-server.
    """

    def __init__(self, bench: Bench, site: Site, store: Path, model: Path, program: Path) -> None:
        self._bench = bench
        self._logs = site.folder
        self._store = store
        self._model = model
        self._program = program

    @contextmanager
    def ours(self, setting: Setting) -> Iterator[Peer]:
        """``sealift serve``, ready to take requests; the model is loaded by the first one."""
        port = free_port()
        environment = {
            **os.environ,
            "SEALIFT_HOME": str(self._store),
            "SEALIFT_HOST": f"127.0.0.1:{port}",
            "SEALIFT_NUM_THREADS": str(setting.threads),
            "SEALIFT_NUM_PARALLEL": str(setting.slots),
            "SEALIFT_CONTEXT_LENGTH": str(setting.context),
            "SEALIFT_KEEP_ALIVE": "-1",
        }
        command = [self._bench.command("sealift"), "serve"]
        with self._started(command, environment, port, "/") as pid:
            yield Peer("sealift serve", port, pid)

    @contextmanager
    def theirs(self, setting: Setting, *options: str) -> Iterator[Peer]:
        """``llama-server``, its model loaded."""
        port = free_port()
        command = [str(self._program), "--model", str(self._model), "--host", "127.0.0.1"]
        command += ["--port", str(port), "--parallel", str(setting.slots)]
        command += ["--ctx-size", str(setting.slots * setting.context)]
        command += ["--threads", str(setting.threads), "--threads-batch", str(setting.threads)]
        with self._started([*command, *options], dict(os.environ), port, "/health") as pid:
            yield Peer("llama-server", port, pid)

    @contextmanager
    def both(self, setting: Setting, *options: str) -> Iterator[tuple[Peer, Peer]]:
        """Ours and theirs; the one that is not asked idles."""
        with self.ours(setting) as ours, self.theirs(setting, *options) as theirs:
            yield ours, theirs

    @contextmanager
    def _started(
        self, command: list[str], environment: dict[str, str], port: int, path: str
    ) -> Iterator[int]:
        log = self._logs / f"{Path(command[0]).name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        with ended(process):
            _wait_until_up(process, port, path, log)
            yield process.pid


def _wait_until_up(process: subprocess.Popen[Any], port: int, path: str, log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        if _is_up(port, path):
            return
        time.sleep(_PAUSE)
    end = log.read_text(errors="replace")[-1000:].strip()
    msg = f"{process.args!r} did not come up: {end}"
    raise BenchError(msg)


def _is_up(port: int, path: str) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
