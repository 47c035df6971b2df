"""Estimates for several architectures against what the engine says that it allocates."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.gguf import read_header_file
from runtime.engine.llama import LlamaEngine
from runtime.engine.llama.log import LOG
from runtime.fit import embedding, estimate, placed, shape_of
from runtime.messages import Embed, WorkerSpec
from schemas import limits
from tests.support.architectures import KINDS, Kind, write

MIB = limits.MIB


@pytest.mark.parametrize("kind", KINDS, ids=[f"{n}-{kind.name}" for n, kind in enumerate(KINDS)])
@pytest.mark.parametrize(
    ("context", "parallel", "kv_type"), [(8192, 1, "f16"), (3000, 3, "q8_0"), (256, 8, "f16")]
)
def test_what_the_engine_allocates(
    tmp_path: Path, kind: Kind, context: int, parallel: int, kv_type: str
) -> None:
    path = write(tmp_path / "model.gguf", kind)
    spec = WorkerSpec(
        str(path),
        context_length=context,
        num_parallel=parallel,
        num_threads=1,
        kv_type=kv_type,
    )
    shape = shape_of(read_header_file(path))
    found = estimate(shape, placed(spec, offloads=False))
    engine = LlamaEngine(spec)
    try:
        assert engine.kv_bytes == pytest.approx(found.cache, abs=0.03 * MIB), "the log rounds"
        assert engine.model_bytes + shape.doubled == found.weights
        allocated = sum(size for _, what, size in engine.buffers if what in {"compute", "output"})
        assert allocated <= found.compute <= 2.5 * allocated + 2 * MIB
    finally:
        engine.close()


@pytest.mark.parametrize("context", [512, 4096])
def test_what_embeddings_take_at_most(tmp_path: Path, context: int) -> None:
    path = write(tmp_path / "model.gguf", KINDS[1])
    spec = WorkerSpec(str(path), context_length=context, num_threads=1)
    engine = LlamaEngine(spec)
    try:
        allocated = 0
        for text in ("short", "longer than a small context has room for " * 40):
            LOG.clear()
            engine.submit(Embed(1, (text,), truncate=True))
            allocated = max(allocated, sum(size for _, _, size in LOG.buffers()))
    finally:
        engine.close()
    found = embedding(shape_of(read_header_file(path)), spec)
    assert allocated <= found <= 1.5 * allocated + 2 * MIB
