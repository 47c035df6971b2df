"""``sealift serve`` as a process, sandbox on: how it starts, what it refuses, how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gguf_files import tiny_gguf
from tests.serving import MAIN, Server, install, serving


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    install(folder / "home", tiny_gguf(folder / "tiny.gguf"), "library/tiny:latest")
    return folder / "home"


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    with serving(home) as found:
        yield found


def refused(home: Path, host: str) -> tuple[int, str]:
    """Exit code and standard error of a server that must not start."""
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "serve"],
        env={**os.environ, "SEALIFT_HOME": str(home), "SEALIFT_HOST": host},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "host", ["0.0.0.0:0", "192.0.2.1:0", "[::]:0", "evil.example:0", "127.0.0.1:x"]
)
def test_only_loopback_is_served(home: Path, host: str) -> None:
    code, text = refused(home, host)
    assert code == 2
    assert "Traceback" not in text
    assert len(text.strip().splitlines()) == 1


def test_a_port_in_use_is_told(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, text = refused(home, f"127.0.0.1:{taken.getsockname()[1]}")
    assert code == 40
    assert "the port is in use" in text


def test_it_announces_its_port_and_its_sandbox(server: Server) -> None:
    assert server.port > 0
    assert "egress off: seccomp enforced" in server.lines[0]
    assert server.get("/api/tags")["models"][0]["name"] == "tiny:latest"
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t1" in status


def test_egress_is_off(server: Server) -> None:
    document = server.get("/api/sealift/egress")
    assert document["egress"] == "off"
    (front_end,) = document["processes"]
    assert {attempt["outcome"] for attempt in front_end["attempts"]} == {"refused"}


def test_the_catalogue_can_be_read_and_written_inside_the_sandbox(server: Server) -> None:
    for name in ("a/b:1", "c:2"):
        status, _, _ = server.request("POST", "/api/copy", {"source": "tiny", "destination": name})
        assert status == 200
    assert server.post("/api/show", {"model": "c:2"})["details"]["family"] == "llama"
    for name in ("a/b:1", "c:2"):
        status, _, content = server.request("DELETE", "/api/delete", {"model": name})
        assert (status, content) == (200, b"")


def test_a_model_that_no_engine_can_run_is_one_clear_error(server: Server) -> None:
    status, _, content = server.request("POST", "/api/generate", {"model": "tiny", "prompt": "x"})
    assert status == 500
    assert b"load-failed" in content
    assert server.get("/healthz") == {"status": "ok"}


def test_ipv6_loopback(home: Path) -> None:
    with serving(home, host="[::1]:0") as server:
        assert server.lines[0].startswith("listening on http://[::1]:")
        assert server.get("/healthz") == {"status": "ok"}


def test_a_host_without_the_serving_part_is_told_what_to_install(home: Path) -> None:
    hidden = "import sys; sys.modules['aiohttp'] = None; " + MAIN
    done = subprocess.run(
        [sys.executable, "-c", hidden, "serve"],
        env={**os.environ, "SEALIFT_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 46
    assert "sealift[serve]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_and_well(home: Path, number: int) -> None:
    with serving(home) as server:
        server.get("/healthz")
        with server.connect():  # an idle client does not hold it up
            began = time.monotonic()
            assert server.stop(number) == 0
            assert time.monotonic() - began < 5
        children = Path(f"/proc/{server.process.pid}/task")
        assert not children.exists()


def test_logs_tell_no_prompts(server: Server) -> None:
    server.request("POST", "/api/generate", {"model": "tiny", "prompt": "my secret words"})
    server.request("GET", "/healthz?secret=words")
    time.sleep(0.2)
    text = "".join(server.lines)
    assert "POST /api/generate 500" in text
    assert "secret" not in text
