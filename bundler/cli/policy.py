"""``sealift policy``, also ``bundle policy``: what this site lets in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from schemas.cli import JsonFlag, Output, new_app

app = new_app("What this site lets in: its policy.toml, in words.")


@app.command("check")
def policy_check(
    file: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Argument(metavar="FILE", help="A policy. [default: the one that counts here]"),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """See that a policy can be used, has no unknown field and does not contradict itself."""
    from bundler.policy import reading
    from bundler.rendering import policy
    from schemas.settings import load

    found = reading.load(load().home) if file is None else reading.read(file)
    policy.policy(Output(json=json), found, checked=True)


@app.command("show")
def policy_show(json: JsonFlag = False) -> None:
    """Show which policy counts here, and what it says; the built-in rules without one."""
    from bundler.policy import reading
    from bundler.rendering import policy
    from schemas.settings import load

    policy.policy(Output(json=json), reading.load(load().home), checked=False)
