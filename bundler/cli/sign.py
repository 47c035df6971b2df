"""``bundle sign``: several people sign one change, each on a machine of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bundler.cli.options import Force, PassphraseFile
from bundler.cli.signing import (
    DryRun,
    KeyPassphraseFile,
    PinFile,
    SignWith,
    options,
    secrets,
)
from schemas.cli import JsonFlag, Output, QuietFlag, new_app

app = new_app("Co-signing by file: keys, thresholds, publishers and models.")

_File = Annotated[Path, typer.Argument(metavar="FILE", help="A request.")]
_Root = Annotated[
    Optional[Path],  # noqa: UP045 - Typer evaluates it
    typer.Option(metavar="FILE", help="A root of the publisher's that you trust."),
]
_Fingerprint = Annotated[
    Optional[str],  # noqa: UP045 - Typer evaluates it
    typer.Option(metavar="SHA256", help="Of such a root, from paper."),
]


@app.command("request")
def sign_request(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The request.")],
    add: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="ROLE=PUBLIC", help="Let a key sign a role. May be repeated."),
    ] = None,
    revoke: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="ROLE=KEYID", help="Take a key's right. May be repeated."),
    ] = None,
    threshold: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="ROLE=N", help="How many must sign. May be repeated."),
    ] = None,
    renew: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="ROLE", help="Sign again before it expires. May be repeated."),
    ] = None,
    model: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="MODEL", help="Have its publisher sign a model. May be repeated."),
    ] = None,
    name: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer evaluates it
        typer.Option("--name", "-n", metavar="NAME", help="One per model, in the same order."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    sign_with: SignWith = None,
    key_passphrase_file: KeyPassphraseFile = None,
    pin_file: PinFile = None,
    dry_run: DryRun = False,
    force: Force = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Prepare what others shall sign too; keys at hand sign it at once."""
    from bundler import keyholding
    from bundler.rendering import keys
    from schemas.settings import load

    out = Output(json=json, quiet=quiet)
    batch = keyholding.Batch(
        add or (), revoke or (), threshold or (), renew or (), model or (), name or ()
    )
    how = options(
        passphrase_file,
        sign_with,
        key_passphrase_file,
        pin_file,
        output,
        dry_run=dry_run,
        force=force,
    )
    with out.progress() as meter:
        done = keyholding.request(load().home, batch, how, meter)
    keys.changed(out, done)


@app.command("show")
def sign_show(
    file: _File,
    root: _Root = None,
    fingerprint: _Fingerprint = None,
    json: JsonFlag = False,
) -> None:
    """Say in words what a request would change, and whose signatures it lacks."""
    from bundler import keyholding
    from bundler.rendering import keys
    from schemas.settings import load

    reviewed = keyholding.examine(load().home, file, root, fingerprint)
    keys.reviewed(Output(json=json), reviewed)


@app.command("add")
def sign_add(
    file: _File,
    key: Annotated[str, typer.Option(metavar="KEY", help="Your private key, or a pkcs11: URI.")],
    root: _Root = None,
    fingerprint: _Fingerprint = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option("--output", "-o", metavar="FILE", help="Where to. [default: the same file]"),
    ] = None,
    passphrase_file: PassphraseFile = None,
    pin_file: PinFile = None,
    json: JsonFlag = False,
) -> None:
    """Add a signature. What is to be signed is shown before the passphrase is asked for."""
    from bundler import keyholding
    from bundler.rendering import keys
    from schemas.settings import load

    out = Output(json=json)
    reviewed = keyholding.examine(load().home, file, root, fingerprint)
    keys.about_to_sign(out, reviewed)
    opens = secrets(passphrase_file, pin_file=pin_file)
    target = output or file
    roles = keyholding.cosign(reviewed, key, opens, target)
    keys.cosigned(out, keyholding.examine(load().home, target, root, fingerprint), roles, target)


@app.command("finish")
def sign_finish(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="The request, or copies of it.")
    ],
    json: JsonFlag = False,
) -> None:
    """Take in what enough people have signed; the next bundle carries it."""
    from bundler import keyholding
    from bundler.rendering import keys
    from schemas.settings import load

    keys.finished(Output(json=json), keyholding.finish_requests(load().home, files))
