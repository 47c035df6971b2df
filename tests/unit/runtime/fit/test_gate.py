"""Who gets in: beside whom a model fits, what an error tells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from runtime.fit import Held, Memory, Need, Room, Verdict, devices
from runtime.messages import WorkerSpec
from schemas import limits
from schemas.errors import DoesNotFit, MalformedModel, NotFound
from tests.gguf_files import tiny_gguf
from tests.support.architectures import KINDS, write

GIB = limits.GIB
A = Need("a", mapped=4 * GIB, own=GIB)
B = Need("b", mapped=GIB, own=GIB)


def memory(free: float, most: float = 0) -> Memory:
    room = Room(int(free * GIB) + limits.MEMORY_RESERVE_BYTES, "the machine")
    return Memory(lambda: room, most=int(most * GIB))


@pytest.mark.parametrize(
    ("free", "held", "expected"),
    [
        (5, [], Verdict.FITS),
        (4.9, [], Verdict.NEVER),
        # The kernel lacks what B took for itself already, but not its weights.
        (6, [Held(B, loaded=True)], Verdict.FITS),
        (5.5, [Held(B, loaded=True)], Verdict.LATER),
        (4.5, [Held(B, loaded=True)], Verdict.LATER),
        (3.9, [Held(B, loaded=True)], Verdict.NEVER),
        # While B loads, the kernel has seen nothing of it.
        (7, [Held(B, loaded=False)], Verdict.FITS),
        (6.5, [Held(B, loaded=False)], Verdict.LATER),
        # The same file under two names is in memory once.
        (5, [Held(A, loaded=True)], Verdict.FITS),
        (6, [Held(A, loaded=False)], Verdict.FITS),
        (5.9, [Held(A, loaded=False)], Verdict.LATER),
    ],
)
def test_beside_others(free: float, held: Sequence[Held], expected: Verdict) -> None:
    assert memory(free).judge(A, held) is expected


@pytest.mark.parametrize(
    ("most", "held", "expected"),
    [
        (5, [], Verdict.FITS),
        (4.9, [], Verdict.NEVER),
        (6, [Held(B, loaded=True)], Verdict.LATER),
        (7, [Held(B, loaded=True)], Verdict.FITS),
        (6, [Held(A, loaded=True)], Verdict.FITS),
    ],
)
def test_a_bound_of_the_settings(most: float, held: Sequence[Held], expected: Verdict) -> None:
    assert memory(100, most).judge(A, held) is expected


def test_a_kernel_that_tells_nothing_keeps_nobody_out() -> None:
    assert Memory(lambda: None).judge(A, [Held(B, loaded=True)]) is Verdict.FITS


async def test_the_need_of_a_file(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "tiny.gguf")
    need = await memory(1).need(WorkerSpec(str(path)))
    assert need.file == str(path)
    assert need.mapped == (8 * 32 + 32) * 4
    assert need.own > 50 * limits.MIB
    (tmp_path / "broken.gguf").write_bytes(b"GGUX")
    with pytest.raises(MalformedModel):
        await memory(1).need(WorkerSpec(str(tmp_path / "broken.gguf")))
    with pytest.raises(NotFound):
        await memory(1).need(WorkerSpec(str(tmp_path / "nowhere.gguf")))


async def test_the_error_has_figures_and_a_hint(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "tiny.gguf")
    spec = WorkerSpec(str(path), context_length=2048, num_parallel=3)
    little = memory(0.01)
    error = little.refusal(spec, await little.need(spec), [])
    assert isinstance(error, DoesNotFit)
    assert error.http_status == 500
    assert re.fullmatch(
        r"model requires more system memory \([0-9]+\.[0-9] MiB\) than is available \(10\.2 MiB\)",
        error.what,
    )
    assert "3 x 2048 tokens" in error.why
    assert error.why.endswith("the limit is the machine")
    assert "smaller model" in error.hint
    bounded = memory(100, 0.01)
    assert "max_memory" in bounded.refusal(spec, await bounded.need(spec), []).why


async def test_the_hint_is_what_would_help(tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", KINDS[0])
    spec = WorkerSpec(str(path), context_length=16_384, prompt_cache=512 * limits.MIB)
    for free, hint in (
        (0.4, "Set prompt_cache to "),
        (0.2, "Ask for at most 3840 "),
        (0.1, "Take a smaller model"),
    ):
        short = memory(free)
        error = short.refusal(spec, await short.need(spec), [])
        assert error.hint.startswith(hint), error.line()


def test_an_engine_for_accelerators_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "llama_cpp"
    (package / "lib").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "llama_cpp", raising=False)
    for name in ("libggml-base.so", "libggml-cpu.so.0", "libggml-cpu-haswell.so", "libllama.so"):
        (package / "lib" / name).touch()
    assert not devices.offloads()
    (package / "lib" / "libggml-cuda.so").touch()
    assert devices.offloads()
