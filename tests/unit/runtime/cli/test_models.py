"""list, show, cp, rm, gc on a real store; no server runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.reference import Reference
from registry.store import Store
from tests.unit.runtime.cli.conftest import Sealift


def names(home: Path) -> list[str]:
    with Store.open(home, create=False) as store:
        return [record.reference.shortest for record in store.catalogue.models()]


def test_an_empty_home_has_no_models_and_is_not_made(sealift: Sealift, home: Path) -> None:
    ended = sealift("list")
    assert (ended.code, ended.out) == (0, "NAME  ID  SIZE  MODIFIED\n")
    assert ended.err.startswith(f"no store at {home}")
    assert not home.exists()


def test_list(sealift: Sealift, model: Reference) -> None:
    ended = sealift("list")
    header, row = ended.out.splitlines()
    assert header.split() == ["NAME", "ID", "SIZE", "MODIFIED"]
    assert row.startswith("tiny:1k  ")
    assert row.endswith(" ago")
    assert (ended.code, ended.err) == (0, "")
    assert sealift("ls").out.splitlines()[0].split() == header.split()


def test_list_for_scripts(sealift: Sealift, model: Reference) -> None:
    (entry,) = json.loads(sealift("list", "--json").out)["models"]
    assert (entry["name"], entry["reference"]) == ("tiny:1k", "library/tiny:1k")
    assert entry["digest"].startswith("sha256:")
    assert entry["size"] > 1000


def test_show(sealift: Sealift, model: Reference) -> None:
    ended = sealift("show", "tiny:1k")
    assert ended.code == 0
    for text in ("architecture", "llama", "context length", "128", "F32", "completion"):
        assert text in ended.out
    assert "apache-2.0" in ended.out


def test_a_template_cannot_drive_the_terminal(sealift: Sealift, model: Reference) -> None:
    ended = sealift("show", "tiny:1k", "--template")
    assert ended.out == "{{ messages[0].content }}␛]0;owned␇\n"
    document = sealift("show", "tiny:1k", "--json")
    assert "\x1b" not in document.out
    assert json.loads(document.out)["template"].endswith("\x1b]0;owned\x07")


def test_show_one_part(sealift: Sealift, model: Reference) -> None:
    assert sealift("show", "tiny:1k", "--license").out == "apache-2.0\n"
    assert "\nFROM /" in sealift("show", "tiny:1k", "--modelfile").out
    assert sealift("show", "tiny:1k", "--system").out == "\n"
    both = sealift("show", "tiny:1k", "--license", "--system")
    assert (both.code, both.out) == (2, "")
    assert both.err.startswith("error[usage]: only one part can be shown. ")


def test_copy(sealift: Sealift, model: Reference, home: Path) -> None:
    ended = sealift("cp", "tiny:1k", "acme/Mine")
    assert ended == (0, "copied tiny:1k to acme/mine:latest\n", "")
    assert sorted(names(home)) == ["acme/mine:latest", "tiny:1k"]


def test_remove(sealift: Sealift, model: Reference, home: Path) -> None:
    ended = sealift("rm", "tiny:1k")
    assert ended.code == 0
    assert ended.out.startswith("removed tiny:1k, ")
    assert names(home) == []


def test_remove_dry_run_changes_nothing(sealift: Sealift, model: Reference, home: Path) -> None:
    assert sealift("rm", "--dry-run", "tiny:1k") == (0, "would remove tiny:1k\n", "")
    assert names(home) == ["tiny:1k"]


def test_remove_all_or_none(sealift: Sealift, model: Reference, home: Path) -> None:
    ended = sealift("rm", "tiny:1k", "nothing")
    assert (ended.code, ended.out) == (4, "")
    assert ended.err == "error[not-found]: model 'nothing:latest' not found. See sealift list\n"
    assert names(home) == ["tiny:1k"]


def test_remove_the_same_twice(sealift: Sealift, model: Reference, home: Path) -> None:
    assert sealift("rm", "tiny:1k", "library/tiny:1k").code == 0
    assert names(home) == []


@pytest.mark.parametrize(
    "arguments",
    [("show", "x"), ("cp", "x", "y"), ("rm", "x"), ("show", "tiny:2k")],
)
def test_unknown_models(sealift: Sealift, model: Reference, arguments: tuple[str, ...]) -> None:
    ended = sealift(*arguments)
    assert (ended.code, ended.out) == (4, "")
    assert ended.err.startswith("error[not-found]: model '")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("name", ["a b", "../x", "x\x1b[2J", "", "x:y:z", "a/b/c/d"])
@pytest.mark.parametrize("command", ["show", "rm"])
def test_bad_names(sealift: Sealift, model: Reference, command: str, name: str) -> None:
    ended = sealift(command, name)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith("error[invalid-name]: ")
    assert "\x1b" not in ended.err


def test_collect(sealift: Sealift, model: Reference, home: Path) -> None:
    with Store.open(home) as store:
        store.remove_model(model, prune=False)
    assert sealift("gc").out.endswith("0 B freed, 3 blobs kept.\n")
    dry = sealift("gc", "--grace", "0", "--dry-run")
    assert dry.out.count("would remove ") == 3
    report = json.loads(sealift("gc", "--grace", "0", "--json").out)
    assert (len(report["removed"]), report["kept"]) == (3, 0)


@pytest.mark.parametrize("grace", ["-1", "soon"])
def test_collect_wants_a_time(sealift: Sealift, model: Reference, grace: str) -> None:
    assert sealift("gc", "--grace", grace).code == 2


def test_a_broken_configuration_is_told(sealift: Sealift, model: Reference, home: Path) -> None:
    (home / "config.toml").write_text("[serve]\nhost = 1\n")
    ended = sealift("list")
    assert ended.code == 15
    assert ended.err.startswith("error[malformed-document]: config v1 does not follow its schema")


def test_list_by_the_beginning_of_a_name(sealift: Sealift, model: Reference) -> None:
    assert sealift("cp", "tiny:1k", "acme/mine").code == 0
    rows = sealift("list", "Acme/").out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["acme/mine:latest"]
    assert json.loads(sealift("list", "nothing", "--json").out)["models"] == []


def test_show_everything(sealift: Sealift, model: Reference) -> None:
    text = sealift("show", "tiny:1k", "-v").out
    assert "  Metadata\n" in text
    assert "general.architecture" in text
    assert "tokenizer.ggml.tokens" in text
    assert "...+5 more]" in text
    assert "  Tensors\n" in text
    assert "F32  [32" in text
    assert "Tensors" not in sealift("show", "tiny:1k").out
    assert json.loads(sealift("show", "tiny:1k", "-v", "--json").out)["tensors"]
