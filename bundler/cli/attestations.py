"""Verbs for what other tools check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bundler.cli.options import Force
from schemas.cli import JsonFlag, Output, QuietFlag


def bom(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A model of the store, or a bundle.")
    ],
    output: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option("--output", "-o", metavar="FILE", help="Write it there."),
    ] = None,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Of a bundle: show it without believing it.")
    ] = False,
    force: Force = False,
) -> None:
    """Print a bill of materials: CycloneDX 1.6, JSON.

    A model's names its files, licence, quantisation and origin as far as they are known; a bundle's
    lists its models.
    """
    from bundler.attestations.asking import bill
    from bundler.rendering import attestations
    from schemas.settings import load

    data = bill(load().home, target, unverified=unverified)
    attestations.billed(data, output, overwrite=force)


def extract(
    names: Annotated[
        list[str], typer.Argument(metavar="MODEL…", help="Names of models of the store.")
    ],
    into: Annotated[Path, typer.Option("--into", metavar="DIR", help="Where to.")],
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Write models as plain files, with the signature and key for model_signing.

    DIR gets a folder NAMESPACE/NAME/TAG per model, in it model.sig and bom.cdx.json, and the key as
    NAMESPACE.pub.
    """
    from bundler.attestations.extracting import extract as run
    from bundler.rendering import attestations
    from schemas.settings import load

    out = Output(json=json, quiet=quiet)
    with out.progress() as meter:
        found = run(load().home, names, into, meter)
    attestations.extracted(out, found)
