"""``bundle approve`` and ``bundle operator``: the rule of two persons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bundler.cli.options import Force, PassphraseFile
from schemas.cli import JsonFlag, Output, new_app

app = new_app("Keys of the persons who ask for approvals, and who approve.")


def approve(
    request: Annotated[
        Path, typer.Argument(metavar="REQUEST", help="The file that was written with --request.")
    ],
    key: Annotated[Path, typer.Option(metavar="FILE", help="Your own private key.")],
    output: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option("--output", "-o", metavar="FILE", help="Where to. [default: beside it]"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    passphrase_file: PassphraseFile = None,
    force: Force = False,
    json: JsonFlag = False,
) -> None:
    """Show in words what another operator asks for, and sign it.

    Works on any machine; no store, no bundle and no policy are needed.
    """
    from bundler.approval import files
    from bundler.passphrase import read_passphrase
    from bundler.rendering import approvals
    from bundler.trust.dsse import load_key

    out = Output(json=json)
    read = files.read_request(request)
    approvals.confirm_approval(out, read, yes=yes)
    person = load_key(key, read_passphrase(passphrase_file))
    path = files.approve_request(read, person, request, output, overwrite=force)
    approvals.approved(out, path, read, person.fingerprint)


@app.command("keygen")
def operator_keygen(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to.")],
    name: Annotated[str, typer.Option(help="Whose it is, as the policy will call them.")],
    key_type: Annotated[str, typer.Option(help="ecdsa-p256, or ed25519.")] = "ecdsa-p256",
    passphrase_file: PassphraseFile = None,
    json: JsonFlag = False,
) -> None:
    """Make a key for one person, and show the lines that the policy needs of it."""
    from bundler.approval import files
    from bundler.passphrase import new_passphrase
    from bundler.rendering import approvals

    made = files.keygen(name, output, key_type, lambda: new_passphrase(passphrase_file))
    approvals.operator(Output(json=json), made)
