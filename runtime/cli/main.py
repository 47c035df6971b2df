"""``sealift``: one command for the whole way of a model, from a bundle to an answer.

Each command parses, calls one function and shows what came of it; what it needs it imports when it
runs, so that ``sealift --help`` stays under 0.2 s.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from runtime.cli import apikey, deny, fit, manage, models, system, talk
from schemas.cli import Deferred, Deferring, new_app, run
from schemas.version import TOOL, VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence


app = new_app(
    "Carries AI models across an air gap, proves what arrived, and serves it with nothing leaving.",
    cls=Deferring,
)


def _version(value: bool) -> None:
    if value:
        from schemas.cli import Output

        Output().line(f"{TOOL} {VERSION}")
        raise typer.Exit


@app.callback()
def _umbrella(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", "-v", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def _bundle() -> typer.Typer:
    """Make, verify and import bundles; the same as the command bundle."""
    from bundler.cli import app as group

    return group


def _policy() -> typer.Typer:
    """Show and check what this site lets in; the same as bundle policy."""
    from bundler.cli.policy import app as group

    return group


def _audit() -> typer.Typer:
    """Show and verify what was done here; the same as bundle audit."""
    from bundler.cli.audit import app as group

    return group


app.command("serve")(system.serve)
app.command("run")(talk.run_model)
app.command("list")(models.list_models)
app.command("ls", hidden=True)(models.list_models)
app.command("show")(models.show)
app.command("ps")(talk.running)
app.command("stop")(talk.stop)
app.command("create")(manage.create)
app.command("pull")(manage.pull)
app.command("push")(manage.push)
app.command("cp")(models.copy)
app.command("rm")(models.remove)
app.command("gc")(models.collect)
app.command("fit")(fit.fit)
app.add_typer(apikey.app, name="apikey")
app.add_typer(deny.app, name="deny")
app.add_typer(deny.quarantine, name="quarantine")
app.command("bundle", cls=Deferred, add_help_option=False)(_bundle)
app.command("policy", cls=Deferred, add_help_option=False)(_policy)
app.command("audit", cls=Deferred, add_help_option=False)(_audit)
app.command("doctor")(system.doctor)


def main(argv: Sequence[str] | None = None) -> int:
    """The console script ``sealift``; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if words[:1] == ["run"]:  # as in Ollama, --think needs no value, and takes none behind a space
        words = ["--think=true" if word == "--think" else word for word in words]
    return run(app, words, name=TOOL)
