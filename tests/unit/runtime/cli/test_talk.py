"""run, ps, stop against a real connection to a scripted server."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.scripted_server import ScriptedServer, document, lines
from tests.unit.runtime.cli.conftest import Sealift


@pytest.fixture(autouse=True)
def stdin(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """Something is piped in: nothing, until a test says more."""
    data = io.BytesIO()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(data))
    return data


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    with ScriptedServer() as started:
        monkeypatch.setenv("SEALIFT_HOST", started.host)
        yield started


def generated(*pieces: str, **last: Any) -> Any:
    return lambda _: lines(
        *({"response": piece, "done": False} for piece in pieces),
        {"response": "", "done": True, "done_reason": "stop", "context": [1, 2], **last},
    )


def test_one_question(server: ScriptedServer, sealift: Sealift) -> None:
    server.answers["/api/generate"] = generated("Blue", ", of course.")
    assert sealift("run", "m", "Which", "colour?") == (0, "Blue, of course.\n", "")
    assert server.asked == [
        ("/api/generate", {"model": "m", "prompt": "Which colour?", "stream": True})
    ]


def test_options_are_sent(server: ScriptedServer, sealift: Sealift) -> None:
    server.answers["/api/generate"] = generated("{}")
    sealift("run", "m", "x", "--keepalive", "10m", "--format", "json")
    body = server.asked[0][1]
    assert (body["keep_alive"], body["format"]) == ("10m", "json")


def test_what_is_piped_comes_first(
    server: ScriptedServer, sealift: Sealift, stdin: io.BytesIO
) -> None:
    stdin.write(b"some text \xff\n")
    stdin.seek(0)
    server.answers["/api/generate"] = generated("short")
    assert sealift("run", "m", "Sum it up").out == "short\n"
    assert server.asked[0][1]["prompt"] == "some text \ufffd\n Sum it up"


def test_too_much_piped(
    server: ScriptedServer,
    sealift: Sealift,
    stdin: io.BytesIO,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("schemas.limits.PIPED_PROMPT_BYTES", 10)
    stdin.write(b"x" * 11)
    stdin.seek(0)
    assert sealift("run", "m").code == 2
    assert server.asked == []


def test_nothing_to_ask(server: ScriptedServer, sealift: Sealift) -> None:
    ended = sealift("run", "m")
    assert ended.code == 2
    assert ended.err == "error[usage]: nothing to ask. Give a prompt, or pipe one in\n"


def test_a_bad_keepalive_is_told_before_anything_is_loaded(
    server: ScriptedServer, sealift: Sealift
) -> None:
    assert sealift("run", "m", "x", "--keepalive", "soon").code == 2
    assert server.asked == []


def test_run_for_scripts(server: ScriptedServer, sealift: Sealift) -> None:
    server.answers["/api/generate"] = generated("a\x1b", "b", eval_count=2)
    ended = sealift("run", "m", "x", "--json")
    assert "\x1b" not in ended.out
    assert json.loads(ended.out) == {
        "done": True,
        "done_reason": "stop",
        "eval_count": 2,
        "response": "a\x1bb",
    }


def test_an_answer_cannot_drive_the_terminal(server: ScriptedServer, sealift: Sealift) -> None:
    server.answers["/api/generate"] = generated("\x1b[2J\x1b[1;1Hok")
    assert sealift("run", "m", "x").out == "␛[2J␛[1;1Hok\n"


def test_verbose(server: ScriptedServer, sealift: Sealift) -> None:
    server.answers["/api/generate"] = generated("x", total_duration=2_000_000_000)
    assert sealift("run", "m", "x", "--verbose").err == "total duration:       2.0s\n"


def test_an_unknown_model(server: ScriptedServer, sealift: Sealift) -> None:
    server.answers["/api/generate"] = lambda _: document({"error": "model 'm' not found"}, 404)
    assert sealift("run", "m", "x") == (4, "", "error[not-found]: model 'm' not found\n")


def test_ps(server: ScriptedServer, sealift: Sealift) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=4, seconds=30)).isoformat()
    models = [
        {
            "name": "smollm2:135m",
            "digest": "6691e0cc4cf903657977",
            "size": 120_000_000,
            "context_length": 4096,
            "expires_at": soon,
        },
        {"name": "half", "size": 100, "size_vram": 25, "expires_at": "9999-12-31T23:59:59Z"},
        {"name": "\x1b[2J", "size": "many", "size_vram": None, "expires_at": 7},
        "nonsense",
    ]
    server.answers["/api/ps"] = lambda _: document({"models": models})
    rows = [re.split("  +", line) for line in sealift("ps").out.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells == [
        ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"],
        ["smollm2:135m", "6691e0cc4cf9", "120 MB", "100% CPU", "4096", "4 minutes from now"],
        ["half", "100 B", "75%/25% CPU/GPU", "0", "Forever"],
        ["␛[2J", "0 B", "100% CPU", "0"],
    ]
    assert max(map(len, sealift("ps").out.splitlines())) <= 80


def test_ps_for_scripts(server: ScriptedServer, sealift: Sealift) -> None:
    server.answers["/api/ps"] = lambda _: document({"models": [{"name": "a"}]})
    assert json.loads(sealift("ps", "--json").out) == {"models": [{"name": "a"}]}


def test_stop(server: ScriptedServer, sealift: Sealift) -> None:
    server.answers["/api/generate"] = lambda _: document({"done_reason": "unload"})
    assert sealift("stop", "m") == (0, "m is unloaded.\n", "")
    assert server.asked[0][1] == {"model": "m", "keep_alive": 0, "stream": False}


@pytest.mark.parametrize("arguments", [("run", "m", "x"), ("ps",), ("stop", "m")])
def test_no_server(
    sealift: Sealift, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("SEALIFT_HOST", "127.0.0.1:1")
    expected = "error[remote-unavailable]: no server at 127.0.0.1:1. Start it with sealift serve\n"
    assert sealift(*arguments) == (31, "", expected)


@pytest.mark.parametrize(
    ("typed", "think"),
    [
        (("--think",), True),
        (("--think=true",), True),
        (("--think=false",), False),
        (("--think=high",), "high"),
        (("--nowordwrap", "--insecure"), None),
    ],
)
def test_ollamas_options_of_run(
    server: ScriptedServer, sealift: Sealift, typed: tuple[str, ...], think: object
) -> None:
    server.answers["/api/generate"] = generated("x")
    assert sealift("run", "m", *typed, "why?").code == 0
    assert server.asked[0][1]["prompt"] == "why?"
    assert server.asked[0][1].get("think") == think


def test_a_thought_that_there_is_none_of(server: ScriptedServer, sealift: Sealift) -> None:
    assert sealift("run", "m", "--think=hard", "x").code == 2
    assert server.asked == []


def test_hidden_thinking(server: ScriptedServer, sealift: Sealift) -> None:
    server.answers["/api/generate"] = lambda _: lines(
        {"thinking": "Hm.", "response": "", "done": False}, {"response": "Yes.", "done": True}
    )
    assert sealift("run", "m", "x").out == "Thinking...\nHm.\n...done thinking.\n\nYes.\n"
    assert sealift("run", "m", "x", "--hidethinking").out == "Yes.\n"


def test_help_as_a_command(sealift: Sealift) -> None:
    assert sealift("help").out == sealift("--help").out
    assert sealift("help", "run").out.startswith("Usage: sealift run ")
