"""The courier as a process: it connects to the one address that it was told, and does nothing else."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from runtime.mirror.courier import Courier
from runtime.mirror.service import Mirror
from runtime.sandbox.bpf import Action, Policy
from runtime.sandbox.policy import courier_policy
from schemas.errors import RemoteUnavailable, StorageFailure, UsageError
from schemas.settings import Serve
from tests.support.waiting import eventually, gone

PID = 4242


def verdict(policy: Policy, call: str, *args: int) -> Action:
    padded = (*args, *([0] * (6 - len(args))))
    for rule in policy.rules:
        if rule.call == call and all(padded[c.index] & c.mask == c.value for c in rule.when):
            return rule.action
    return policy.default


@pytest.mark.parametrize(
    ("call", "args", "action"),
    [
        ("socket", (2, 1 | 0o2000000), Action.ALLOW),
        ("socket", (10, 1), Action.ALLOW),
        ("socket", (2, 2), Action.REFUSE),  # UDP
        ("socket", (2, 3), Action.REFUSE),  # raw
        ("socket", (1, 1), Action.REFUSE),  # Unix
        ("socket", (16, 3), Action.REFUSE),  # netlink
        ("connect", (3,), Action.ALLOW),
        ("bind", (3,), Action.REFUSE),
        ("listen", (3,), Action.REFUSE),
        ("accept4", (3,), Action.REFUSE),
        ("sendto", (3, 9, 1, 0x20000000, 0), Action.REFUSE),  # TCP Fast Open
        ("openat", (0, 0, os.O_WRONLY), Action.REFUSE),
        ("execve", (), Action.REFUSE),
        ("clone", (17,), Action.REFUSE),
    ],
)
def test_what_it_may_ask_of_the_kernel(call: str, args: tuple[int, ...], action: Action) -> None:
    assert verdict(courier_policy(PID), call, *args) is action


def test_it_connects_again_and_again() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as mirror,
        closing(Courier.start([("127.0.0.1", mirror.getsockname()[1])])) as courier,
    ):
        for text in (b"one", b"two"):
            way = courier.dial()
            there, _ = mirror.accept()
            with way, there:
                way.sendall(text)
                assert there.recv(10) == text
        assert courier.report["sandbox"]["process"] == "courier"
        outcomes = {a["kind"]: a["outcome"] for a in courier.report["attempts"]}
        assert set(outcomes.values()) == {"refused"}
        assert {"udp", "dns", "raw", "packet", "unix", "netlink"} <= outcomes.keys()
        held = courier.report["sandbox"]["landlock"] in {f"ABI {n}" for n in range(4, 99)}
        assert ("tcp" in outcomes) is held, "to another port"


def test_the_second_address_is_tried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mirror:
        port = mirror.getsockname()[1]
        with closing(Courier.start([("127.0.0.2", port), ("127.0.0.1", port)])) as courier:
            courier.dial().close()


@pytest.mark.parametrize("addresses", [[], [("127.0.0.1", 1)]])
def test_a_mirror_that_is_not_there(addresses: list[tuple[str, int]]) -> None:
    with closing(Courier.start(addresses)) as courier:
        for _ in range(2):
            with pytest.raises(RemoteUnavailable, match="the mirror does not answer"):
                courier.dial()


def test_a_courier_that_is_gone() -> None:
    with closing(Courier.start([("127.0.0.1", 1)])) as courier:
        os.kill(courier._pid, signal.SIGKILL)
        with pytest.raises(RemoteUnavailable):
            courier.dial()
        with pytest.raises(RemoteUnavailable):
            courier.dial()


def test_it_ends_with_the_one_who_started_it() -> None:
    program = (
        "import json, os; from runtime.mirror.courier import Courier; "
        "c = Courier.start([]); print(json.dumps(c._pid), flush=True); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    pid = json.loads(done.stdout)
    eventually(lambda: gone(pid))


def test_without_the_setting_nothing_starts() -> None:
    assert Mirror.start(Serve()) is None


def test_a_login_is_read_from_a_file_of_ones_own(tmp_path: Path) -> None:
    login = tmp_path / "login"
    settings = Serve(mirror="http://127.0.0.1:1", mirror_login=str(login))
    with pytest.raises(StorageFailure):
        Mirror.start(settings)
    login.write_text("me:secret\n")
    login.chmod(0o644)
    with pytest.raises(UsageError, match="can be read by others"):
        Mirror.start(settings)
    login.chmod(0o600)
    mirror = Mirror.start(settings)
    assert mirror is not None
    with closing(mirror):
        assert mirror.authorization == "Basic bWU6c2VjcmV0"
        assert "secret" not in json.dumps(mirror.document())
    login.write_text("nonsense")
    with pytest.raises(UsageError, match="is no login"):
        Mirror.start(settings)


def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mirror_ca"):
        Mirror.start(Serve(mirror="https://127.0.0.1:1", mirror_ca=str(tmp_path / "none.pem")))
