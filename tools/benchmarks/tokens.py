"""Tokens per second of one client of the server against llama-cpp-python alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from typing import Any, Final

from tools.benchmarks import neighbours
from tools.benchmarks.process import BenchError
from tools.benchmarks.results import Section, at_least, spread, table
from tools.benchmarks.site import Bench, Site

_NAME: Final = "library/smollm2:135m"
_TOKENS: Final = 128
_CONTEXT: Final = 2048
_AIM: Final = 0.95
_START_SECONDS: Final = 60
_ANSWER_SECONDS: Final = 300
_SUBJECTS: Final = (
    "a lighthouse", "the sea", "a long train ride", "an old violin", "winter in the hills",
    "a market at dawn", "the first telescope", "a lost letter", "two sisters", "a garden wall",
    "the night shift", "a paper boat", "an empty theatre", "the last ferry", "a stubborn mule",
)  # fmt: skip
_HOW: Final = """\
SmolLM2-135M-Instruct (Q4_1), {tokens} tokens, greedy, one client, {threads} threads, a context of
{context}, flash attention, the same build of llama.cpp; all of them loaded, and the same question
for all three in turn, a new one in every round, so that only the template's beginning is cached.
`sealift serve` answers `/v1/chat/completions` as a stream over HTTP, from its sandboxed worker;
beside it llama-cpp-python's `create_chat_completion(stream=True)`, and a bare loop over llama.cpp's
decode, sample and detokenise. Rate: tokens by the time from the question to the end of the answer;
after the first: tokens by the time from the first token to the end. {rounds} rounds; medians."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        tokens: How many came.
        seconds: From the question to the end.
        first: From the question to the first token, in seconds.
        text: The answer.
    """

    tokens: int
    seconds: float
    first: float
    text: str

    @property
    def rate(self) -> float:
        """Tokens per second over all."""
        return self.tokens / self.seconds

    @property
    def later_rate(self) -> float:
        """Tokens per second after the first one."""
        return (self.tokens - 1) / (self.seconds - self.first)


Ask = Callable[[str], Answer]


def measure(bench: Bench) -> Section:
    """All three in turn.

    Raises:
        BenchError: No model, no engine, or something failed.
    """
    given = os.environ.get("MODEL_GGUF")
    if not given or not Path(given).is_file():
        raise BenchError("MODEL_GGUF does not name the model; run it with `make bench`")
    threads = os.cpu_count() or 1
    rounds = max(2 * bench.pairs, 3)
    site = Site(bench, "tokens")
    try:
        with ExitStack() as stack:
            asks = {
                "server": stack.enter_context(_server(bench, site, Path(given), threads)),
                **stack.enter_context(_bare(bench, Path(given), threads)),
            }
            found = _rounds(bench, asks, rounds)
    finally:
        site.remove()
    return _section(found, threads, rounds)


def _rounds(bench: Bench, asks: dict[str, Ask], rounds: int) -> dict[str, list[Answer]]:
    found: dict[str, list[Answer]] = {name: [] for name in asks}
    names = list(asks)
    number = 0
    while number <= rounds:
        bench.patience.wait()
        own = neighbours.descendants_seconds()
        watch = neighbours.Watch.begin()
        question = f"Tell me a long story about {_SUBJECTS[number % len(_SUBJECTS)]}."
        answers = {}
        # Rotated, so that nobody always comes right after the same neighbour.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            answers[name] = asks[name](question)
        again = bench.patience.again(watch.share(neighbours.descendants_seconds() - own))
        rates = ", ".join(f"{name} {answer.rate:.1f}" for name, answer in answers.items())
        told = " (once more: others used the processors)" if again else ""
        bench.say(f"{number}/{rounds}: {rates} tokens/s{told}")
        if number and not again:  # the first round loads and warms
            for name, answer in answers.items():
                found[name].append(answer)
        number += not again
    return found


def _section(found: dict[str, list[Answer]], threads: int, rounds: int) -> Section:
    server = found["server"]
    rates = {name: [answer.rate for answer in answers] for name, answers in found.items()}
    labels = {
        "server": "`sealift serve`, HTTP stream",
        "chat": "llama-cpp-python, chat stream",
        "low": "llama.cpp loop",
    }
    rows = []
    for name, answers in found.items():
        same = sum(a.text == b.text for a, b in zip(server, answers, strict=True))
        rows.append(
            [
                labels[name],
                f"{median(rates[name]):.1f}",
                f"{median(rates['server']) / median(rates[name]):.3f}",
                spread(rates["server"], rates[name]),
                f"{median(answer.later_rate for answer in answers):.1f}",
                f"{1000 * median(answer.first for answer in answers):.0f}",
                f"{median(answer.tokens for answer in answers):.0f}",
                f"{same}/{len(answers)}",
            ]
        )
    head = ["who", "tokens/s", "server's ratio", "rounds' ratios", "after the first", "first, ms"]
    head += ["tokens", "same text"]
    how = _HOW.format(tokens=_TOKENS, threads=threads, context=_CONTEXT, rounds=rounds)
    figures = tuple(
        at_least(
            f"tokens/s, server / {labels[name]}",
            median(rates["server"]) / median(rates[name]),
            _AIM,
            "{:.3f}",
        )
        for name in ("chat", "low")
    )
    return Section(
        "tokens", "Tokens per second of one client", f"{how}\n\n{table(head, rows)}", figures
    )


@contextmanager
def _bare(bench: Bench, model: Path, threads: int) -> Iterator[dict[str, Ask]]:
    """llama-cpp-python in a process of its own, in both ways."""
    script = Path(__file__).with_name("bare_loop.py")
    command = [bench.command("python"), str(script), str(model), str(threads), str(_CONTEXT)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with ended(process):

        def exchange(request: dict[str, Any] | None) -> dict[str, Any]:
            if process.stdin is None or process.stdout is None:
                raise BenchError("the bare loop has no pipes")
            if request is not None:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                raise BenchError("the bare loop of llama-cpp-python broke")
            answer: dict[str, Any] = json.loads(line)
            return answer

        def ask(how: str) -> Ask:
            return lambda question: Answer(
                **exchange({"how": how, "messages": _messages(question), "tokens": _TOKENS})
            )

        exchange(None)
        yield {"chat": ask("chat"), "low": ask("low")}


@contextmanager
def _server(bench: Bench, site: Site, model: Path, threads: int) -> Iterator[Ask]:
    """A real `sealift serve` with the model imported."""
    bundle = site.folder / "m.bundle.tar"
    site.create(model, bundle, name=_NAME)
    store = site.new_store()
    site.import_bundle(bundle, store)
    port = free_port()
    environment = {
        **os.environ,
        "SEALIFT_HOME": str(store),
        "SEALIFT_HOST": f"127.0.0.1:{port}",
        "SEALIFT_NUM_THREADS": str(threads),
        "SEALIFT_CONTEXT_LENGTH": str(_CONTEXT),
        "SEALIFT_KEEP_ALIVE": "-1",
    }
    log = site.folder / "serve.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [bench.command("sealift"), "serve"], env=environment, stdout=out, stderr=out
        )
    with ended(process):
        _wait_until_up(process, port, log)

        def ask(question: str) -> Answer:
            try:
                return _stream(port, question)
            except (BenchError, OSError, HTTPException) as error:
                msg = f"{error}; the server's log ends: {_end_of(log)}"
                raise BenchError(msg) from None

        yield ask


@contextmanager
def ended(process: subprocess.Popen[Any]) -> Iterator[None]:
    """End a process with the block, by force at last."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _wait_until_up(process: subprocess.Popen[Any], port: int, log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            if connection.getresponse().status == 200:
                return
        except (OSError, HTTPException):
            time.sleep(0.1)
        finally:
            connection.close()
    msg = f"sealift serve did not come up: {_end_of(log)}"
    raise BenchError(msg)


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-1000:].strip()


def _stream(port: int, question: str) -> Answer:
    """One chat over HTTP, as the OpenAI SDK would ask."""
    body = {
        "model": _NAME,
        "messages": _messages(question),
        "max_tokens": _TOKENS,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    connection = HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
    first = 0.0
    tokens = 0
    texts = []
    began = time.perf_counter()
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        if response.status != 200:
            msg = f"the server answered {response.status}: {response.read(1000).decode()}"
            raise BenchError(msg)
        for event in _events(response):
            if usage := event.get("usage"):
                tokens = int(usage["completion_tokens"])
            for choice in event["choices"]:
                if content := choice["delta"].get("content"):
                    first = first or time.perf_counter() - began
                    texts.append(content)
    finally:
        connection.close()
    return Answer(tokens, time.perf_counter() - began, first, "".join(texts))


def _events(response: Any) -> Iterator[dict[str, Any]]:
    """Server-sent events, each with one JSON document."""
    for line in response:
        data = line.strip().removeprefix(b"data: ")
        if data == b"[DONE]":
            return
        if data:
            yield json.loads(data)


def _messages(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
