"""Real processes in the real sandbox: each forbidden thing is tried, each needed thing used."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.sandbox import landlock
from runtime.sandbox.syscalls import current

PROBE = Path(__file__).with_name("sandbox_probe.py")
SERVER = Path(__file__).with_name("sandbox_server.py")

REFUSED = [
    "tcp",
    "udp",
    "unix",
    "vsock",
    "raw",
    "socket in a thread",
    "datagram pair",
    "connect a pair",
    "execve",
    "execveat",
    "fork",
    "spawn",
    "ptrace",
    "process_vm_readv",
    "kill the parent",
    "kill everybody",
    "pidfd_open",
    "pidfd_getfd",
    "io_uring",
    "bpf",
    "userfaultfd",
    "perf",
    "keyctl",
    "mount",
    "unshare",
    "setns",
    "setuid",
    "dumpable",
    "raise limit",
    "symlink",
]
WRITES = ["write a file", "truncate", "unlink", "rename", "make a folder"]
READS = ["read passwd", "read a neighbour", "list the folder", "read the parent's environment"]
NEEDED = [
    "thread",
    "pair",
    "callback",
    "read the model",
    "import",
    "cpuinfo",
    "own status",
    "own signal",
]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Peers that would answer, a model to read, a neighbour not to."""
    folder = tmp_path_factory.mktemp("sandbox")
    (folder / "models").mkdir()
    (folder / "home").mkdir()
    (folder / "models" / "model.gguf").write_bytes(b"GGUF")
    (folder / "secret").write_bytes(b"secret")
    path = str(folder / "peer.sock")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        udp.bind(("127.0.0.1", 0))
        unix.bind(path)
        unix.listen()
        yield {
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "unix": path,
            "folder": str(folder),
            "home": str(folder / "home"),
            "model": str(folder / "models" / "model.gguf"),
        }


def run(
    scenario: str, config: dict[str, Any], repository: Path, **options: Any
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROBE), scenario, json.dumps(config)],
        env={**os.environ, "PYTHONPATH": str(repository)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def result(
    scenario: str, config: dict[str, Any], repository: Path, **options: Any
) -> dict[str, Any]:
    done = run(scenario, config, repository, **options)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def worker(config: dict[str, Any], repository: Path) -> dict[str, Any]:
    return result("worker", config, repository)


@pytest.fixture(scope="module")
def front_end(config: dict[str, Any], repository: Path) -> dict[str, Any]:
    return result("front_end", config, repository)


@pytest.mark.parametrize("probe", REFUSED)
def test_refused_in_the_worker(worker: dict[str, Any], probe: str) -> None:
    assert worker["probes"][probe] == "EPERM"


@pytest.mark.parametrize("probe", REFUSED)
def test_refused_in_the_front_end(front_end: dict[str, Any], probe: str) -> None:
    assert front_end["probes"][probe] == "EPERM"


@pytest.mark.parametrize("probe", WRITES)
def test_the_worker_writes_nowhere(worker: dict[str, Any], probe: str) -> None:
    assert worker["probes"][probe] == "EPERM"


def test_the_quantizer_writes_its_file_and_no_other(
    config: dict[str, Any], repository: Path
) -> None:
    found = result("quantizer", config, repository)
    if not landlock.version(current()):
        assert found["error"]["code"] == "sandbox-unavailable"
        return
    probes = found["probes"]
    assert probes["write the target"] == "ok"
    assert {probes[probe] for probe in REFUSED} == {"EPERM"}
    assert {probes[probe] for probe in WRITES} <= {"EACCES", "EPERM", "EXDEV"}
    assert {probes[probe] for probe in READS} <= {"EACCES", "ENOENT"}
    assert {probes[probe] for probe in NEEDED} == {"ok"}
    assert {attempt["outcome"] for attempt in found["egress"]} == {"refused"}
    (Path(config["folder"]) / "target").unlink()


def test_without_landlock_nothing_is_quantized(config: dict[str, Any], repository: Path) -> None:
    found = result("quantizer_in_a_container", config, repository)
    assert found["error"]["code"] == "sandbox-unavailable"
    (Path(config["folder"]) / "target").unlink()


@pytest.mark.parametrize("probe", NEEDED)
def test_what_is_needed_still_works(
    worker: dict[str, Any], front_end: dict[str, Any], probe: str
) -> None:
    assert worker["probes"][probe] == "ok"
    assert front_end["probes"][probe] == "ok"


@pytest.mark.parametrize("probe", ["clone3", "too new"])
def test_calls_that_have_an_older_way_look_unknown(
    worker: dict[str, Any], front_end: dict[str, Any], probe: str
) -> None:
    assert worker["probes"][probe] == "ENOSYS"
    assert front_end["probes"][probe] == "ENOSYS"


def test_files_elsewhere_are_out_of_reach_where_landlock_is(
    worker: dict[str, Any], front_end: dict[str, Any]
) -> None:
    expected = "EACCES" if landlock.version(current()) else "ok"
    for probe in READS[:3]:
        assert worker["probes"][probe] == expected
        assert front_end["probes"][probe] == expected
    if expected == "EACCES":
        for probe in (*WRITES, READS[3]):
            assert front_end["probes"][probe] in {"EACCES", "EXDEV"}


def test_nothing_was_changed(
    worker: dict[str, Any], front_end: dict[str, Any], config: dict[str, Any]
) -> None:
    folder = Path(config["folder"])
    assert sorted(p.name for p in folder.iterdir()) == ["home", "models", "peer.sock", "secret"]
    assert (folder / "secret").read_bytes() == b"secret"


@pytest.mark.parametrize("probe", ["write at home", "move at home", "unlink at home"])
def test_the_front_end_writes_at_home(front_end: dict[str, Any], probe: str) -> None:
    assert front_end["probes"][probe] == "ok"


@pytest.mark.parametrize("probe", ["bind", "listen"])
def test_the_front_end_opens_no_second_door(front_end: dict[str, Any], probe: str) -> None:
    assert front_end["probes"][probe] == "EPERM"


def test_every_way_out_is_refused(worker: dict[str, Any], front_end: dict[str, Any]) -> None:
    for process in (worker, front_end):
        assert len(process["egress"]) == 10
        assert {attempt["outcome"] for attempt in process["egress"]} == {"refused"}
        assert {attempt["errno"] for attempt in process["egress"]} == {"EPERM"}


def test_the_attempts_are_real(config: dict[str, Any], repository: Path) -> None:
    attempts = result("unconfined", config, repository)["egress"]
    outcomes = {attempt["kind"]: attempt["outcome"] for attempt in attempts}
    for kind in ("tcp", "fastopen", "udp", "dns", "unix", "unix-datagram", "netlink"):
        assert outcomes[kind] == "ALLOWED", kind
    answered = {attempt["kind"]: attempt["errno"] for attempt in attempts}
    assert answered["tcp"] == ""  # the listener took the call


def test_privileges_are_gone(worker: dict[str, Any], front_end: dict[str, Any]) -> None:
    for process in (worker, front_end):
        facts = process["facts"]
        assert facts["Seccomp"] == "2"
        assert facts["NoNewPrivs"] == "1"
        assert {facts["CapEff"], facts["CapPrm"], facts["CapInh"]} == {"0" * 16}
        assert facts["core"] == [0, 0]
        assert facts["dumpable"] == 0
        assert process["report"]["capabilities"] == "none"


def test_reports_say_what_was_reached(worker: dict[str, Any], front_end: dict[str, Any]) -> None:
    abi = landlock.version(current())
    for process, name in ((worker, "worker"), (front_end, "front-end")):
        report = process["report"]
        assert report["process"] == name
        assert report["landlock"] == (f"ABI {abi}" if abi else "unavailable")
        assert report["seccomp"].startswith("enforced, ")
        assert report["noNewPrivs"] is True
    assert worker["report"]["namespace"].startswith(("empty network namespace", "refused: "))
    assert front_end["report"]["namespace"] == "shared with the host"


def test_descriptors_not_named_are_closed(config: dict[str, Any], repository: Path) -> None:
    left, right = socket.socketpair()
    secret = Path(config["folder"]) / "secret"
    with left, right, secret.open("rb") as opened:
        mine = right.fileno()
        options = {"pass_fds": (mine, opened.fileno())}
        found = result("worker", {**config, "keep": [mine]}, repository, **options)
    kept = {int(number): target for number, target in found["open"].items() if int(number) > 2}
    assert kept.pop(mine).startswith("socket:")
    # The rest pins what Landlock's rules name in procfs.
    assert all(target.startswith("/proc/") for target in kept.values()), kept


def test_an_ordinary_user_gets_the_same(config: dict[str, Any], repository: Path) -> None:
    found = result("unprivileged", config, repository)
    assert found["report"]["namespace"].startswith(("empty network namespace", "refused: "))
    assert found["same user"] is True
    assert found["facts"]["Seccomp"] == "2"
    assert found["facts"]["CapEff"] == "0" * 16


def test_a_container_without_namespaces_and_landlock_is_still_closed(
    config: dict[str, Any], repository: Path
) -> None:
    found = result("container", config, repository)
    assert found["report"]["namespace"] == "refused: Operation not permitted (EPERM)"
    assert found["report"]["landlock"] == "unavailable"
    assert {attempt["outcome"] for attempt in found["egress"]} == {"refused"}
    for probe in (*REFUSED, *WRITES):
        assert found["probes"][probe] == "EPERM", probe
    for probe in NEEDED:
        assert found["probes"][probe] == "ok", probe


@pytest.mark.parametrize(
    ("scenario", "code", "word"),
    [
        ("no_seccomp", "sandbox-unavailable", "ENOSYS"),
        ("pretended_seccomp", "sandbox-unavailable", "a new socket was still made"),
        ("threads_running", "sandbox-unavailable", "2 threads"),
        ("datagram_open", "sandbox-unavailable", "SOCK_DGRAM"),
        ("missing_module", "dependency-missing", "sealift_has_no_such_module"),
        ("missing_model", "not-found", "No such file"),
    ],
)
def test_fails_closed(
    config: dict[str, Any], repository: Path, scenario: str, code: str, word: str
) -> None:
    error = result(scenario, config, repository)["error"]
    assert error["code"] == code
    assert word in error["why"]
    assert error["hint"]


def test_an_abort_ends_the_process(config: dict[str, Any], repository: Path) -> None:
    assert run("aborts", config, repository).returncode == -signal.SIGABRT


def test_foreign_system_calls_kill(config: dict[str, Any], repository: Path) -> None:
    foreign = {"x86_64": ("foreign_numbering", "foreign_architecture"), "aarch64": ()}
    for scenario in foreign[current().name]:
        done = run(scenario, config, repository)
        # SIGSEGV: a kernel built without the 32-bit entry.
        assert done.returncode in {-signal.SIGSYS, -signal.SIGSEGV}, (scenario, done)


def get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as reply:
        body: bytes = reply.read()
        return body


def test_a_real_front_end_serves_confined(
    config: dict[str, Any], repository: Path, tmp_path: Path
) -> None:
    """aiohttp, its thread pool, SQLite in WAL mode, file responses, a socket handed in."""
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        subprocess.Popen(
            [sys.executable, str(SERVER), str(tmp_path), str(theirs.fileno())],
            env={**os.environ, "PYTHONPATH": str(repository)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
            text=True,
        ) as server,
    ):
        assert server.stdout
        try:
            greeting = json.loads(server.stdout.readline())
            port = greeting["port"]
            assert greeting["report"]["seccomp"].startswith("enforced")
            assert get(port, "/plain") == b"hello"
            assert [get(port, "/count") for _ in range(3)] == [b"1", b"2", b"3"]
            assert get(port, "/file") == b"x" * 300_000
            assert get(port, "/threads") == b"28"
            ours.settimeout(10)
            left, right = socket.socketpair()
            with left, right:
                socket.send_fds(ours, [b"w"], [right.fileno()])
                left.sendall(b"from the worker")
                assert get(port, "/handed-in") == b"from the worker"
            egress = json.loads(get(port, "/egress"))
            assert {attempt["errno"] for attempt in egress} == {"EPERM"}
        finally:
            server.terminate()
        assert server.wait(20) == 0  # SIGTERM: aiohttp shuts down in order
    assert (tmp_path / "catalog.db").is_file()


@pytest.mark.model
def test_the_real_engine_decodes_confined(
    config: dict[str, Any], repository: Path, model_gguf: Path
) -> None:
    found = result("decode", {**config, "model": str(model_gguf)}, repository)
    assert found["text"].strip()
    assert {attempt["errno"] for attempt in found["egress"]} == {"EPERM"}
