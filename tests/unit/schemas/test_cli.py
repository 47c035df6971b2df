"""The one ``except``: every failure is one line and an exit code of its own kind."""

from __future__ import annotations

import json

import pytest
import typer

from schemas import errors
from schemas.cli import JsonFlag, Output, new_app, run


def app_that(raises: BaseException | None = None) -> typer.Typer:
    """An app with two commands; ``do`` raises what it is told."""
    app = new_app("A test.")

    @app.command("do")
    def _do(name: str = "x", *, json: JsonFlag = False) -> None:
        """Does it."""
        if raises is not None:
            raise raises
        Output(json=json).result({"name": name})

    @app.command("other")
    def _other() -> None:
        """Does nothing."""

    return app


def every_error() -> list[type[errors.SealiftError]]:
    found = [errors.SealiftError]
    for kind in found:
        found.extend(kind.__subclasses__())
    return found


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.code)
def test_an_error_is_one_line_and_its_exit_code(
    kind: type[errors.SealiftError], capsys: pytest.CaptureFixture[str]
) -> None:
    error = kind("it broke", why="a\nreason\x1b[2J", hint="Mend it")
    assert run(app_that(error), ["do"], name="test") == kind.exit_code
    assert capsys.readouterr() == (
        "",
        f"error[{kind.code}]: it broke: a reason?[2J. Mend it\n",
    )


def test_codes_and_exit_codes_are_told_apart() -> None:
    kinds = every_error()
    assert len({k.code for k in kinds}) == len(kinds)
    assert len({k.exit_code for k in kinds}) == len(kinds)
    assert not {k.exit_code for k in kinds} & {0, 130, 141}


def test_an_error_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.NotFound("no such thing", hint="Look elsewhere")
    assert run(app_that(error), ["do", "--json"], name="test") == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err) == {
        "error": {
            "code": "not-found",
            "exitCode": 4,
            "what": "no such thing",
            "why": "",
            "hint": "Look elsewhere",
        }
    }


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nothing"], "error[usage]: no such command 'nothing'. See test --help\n"),
        (["do", "--what"], "error[usage]: no such option: --what. See test do --help\n"),
        (["do", "a"], "error[usage]: got unexpected extra argument(s) (a). See test do --help\n"),
        (["do", "--name"], "error[usage]: option '--name' requires an argument. See test --help\n"),
        (["do", "\x1b[2J"], "error[usage]: got unexpected extra argument(s)"),
    ],
)
def test_wrong_usage(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app_that(), arguments, name="test") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == 1
    assert "\x1b" not in err


def test_wrong_usage_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app_that(), ["do", "--json", "--what"], name="test") == 2
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "usage"


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app_that(), [], name="test") == 2
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[0]) == ("", "Usage: test [OPTIONS] COMMAND [ARGS]...")


def test_success_and_help_are_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app_that(), ["do", "--json"], name="test") == 0
    assert json.loads(capsys.readouterr().out) == {"name": "x"}
    assert run(app_that(), ["do", "-h"], name="test") == 0


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (KeyboardInterrupt(), 130),
        (typer.Abort(), 130),
        (EOFError(), 130),
        (typer.Exit(40), 40),
        (BrokenPipeError(32, "Broken pipe"), 141),
    ],
)
def test_other_ends_say_nothing(
    raised: BaseException, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(app_that(raised), ["do"], name="test") == code
    assert capfd.readouterr().err.strip() == ""


def test_a_defect_is_one_line_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(app_that(ZeroDivisionError("by\nzero")), ["do"], name="test") == 1
    line = capsys.readouterr().err
    assert line.startswith("error[internal]: internal error: ZeroDivisionError: by zero. ")
    assert line.count("\n") == 1
    monkeypatch.setenv("SEALIFT_DEBUG", "1")
    assert run(app_that(ZeroDivisionError("by zero")), ["do"], name="test") == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err
