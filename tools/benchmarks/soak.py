"""Mixed load for a while: does memory stay flat? Then workers killed: does anybody else notice?"""

from __future__ import annotations

import http.client
import json
import math
import os
import random
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import linear_regression, median
from typing import TYPE_CHECKING, Any, Final

from runtime.worker import NAME
from tools.benchmarks.faults import PHASES, Faults, Outcome
from tools.benchmarks.process import BenchError
from tools.benchmarks.results import Figure, Section, at_least, at_most, table
from tools.benchmarks.site import Bench

if TYPE_CHECKING:
    from tests.serving import Server

_SECONDS: Final = 60.0  # SOAK_SECONDS
_FAULTS: Final = 30  # SOAK_FAULTS
_CLIENTS: Final = 6
_SAMPLE_SECONDS: Final = 1.0
_WARM: Final = 0.25  # of the time; what grows then is caches that fill
_ROWS: Final = 12
_POINTS: Final = 60  # of the plot
_MIB: Final = 1 << 20
_FRONT_AIM: Final = 8.0  # MiB
_WORKER_AIM: Final = 24.0
_HOW: Final = """\
`sealift serve` with SmolLM2-135M (Q4_1), two models over one file, 4 slots, 1 thread, 32 MiB for
old prompts, and {clients} clients that do without a pause whatever a seeded random draws: streamed
answers, answers dropped half-way, answers held to a JSON Schema, prompts of up to 900 tokens,
embeddings, tokens, lists, requests that are wrong. The resident set is read every second from
`/proc`. "Growth" is the median of the last quarter of the time less that of the second quarter: the
first is for caches to fill. The series lies in `soak.csv` beside the other files of the run."""
_FAULTS_HOW: Final = """\
A worker is killed (SIGKILL) in the middle of a long prompt, in the middle of an answer, and while
it loads its model, in turn; another model answers meanwhile. Good is: the request gets exactly one
error (`worker-failed`) and no end that looks like success, the other model's answer is letter by
letter what it always is, and the next request to the victim is answered as ever."""
_SCHEMA: Final = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


@dataclass(slots=True)
class _Load:
    """What the clients do, and what they met."""

    port: int
    ends: float
    done: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def client(self, seed: int) -> None:
        """One client until the time is over."""
        draw = random.Random(seed)  # noqa: S311 - a load that can be repeated
        actions: tuple[Callable[[random.Random], None], ...] = (
            self._chat, self._chat, self._chat, self._drop, self._drop, self._schema,
            self._long, self._embed, self._tokens, self._lists, self._wrong,
        )  # fmt: skip
        while time.monotonic() < self.ends:
            action = draw.choice(actions)
            try:
                action(draw)
            except (OSError, http.client.HTTPException, ValueError, AssertionError) as error:
                self.faults.append(f"{action.__name__}: {error!r:.200}")
            self.done[action.__name__.lstrip("_")] += 1

    def _chat(self, draw: random.Random) -> None:
        lines = self._post("/api/chat", self._ask(draw, words=draw.randrange(2, 60)))
        if not json.loads(lines[-1])["done"]:
            self.faults.append(f"chat: {lines[-1]!r:.200}")

    def _long(self, draw: random.Random) -> None:
        self._post("/api/chat", self._ask(draw, words=draw.randrange(300, 800)))

    def _drop(self, draw: random.Random) -> None:
        body = self._ask(draw, words=20)
        body["options"]["num_predict"] = 400
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)) as to:
            to.request("POST", "/api/chat", json.dumps(body))
            response = to.getresponse()
            for _ in range(draw.randrange(1, 10)):
                response.readline()

    def _schema(self, draw: random.Random) -> None:
        body = self._ask(draw, words=10) | {"format": _SCHEMA, "stream": False}
        body["options"]["num_predict"] = 80
        self._post("/api/chat", body)

    def _embed(self, draw: random.Random) -> None:
        texts = [_words(draw, 30) for _ in range(draw.randrange(1, 6))]
        self._post("/api/embed", {"model": "victim", "input": texts, "options": _CONTEXT})

    def _tokens(self, draw: random.Random) -> None:
        body = {"model": "victim", "text": _words(draw, 200), "options": _CONTEXT}
        self._post("/api/tokenize", body)

    def _lists(self, _: random.Random) -> None:
        for path in ("/api/tags", "/api/ps", "/v1/models", "/readyz"):
            self._request("GET", path, None)

    def _wrong(self, draw: random.Random) -> None:
        body = draw.choice((b"{", b'{"model":5}', b'{"model":"nope","messages":[]}', b""))
        status, _ = self._request("POST", "/api/chat", body)
        if status not in {400, 404}:
            self.faults.append(f"wrong: {status}")

    def _ask(self, draw: random.Random, *, words: int) -> dict[str, Any]:
        options = {
            "num_ctx": _CONTEXT["num_ctx"],
            "num_predict": draw.randrange(1, 40),
            "temperature": draw.choice((0, 0.8)),
            "seed": draw.randrange(1000),
        }
        content = _words(draw, words)
        return {
            "model": "victim",
            "messages": [{"role": "user", "content": content}],
            "options": options,
        }

    def _post(self, path: str, body: dict[str, Any]) -> list[bytes]:
        status, data = self._request("POST", path, json.dumps(body).encode())
        if status != http.client.OK:
            self.faults.append(f"{path}: {status} {data[:200]!r}")
        return data.splitlines()

    def _request(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)) as to:
            to.request(method, path, body)
            response = to.getresponse()
            return response.status, response.read()


_CONTEXT: Final = {"num_ctx": 2048}
_WORDS: Final = "river stone copper window harbour letter winter engine market silver".split()  # noqa: SIM905


def _words(draw: random.Random, count: int) -> str:
    return " ".join(draw.choices(_WORDS, k=count))


@dataclass(frozen=True, slots=True)
class _Sample:
    """Resident bytes at a moment, in seconds since the beginning."""

    at: float
    front: int
    workers: int


def measure(bench: Bench) -> Section:
    """Load, then faults.

    Raises:
        BenchError: There is no model.
    """
    given = os.environ.get("MODEL_GGUF")
    if not given or not Path(given).is_file():
        raise BenchError("MODEL_GGUF does not name the model; run it with `make bench`")
    seconds = float(os.environ.get("SOAK_SECONDS") or _SECONDS)
    kills = int(os.environ.get("SOAK_FAULTS") or _FAULTS)
    from tests.serving import install, serving

    folder = bench.folder / "soak"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    copy = folder / "other.gguf"
    shutil.copyfile(given, copy)
    install(folder / "home", Path(given), "library/victim:latest")
    install(folder / "home", copy, "library/bystander:latest")
    copy.unlink()
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    how = {"num_parallel": "4", "num_threads": "1", "prompt_cache": "32", "audit": "off"}
    with serving(folder / "home", **how) as server:
        samples, load = _soak(bench, server, seconds)
        faults = Faults(server.process.pid, server.port, "victim", "bystander")
        outcomes = [faults.once(PHASES[n % len(PHASES)]) for n in range(kills)]
    _write(bench.folder / "soak.csv", samples)
    shutil.rmtree(folder, ignore_errors=True)
    for fault in load.faults[:5]:
        bench.say(f"unexpected: {fault}")
    for outcome in [o for o in outcomes if not o.good][:5]:
        bench.say(f"not good: {outcome}")
    return _section(samples, load, outcomes, seconds)


def _soak(bench: Bench, server: Server, seconds: float) -> tuple[list[_Sample], _Load]:
    import psutil

    server.post("/api/embed", {"model": "victim", "input": "warm", "options": _CONTEXT})
    process = psutil.Process(server.process.pid)
    children = process.children(recursive=True)
    workers = [child for child in children if child.name() == NAME]
    load = _Load(server.port, time.monotonic() + seconds)
    threads = [threading.Thread(target=load.client, args=(n,)) for n in range(_CLIENTS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    samples = []
    while any(thread.is_alive() for thread in threads):
        resident = sum(worker.memory_info().rss for worker in workers)
        at = time.monotonic() - began
        samples.append(_Sample(at, process.memory_info().rss, resident))
        if len(samples) % 60 == 0:
            bench.say(f"{sum(load.done.values())} requests, {_shown(samples[-1])}")
        time.sleep(_SAMPLE_SECONDS)
    return samples, load


def _shown(sample: _Sample) -> str:
    return f"front-end {sample.front / _MIB:.0f} MiB, worker {sample.workers / _MIB:.0f} MiB"


def _growth(samples: list[_Sample], seconds: float, part: Callable[[_Sample], int]) -> float:
    """MiB by which the last quarter lies above the second."""
    second = [part(s) for s in samples if _WARM * seconds <= s.at < 2 * _WARM * seconds]
    last = [part(s) for s in samples if s.at >= (1 - _WARM) * seconds]
    return (median(last) - median(second)) / _MIB


def _slope(samples: list[_Sample], seconds: float, part: Callable[[_Sample], int]) -> float:
    """MiB per hour, by the line that fits best after the first quarter."""
    warm = [s for s in samples if s.at >= _WARM * seconds]
    line = linear_regression([s.at / 3600 for s in warm], [part(s) / _MIB for s in warm])
    return line.slope


def _write(path: Path, samples: list[_Sample]) -> None:
    rows = (f"{s.at:.1f},{s.front},{s.workers}\n" for s in samples)
    path.write_text("seconds,front_end_bytes,worker_bytes\n" + "".join(rows))


def _section(
    samples: list[_Sample], load: _Load, outcomes: list[Outcome], seconds: float
) -> Section:
    front = _growth(samples, seconds, lambda s: s.front)
    worker = _growth(samples, seconds, lambda s: s.workers)
    good = sum(outcome.good for outcome in outcomes)
    figures = [
        at_most("growth of the front-end, MiB", front, _FRONT_AIM, "{:.1f}"),
        at_most("growth of the worker, MiB", worker, _WORKER_AIM, "{:.1f}"),
        at_most("requests with an unexpected answer", len(load.faults), 0, "{:.0f}"),
        at_least("kills that only the victim noticed", good, len(outcomes), "{:.0f}"),
        Figure("requests under load", f"{sum(load.done.values())}"),
    ]
    slopes = [_slope(samples, seconds, part) for part in (lambda s: s.front, lambda s: s.workers)]
    text = "\n\n".join(
        (
            _HOW.format(clients=_CLIENTS),
            f"{seconds:.0f} s, {sum(load.done.values())} requests: "
            + ", ".join(f"{count} {name}" for name, count in sorted(load.done.items()))
            + f". By the line that fits best: front-end {slopes[0]:+.1f} MiB per hour, "
            f"worker {slopes[1]:+.1f} MiB per hour.",
            _series(samples, seconds),
            _plot(samples, seconds),
            _FAULTS_HOW,
            _phases(outcomes),
        )
    )
    return Section("soak", "Memory under load, and killed workers", text, tuple(figures))


def _series(samples: list[_Sample], seconds: float) -> str:
    """The series in a dozen rows."""
    edges = [seconds * n / _ROWS for n in range(_ROWS + 1)]
    rows = []
    for start, end in pairwise(edges):
        part = [s for s in samples if start <= s.at < end]
        if part:
            fronts, workers = [s.front for s in part], [s.workers for s in part]
            rows.append(
                [
                    f"{start:.0f}-{end:.0f} s",
                    f"{median(fronts) / _MIB:.1f}",
                    f"{max(fronts) / _MIB:.1f}",
                    f"{median(workers) / _MIB:.1f}",
                    f"{max(workers) / _MIB:.1f}",
                ]
            )
    head = ["time", "front-end, median MiB", "largest", "worker, median MiB", "largest"]
    return table(head, rows)


def _plot(samples: list[_Sample], seconds: float) -> str:
    """The series as a Mermaid chart, which the usual viewers of Markdown draw."""
    step = seconds / _POINTS
    parts = [[s for s in samples if n * step <= s.at < (n + 1) * step] for n in range(_POINTS)]
    lines = []
    for part in (lambda s: s.workers, lambda s: s.front):
        points = (median(map(part, near)) / _MIB for near in parts if near)
        lines.append(f"    line [{', '.join(f'{point:.0f}' for point in points)}]")
    top = math.ceil(max(s.workers for s in samples) / _MIB / 100) * 100
    return "\n".join(
        (
            "```mermaid",
            "xychart-beta",
            '    title "resident MiB: the worker above, the front-end below"',
            f'    x-axis "minutes" 0 --> {seconds / 60:.0f}',
            f'    y-axis "MiB" 0 --> {top}',
            *lines,
            "```",
        )
    )


def _phases(outcomes: list[Outcome]) -> str:
    rows = []
    for phase in PHASES:
        here = [outcome for outcome in outcomes if outcome.phase == phase]
        if here:
            rows.append(
                [
                    f"in {phase}",
                    str(len(here)),
                    str(sum(outcome.good for outcome in here)),
                    f"{median(outcome.seconds for outcome in here):.2f}",
                    f"{max(outcome.seconds for outcome in here):.2f}",
                ]
            )
    head = ["killed", "times", "good", "next answer after, median s", "at most, s"]
    return table(head, rows)
