"""The ``bundle`` command, also ``sealift bundle``: verbs parse, call one function, render."""

from __future__ import annotations

from bundler.cli import (
    approve,
    attestations,
    audit,
    connected,
    inventory,
    isolated,
    keys,
    policy,
    publisher,
    receipt,
    sign,
    trust,
    withdraw,
)
from schemas.cli import new_app, run

app = new_app("Carry AI models across an air gap, and prove what arrived.")
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
app.add_typer(keys.app, name="keys")
app.add_typer(sign.app, name="sign")
app.add_typer(publisher.app, name="publisher")
app.add_typer(trust.app, name="trust")
app.add_typer(policy.app, name="policy")
app.add_typer(approve.app, name="operator")
app.add_typer(inventory.app, name="inventory")
app.add_typer(receipt.app, name="receipt")
app.add_typer(audit.app, name="audit")


def main() -> int:
    """Entry point of the ``bundle`` script."""
    return run(app, name="bundle")
