"""``bundle audit``, also ``sealift audit``: the audit log of an isolated site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bundler.cli.options import Force, PassphraseFile, Site
from schemas.cli import JsonFlag, Output, new_app

app = new_app("What was done at an isolated site, so that nobody can change it unnoticed.")

OutputFile = Annotated[
    Optional[Path],  # noqa: UP045 - Typer evaluates it
    typer.Option("--output", "-o", metavar="FILE", help="Where to. [default: shown only]"),
]
File = Annotated[Path, typer.Argument(metavar="FILE")]


@app.command("verify")
def audit_verify(
    against: Annotated[
        Optional[list[Path]],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="FILE", help="A checkpoint that was carried out earlier."),
    ] = None,
    former_key: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="SHA256", help="A key that this site had before."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Recompute the whole log, and compare it with everything that was ever signed about it."""
    from bundler import evidencing
    from bundler.rendering import evidence
    from schemas.settings import load

    result = evidencing.verify_log(load().home, against or [], former_key or [])
    evidence.audit(Output(json=json), result)
    if result.findings:
        raise evidencing.broken(result)


@app.command("show")
def audit_show(
    first: Annotated[
        Optional[int],  # noqa: UP045 - Typer evaluates it
        typer.Argument(metavar="[INDEX]", min=0, help="From which entry on. [default: the last]"),
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=10_000)] = 20,
    file: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="FILE", help="Verify an exported log, and show that."),
    ] = None,
    site: Site = None,
    json: JsonFlag = False,
) -> None:
    """Show entries of the log, the last ones unless told otherwise."""
    from bundler import evidencing
    from bundler.rendering import evidence
    from schemas.settings import load

    out = Output(json=json)
    if file is not None:
        evidence.told(out, evidencing.read_export(file, evidencing.fingerprint(site)))
    else:
        evidence.entries(out, *evidencing.entries(load().home, first, count))


@app.command("export")
def audit_export(
    output: OutputFile = None,
    first: Annotated[int, typer.Option(min=0, help="Index of the first entry.")] = 0,
    full: Annotated[
        bool, typer.Option("--full", help="Whole entries: with names, and words of persons.")
    ] = False,
    force: Force = False,
    json: JsonFlag = False,
) -> None:
    """Write the log as a file that leaves the site: hashes, times and kinds of events.

    Without an output it is only shown, so that a person can read what would leave.
    """
    from bundler import evidencing
    from bundler.rendering import evidence
    from schemas.settings import load

    written = evidencing.export_log(load().home, output, first=first, full=full, overwrite=force)
    out = Output(json=json)
    if output is None and not json:
        evidence.told(out, evidencing.told(written))
        out.note("Nothing was written; give --output FILE.")
    else:
        evidence.written(out, written)


@app.command("prove")
def audit_prove(
    index: Annotated[
        Optional[int],  # noqa: UP045 - Typer evaluates it
        typer.Argument(metavar="INDEX", min=0, help="Prove that this entry is in the log."),
    ] = None,
    since: Annotated[
        Optional[int],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="SIZE", min=1, help="Prove that the log continues its first SIZE."),
    ] = None,
    entry: Annotated[
        bool, typer.Option("--entry", help="Bring the entry along; it may hold names.")
    ] = False,
    output: OutputFile = None,
    force: Force = False,
    json: JsonFlag = False,
) -> None:
    """Write a proof that anybody can check who knows this site's fingerprint."""
    from bundler import evidencing
    from bundler.rendering import evidence
    from schemas.settings import load

    written = evidencing.prove(load().home, index, since, output, entry=entry, overwrite=force)
    evidence.written(Output(json=json), written)


@app.command("verify-proof")
def audit_verify_proof(file: File, site: Site = None, json: JsonFlag = False) -> None:
    """Check a proof; needs no store."""
    from bundler import evidencing
    from bundler.rendering import evidence

    proven = evidencing.verify_proof(file, evidencing.fingerprint(site))
    evidence.proven(Output(json=json), proven, known=site is not None)


@app.command("checkpoint")
def audit_checkpoint(
    output: OutputFile = None,
    since: Annotated[
        Optional[int],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="SIZE", min=1, help="Prove that the log continues its first SIZE."),
    ] = None,
    force: Force = False,
    json: JsonFlag = False,
) -> None:
    """Sign what the log is now, to be countersigned on the connected side."""
    from bundler import evidencing
    from bundler.rendering import evidence
    from schemas.settings import load

    written = evidencing.export_checkpoint(load().home, output, since=since, overwrite=force)
    evidence.written(Output(json=json), written)


@app.command("countersign")
def audit_countersign(
    file: File,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to.")],
    key: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="FILE", help="Private key. [default: that of the bundles]"),
    ] = None,
    site: Site = None,
    passphrase_file: PassphraseFile = None,
    force: Force = False,
    json: JsonFlag = False,
) -> None:
    """Connected side: countersign a site's checkpoint, if it continues what was signed before.

    Send the result with the next bundle: bundle create --countersigned FILE.
    """
    from bundler import connected, evidencing
    from bundler.passphrase import read_passphrase
    from bundler.rendering import evidence
    from schemas.settings import load

    signed = evidencing.countersign(
        connected.workspace(load().home),
        file,
        key,
        output,
        lambda: read_passphrase(passphrase_file),
        site=evidencing.fingerprint(site),
        overwrite=force,
    )
    evidence.countersigned(Output(json=json), signed, output)


@app.command("import-countersignature")
def audit_import_countersignature(file: File, json: JsonFlag = False) -> None:
    """Isolated side: keep a countersignature that came by itself, not in a bundle."""
    from bundler import evidencing
    from bundler.rendering import evidence
    from schemas.settings import load

    found = evidencing.import_countersignature(load().home, file)
    evidence.countersigned(Output(json=json), found, None)
