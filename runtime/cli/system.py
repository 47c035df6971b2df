"""Commands about this machine: serve, doctor."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated, Any

import typer

from schemas.cli import JsonFlag, Output
from schemas.errors import EnvironmentFault, UsageError


def serve(
    host: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Where to listen, as in 127.0.0.1:11434."),
    ] = None,
    *,
    tls_cert: Annotated[
        str | None, typer.Option(metavar="FILE", help="Certificate chain, PEM.")
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option(metavar="FILE", help="Its private key, PEM.")
    ] = None,
    require_keys: Annotated[
        bool | None, typer.Option("--require-keys", help="Ask for API keys on loopback too.")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="text or json, on standard error.")
    ] = None,
) -> None:
    """Serve the store's models: on loopback, or with TLS and API keys on any address."""
    from dataclasses import replace

    from runtime.launcher.client import Launcher
    from schemas.settings import load

    if log_format not in (None, "text", "json"):
        raise UsageError(f"no such format: {log_format[:20]!r}", hint="Give text or json")
    settings = load()
    given: dict[str, Any] = {
        "host": host,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "require_keys": require_keys,
        "log_format": log_format,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    settings = replace(settings, serve=replace(settings.serve, **changes))
    with closing(Launcher.start()) as launcher:  # it prepares a worker meanwhile
        with _reading_modules():
            from runtime.server.serve import run
        run(settings, launcher)


@contextmanager
def _reading_modules() -> Iterator[None]:
    """Read many modules a sixth faster.

    None of what they make is ever freed, so it is not looked through. And aiohttp reads the
    system's certificates as it is imported, for connections that a server never makes.
    """
    unread = dict.fromkeys(("SSL_CERT_FILE", "SSL_CERT_DIR"), os.devnull)
    before = {name: os.environ.get(name) for name in unread}
    gc.disable()
    os.environ.update(unread)
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value
        gc.freeze()
        gc.enable()


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

    who, processes, mirror = egress(load())
    good = sealed(processes, mirror)
    render.egress(output, who, processes, mirror, good=good)
    output.result({"good": good, "asked": who, "mirror": mirror or None, "processes": processes})
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
