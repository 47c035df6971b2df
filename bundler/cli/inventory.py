"""``bundle inventory``: what a site holds, on its way back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bundler.cli.options import Force, Site
from schemas.cli import JsonFlag, Output, QuietFlag, new_app

app = new_app("What an isolated site holds, carried back for smaller bundles.")


@app.command("export")
def inventory_export(
    output: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option("--output", "-o", metavar="FILE", help="Where to. [default: shown only]"),
    ] = None,
    qr: Annotated[
        bool, typer.Option("--qr", help="Show it as QR codes, one after another.")
    ] = False,
    qr_png: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="DIR", help="Write its QR codes as pictures."),
    ] = None,
    least_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Leave smaller blobs out; they travel anyway.")
    ] = "0",
    force: Force = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Write what this site holds, signed by its own key, to be carried back."""
    from bundler import reports
    from bundler.rendering import inventory
    from bundler.sizes import parse_size
    from schemas.settings import load

    exported = reports.export_inventory(
        load().home,
        output,
        qr_png,
        least_size=parse_size(least_size),
        overwrite=force,
    )
    inventory.exported_inventory(Output(json=json, quiet=quiet), exported, codes=qr)


@app.command("show")
def inventory_show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An inventory, or a want-list.")],
    site: Site = None,
    json: JsonFlag = False,
) -> None:
    """Verify an inventory or a want-list, and show all of it."""
    from bundler import connected, reports
    from bundler.rendering import inventory

    inventory.report(Output(json=json), reports.read_report(file, connected.site_key(site)))


@app.command("join")
def inventory_join(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Texts of the QR codes, one per line.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to.")],
    force: Force = False,
    json: JsonFlag = False,
) -> None:
    """Put a report together again from its scanned QR codes, in any order."""
    from bundler import reports
    from bundler.rendering import inventory

    inventory.report(Output(json=json), reports.join(files, output, overwrite=force))
