"""The umbrella command against its own server and a real model."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Server, install, serving
from tests.support.terminal import SEALIFT, Terminal

NAME = "smollm2:135m"
pytestmark = [pytest.mark.model, pytest.mark.slow]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, model_gguf: Path) -> Path:
    home = tmp_path_factory.mktemp("cli") / "home"
    install(home, model_gguf, "library/smollm2:135m")
    return home


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    # A small context ends an answer that does not end by itself; one thread, for tests run abreast.
    with serving(home, context_length="256", num_threads="1") as started:
        yield started


@pytest.fixture
def environment(home: Path, server: Server) -> dict[str, str]:
    ours = {"SEALIFT_HOME": str(home), "SEALIFT_HOST": f"{server.host}:{server.port}"}
    return {**os.environ, **ours, "SEALIFT_NOHISTORY": "1"}


def sealift(environment: dict[str, str], *arguments: str, typed: bytes = b"") -> bytes:
    done = subprocess.run(
        [SEALIFT, *arguments], env=environment, input=typed, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def document(environment: dict[str, str], *arguments: str) -> Any:
    return json.loads(sealift(environment, *arguments, "--json"))


def test_one_question(environment: dict[str, str]) -> None:
    answer = document(environment, "run", NAME, "Answer with one word: is snow white?")
    assert len(answer["response"].split()) >= 1
    assert answer["done"] is True
    assert answer["eval_count"] >= 1


def test_a_piped_prompt(environment: dict[str, str]) -> None:
    assert sealift(environment, "run", NAME, typed=b"Say hello.").strip()


def test_ps_and_stop(environment: dict[str, str]) -> None:
    sealift(environment, "run", NAME, "Say hello.")
    (loaded,) = document(environment, "ps")["models"]
    assert (loaded["name"], loaded["context_length"]) == (NAME, 256)
    assert NAME.encode() in sealift(environment, "ps")
    sealift(environment, "stop", NAME)
    assert document(environment, "ps") == {"models": []}


def test_list_and_show_need_no_server_and_say_the_same(
    environment: dict[str, str], server: Server
) -> None:
    (listed,) = document(environment, "list")["models"]
    (tagged,) = server.get("/api/tags")["models"]
    assert listed["digest"] == f"sha256:{tagged['digest']}"
    assert (listed["name"], listed["size"]) == (tagged["name"], tagged["size"])
    shown = document(environment, "show", NAME)
    assert server.post("/api/show", {"model": NAME}).items() <= shown.items()


def test_a_session(environment: dict[str, str]) -> None:
    terminal = Terminal(environment, "run", NAME)
    terminal.expect(">>> ", 60)
    for line in ("parameter num_predict 12", "parameter temperature 0", "verbose"):
        terminal.type(f"/set {line}\r")
        terminal.expect(">>> ")
    terminal.type("My name is Ada. Say hello to me.\r")
    answer = terminal.expect(">>> ", 60)
    assert "eval count:           12 tokens" in answer or "eval rate:" in answer
    terminal.type("/show info\r")
    assert "llama" in terminal.expect(">>> ")
    terminal.type("/set quiet\r")
    terminal.expect(">>> ")
    terminal.type("/bye\r")
    assert terminal.end() == 0


def test_ctrl_c_frees_the_model_for_the_next_question(environment: dict[str, str]) -> None:
    terminal = Terminal(environment, "run", NAME)
    terminal.expect(">>> ", 60)
    terminal.type("Tell me a very long story about a ship.\r")
    terminal.expect("ship.\r\n")
    terminal.expect(" ", 60)  # between the first two words
    terminal.type("\x03")
    terminal.expect(">>> ", 20)
    (loaded,) = document(environment, "ps")["models"]
    assert (loaded["running"], loaded["waiting"]) == (0, 0)
    terminal.type("\x04")
    assert terminal.end() == 0


def test_egress_is_off_inside_the_running_server(environment: dict[str, str]) -> None:
    sealift(environment, "run", NAME, "Say hello.")
    report = document(environment, "doctor", "--egress")
    assert report["good"] is True
    tried = {p["process"]: {a["outcome"] for a in p["attempts"]} for p in report["processes"]}
    assert tried["front-end"] == tried["worker"] == {"refused"}
    assert "ALLOWED" in tried["unconfined"]


def test_doctor_decodes_a_real_prompt(environment: dict[str, str]) -> None:
    findings = {f["check"]: f for f in document(environment, "doctor")["findings"]}
    assert {name: f["verdict"] for name, f in findings.items() if name != "home"} == dict.fromkeys(
        ("python", "packages", "serving", "store", "worker", "front-end", "engine", "server"), "ok"
    )
    assert "tokens/s" in findings["engine"]["detail"]
