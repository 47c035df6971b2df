"""The ``bundle`` command, also ``sealift bundle``: verbs parse, call one function, render.

Groups of verbs are imported when they are called, so that ``bundle --help`` stays under 0.2 s.
"""

from __future__ import annotations

from typer import Typer

from bundler.cli import approve, attestations, connected, isolated, withdraw
from schemas.cli import Deferred, Deferring, new_app, run

app = new_app("Carry AI models across an air gap, and prove what arrived.", cls=Deferring)
app.command("create")(connected.create)
app.command("check-media")(connected.check_media_)
app.command("repair")(connected.repair)
app.command("import")(isolated.import_)
app.command("verify")(isolated.verify)
app.command("inspect")(isolated.inspect)
app.command("diff")(isolated.diff)
app.command("export")(isolated.export)
app.command("extract")(attestations.extract)
app.command("bom")(attestations.bom)
app.command("plan")(connected.plan)
app.command("withdraw")(withdraw.withdraw)
app.command("scan")(withdraw.scan)
app.command("approve")(approve.approve)


@app.command("keys", cls=Deferred, add_help_option=False)
def _keys() -> Typer:
    """Keys of the connected side, which sign what goes into bundles."""
    from bundler.cli.keys import app as group

    return group


@app.command("sign", cls=Deferred, add_help_option=False)
def _sign() -> Typer:
    """Co-signing by file: keys, thresholds, publishers and models."""
    from bundler.cli.sign import app as group

    return group


@app.command("publisher", cls=Deferred, add_help_option=False)
def _publisher() -> Typer:
    """Who may sign for the models of a namespace."""
    from bundler.cli.publisher import app as group

    return group


@app.command("trust", cls=Deferred, add_help_option=False)
def _trust() -> Typer:
    """Publishers that the isolated side trusts, by the fingerprint of their root."""
    from bundler.cli.trust import app as group

    return group


@app.command("policy", cls=Deferred, add_help_option=False)
def _policy() -> Typer:
    """What this site lets in: its policy.toml, in words."""
    from bundler.cli.policy import app as group

    return group


@app.command("operator", cls=Deferred, add_help_option=False)
def _operator() -> Typer:
    """Keys of the persons who ask for approvals, and who approve."""
    return approve.app


@app.command("inventory", cls=Deferred, add_help_option=False)
def _inventory() -> Typer:
    """What an isolated site holds, carried back for smaller bundles."""
    from bundler.cli.inventory import app as group

    return group


@app.command("receipt", cls=Deferred, add_help_option=False)
def _receipt() -> Typer:
    """What each import did, or why a bundle was refused: signed by the site."""
    from bundler.cli.receipt import app as group

    return group


@app.command("audit", cls=Deferred, add_help_option=False)
def _audit() -> Typer:
    """What was done at an isolated site, so that nobody can change it unnoticed."""
    from bundler.cli.audit import app as group

    return group


def main() -> int:
    """Entry point of the ``bundle`` script."""
    return run(app, name="bundle")
