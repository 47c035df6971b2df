"""``bundle receipt``: what each import did, signed by the site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bundler.cli.options import Force, Site
from schemas.cli import JsonFlag, Output, new_app

app = new_app("What each import did, or why a bundle was refused: signed by the site.")

Id = Annotated[str, typer.Argument(metavar="ID", help="The receipt's id, or its beginning.")]


@app.command("list")
def receipt_list(json: JsonFlag = False) -> None:
    """List the receipts of this site, the newest first."""
    from bundler import evidencing
    from bundler.rendering import evidence
    from schemas.settings import load

    evidence.receipts(Output(json=json), evidencing.kept_receipts(load().home))


@app.command("show")
def receipt_show(receipt: Id, json: JsonFlag = False) -> None:
    """Show a receipt of this site."""
    from bundler import evidencing
    from bundler.rendering import evidence
    from schemas.settings import load

    kept = evidencing.kept_receipt(load().home, receipt)
    evidence.receipt(Output(json=json), kept.document)


@app.command("export")
def receipt_export(
    receipt: Id,
    output: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option("--output", "-o", metavar="FILE", help="Where to. [default: shown only]"),
    ] = None,
    force: Force = False,
    json: JsonFlag = False,
) -> None:
    """Write a receipt as a file that leaves the site. It holds names: read it first."""
    from bundler import evidencing
    from bundler.rendering import evidence
    from schemas.settings import load

    written = evidencing.export_receipt(load().home, receipt, output, overwrite=force)
    evidence.written(Output(json=json), written)


@app.command("verify")
def receipt_verify(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    site: Site = None,
    json: JsonFlag = False,
) -> None:
    """Verify a receipt's file, and show it; needs no store."""
    from bundler import evidencing
    from bundler.rendering import evidence

    document = evidencing.verify_receipt(file, evidencing.fingerprint(site))
    out = Output(json=json)
    evidence.receipt(out, document)
    evidence.compare_site(out, document["site"], known=site is not None)
