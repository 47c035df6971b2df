"""The launcher process: what it starts, what it says, and that it takes everything along."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from runtime.launcher.client import Launcher
from runtime.launcher.starting import clean_environment
from schemas import limits
from schemas.errors import WorkerFailed
from tests.support.waiting import eventually, gone


@asynccontextmanager
async def launched() -> AsyncIterator[Launcher]:
    launcher = Launcher.start()
    try:
        yield launcher
    finally:
        launcher.close()


async def prepared(launcher: Launcher, besides: int = 0) -> int:
    """The process id of the worker that nobody asked for yet."""
    found: list[int] = []

    def one() -> bool:
        children = psutil.Process(launcher.pid).children()
        found[:] = [child.pid for child in children if child.pid != besides]
        return len(found) == 1

    await asyncio.to_thread(eventually, one)
    return found[0]


async def ended(launcher: Launcher, pid: int) -> int:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    launcher.watch(pid, future.set_result)
    return await asyncio.wait_for(future, 30)


async def test_each_spawn_gets_its_own_process_and_socket() -> None:
    async with launched() as launcher:
        spawned = await asyncio.gather(*(launcher.spawn() for _ in range(3)))
        assert len({pid for _, pid in spawned}) == 3
        for channel, pid in spawned:
            assert psutil.Process(pid).ppid() == launcher.pid
            assert not channel.get_inheritable()
            channel.close()  # the worker ends as soon as nobody is there
            assert await ended(launcher, pid) == 0


async def test_killing() -> None:
    async with launched() as launcher:
        channel, pid = await launcher.spawn()
        launcher.kill(pid)
        assert await ended(launcher, pid) == -signal.SIGKILL
        with channel:
            assert channel.recv(1) == b""
        launcher.kill(pid)  # gone already: nothing happens
        launcher.kill(1)  # not a worker: nothing happens, whoever that is
        channel, pid = await launcher.spawn()
        channel.close()


async def test_who_asks_late_still_hears_of_an_end() -> None:
    async with launched() as launcher:
        channel, pid = await launcher.spawn()
        channel.close()
        other, _ = await launcher.spawn()
        await asyncio.to_thread(psutil.wait_procs, [psutil.Process(pid)], 30)
        await asyncio.sleep(0.1)
        assert await ended(launcher, pid) == 0
        other.close()


async def test_a_spawn_that_is_cancelled_leaves_no_worker() -> None:
    async with launched() as launcher:
        ahead = await prepared(launcher)
        task = asyncio.create_task(launcher.spawn())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        channel, pid = await launcher.spawn()
        assert pid != ahead
        await asyncio.to_thread(eventually, lambda: gone(ahead))
        channel.close()


async def test_a_worker_waits_ahead_and_another_when_one_ended() -> None:
    async with launched() as launcher:
        ahead = await prepared(launcher)
        first, pid = await launcher.spawn()
        assert pid == ahead
        second, other = await launcher.spawn()
        assert other != ahead
        assert {child.pid for child in psutil.Process(launcher.pid).children()} == {pid, other}
        first.close()
        assert await ended(launcher, pid) == 0
        ahead = await prepared(launcher, besides=other)
        third, pid = await launcher.spawn()
        assert pid == ahead
        second.close()
        third.close()


async def test_a_worker_that_ends_while_it_waits_is_nobodys_loss() -> None:
    async with launched() as launcher:
        ahead = await prepared(launcher)
        os.kill(ahead, signal.SIGKILL)
        await asyncio.to_thread(eventually, lambda: not psutil.pid_exists(ahead))
        channel, pid = await launcher.spawn()
        assert pid != ahead
        channel.close()
        assert await ended(launcher, pid) == 0


async def test_closing_ends_all_workers() -> None:
    async with launched() as launcher:
        spawned = [await launcher.spawn() for _ in range(2)]
    for channel, _ in spawned:
        assert channel.recv(1) == b""
        channel.close()
    with pytest.raises(WorkerFailed):
        await launcher.spawn()


FRONT_END = """
import os, signal, sys
from runtime.launcher.client import Launcher
launcher = Launcher.start()
import asyncio
async def main():
    channel, pid = await launcher.spawn()
    print(launcher.pid, pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_front_end(how: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", FRONT_END], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        process.send_signal(how)
        process.wait(10)
    # Orphans are reaped by whoever adopted them, so a zombie counts as ended.
    _, alive = psutil.wait_procs([psutil.Process(p) for p in pids if _runs(p)], timeout=10)
    assert [process.pid for process in alive if _runs(process.pid)] == []


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_worker_whose_parent_is_gone_does_not_start() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        arguments = [str(theirs.fileno()), "1"]  # says that init is its parent
        result = subprocess.run(
            [sys.executable, "-I", "-m", "runtime.worker", *arguments],
            pass_fds=[theirs.fileno()],
            env=clean_environment(),
            cwd=Path("/"),
            check=False,
            timeout=30,
        )
    assert result.returncode == 1


def test_there_is_a_most_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    # The launcher's own process, asked over its wire format, so that the limit is the real one.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with (
        ours,
        theirs,
        subprocess.Popen(
            [sys.executable, "-c", _LIMITED, str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
        ) as process,
    ):
        theirs.close()
        ours.send(json.dumps({"op": "spawn"}).encode())
        packet, descriptors, _, _ = socket.recv_fds(ours, 4096, 1)
        assert "spawned" in json.loads(packet)
        ours.send(json.dumps({"op": "spawn"}).encode())
        packet, none, _, _ = socket.recv_fds(ours, 4096, 1)
        assert json.loads(packet) == {"failed": "1 workers are running"}
        assert none == []
        socket.socket(fileno=descriptors[0]).close()
        ours.close()
        assert process.wait(10) == 0
    assert limits.WORKERS > 1


_LIMITED = """
from schemas import limits
limits.WORKERS = 1
from runtime.launcher import __main__ as launcher
launcher.main()
"""
