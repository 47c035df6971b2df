"""create, pull and push against a scripted server: what is sent, what is shown."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scripted_server import ScriptedServer, document, lines
from tests.unit.runtime.cli.conftest import Sealift


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    with ScriptedServer() as started:
        monkeypatch.setenv("SEALIFT_HOST", started.host)
        started.answers["/api/create"] = lambda _: lines(
            {"status": "writing manifest"}, {"status": "success"}
        )
        yield started


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_create(server: ScriptedServer, sealift: Sealift, folder: Path) -> None:
    (folder / "Modelfile").write_text(
        "FROM tiny:1k\nSYSTEM Be kind.\nPARAMETER temperature 0.5\nPARAMETER stop a\n"
        "PARAMETER stop b\nLICENSE MIT\nMESSAGE user Hi\nTEMPLATE x\n"
    )
    assert sealift("create", "mine") == (0, "", "writing manifest\nsuccess\n")
    assert server.asked == [
        (
            "/api/create",
            {
                "model": "mine",
                "from": "tiny:1k",
                "system": "Be kind.",
                "template": "x",
                "parameters": {"temperature": 0.5, "stop": ["a", "b"]},
                "license": ["MIT"],
                "messages": [{"role": "user", "content": "Hi"}],
                "stream": True,
            },
        )
    ]


def test_create_for_scripts(
    server: ScriptedServer, sealift: Sealift, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"FROM tiny")))
    ended = sealift("create", "mine", "-f", "-", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out) == {"model": "mine", "status": "success"}


def test_a_file_is_uploaded_once(server: ScriptedServer, sealift: Sealift, folder: Path) -> None:
    (folder / "a.gguf").write_bytes(b"GGUF")
    digest = f"sha256:{hashlib.sha256(b'GGUF').hexdigest()}"
    (folder / "Modelfile").write_text("FROM ./a.gguf")
    server.answers[f"/api/blobs/{digest}"] = lambda _: document({})
    assert sealift("create", "mine").code == 0
    assert server.asked[-1][1]["files"] == {"a.gguf": digest}
    assert "from" not in server.asked[-1][1]


@pytest.mark.parametrize(
    ("text", "code", "error"),
    [
        (None, 4, "error[not-found]: there is no Modelfile"),
        ("SYSTEM x", 15, "error[malformed-document]: no FROM line"),
        ("FROM a\nFOO", 15, "error[malformed-document]: (line 2): command must be one of"),
        ("FROM a\nPARAMETER heat 1", 15, "error[malformed-document]: (line 2): unknown parameter"),
        ("FROM a\nADAPTER ./x", 4, "error[not-found]: there is no ./x"),
        ("FROM a\nPARSER x", 6, "error[unsupported]: PARSER is not supported"),
        ("FROM .", 6, "error[unsupported]: there is no GGUF file in"),
    ],
)
def test_wrong_modelfiles_send_nothing(
    server: ScriptedServer, sealift: Sealift, folder: Path, text: str | None, code: int, error: str
) -> None:
    if text is not None:
        (folder / "Modelfile").write_text(text)
    ended = sealift("create", "mine")
    assert ended.code == code
    assert ended.err.startswith(error)
    assert server.asked == []


@pytest.mark.parametrize("verb", ["pull", "push"])
def test_transfers(server: ScriptedServer, sealift: Sealift, verb: str) -> None:
    server.answers[f"/api/{verb}"] = lambda _: lines(
        {"status": "pulling manifest"},
        {"status": "pulling 0123", "digest": "sha256:0123", "total": 10},
        {"status": "pulling 0123", "digest": "sha256:0123", "total": 10, "completed": 10},
        {"status": "success"},
    )
    assert sealift(verb, "a/b", "--insecure") == (0, "", "pulling manifest\nsuccess\n")
    assert server.asked == [(f"/api/{verb}", {"model": "a/b", "stream": True})]
    assert json.loads(sealift(verb, "a/b", "--json").out)["status"] == "success"


def test_an_error_in_the_stream(server: ScriptedServer, sealift: Sealift) -> None:
    server.answers["/api/pull"] = lambda _: lines(
        {"status": "pulling manifest"}, {"error": "no such thing", "code": "not-found"}
    )
    ended = sealift("pull", "x")
    assert (ended.code, ended.err.splitlines()[-1]) == (4, "error[not-found]: no such thing")


def test_run_pulls_what_is_not_here(
    server: ScriptedServer, sealift: Sealift, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    there: list[bool] = []

    def pull(_: object) -> object:
        there.append(True)
        return lines({"status": "success"})

    server.answers["/api/pull"] = pull  # type: ignore[assignment]
    server.answers["/api/generate"] = lambda _: (
        lines({"response": "Yes.", "done": True})
        if there
        else document({"error": "model 'x' not found"}, 404)
    )
    ended = sealift("run", "x", "Really?")
    assert (ended.code, ended.out) == (0, "Yes.\n")


def test_made_here_is_told(sealift: Sealift, home: Path, model: object) -> None:
    from registry.reference import Reference
    from registry.store import Store
    from runtime.making import Recipe, make

    with Store.open(home) as store:
        make(store, Recipe(Reference.parse("mine"), Reference.parse("tiny:1k"), system="x"))
    listed = sealift("list").out
    assert "mine:latest was made here from tiny:1k, signed by nobody\n" in listed
    entries = json.loads(sealift("list", "--json").out)["models"]
    assert {e["name"]: e.get("made", {}).get("source") for e in entries} == {
        "mine:latest": "tiny:1k", "tiny:1k": None,
    }  # fmt: skip
    assert "provenance  " in sealift("show", "mine").out
    assert "made here from tiny:1k, signed by nobody" in sealift("show", "mine").out
    assert sealift("show", "mine", "--system").out == "x\n"
