"""The installed command as a process: exit codes, one line per error, pipes, signals, start-up."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scripted_server import Reply, ScriptedServer, lines
from tests.support.terminal import SEALIFT, Terminal

BUNDLE = str(Path(sysconfig.get_path("scripts")) / "bundle")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The caller's, with a home that is not there yet and a port where nobody listens."""
    home, state = tmp_path / "home", tmp_path / "state"
    ours = {"SEALIFT_HOME": str(home), "SEALIFT_HOST": "127.0.0.1:1", "XDG_STATE_HOME": str(state)}
    return {**os.environ, **ours}


@pytest.fixture
def server(environment: dict[str, str]) -> Iterator[ScriptedServer]:
    with ScriptedServer() as started:
        environment["SEALIFT_HOST"] = started.host
        yield started


def call(
    environment: dict[str, str], *arguments: str, program: str = SEALIFT, typed: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [program, *arguments], env=environment, input=typed, capture_output=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["ps"], 31, b"error[remote-unavailable]: no server at 127.0.0.1:1. Start it with"),
        (["run", "m", "hi"], 31, b"error[remote-unavailable]: no server at 127.0.0.1:1. "),
        (["show", "m"], 4, b"error[not-found]: no store at "),
        (["frobnicate"], 2, b"error[usage]: no such command 'frobnicate'. See sealift --help"),
        (["bundle", "frobnicate"], 2, b"error[usage]: no such command 'frobnicate'. See sealift"),
        (["bundle", "verify", "/dev/null"], None, b"error["),
        (["serve", "--host", "192.0.2.1:80"], 2, b"error[usage]: refusing to listen on 192.0.2.1"),
    ],
)
def test_errors_are_one_line(
    environment: dict[str, str], arguments: list[str], code: int | None, line: bytes
) -> None:
    done = call(environment, *arguments)
    assert done.returncode == code or (code is None and done.returncode > 1)
    assert done.stdout == b""
    assert done.stderr.startswith(line)
    assert done.stderr.count(b"\n") == 1


def test_the_alias_says_the_same(environment: dict[str, str]) -> None:
    ours = call(environment, "bundle", "--help").stdout
    alias = call(environment, "--help", program=BUNDLE).stdout
    assert ours.split(b"Commands:")[1] == alias.split(b"Commands:")[1]
    verify = ("verify", "/nowhere/x.tar")
    assert call(environment, "bundle", *verify).stderr == call(
        environment, *verify, program=BUNDLE
    ).stderr  # fmt: skip


def test_version(environment: dict[str, str]) -> None:
    assert re.fullmatch(rb"sealift \d+\.\d+\.\d+\n", call(environment, "--version").stdout)


def test_a_reader_that_goes_away_is_no_error(environment: dict[str, str]) -> None:
    for arguments in (["--help"], ["list", "--json"]):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            [SEALIFT, *arguments],
            env=environment,
            stdout=write,
            stderr=subprocess.PIPE,
            check=False,
        )
        os.close(write)
        assert done.returncode == 141
        assert b"error" not in done.stderr
        assert b"Traceback" not in done.stderr


def test_names_that_the_locale_cannot_print(environment: dict[str, str]) -> None:
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = call(environment, "show", "m\u00f6del")
    assert done.returncode == 3
    assert done.stderr.startswith(b"error[invalid-name]: ")


def test_ctrl_c_stops_an_answer_and_the_server_sees_it(
    environment: dict[str, str], server: ScriptedServer
) -> None:
    server.answers["/api/generate"] = lambda _: lines({"response": "One, two"}, hold=True)
    process = subprocess.Popen(
        [SEALIFT, "run", "m", "count"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read(8) == b"One, two"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"\n", b"")
    assert server.left.wait(10)


# -- start-up -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "also_not"),
    [
        (["--help"], ["sqlite3", "registry", "bundler", "runtime.client", "http"]),
        (["run", "--help"], ["sqlite3", "registry", "bundler", "runtime.client", "http"]),
        (["bundle", "--help"], ["sqlite3", "registry", "runtime.client", "http"]),
        (["list"], ["bundler", "runtime.client", "runtime.doctor", "http", "ssl"]),
    ],
)
def test_start_up_imports_little(
    environment: dict[str, str], arguments: list[str], also_not: list[str]
) -> None:
    """What makes ``--help`` and ``list`` quick, told without a clock."""
    heavy = ["rich", "pydantic", "asyncio", "aiohttp", "numpy", "llama_cpp", "jsonschema_rs"]
    heavy += ["cryptography", "tuf", "securesystemslib", "zstandard", "jinja2", "httpx"]
    code = (
        "import sys, json\nfrom runtime.cli.main import main\n"
        "code = main(sys.argv[2:])\n"
        "found = [m for m in json.loads(sys.argv[1]) if m in sys.modules]\n"
        "print(json.dumps([code, found]), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(heavy + also_not), *arguments],
        env=environment,
        capture_output=True,
        check=False,
    )
    assert json.loads(done.stderr.splitlines()[-1]) == [0, []]


# -- doctor ---------------------------------------------------------------------------------------


def test_doctor_without_a_store(environment: dict[str, str]) -> None:
    done = call(environment, "doctor", "--json")
    report = json.loads(done.stdout)
    verdicts = {f["check"]: f["verdict"] for f in report["findings"]}
    assert verdicts["python"] == verdicts["packages"] == "ok"
    assert verdicts["worker"] in ("ok", "note")
    assert verdicts["store"] == verdicts["server"] == verdicts["engine"] == "note"
    assert (done.returncode, report["good"]) == (0, True)


def test_doctor_finds_a_home_that_others_can_write(environment: dict[str, str]) -> None:
    home = Path(environment["SEALIFT_HOME"])
    home.mkdir()
    home.chmod(0o777)
    done = call(environment, "doctor")
    assert done.returncode == 40
    told = b" ".join(done.stdout.split())
    assert b"can be written by others (mode 0777) Run chmod go-w " in told
    assert max(map(len, done.stdout.splitlines())) <= 80 or len(str(home)) > 60


def test_doctor_finds_a_store_that_is_no_store(environment: dict[str, str]) -> None:
    home = Path(environment["SEALIFT_HOME"])
    home.mkdir(mode=0o700)
    (home / "catalog.db").write_bytes(b"this is no database" * 100)
    done = call(environment, "doctor", "--json")
    findings = {f["check"]: f for f in json.loads(done.stdout)["findings"]}
    assert findings["store"]["verdict"] == "bad"
    assert done.returncode == 40


def test_egress_is_tried_in_fresh_processes_where_no_server_runs(
    environment: dict[str, str],
) -> None:
    done = call(environment, "doctor", "--egress", "--json")
    report = json.loads(done.stdout)
    tried = {p["process"]: {a["outcome"] for a in p["attempts"]} for p in report["processes"]}
    assert tried["worker"] == tried["front-end"] == {"refused"}
    assert "ALLOWED" in tried["unconfined"], "the control shows that the attempts are real"
    assert (done.returncode, report["good"]) == (0, True)


@pytest.mark.parametrize(
    "processes",
    [
        [],
        "nonsense",
        [{"process": "front-end", "attempts": []}],
        [{"process": "front-end", "attempts": ["refused"]}],
        [{"process": "worker", "attempts": [{"kind": "tcp", "outcome": "refused"}]}],
        [{"process": "front-end", "attempts": [{"kind": "tcp", "outcome": "ALLOWED"}]}],
        [
            {"process": "front-end", "attempts": [{"kind": "tcp", "outcome": "refused"}]},
            {"process": "worker", "attempts": [{"kind": "tcp", "outcome": "ALLOWED"}]},
        ],
    ],
)
def test_egress_fails_closed(
    environment: dict[str, str], server: ScriptedServer, processes: object
) -> None:
    """Whatever a server says, only proof counts."""
    answer = json.dumps({"processes": processes}).encode()
    server.answers["/api/sealift/egress"] = lambda _: Reply(chunks=[answer])
    done = call(environment, "doctor", "--egress")
    assert done.returncode == 40
    assert done.stdout.splitlines()[-1].startswith(b"SOMETHING CAN GET OUT")


# -- on a terminal --------------------------------------------------------------------------------


def test_a_session_on_a_terminal(environment: dict[str, str], server: ScriptedServer) -> None:
    server.answers["/api/generate"] = lambda _: lines({"done": True, "done_reason": "load"})
    server.answers["/api/chat"] = lambda body: lines(
        {"message": {"content": f"\x1b[2J{len(body['messages'])} messages"}}, {"done": True}
    )
    environment |= {"PYTHONWARNINGS": "error"}
    terminal = Terminal(environment, "run", "m", "--keepalive", "1m")
    terminal.expect(">>> ")
    terminal.type("hello\r")
    assert "␛[2J1 messages\r\n" in terminal.expect(">>> ")
    terminal.type('"""more\r')
    terminal.expect("... ")
    terminal.type('lines"""\r')
    assert "␛[2J3 messages" in terminal.expect(">>> ")
    terminal.type("\x1b[A\r")  # the arrow key brings the last line back; it opens no quotes
    terminal.expect("␛[2J5 messages")
    terminal.expect(">>> ")
    terminal.interrupt("Use Ctrl-D or /bye to leave.")
    terminal.expect(">>> ")
    terminal.type("\x04")
    assert terminal.end() == 0
    assert [path for path, _ in server.asked[:2]] == ["/api/generate", "/api/chat"]
    assert server.asked[0][1] == {"model": "m", "keep_alive": "1m", "stream": False}
    assert server.asked[2][1]["messages"][-1]["content"] == "more\nlines"
    history = Path(environment["XDG_STATE_HOME"]) / "sealift" / "history"
    assert "hello" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0, "nobody else reads what was asked"


def test_ctrl_c_stops_the_answer_and_not_the_session(
    environment: dict[str, str], server: ScriptedServer
) -> None:
    environment["SEALIFT_NOHISTORY"] = "1"
    server.answers["/api/generate"] = lambda _: lines({"done": True})
    server.answers["/api/chat"] = lambda _: lines({"message": {"content": "One, two "}}, hold=True)
    terminal = Terminal(environment, "run", "m")
    terminal.expect(">>> ")
    terminal.type("count\r")
    terminal.expect("One, two")
    terminal.type("\x03")
    terminal.expect(">>> ")
    assert server.left.wait(10)
    terminal.type("/bye\r")
    assert terminal.end() == 0
    assert not (Path(environment["XDG_STATE_HOME"]) / "sealift").exists()


def test_an_unknown_model_on_a_terminal(
    environment: dict[str, str], server: ScriptedServer
) -> None:
    terminal = Terminal(environment, "run", "m")
    terminal.expect("\x1b[1;31merror[not-found]:\x1b[0m not here")
    assert terminal.end() == 4
