"""``bundle trust``: whom the isolated side believes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from schemas.cli import JsonFlag, Output, new_app

app = new_app("Publishers that the isolated side trusts, by the fingerprint of their root.")


@app.command("init")
def trust_init(
    root: Annotated[Path, typer.Option(metavar="FILE", help="The publisher's root.json.")],
    fingerprint: Annotated[
        str, typer.Option(metavar="SHA256", help="From paper or telephone, not from the stick.")
    ],
    name: Annotated[str, typer.Option(help="What to call it here.")] = "publisher",
    json: JsonFlag = False,
) -> None:
    """Pin a publisher's root: from now on its bundles are believed here."""
    from bundler import isolated
    from bundler.rendering import trust
    from schemas.settings import load

    trust.anchor(Output(json=json), isolated.pin(load().home, root, fingerprint, name))


@app.command("show")
def trust_show(
    name: Annotated[Optional[str], typer.Argument(help="Only this one.")] = None,  # noqa: UP045
    json: JsonFlag = False,
) -> None:
    """Show which publishers are trusted, and how fresh what they said last is."""
    from bundler import isolated
    from bundler.rendering import trust
    from schemas.settings import load

    trust.anchors(Output(json=json), isolated.anchors(load().home, name))


app.command("list", hidden=True)(trust_show)


@app.command("remove")
def trust_remove(
    name: Annotated[str, typer.Argument(help="As `bundle trust show` lists it.")],
    dry_run: Annotated[bool, typer.Option(help="Only say what would be forgotten.")] = False,
    json: JsonFlag = False,
) -> None:
    """Stop trusting a publisher. Installed models stay."""
    from bundler import isolated
    from bundler.rendering import trust
    from schemas.settings import load

    state = isolated.unpin(load().home, name, dry_run=dry_run)
    trust.unpinned(Output(json=json), state, dry_run=dry_run)
