"""``bundle trust``: whom the isolated side believes, and what time it takes for now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bundler.cli.options import (
    Approvals,
    Force,
    Key,
    PassphraseFile,
    Paths,
    Publisher,
    Reason,
    RequestFile,
)
from schemas.cli import JsonFlag, Output, QuietFlag, new_app

app = new_app("Publishers that the isolated side trusts, by the fingerprint of their root.")


@app.command("init")
def trust_init(
    root: Annotated[Path, typer.Option(metavar="FILE", help="The publisher's root.json.")],
    fingerprint: Annotated[
        Optional[str],  # noqa: UP045 - Typer evaluates it
        typer.Option(
            metavar="SHA256",
            help="From paper or telephone, not from the stick; asked for if not given.",
        ),
    ] = None,
    minimum_version: Annotated[
        Optional[int],  # noqa: UP045 - Typer evaluates it
        typer.Option(
            metavar="N",
            min=0,
            max=2**31,
            help="Timestamp version on the same paper: no older bundle is taken as the first.",
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="What to call it here.")] = "publisher",
    json: JsonFlag = False,
) -> None:
    """Pin a publisher's root: from now on its bundles are believed here."""
    from bundler import trusting
    from bundler.rendering import trust
    from schemas.settings import load

    out = Output(json=json)
    text, least = trust.ask_card(out, fingerprint, minimum_version)
    trust.anchor(out, trusting.pin(load().home, root, text, name, least))


@app.command("show")
def trust_show(
    name: Annotated[Optional[str], typer.Argument(help="Only this one.")] = None,  # noqa: UP045
    json: JsonFlag = False,
) -> None:
    """Show which publishers are trusted, and how fresh what they said last is."""
    from bundler import trusting
    from bundler.rendering import trust
    from schemas.settings import load

    trust.anchors(Output(json=json), trusting.anchors(load().home, name))


@app.command("list")
def trust_list(json: JsonFlag = False) -> None:
    """List the trusted publishers, one line each."""
    from bundler import trusting
    from bundler.rendering import trust
    from schemas.settings import load

    trust.anchor_list(Output(json=json), trusting.anchors(load().home, None))


@app.command("remove")
def trust_remove(
    name: Annotated[str, typer.Argument(help="As `bundle trust list` shows it.")],
    release: Annotated[
        bool, typer.Option("--release", help="Let others bring its namespaces from now on.")
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="Only say what would be forgotten.")] = False,
    json: JsonFlag = False,
) -> None:
    """Stop trusting a publisher. Installed models stay, and its namespaces stay its own."""
    from bundler import trusting
    from bundler.rendering import trust
    from schemas.settings import load

    state = trusting.unpin(load().home, name, dry_run=dry_run, release=release)
    trust.unpinned(Output(json=json), state, dry_run=dry_run)


@app.command("set-time")
def trust_set_time(
    reason: Reason = "",
    to: Annotated[
        Optional[str],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="TIME", help="UTC, as 2027-03-01 or 2027-03-01T12:00:00Z."),
    ] = None,
    request: RequestFile = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    approval: Approvals = None,
    dry_run: Annotated[bool, typer.Option(help="Only say what would be set.")] = False,
    force: Force = False,
    json: JsonFlag = False,
) -> None:
    """Lower the latest time that this site has seen, because its clock was ahead once.

    First set the machine's clock. What expired in between would be believed again, so it cannot go
    below what accepted bundles prove; it is kept in the audit log.
    """
    from bundler import setting_time
    from bundler.approval import files
    from bundler.passphrase import read_passphrase
    from bundler.policy.gate import Persons
    from bundler.rendering import approvals, trust
    from schemas.settings import load

    asking = None
    if request is not None:
        asking = files.requester(key, lambda: read_passphrase(passphrase_file))
    persons = Persons(files.read_approvals(approval or ()), asking)
    moment = None if to is None else setting_time.parse_time(to)
    result = setting_time.set_time(load().home, moment, reason, persons, dry_run=dry_run)
    out = Output(json=json)
    if request is not None:
        written = files.write_request(request, result.request, overwrite=force)
        approvals.requested(out, request, written)
    else:
        trust.time_set(out, result)


@app.command("explain")
def trust_explain(
    paths: Paths,
    full: Annotated[
        bool, typer.Option("--full", help="Read the payload too, as `bundle verify` does.")
    ] = False,
    publisher: Publisher = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Say who signed a bundle, what was checked, and how it could still be a lie.

    Works for bundles that are not believed too, and says why not; the exit code is 0 then as well,
    see "believed" in --json. Nothing is installed or recorded.
    """
    from bundler.explaining import explain_paths
    from bundler.rendering import explaining
    from schemas.settings import load

    out = Output(json=json, quiet=quiet)
    with out.progress() as meter:
        found = explain_paths(load().home, paths, publisher, meter, full=full)
    explaining.explained(out, found)
