"""Pictures, from a job to its answer: a tiny projector in the confined worker, through libmtmd."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runtime.launcher.client import Launcher
from runtime.messages import (
    Chat,
    Event,
    Failed,
    Finished,
    Image,
    Job,
    Message,
    Piece,
    Sampling,
    Started,
    Tokenize,
    Tokenized,
    WorkerSpec,
)
from runtime.worker.client import Worker
from schemas.errors import LoadFailed
from tests.support.pictures import png
from tests.support.vision import (
    BLUE,
    IMAGE_TOKENS,
    RED,
    grey_jpeg,
    picture,
    write_projector,
    write_text,
)

WORDS = "What is this? Say it in a few short words. "
CONTEXT = 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eyes")
    write_text(folder / "model.gguf")
    write_projector(folder / "mmproj.gguf")
    return folder


@asynccontextmanager
async def seeing(
    folder: Path, projector: str = "mmproj.gguf", *, model: str = "model.gguf", batch: int = 512
) -> AsyncIterator[Worker]:
    launcher = Launcher.start()
    try:
        spec = WorkerSpec(
            str(folder / model),
            context_length=CONTEXT,
            num_parallel=3,
            num_threads=1,
            num_batch=batch,
            projector_path=str(folder / projector) if projector else "",
        )
        worker = await Worker.start(launcher, spec, 60)
        try:
            yield worker
        finally:
            await worker.stop()
    finally:
        launcher.close()


def ask(number: int, *images: str, words: str = WORDS, seed: int = -1, most: int = 12) -> Job:
    shown = tuple(Image(data, at=8) for data in images)
    sampling = Sampling(temperature=0.0, seed=seed, num_predict=most, logprobs=True)
    return Job(number, Chat((Message("user", words, images=shown),)), sampling, truncate=False)


async def collect(worker: Worker, job: Job) -> list[Event]:
    return [event async for event in worker.run(job)]


def likelihoods(events: list[Event]) -> list[float]:
    assert isinstance(events[-1], Finished), events[-1]
    pieces = [event for event in events if isinstance(event, Piece)]
    return [entry["logprob"] for piece in pieces for entry in piece.logprobs]


def error(events: list[Event]) -> str:
    assert isinstance(events[-1], Failed)
    return f"{events[-1].code}: {events[-1].what} ({events[-1].why})"


async def test_another_picture_gives_another_answer_and_the_same_one_the_same(
    folder: Path,
) -> None:
    async with seeing(folder) as worker:
        assert worker.ready.sandbox["seccomp"].startswith("enforced")
        blind = await collect(worker, ask(1))
        red = await collect(worker, ask(2, RED))
        again = await collect(worker, ask(3, RED))
        blue = await collect(worker, ask(4, BLUE))
        both = await collect(worker, ask(5, RED, BLUE))
        swapped = await collect(worker, ask(6, BLUE, RED))
    found = [likelihoods(events) for events in (blind, red, blue, both, swapped)]
    assert all(a != pytest.approx(b, abs=0.05) for n, a in enumerate(found) for b in found[:n])
    assert likelihoods(again) == pytest.approx(likelihoods(red), abs=0.01)
    assert isinstance(blind[0], Started)
    assert isinstance(red[0], Started)
    assert isinstance(again[0], Started)
    assert red[0].prompt_tokens == blind[0].prompt_tokens + IMAGE_TOKENS
    assert again[0].cached_tokens > IMAGE_TOKENS, "the picture is not computed again"


async def test_where_a_picture_stands_counts(folder: Path) -> None:
    async with seeing(folder) as worker:
        first = await collect(worker, ask(1, RED))
        moved = ask(2).prompt
        assert isinstance(moved, Chat)
        message = Message("user", WORDS, images=(Image(RED, at=len(WORDS)),))
        second = await collect(worker, Job(3, Chat((message,)), ask(3).sampling))
    assert likelihoods(first) != likelihoods(second)


async def test_a_picture_is_read_between_the_steps_of_others(folder: Path) -> None:
    async with seeing(folder) as worker:
        alone = likelihoods(await collect(worker, ask(1, BLUE, seed=7)))
        text_alone = likelihoods(await collect(worker, ask(2, words="Tell me.", seed=7, most=100)))
        answers = await asyncio.gather(
            collect(worker, ask(3, words="Tell me.", seed=7, most=100)),
            collect(worker, ask(4, BLUE, seed=7)),
            collect(worker, ask(5, RED, words="Another question.", seed=7)),
            collect(worker, ask(6, BLUE, RED, words="A fourth in the queue.")),
        )
    assert likelihoods(answers[0]) == text_alone, "a seed's answer does not depend on company"
    assert likelihoods(answers[1]) == alone
    assert all(isinstance(events[-1], Finished) for events in answers)


async def test_marks_of_pictures_typed_by_a_client_are_text(folder: Path) -> None:
    typed = "<__media__> \ufdd3 <image> "
    async with seeing(folder) as worker:
        plain = await collect(worker, ask(1, words=typed))
        seen = await collect(worker, ask(2, RED, words=typed))
    assert isinstance(plain[0], Started)
    assert isinstance(seen[0], Started)
    assert plain[0].prompt_tokens > len(typed), "every byte of it is a token"
    assert seen[0].prompt_tokens == plain[0].prompt_tokens + IMAGE_TOKENS


async def test_pictures_whose_rows_look_at_each_other(folder: Path) -> None:
    write_projector(folder / "gemma.gguf", kind="gemma3")
    async with seeing(folder, "gemma.gguf") as worker:
        blind = await collect(worker, ask(1))
        red, blue = [await collect(worker, ask(n, data)) for n, data in ((2, RED), (3, BLUE))]
        again = await collect(worker, ask(4, RED, seed=3))
        beside = await asyncio.gather(
            collect(worker, ask(5, RED, seed=3)), collect(worker, ask(6, words="Text.", most=50))
        )
    assert isinstance(blind[0], Started)
    assert isinstance(red[0], Started)
    around = len("<start_of_image>") + len("<end_of_image>")  # no tokens of this vocabulary
    assert red[0].prompt_tokens == blind[0].prompt_tokens + 4 + around
    assert likelihoods(red) != likelihoods(blue)
    assert likelihoods(beside[0]) == likelihoods(again)
    async with seeing(folder, "gemma.gguf", batch=3) as worker:
        found = error(await collect(worker, ask(1, RED)))
        assert found == (
            "unsupported: the image takes too many tokens at once (4, and 3 can be computed together)"
        )
        assert isinstance((await collect(worker, ask(2)))[-1], Finished)


async def test_pictures_in_two_dimensions(folder: Path) -> None:
    write_text(folder / "qwen.gguf", architecture="qwen2vl")
    write_projector(folder / "merger.gguf", kind="qwen2vl_merger")
    tall = picture(9, 99, 200, size=140)  # 5 by 5 patches of 28 pixels: 25 cells, 5 positions
    async with seeing(folder, "merger.gguf", model="qwen.gguf") as worker:
        blind, seen, other, again = [
            await collect(worker, ask(number, *data, seed=5))
            for number, data in enumerate(((), (tall,), (RED,), (tall,)))
        ]
        beside = await asyncio.gather(
            collect(worker, ask(5, tall, seed=5)), collect(worker, ask(6, words="Text.", most=50))
        )
        many = error(await collect(worker, ask(7, *[tall] * 10)))
        full = await collect(worker, ask(8, tall, tall, most=-1))
    assert isinstance(blind[0], Started)
    assert isinstance(seen[0], Started)
    assert seen[0].prompt_tokens > blind[0].prompt_tokens + 25, "cells, not positions"
    assert likelihoods(seen) == likelihoods(again) == likelihoods(beside[0]) != likelihoods(other)
    assert many.startswith("prompt-too-long"), "cells run out before positions"
    last = full[-1]
    assert isinstance(last, Finished)
    assert last.prompt_tokens + last.output_tokens <= CONTEXT + 1


async def test_tokens_of_pictures_are_counted(folder: Path) -> None:
    async with seeing(folder) as worker:
        counted = []
        for number, job in enumerate((ask(1), ask(2, RED, BLUE))):
            events = [e async for e in worker.run(Tokenize(number, job.prompt))]
            assert isinstance(events[-1], Tokenized)
            counted.append(len(events[-1].tokens))
    assert counted[1] == counted[0] + 2 * IMAGE_TOKENS


async def test_a_jpeg_is_seen(folder: Path) -> None:
    async with seeing(folder) as worker:
        seen = await collect(worker, ask(1, grey_jpeg(), seed=1))
        same = await collect(worker, ask(2, grey_jpeg(), seed=1))
        red = await collect(worker, ask(3, RED, seed=1))
    assert likelihoods(seen) == likelihoods(same) != likelihoods(red)


async def test_what_is_no_picture_fails_alone(folder: Path) -> None:
    good = bytearray(base64.b64decode(RED))
    cut = base64.b64encode(good[:60]).decode()
    flipped = bytearray(good)
    flipped[50] ^= 0xFF
    bomb = base64.b64encode(png(1, 1)).decode()  # one pixel by its header, four in its data
    jpeg = base64.b64encode(b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0" * 3).decode()
    wide = base64.b64encode(png(60_000, 60_000)).decode()
    broken = {"cut": cut, "flipped": base64.b64encode(flipped).decode(), "bomb": bomb}
    async with seeing(folder) as worker:
        for name, data in {**broken, "jpeg": jpeg, "wide": wide}.items():
            assert "usage: invalid image input" in error(await collect(worker, ask(1, data))), name
        assert likelihoods(await collect(worker, ask(2, RED)))
        assert worker.alive


async def test_too_many_pictures_for_the_context(folder: Path) -> None:
    many = [picture(n, 2 * n, 3 * n) for n in range(1, 20)]
    async with seeing(folder) as worker:
        assert error(await collect(worker, ask(1, *many))).startswith("prompt-too-long")
        fits = await collect(worker, ask(2, *many[:10]))
        assert isinstance(fits[-1], Finished)
        # Where messages may be dropped, their pictures go with them.
        old = Message("user", "Old.", images=tuple(Image(data) for data in many))
        new = Message("user", "New.", images=(Image(RED),))
        events = await collect(worker, Job(3, Chat((old, new)), ask(3).sampling))
        assert isinstance(events[0], Started)
        assert events[0].prompt_tokens < 3 * IMAGE_TOKENS


async def test_an_answer_that_fills_the_context_ends(folder: Path) -> None:
    async with seeing(folder) as worker:
        job = ask(1, RED, most=-1)
        events = await collect(worker, Job(1, job.prompt, job.sampling, shift=True))
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.reason in ("stop", "length")
    assert last.prompt_tokens + last.output_tokens <= CONTEXT + 1, "the last token is not decoded"


async def test_a_model_without_a_projector_does_not_see(folder: Path) -> None:
    async with seeing(folder, projector="") as worker:
        found = error(await collect(worker, ask(1, RED)))
    assert "this model is missing data required for image input" in found


async def test_a_projector_of_another_width_is_refused(folder: Path) -> None:
    write_projector(folder / "wide.gguf", width=96)
    with pytest.raises(LoadFailed, match="projector") as caught:
        async with seeing(folder, "wide.gguf"):
            pass
    assert "mismatch between text model (n_embd = 64) and mmproj (n_embd = 96)" in caught.value.why


@pytest.mark.parametrize("name", ["model.gguf", "noise.gguf", "unknown.gguf"])
async def test_what_is_no_projector_is_refused(folder: Path, name: str) -> None:
    (folder / "noise.gguf").write_bytes(b"GGUF" + bytes(range(256)))
    write_projector(folder / "unknown.gguf", kind="crystal_ball")
    with pytest.raises(LoadFailed, match="the engine refuses the model's projector"):
        async with seeing(folder, name):
            pass
