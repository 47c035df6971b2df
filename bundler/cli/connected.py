"""Verbs of the connected side: what is made, and looked at before it travels."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional

import typer

from bundler.cli.options import Force, Only, PassphraseFile, Paths, Publisher, Site
from bundler.cli.signing import KeyPassphraseFile, PinFile, SignWith, secrets
from schemas.cli import JsonFlag, Output, QuietFlag


def create(
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The bundle, or its head; - is a pipe."
        ),
    ],
    sources: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer evaluates it
        typer.Argument(metavar="MODEL…", help="Model files or folders."),
    ] = None,
    name: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer evaluates it
        typer.Option("--name", "-n", metavar="NAME", help="One per model, in the same order."),
    ] = None,
    volume_size: Annotated[
        Optional[str],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="SIZE", help="Write volumes of at most this: 3900M, 25G."),
    ] = None,
    compression: Annotated[str, typer.Option(help="auto, none or max.")] = "auto",
    parity: Annotated[
        int,
        typer.Option(
            metavar="M", min=0, help="Add M volumes, so that any M may get lost or damaged."
        ),
    ] = 0,
    check_media: Annotated[
        bool, typer.Option("--check-media", help="Read it back past the page cache at once.")
    ] = False,
    against: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="INVENTORY", help="Leave out what this site holds; send deltas."),
    ] = None,
    want: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="LIST", help="Send what a site lacked for an earlier bundle."),
    ] = None,
    countersigned: Annotated[
        Optional[list[Path]],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="FILE", help="Bring a site's countersigned audit checkpoint along."),
    ] = None,
    site: Site = None,
    advisories_only: Annotated[
        bool, typer.Option("--advisories-only", help="Send only what was withdrawn, no models.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a model with anything unusual in it.")
    ] = False,
    after: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="BUNDLE", help="The last one; refuse if the keys are older."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    sign_with: SignWith = None,
    key_passphrase_file: KeyPassphraseFile = None,
    pin_file: PinFile = None,
    force: Force = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Sign models and write them into one bundle file, or a head and volumes for sticks.

    Interrupted, the same command goes on where it was.
    """
    from bundler import connected, keyholding, upkeep
    from bundler.forms import check_pipe
    from bundler.inventory import WantList
    from bundler.rendering import inventory, keys, transfers
    from schemas.settings import load

    out = Output(json=json, quiet=quiet)
    form = connected.form(compression, volume_size, overwrite=force, parity=parity)
    if str(output) == "-":
        check_pipe(form, check_media=check_media)
    form, report = connected.for_site(form, against, want, site)
    form = connected.countersigned(form, countersigned or [])
    form = replace(form, advisories_only=advisories_only, strict=strict)
    if report is not None:
        inventory.believed(out, report, known=site is not None)
    home = load().home
    if after is not None:
        keyholding.check_not_behind(connected.open_publisher(home), after)
    with out.progress() as meter:
        created = connected.create(
            home,
            sources or [],
            name or [],
            output,
            form=form,
            wanted=report if isinstance(report, WantList) else None,
            passphrase=lambda: secrets(passphrase_file, sign_with, key_passphrase_file, pin_file),
            progress=meter,
        )
        checked = None
        if check_media:
            checked = upkeep.check_paths([created.path, *created.volumes], meter)
    # Into a pipe goes nothing but the bundle.
    with redirect_stdout(sys.stderr) if str(output) == "-" else nullcontext():
        transfers.created(out, created, checked)
    keys.advise(out, keyholding.health(home))


def check_media_(paths: Paths, json: JsonFlag = False, quiet: QuietFlag = False) -> None:
    """Read a bundle back from its stick, past the page cache, and compare every byte.

    Finds bad spots, and media that lie about their size. Give the head, and what lies there.
    """
    from bundler import upkeep
    from bundler.rendering import transfers

    out = Output(json=json, quiet=quiet)
    with out.progress() as meter:
        checked = upkeep.check_paths(paths, meter)
    transfers.checked_media(out, checked)


def repair(
    paths: Paths,
    output: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option("--output", "-o", metavar="DIR", help="Where to. [default: in place]"),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Only say what is damaged.")] = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Make lost and damaged volumes again from parity volumes.

    An import does so by itself; this is for a stick that travels on.
    """
    from bundler import upkeep
    from bundler.rendering import transfers

    out = Output(json=json, quiet=quiet)
    with out.progress() as meter:
        repaired = upkeep.repair_paths(paths, output, meter, dry_run=dry_run)
    transfers.repaired(out, repaired, dry_run=dry_run)


def plan(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="MODEL…|BUNDLE…", help="Models to bundle, or a bundle to import."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Models: where it would go.")
    ] = Path(),
    name: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer evaluates it
        typer.Option("--name", "-n", metavar="NAME", help="Models: one per model."),
    ] = None,
    volume_size: Annotated[
        Optional[str],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="SIZE", help="Models: volumes of at most this: 3900M, 25G."),
    ] = None,
    compression: Annotated[str, typer.Option(help="Models: auto, none or max.")] = "auto",
    parity: Annotated[
        int, typer.Option(metavar="M", min=0, help="Models: with M parity volumes.")
    ] = 0,
    against: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="INVENTORY", help="Models: leave out what this site holds."),
    ] = None,
    site: Site = None,
    only: Only = None,
    publisher: Publisher = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Say what a transfer costs before anything moves: bytes, disk, minutes.

    Given models, what `bundle create` would cost and what the far side will need; given a bundle,
    what `bundle import` would. Speed is measured with a few MiB; nothing else is written.
    """
    from bundler import connected, planning
    from bundler.importer import Wishes
    from bundler.rendering import questions
    from schemas.settings import load

    form = connected.form(compression, volume_size, overwrite=True, parity=parity)
    form, _ = connected.for_site(form, against, None, site)
    wishes = Wishes(publisher, tuple(only or ()))
    out = Output(json=json, quiet=quiet)
    with out.progress() as meter:
        result = planning.plan(load().home, sources, name or [], output, form, wishes, meter)
    questions.planned(out, result)
