"""Clients that leave at random, with a real model: whoever stays is answered, and all is as before."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.serving import install, serving
from tools import storm

pytestmark = pytest.mark.model


def test_clients_that_leave_at_random(model_gguf: Path, tmp_path: Path) -> None:
    install(tmp_path / "home", model_gguf, "library/demo:latest")
    settings = {"num_parallel": "4", "context_length": "512", "num_threads": "1"}
    with serving(tmp_path / "home", **settings) as server:
        before = asyncio.run(storm.ask(server.port, "demo"))
        pid = server.process.pid
        found = asyncio.run(storm.storm(server.port, "demo", 200, 12, 1, lambda: storm.size(pid)))
        after = asyncio.run(storm.ask(server.port, "demo"))
        [loaded] = server.get("/api/ps")["models"]
    storm.check(found, before, after)
    assert found.answered > 50
    assert sum(found.left.values()) > 50
    assert loaded["name"] == "demo:latest"
