"""Serving beside llama-server: the same llama.cpp, model, threads, slots, questions and clients."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from tools import llama_server
from tools.benchmarks import serving_clients as clients
from tools.benchmarks.process import BenchError
from tools.benchmarks.results import Figure, Section, at_least, at_most, spread, table
from tools.benchmarks.serving_clients import chat, filler
from tools.benchmarks.serving_peers import NAME, Peer, Servers, Setting
from tools.benchmarks.site import Bench, Site
from tools.benchmarks.tokens import ended, free_port

_THREADS: Final = 2
_CONTEXT: Final = 2048
_SLOTS: Final = 4  # where the number of clients is not what is measured
# Clients, as many slots, to the least ratio aimed at.
_AIMS: Final = {1: 1.0, 4: 1.1, 8: 1.15, 16: 1.1}
_WINDOW: Final = 10  # seconds
_PAUSE: Final = 0.5  # seconds: who was measured before may still compute what nobody waits for
_TOKENS: Final = 128
_ASKED: Final = 16  # questions for times to the first token
_LONG_WORDS: Final = 980  # about 1,000 tokens
_LATE_WORDS: Final = 1960  # about 2,000
_LATE_CONTEXT: Final = 4096
_TEXTS: Final = 16  # per request for embeddings
_TEXT_WORDS: Final = 60
_COLD: Final = 5
_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "people": {
            "type": "array",
            "minItems": 30,
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "age": {"type": "integer"},
                    "city": {"type": "string"},
                },
                "required": ["name", "age", "city"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["people"],
    "additionalProperties": False,
}
_HOW: Final = """\
`sealift serve` and `llama-server`, built from the llama.cpp that the engine's wheel vendors, with
the same instruction flags; SmolLM2-135M-Instruct (Q4_1), {threads} threads, {context} tokens of
context per slot, both up at the same time and asked in turn by the same clients over HTTP
(`/v1/chat/completions`, streams, temperature 0.8, top-k 40, top-p 0.9, up to {tokens} tokens). The
clients run on the same two cores. Medians of {pairs} rounds; the ratio is ours through theirs."""


def measure(bench: Bench) -> Section:
    """Everything in turn.

    Raises:
        BenchError: No model, no compiler, or a server failed.
    """
    given = os.environ.get("MODEL_GGUF")
    if not given or not Path(given).is_file():
        raise BenchError("MODEL_GGUF does not name the model; run it with `make bench`")
    try:
        program = llama_server.program()
    except llama_server.BuildError as error:
        raise BenchError(str(error)) from None
    site = Site(bench, "serving")
    try:
        bundle = site.folder / "m.bundle.tar"
        site.create(Path(given), bundle, name=NAME)
        store = site.new_store()
        site.import_bundle(bundle, store)
        servers = Servers(bench, site, store, Path(given), program)
        parts = [
            part(bench, servers)
            for part in (_rates, _firsts, _gaps, _formats, _embeddings, _cold_starts)
        ]
        parts.append(_overhead(bench, store))
    finally:
        site.remove()
    how = _HOW.format(threads=_THREADS, context=_CONTEXT, tokens=_TOKENS, pairs=bench.pairs)
    text = "\n\n".join((how, *(part_text for part_text, _ in parts)))
    figures = tuple(figure for _, found in parts for figure in found)
    return Section("serving", "Serving beside llama-server", text, figures)


_Part = tuple[str, list[Figure]]


def _ask(question: str) -> dict[str, Any]:
    return chat(NAME, question, _TOKENS)


def _pairs(
    bench: Bench, peers: tuple[Peer, Peer], measured: Callable[[Peer], float], what: str
) -> tuple[list[float], list[float]]:
    """Both in turn, the first one changing; what was measured of ours and of theirs."""
    found: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for number in range(bench.pairs):
        bench.patience.wait()
        for peer in peers if number % 2 else reversed(peers):
            time.sleep(_PAUSE)
            found[peer.name].append(measured(peer))
        told = ", ".join(f"{name} {values[-1]:.1f}" for name, values in found.items())
        bench.say(f"{what}, {number + 1}/{bench.pairs}: {told}")
    return found[peers[0].name], found[peers[1].name]


def _rates(bench: Bench, servers: Servers) -> _Part:
    rows, figures = [], []
    for count, aim in _AIMS.items():
        with servers.both(Setting(count, _CONTEXT, _THREADS)) as peers:
            for how, fields in (("sampled", {}), ("greedy", {"temperature": 0})):

                def body(question: str, fields: dict[str, Any] = fields) -> dict[str, Any]:
                    return {**_ask(question), **fields}

                def rate(peer: Peer, count: int = count, body: Any = body) -> float:
                    return asyncio.run(clients.rate(peer.port, count, body, _WINDOW))

                ours, theirs = _pairs(bench, peers, rate, f"{count} clients, {how}, tokens/s")
                ratio = median(ours) / median(theirs)
                row = [f"{count}, {how}", f"{median(ours):.1f}", f"{median(theirs):.1f}"]
                rows.append([*row, f"**{ratio:.2f}**", spread(ours, theirs)])
                if how == "sampled":
                    figures.append(
                        at_least(f"tokens/s, {count} clients / llama-server", ratio, aim)
                    )
    head = ["clients", "`sealift serve`, tokens/s", "llama-server, tokens/s", "ratio", "rounds"]
    return f"As many slots as clients:\n\n{table(head, rows)}", figures


def _firsts(bench: Bench, servers: Servers) -> _Part:
    """Times to the first token: prompts that nobody asked before, and ones that begin alike."""
    shared = filler(_LONG_WORDS, 7)
    numbers = itertools.count(10)

    def cold() -> dict[str, Any]:
        return chat(NAME, filler(_LONG_WORDS, next(numbers)), 4)

    def short() -> dict[str, Any]:
        return chat(NAME, f"{next(numbers)} is a number. Tell me about it.", 4)

    def alike() -> dict[str, Any]:
        return chat(NAME, f"{shared}. What about number {next(numbers)}?", 4)

    kinds = {
        "short, new": (short, 1),
        "1,000 tokens, new": (cold, 1),
        "1,000 tokens shared": (alike, 1),
        "1,000 tokens shared, 4 at once": (alike, 4),
    }
    rows, figures = [], []
    with servers.both(Setting(_SLOTS, _CONTEXT, _THREADS)) as peers:
        for name, (make, at_once) in kinds.items():
            found: dict[str, list[float]] = {peer.name: [] for peer in peers}
            tokens = [0]
            for number in range(bench.pairs):
                bodies = [make() for _ in range(_ASKED)]
                for peer in peers if number % 2 else reversed(peers):
                    asyncio.run(clients.firsts(peer.port, 1, [make()]))
                    took, tokens = asyncio.run(clients.firsts(peer.port, at_once, bodies))
                    found[peer.name] += took
            ours, theirs = (found[peer.name] for peer in peers)
            row = [name, f"{median(tokens):.0f}"]
            for share in (50, 95):
                mine, other = _percentile(ours, share), _percentile(theirs, share)
                row += [f"{1000 * mine:.0f}", f"{1000 * other:.0f}", f"**{mine / other:.2f}**"]
                label = f"first token p{share}, {name} / llama-server"
                figures.append(at_most(label, mine / other, 1.0))
            rows.append(row)
            bench.say(f"first token, {name}: {', '.join(row[2:])}")
    head = ["first token", "prompt", "p50, ms", "llama-server", "ratio"]
    head += ["p95, ms", "llama-server", "ratio"]
    return f"One client, {_SLOTS} slots, {bench.pairs} x {_ASKED} questions:\n\n" + table(
        head, rows
    ), figures


def _gaps(bench: Bench, servers: Servers) -> _Part:
    """What running streams feel of a long prompt."""
    numbers = itertools.count(40)
    found: dict[str, list[float]] = {}
    firsts: dict[str, list[float]] = {}
    with servers.both(Setting(_SLOTS, _LATE_CONTEXT, _THREADS)) as peers:
        for _ in range(bench.pairs):
            for peer in peers:
                streams = [
                    chat(NAME, f"Tell me a very long story about number {next(numbers)}.", 1024)
                    for _ in range(_SLOTS - 1)
                ]
                late = chat(NAME, filler(_LATE_WORDS, next(numbers)), 4)
                felt, first = asyncio.run(clients.gaps(peer.port, streams, late, 1.5))
                found.setdefault(peer.name, []).extend(felt)
                firsts.setdefault(peer.name, []).append(first)
            bench.say(
                f"gaps: { ({n: round(1000 * _percentile(g, 95)) for n, g in found.items()}) }"
            )
    ours, theirs = (found[peer.name] for peer in peers)
    ratio = _percentile(ours, 95) / _percentile(theirs, 95)
    rows = [
        [
            name,
            str(len(gaps)),
            *(f"{1000 * _percentile(gaps, share):.0f}" for share in (50, 95)),
            f"{1000 * max(gaps):.0f}",
            f"{median(firsts[name]):.2f}",
        ]
        for name, gaps in found.items()
    ]
    head = ["who", "gaps", "p50, ms", "p95, ms", "longest, ms", "first token of the long one, s"]
    text = f"{_SLOTS - 1} streams run while a prompt of 2,000 tokens is read; between its arrival"
    text += f" and its first token their tokens are so far apart:\n\n{table(head, rows)}"
    return text, [at_most("gap p95 beside a long prompt / llama-server", ratio, 0.7)]


def _formats(bench: Bench, servers: Servers) -> _Part:
    """Answers held to a JSON Schema, beside answers of the same server that are not."""
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": _SCHEMA}}

    def held(question: str) -> dict[str, Any]:
        return {**_people(question), "response_format": form}

    rows, figures = [], []
    with servers.both(Setting(_SLOTS, _CONTEXT, _THREADS)) as peers:
        for count in (1, _SLOTS):
            for peer in peers:
                free: list[float] = []
                formed: list[float] = []
                for _ in range(bench.pairs):
                    free.append(asyncio.run(clients.rate(peer.port, count, _people, _WINDOW / 2)))
                    formed.append(asyncio.run(clients.rate(peer.port, count, held, _WINDOW / 2)))
                ratio = median(formed) / median(free)
                row = [f"{peer.name}, {count}", f"{median(formed):.1f}", f"{median(free):.1f}"]
                rows.append([*row, f"**{ratio:.2f}**"])
                bench.say(f"schema, {', '.join(rows[-1])}")
                if peer is peers[0]:
                    figures.append(at_least(f"schema / free tokens/s, {count} clients", ratio, 0.8))
    head = ["who, clients", "held to a schema, tokens/s", "free, tokens/s", "ratio"]
    return f"Answers held to a JSON Schema:\n\n{table(head, rows)}", figures


def _people(question: str) -> dict[str, Any]:
    return _ask(f"{question} Then list everybody as JSON: name, age, city.")


def _embeddings(bench: Bench, servers: Servers) -> _Part:
    texts = [filler(_TEXT_WORDS, number) for number in range(_TEXTS)]
    body = {"model": NAME, "input": texts}

    def rate(peer: Peer) -> float:
        work = clients.requests(peer.port, 2, "/v1/embeddings", body, 4)
        return _TEXTS * asyncio.run(work)[0]

    setting = Setting(_SLOTS, _CONTEXT, _THREADS)
    with servers.both(setting, "--embeddings", "--pooling", "mean") as peers:
        for peer in peers:
            rate(peer)
        ours, theirs = _pairs(bench, peers, rate, "embeddings/s")
    ratio = median(ours) / median(theirs)
    head = ["", "`sealift serve`", "llama-server", "ratio", "rounds"]
    row = ["texts/s", f"{median(ours):.1f}", f"{median(theirs):.1f}", f"**{ratio:.2f}**"]
    text = f"Embeddings, {_TEXTS} texts of about 75 tokens in one request, 2 clients:\n\n"
    rows = [[*row, spread(ours, theirs)]]
    return text + table(head, rows), [at_least("embeddings/s / llama-server", ratio, 1.0)]


def _cold_starts(bench: Bench, servers: Servers) -> _Part:
    """From the start of the process to the first token; the model lies in the page cache."""
    setting = Setting(_SLOTS, _CONTEXT, _THREADS)
    found: dict[str, list[float]] = {}
    for number in range(_COLD):
        for start in (servers.ours, servers.theirs):
            began = time.perf_counter()
            with ExitStack() as stack:
                peer = stack.enter_context(start(setting))
                body = chat(NAME, f"{number}: hello", 4)
                asyncio.run(clients.firsts(peer.port, 1, [body]))
                found.setdefault(peer.name, []).append(time.perf_counter() - began)
    bench.say(
        f"cold start, s: { ({name: round(median(took), 2) for name, took in found.items()}) }"
    )
    ours, theirs = found.values()
    ratio = median(ours) / median(theirs)
    rows = [[name, f"{median(took):.2f}", f"{min(took):.2f}"] for name, took in found.items()]
    text = "From the process's start to the end of an answer of 4 tokens, the model in the page"
    text += f" cache, {_COLD} starts:\n\n{table(['who', 'median, s', 'least, s'], rows)}"
    return text, [at_most("cold start / llama-server", ratio, 1.2)]


def _overhead(bench: Bench, store: Path) -> _Part:
    """The front-end alone: a worker that answers at once, in the same process."""
    port = free_port()
    script = Path(__file__).with_name("serving_instant.py")
    process = subprocess.Popen([sys.executable, str(script), str(store), str(port)])
    body = {**chat(NAME, "hello", 4), "stream": False}
    rows = []
    with ended(process):
        asyncio.run(_until_up(port))
        for count in (1, 16):
            rates, times = [], []
            for _ in range(bench.pairs):
                work = clients.requests(port, count, "/v1/chat/completions", body, 1000)
                rate, took = asyncio.run(work)
                rates.append(rate)
                times += took
            shown = [f"{1000 * _percentile(times, share):.1f}" for share in (50, 99)]
            rows.append([str(count), f"{median(rates):.0f}", *shown])
            bench.say(f"overhead: {', '.join(rows[-1])}")
    head = ["clients", "requests/s", "p50, ms", "p99, ms"]
    text = "The front-end alone, with a worker that answers at once, not streamed:\n\n"
    return text + table(head, rows), []


async def _until_up(port: int) -> None:
    for _ in range(1000):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return
    raise BenchError("the front-end alone did not come up")


def _percentile(values: list[float], share: int) -> float:
    if len(values) < 2:
        raise BenchError("too little was measured")
    return quantiles(values, n=100, method="inclusive")[share - 1]
