"""The ``bundle`` command itself: what its help costs, and what it finds."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.main import get_group
from typer.testing import CliRunner

from bundler.cli import app
from runtime.cli.main import app as umbrella
from schemas.cli import Deferred

DEFERRED = {
    name: command
    for name, command in get_group(app).commands.items()
    if isinstance(command, Deferred)
}


def test_help_imports_no_group_of_verbs() -> None:
    code = (
        "import sys\nfrom bundler.cli import main\nmain()\n"
        "sys.exit(sum(name in sys.modules for name in sys.argv[2:]))"
    )
    modules = [f"bundler.cli.{name}" for name in DEFERRED]
    done = subprocess.run(
        [sys.executable, "-c", code, "--help", *modules], capture_output=True, text=True, check=True
    )
    assert all(f"\n  {name} " in done.stdout for name in DEFERRED)


@pytest.mark.parametrize("name", DEFERRED)
def test_help_of_a_group_says_what_the_list_says(name: str) -> None:
    said = DEFERRED[name].callback.__doc__
    assert said == DEFERRED[name].group().help


@pytest.mark.parametrize("words", [["keys", "show"], ["trust", "init"], ["audit", "verify"]])
def test_verb_of_a_group_is_found_under_both_commands(words: list[str]) -> None:
    for command, front in ((app, []), (umbrella, ["bundle"])):
        done = CliRunner().invoke(command, [*front, *words, "--help"])
        assert done.exit_code == 0
        assert f"{' '.join(words)} [OPTIONS]" in done.output
