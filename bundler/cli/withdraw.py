"""``bundle withdraw``: models taken back; ``bundle scan``: files looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bundler.cli.options import PassphraseFile
from bundler.cli.signing import KeyPassphraseFile, PinFile, Request, SignWith, secrets
from schemas.cli import JsonFlag, Output


def withdraw(
    subject: Annotated[
        Optional[str],  # noqa: UP045 - Typer evaluates it
        typer.Argument(metavar="MODEL|DIGEST", help="A model as it was signed last, or sha256:…"),
    ] = None,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="One line that every site will read.")
    ] = "",
    action: Annotated[
        str, typer.Option(help="What sites do: block, quarantine or warn.")
    ] = "block",
    manifest_only: Annotated[
        bool, typer.Option("--manifest-only", help="Its weights stay usable under another name.")
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take an earlier withdrawal back, by a further entry.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="Show all that was withdrawn.")] = False,
    passphrase_file: PassphraseFile = None,
    sign_with: SignWith = None,
    key_passphrase_file: KeyPassphraseFile = None,
    pin_file: PinFile = None,
    request: Request = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be said.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Take a model back: every bundle from now on tells sites not to use it."""
    from bundler.advisories import publishing
    from bundler.rendering import advisories
    from registry.withdrawals import Action
    from schemas.errors import UsageError
    from schemas.settings import load

    out = Output(json=json)
    if list_:
        advisories.listed(out, publishing.entries(load().home))
        return
    if subject is None:
        raise UsageError("no model was given", hint="Name it, or give --list")
    wanted = Action.NONE if undo else Action.parse(action)
    if wanted is Action.NONE and not undo:
        raise UsageError("a withdrawal without an action", hint="Give --undo to take one back")
    entry = publishing.withdraw(
        load().home,
        subject,
        action=wanted,
        reason=reason,
        passphrase=lambda: secrets(passphrase_file, sign_with, key_passphrase_file, pin_file),
        only_manifest=manifest_only,
        dry_run=dry_run,
        request=request,
    )
    advisories.withdrawn(out, entry, dry_run=dry_run)


def scan(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Of a model.")],
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if anything unusual is found.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Say what is unusual about a model's files. Nothing is run, loaded or unpacked."""
    from bundler.rendering import scanning
    from bundler.scanning.models import refuse_unusual_files, scan_paths

    found = scan_paths(paths)
    scanning.scanned(Output(json=json), found)
    if strict:
        refuse_unusual_files(found)
