"""Commands about this machine: serve, doctor."""

from __future__ import annotations

from typing import Annotated

import typer

from schemas.cli import JsonFlag, Output
from schemas.errors import EnvironmentFault


def serve(
    host: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Where to listen, as in 127.0.0.1:11434."),
    ] = None,
) -> None:
    """Serve the store's models on this machine's loopback address."""
    from dataclasses import replace

    from runtime.server.serve import run
    from schemas.settings import load

    settings = load()
    if host is not None:
        settings = replace(settings, serve=replace(settings.serve, host=host))
    run(settings)


def doctor(
    *,
    egress: Annotated[
        bool, typer.Option("--egress", help="Try every way out, from inside, and tell.")
    ] = False,
    scrub: Annotated[
        bool, typer.Option("--scrub", help="Hash every blob again; move what rotted aside.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Check this installation, its store and its sandbox."""
    output = Output(json=json)
    if egress:
        good = _egress(output)
    elif scrub:
        good = _scrub(output)
    else:
        good = _examine(output)
    if not good:
        raise typer.Exit(EnvironmentFault.exit_code)


def _examine(output: Output) -> bool:
    from runtime.cli import render
    from runtime.doctor import examine
    from schemas.settings import load

    findings = []
    for finding in examine(load()):
        findings.append(finding)
        render.finding(output, finding)
    good = all(f.verdict != "bad" for f in findings)
    output.result({"good": good, "findings": [f.document() for f in findings]})
    return good


def _egress(output: Output) -> bool:
    from runtime.cli import render
    from runtime.doctor import egress, sealed
    from schemas.settings import load

    who, processes = egress(load())
    good = sealed(processes)
    render.egress(output, who, processes, good=good)
    output.result({"good": good, "asked": who, "processes": processes})
    return good


def _scrub(output: Output) -> bool:
    from registry.gc import scrub
    from runtime.cli.models import open_store
    from schemas.render import bytes_text

    with open_store() as store:
        report = scrub(store)
    output.line(f"{report.checked} blobs, {bytes_text(report.bytes)}, read and hashed again.")
    lost = {"rotted": report.rotted, "missing": report.missing}
    for what, digests in lost.items():
        for digest in digests:
            output.line(f"{what} {digest}")
    if not report.clean:
        output.line("Import the bundles of these models again.")
    document = {what: [str(d) for d in digests] for what, digests in lost.items()}
    output.result({"good": report.clean, "checked": report.checked, **document})
    return report.clean
