"""Sends a server thousands of requests whose clients leave at random, and looks how it is after.

Usage::

    make storm                      # 10,000 requests, a quarter of an hour
    python tools/storm.py --requests 500 --clients 8 --seed 3

A server of its own, with the demo model. Fails if a request that its client waited for got no whole
answer, if the same question is answered otherwise afterwards, if anything still runs, or if the
processes have grown by more than a tenth since the first quarter of the requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

if not __package__:  # a script finds its neighbours only
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

_ROOT: Final = Path(__file__).resolve().parent.parent
_READ_BYTES: Final = 1 << 16
_LONGEST: Final = 300  # seconds for one answer
_GROWTH: Final = 1.1
_WORDS: Final = ("boat", "river", "lamp", "seven", "cold", "apple", "glass", "tower", "quiet")


class StormError(Exception):
    """The server did something wrong; the message says what."""


@dataclass(slots=True)
class Storm:
    """What became of the requests.

    Attributes:
        left: Clients that left, by when.
        answered: Whole answers.
        failures: What was wrong, the first few.
        sizes: Resident bytes of all processes of the server, now and then.
    """

    left: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


async def storm(
    port: int, model: str, count: int, clients: int, seed: int, look: Callable[[], int]
) -> Storm:
    """Send so many requests.

    Args:
        port: Of the server, on this machine.
        model: To ask.
        count: Of requests.
        clients: At once.
        seed: Decides who asks what and leaves when.
        look: The server's size in bytes.
    """
    found = Storm()
    chance = random.Random(seed)  # noqa: S311
    left = iter(range(count))

    async def client() -> None:
        for number in left:
            if number % max(count // 40, 1) == 0:
                found.sizes.append(look())
            path, body = _request(model, chance)
            when = chance.choice(("sending", "asked", "begun", "stays", "stays"))
            try:
                async with asyncio.timeout(_LONGEST):
                    await _ask(port, path, body, when, chance.randrange(1, 6), found)
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                found.failures.append(f"{path}: {type(error).__name__} {error}")

    await asyncio.gather(*(client() for _ in range(clients)))
    found.sizes.append(look())
    return found


def _request(model: str, chance: random.Random) -> tuple[str, dict[str, Any]]:
    text = " ".join(chance.choices(_WORDS, k=chance.choice((2, 8, 40, 200))))
    tokens = chance.choice((1, 8, 24, 48))
    chat = {"model": model, "messages": [{"role": "user", "content": text}]}
    match chance.randrange(6):
        case 0:
            return "/api/chat", {**chat, "options": {"num_predict": tokens}}
        case 1:
            options = {"num_predict": tokens, "seed": chance.randrange(9)}
            return "/api/generate", {"model": model, "prompt": text, "options": options}
        case 2:
            return "/v1/completions", {"model": model, "prompt": text, "max_tokens": tokens}
        case 3:
            return "/v1/embeddings", {"model": model, "input": [text, "boat"]}
        case 4:
            held = {**chat, "response_format": {"type": "json_object"}}
            return "/v1/chat/completions", {**held, "max_tokens": tokens}
        case _:
            return "/v1/chat/completions", {**chat, "stream": True, "max_tokens": tokens}


async def _ask(
    port: int, path: str, body: dict[str, Any], when: str, reads: int, found: Storm
) -> None:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        if when == "sending":
            writer.write(head.encode() + data[: len(data) // 2])
            await writer.drain()
        else:
            writer.write(head.encode() + data)
            await writer.drain()
            if when == "begun":
                for _ in range(reads):
                    await reader.read(_READ_BYTES)
            elif when == "stays":
                answer = await reader.read()
                if not _is_whole(answer):
                    found.failures.append(f"{path}: {answer[:300]!r} … {answer[-100:]!r}")
                found.answered += 1
                return
        found.left[when] += 1
    finally:
        writer.transport.abort()


def _is_whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        return False
    if b"chunked" in head:
        return body.endswith(b"0\r\n\r\n") and (b"[DONE]" in body or b'"done":true' in body)
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False


def size(pid: int) -> int:
    """Resident bytes of a process and its descendants."""
    parents: dict[int, int] = {}
    resident: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended
            parents[int(folder.name)] = int(fields[1])
            resident[int(folder.name)] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    family = {pid}
    while more := {p for p, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(resident.get(each, 0) for each in family)


def check(found: Storm, before: str, after: str) -> None:
    """Whether all went well.

    Args:
        found: What became of the requests.
        before: The answer to a question.
        after: The same, when all was over.

    Raises:
        StormError: It did not.
    """
    if found.failures:
        raise StormError(f"{len(found.failures)} failures: " + "; ".join(found.failures[:5]))
    if before != after:
        raise StormError(f"the same question: {before!r}, afterwards {after!r}")


def check_size(found: Storm) -> None:
    """Whether the server stopped growing once all that it keeps was filled.

    Raises:
        StormError: It did not.
    """
    early = max(found.sizes[: len(found.sizes) // 4])
    if found.sizes[-1] > early * _GROWTH:
        raise StormError(f"the server grew from {early >> 20} to {found.sizes[-1] >> 20} MiB")


async def ask(port: int, model: str) -> str:
    """One answer that should always be the same.

    Raises:
        StormError: There was none.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = {"model": model, "prompt": "The capital of France is", "stream": False}
    data = json.dumps({**body, "options": {"temperature": 0, "seed": 1, "num_predict": 24}})
    head = "POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write((head + data).encode())
    answer = await reader.read()
    writer.close()
    if not _is_whole(answer):
        raise StormError(f"no answer: {answer[:300]!r}")
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["response"])


def main() -> int:
    """Start a server, send the storm, tell what became of it."""
    from tools.benchmarks.neighbours import Patience
    from tools.benchmarks.serving_peers import NAME, Servers, Setting
    from tools.benchmarks.site import Bench, Site

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    model = Path(os.environ["MODEL_GGUF"])
    bench = Bench(_ROOT / "build" / "storm", 1, Patience(0), print)
    site = Site(bench, "storm")
    try:
        site.create(model, site.folder / "m.bundle.tar", name=NAME)
        store = site.new_store()
        site.import_bundle(site.folder / "m.bundle.tar", store)
        servers = Servers(bench, site, store, model, Path())
        with servers.ours(Setting(4, 1024, os.cpu_count() or 1)) as peer:
            before = asyncio.run(ask(peer.port, NAME))
            began = time.monotonic()
            found = asyncio.run(
                storm(
                    peer.port,
                    NAME,
                    arguments.requests,
                    arguments.clients,
                    arguments.seed,
                    lambda: size(peer.pid),
                )
            )
            after = asyncio.run(ask(peer.port, NAME))
    finally:
        site.remove()
    took = time.monotonic() - began
    left = dict(found.left)
    print(f"{arguments.requests} requests in {took:.0f} s: {found.answered} answered, {left} left")
    print("resident MiB: " + " ".join(str(each >> 20) for each in found.sizes))
    try:
        check(found, before, after)
        check_size(found)
    except StormError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
