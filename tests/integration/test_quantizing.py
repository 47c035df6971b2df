"""``quantize`` of ``/api/create``: a confined process writes the smaller weights, and nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from registry.reference import Reference
from registry.store import Store
from runtime.launcher.client import Launcher
from runtime.quantizing import KINDS, parse_kind, quantize
from schemas.errors import LoadFailed, UnsupportedRequest, WorkerFailed
from tests.serving import Server, install, serving
from tests.support.vision import write_projector, write_text
from tests.support.waiting import eventually, gone

BASE = "library/whole:1"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantizing")
    install(folder / "home", write_text(folder / "whole.gguf"), BASE)
    return folder / "home"


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    with serving(home, context_length="256", num_threads="1") as started:
        yield started


def create(server: Server, model: str, **fields: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/api/create", json={"model": model, **fields}, timeout=60)


def weights(home: Path, name: str) -> Path:
    with Store.open(home) as store:
        record = store.catalogue.resolve(Reference.parse(name))
        assert record is not None
        return store.blobs.path(record.manifest.layers[0].digest)


def test_a_model_in_fewer_bits(server: Server, home: Path) -> None:
    done = create(server, "small", **{"from": "whole:1"}, quantize="q8_0", system="Be brief.")
    assert done.status_code == 200, done.text
    lines = [line for line in done.text.splitlines() if "quantizing" in line]
    assert "quantizing F32 model to Q8_0" in lines[0]
    assert done.text.splitlines()[-1] == '{"status": "success"}'
    shown = httpx.post(f"{server.url}/api/show", json={"model": "small"}).json()
    assert shown["details"]["quantization_level"] == "Q8_0"
    assert shown["system"] == "Be brief."
    small, whole = weights(home, "library/small:latest"), weights(home, BASE)
    assert small.stat().st_size < 0.5 * whole.stat().st_size
    assert hashlib.sha256(small.read_bytes()).hexdigest() == small.name
    body = {"model": "small", "prompt": "Hi", "stream": False, "options": {"num_predict": 4}}
    answer = httpx.post(f"{server.url}/api/generate", json=body, timeout=60).json()
    assert answer["eval_count"] == 4
    assert not list((home / "staging").iterdir())


def test_the_type_that_it_has_already_needs_no_work(server: Server, home: Path) -> None:
    assert create(server, "half", **{"from": "whole:1"}, quantize="F16").status_code == 200
    done = create(server, "again", **{"from": "half"}, quantize="f16")
    assert done.status_code == 200
    assert "quantizing" not in done.text
    assert weights(home, "library/again:latest") == weights(home, "library/half:latest")


def test_an_uploaded_file(server: Server, tmp_path: Path) -> None:
    data = write_text(tmp_path / "m.gguf", seed=5).read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert httpx.post(f"{server.url}/api/blobs/{digest}", content=data).status_code == 201
    fields = {"files": {"m.gguf": digest}, "quantize": "Q4_K", "stream": False}
    done = create(server, "uploaded", **fields)
    assert done.json() == {"status": "success"}
    shown = httpx.post(f"{server.url}/api/show", json={"model": "uploaded"}).json()
    assert shown["details"]["quantization_level"] == "Q4_K_M"


def test_a_projector_stays_as_it_is(server: Server, home: Path, tmp_path: Path) -> None:
    files = {}
    for path in (write_projector(tmp_path / "eye.gguf"), write_text(tmp_path / "mind.gguf")):
        data = path.read_bytes()
        files[path.name] = f"sha256:{hashlib.sha256(data).hexdigest()}"
        httpx.post(f"{server.url}/api/blobs/{files[path.name]}", content=data)
    done = create(server, "sees", files=files, quantize="q8_0")
    assert '{"status": "success"}' in done.text, done.text
    with Store.open(home) as store:
        record = store.catalogue.resolve(Reference.parse("library/sees:latest"))
        assert record is not None
        eye, mind = record.manifest.layers[:2]
    assert str(eye.digest) == files["eye.gguf"]
    assert str(mind.digest) != files["mind.gguf"]


def test_what_is_quantized_is_not_quantized_again(server: Server) -> None:
    create(server, "once", **{"from": "whole:1"}, quantize="q8_0")
    done = create(server, "twice", **{"from": "once"}, quantize="q4_0")
    assert done.status_code == 400
    assert "only supported for F16 and F32 models" in done.json()["error"]


def test_the_type_is_named_as_clients_do() -> None:
    assert [parse_kind(kind.lower()) for kind in KINDS] == list(KINDS)
    assert parse_kind(" q4_K ") == "Q4_K_M"
    with pytest.raises(UnsupportedRequest, match="unsupported quantization type q9 - supported"):
        parse_kind("q9")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "out.gguf"
    path.touch()
    return path


async def ticks(source: Path, target: Path, *, kill: bool = False) -> None:
    launcher = Launcher.start()
    try:
        async with aclosing(quantize(launcher, source, target, "Q8_0")) as work:
            async for _ in work:
                for child in psutil.Process(launcher.pid).children() if kill else ():
                    os.kill(child.pid, signal.SIGKILL)
    finally:
        launcher.close()


async def test_a_file_that_the_engine_refuses(target: Path, tmp_path: Path) -> None:
    source = tmp_path / "broken.gguf"
    source.write_bytes(write_text(tmp_path / "m.gguf").read_bytes()[:2000])
    with pytest.raises(LoadFailed, match="cannot quantize"):
        await ticks(source, target)


async def test_a_process_that_dies(target: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkerFailed, match="SIGKILL"):
        await ticks(write_text(tmp_path / "m.gguf"), target, kill=True)


async def test_who_stops_listening_ends_it(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_text(tmp_path / "m.gguf")
    launcher = Launcher.start()
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    spawn = launcher.spawn

    async def noted() -> tuple[socket.socket, int]:
        channel, pid = await spawn()
        started.set_result(pid)
        return channel, pid

    monkeypatch.setattr(launcher, "spawn", noted)
    try:
        work = quantize(launcher, source, target, "Q2_K")
        listening = asyncio.create_task(anext(work))
        pid = await started
        listening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listening
        await work.aclose()
        await asyncio.to_thread(eventually, lambda: gone(pid))
    finally:
        launcher.close()
