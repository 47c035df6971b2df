"""Estimates against the real engine: what it says that it allocates, and what the kernel counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from registry.gguf import read_header_file
from runtime.engine.llama import LlamaEngine
from runtime.fit import Shape, estimate, placed, shape_of
from runtime.fit.shape import COPIED
from runtime.messages import WorkerSpec
from schemas import limits
from tests.serving import Server, install, serving
from tests.support.processes import workers

pytestmark = pytest.mark.model
NAME = "smollm2:135m"
QUANTIZATION = "Q4_1"
MIB = limits.MIB
# Of the resident set of a worker that has decoded a full batch.
TOLERANCE = 0.15


@pytest.fixture(scope="module")
def shape(model_gguf: Path) -> Shape:
    return shape_of(read_header_file(model_gguf))


@pytest.mark.parametrize(
    ("context", "parallel", "kind", "flash"),
    [
        (512, 1, "f16", "auto"),
        (4096, 4, "f16", "auto"),
        (2048, 2, "q8_0", "auto"),
        (2048, 2, "q4_0", "on"),
        (1000, 3, "f16", "off"),
    ],
)
def test_what_the_engine_allocates(
    model_gguf: Path, shape: Shape, context: int, parallel: int, kind: str, flash: str
) -> None:
    spec = WorkerSpec(
        str(model_gguf),
        context_length=context,
        num_parallel=parallel,
        num_threads=1,
        kv_type=kind,
        flash_attention=flash,
    )
    engine = LlamaEngine(spec)
    try:
        found = estimate(shape, placed(spec, offloads=False))
        buffers = {what: size for _, what, size in engine.buffers}
        assert abs(engine.kv_bytes - found.cache) <= MIB // 10, "the log rounds"
        assert abs(engine.model_bytes + shape.doubled - found.weights) <= MIB
        assert bool(engine.copied_bytes) == (QUANTIZATION in COPIED)
        allocated = buffers["compute"] + buffers["output"]
        print(f"compute {allocated / MIB:.1f} MiB, estimated {found.compute / MIB:.1f}")
        assert allocated <= found.compute <= allocated * 1.4 + 2 * MIB
        assert engine.device_bytes == 0
    finally:
        engine.close()


# -- a server ---------------------------------------------------------------------------------------


def worker_of(server: Server) -> psutil.Process:
    (worker,) = workers(server.process.pid)
    return worker


def resident_of(worker: psutil.Process) -> int:
    """Bytes in memory; of a file whose tensors were copied none, for the kernel may drop them."""
    dropped = sum(
        region.rss
        for region in worker.memory_maps()
        if QUANTIZATION in COPIED and "/blobs/sha256/" in region.path
    )
    return int(worker.memory_info().rss) - dropped


@pytest.fixture(scope="module")
def home(model_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit") / "home"
    install(folder, model_gguf, f"library/{NAME}")
    return folder


@pytest.fixture(scope="module")
def small(home: Path) -> Iterator[Server]:
    """A server whose models may take 320 MiB."""
    with serving(home, num_threads="1", max_memory="320") as found:
        yield found


def chat(server: Server, context: int, words: int = 2) -> tuple[int, dict[str, object]]:
    body = {
        "model": NAME,
        "messages": [{"role": "user", "content": "word " * words}],
        "options": {"num_ctx": context, "num_predict": 2, "temperature": 0},
        "stream": False,
    }
    status, _, content = server.request("POST", "/api/chat", body)
    return status, json.loads(content)


@pytest.mark.parametrize(
    ("settings", "context"),
    [({"num_parallel": "2"}, 4096), ({"kv_cache_type": "q8_0", "num_parallel": "4"}, 2048)],
)
def test_what_the_kernel_counts(
    home: Path, shape: Shape, settings: dict[str, str], context: int
) -> None:
    with serving(home, num_threads="1", prompt_cache="0", **settings) as server:
        assert chat(server, context, words=560)[0] == 200
        resident = resident_of(worker_of(server))
    spec = WorkerSpec(
        "",
        context_length=context,
        num_parallel=int(settings["num_parallel"]),
        kv_type=settings.get("kv_cache_type", "f16"),
    )
    estimated = estimate(shape, placed(spec, offloads=False))
    found = estimated.total
    if QUANTIZATION in COPIED:  # what is computed with is the copy; the file's pages may go
        found = estimated.own + shape.weights
    print(f"resident {resident / MIB:.1f} MiB, estimated {found / MIB:.1f} MiB")
    assert abs(found - resident) <= TOLERANCE * resident


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(small: Server) -> None:
    status, document = chat(small, 8192)
    assert status == 500
    assert document["code"] == "does-not-fit"
    error = str(document["error"])
    assert error.startswith("model requires more system memory (")
    assert "MiB) than is available (320.0 MiB)" in error
    assert "max_memory" in error
    assert "num_ctx" in error
    assert small.get("/api/ps") == {"models": []}
    assert not workers(small.process.pid)
    status, document = chat(small, 512)
    assert status == 200, document
    status, document = chat(small, 8192)
    assert status == 500
    (loaded,) = small.get("/api/ps")["models"]
    assert loaded["context_length"] == 512, "what was loaded stayed"
    for path in ("/v1/chat/completions", "/v1/messages"):
        ask = {"model": NAME, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        status, _, content = small.request("POST", path, ask)
        assert status == 500
        assert b"model requires more system memory" in content, "4096 tokens are too many"


def sealift(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("sealift"), *arguments],
        env={**os.environ, "SEALIFT_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_command(home: Path, model_gguf: Path, shape: Shape) -> None:
    done = sealift(home, "fit", NAME, "--ctx", "8192", "--parallel", "4", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    spec = WorkerSpec("", context_length=8192, num_parallel=4, prompt_cache=512 * MIB)
    assert document["need"] == estimate(shape, placed(spec, offloads=False)).document()
    assert document["fits"]
    assert document["memory"]["available"] > document["memory"]["free"]
    assert document["longest_context"]["f16"] == 8192
    page = sealift(home, "fit", str(model_gguf), "--ctx", "8192", "--kv-type", "q8_0")
    assert page.returncode == 0
    assert "It fits." in page.stdout
    assert "q8_0" in page.stdout
    assert max(map(len, page.stdout.splitlines())) <= 80
    short = sealift(home, "fit", NAME, "--ctx", "8192", SEALIFT_MAX_MEMORY="320")
    assert short.returncode == 56
    assert "IT DOES NOT FIT" in short.stdout
    assert sealift(home, "fit", NAME, "--ctx", "9000").returncode == 2
    assert sealift(home, "fit", NAME, "--kv-type", "q1").returncode == 2
    assert sealift(home, "fit", "nope").returncode == 4


def test_what_belongs_to_accelerators_is_taken(model_gguf: Path) -> None:
    spec = WorkerSpec(
        str(model_gguf),
        context_length=256,
        num_threads=1,
        num_gpu=10,
        main_gpu=0,
        split_mode="row",
        tensor_split="3,1",
    )
    engine = LlamaEngine(spec)
    try:
        assert engine.device_bytes == 0, "this engine computes on the processor"
    finally:
        engine.close()
