"""One real prompt through a real, confined worker: does the engine work on this processor?

An engine built for another processor loads, and dies at its first long prompt: only decoding shows
it.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from typing import Final

from runtime.launcher.client import Launcher
from runtime.messages import Chat, Failed, Finished, Job, Message, Sampling, WorkerSpec
from runtime.worker.client import Worker
from schemas.errors import LoadFailed

# More than eight tokens: a shorter prompt does not reach the processor's matrix units.
_PROMPT: Final = "Answer in one short sentence: which colour has the sky on a clear day, and why?"
_TOKENS: Final = 8
_CONTEXT: Final = 512
_JOB: Final = 1


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it.

    Attributes:
        engine: As it calls itself.
        prompt_tokens: Decoded together.
        output_tokens: Made one by one.
        prompt_rate: Tokens per second.
        output_rate: Tokens per second.
    """

    engine: str
    prompt_tokens: int
    output_tokens: int
    prompt_rate: float
    output_rate: float


def decode(spec: WorkerSpec, timeout: float) -> Trial:
    """Load a model in a fresh worker, ask it something, and end the worker.

    Args:
        spec: The model; its context is made small.
        timeout: Seconds for loading, and again for the answer.

    Raises:
        LoadFailed: The engine refuses the model, fails at the prompt, or takes too long.
        SandboxUnavailable: The worker cannot be confined here.
        WorkerFailed: It died: most likely the engine was built for another processor.
    """
    with closing(Launcher.start()) as launcher:
        return asyncio.run(_decode(launcher, replace(spec, context_length=_CONTEXT), timeout))


async def _decode(launcher: Launcher, spec: WorkerSpec, seconds: float) -> Trial:
    worker = await Worker.start(launcher, spec, seconds)
    try:
        async with asyncio.timeout(seconds):
            finished = await _answer(worker)
    except TimeoutError:
        raise LoadFailed("the engine does not answer", why=f"more than {seconds:g} s") from None
    finally:
        await worker.stop()
    return Trial(
        engine=worker.ready.engine,
        prompt_tokens=finished.prompt_tokens,
        output_tokens=finished.output_tokens,
        prompt_rate=finished.prompt_tokens * 1e9 / max(finished.prompt_ns, 1),
        output_rate=finished.output_tokens * 1e9 / max(finished.eval_ns, 1),
    )


async def _answer(worker: Worker) -> Finished:
    prompt = Chat((Message("user", _PROMPT),))
    sampling = Sampling(temperature=0.0, num_predict=_TOKENS)
    async with aclosing(worker.run(Job(_JOB, prompt, sampling))) as events:
        async for event in events:
            if isinstance(event, Failed):
                raise LoadFailed(event.what, why=event.why, hint=event.hint)
            if isinstance(event, Finished):
                return event
    raise LoadFailed("the engine stopped without an answer")
