"""``bundle publisher``: who may sign for the models of a namespace."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from bundler.cli.options import Force, PassphraseFile
from bundler.cli.signing import (
    DryRun,
    KeyPassphraseFile,
    KeyType,
    PinFile,
    Request,
    SignWith,
    Threshold,
    options,
)
from schemas.cli import JsonFlag, Output, new_app

app = new_app("Who may sign for the models of a namespace.")

_Namespace = Annotated[str, typer.Argument(metavar="NAMESPACE", help="As in NAMESPACE/model:tag.")]
_Keys = Annotated[
    Optional[list[str]],  # noqa: UP045 - Typer evaluates it
    typer.Option(
        "--key",
        metavar="PUBLIC",
        help="Their public key file, or a pkcs11: URI. May be repeated. [default: a new key here]",
    ),
]


@app.command("add")
def publisher_add(
    namespace: _Namespace,
    key: _Keys = None,
    threshold: Threshold = None,
    key_type: KeyType = "ecdsa-p256",
    passphrase_file: PassphraseFile = None,
    sign_with: SignWith = None,
    key_passphrase_file: KeyPassphraseFile = None,
    pin_file: PinFile = None,
    request: Request = None,
    dry_run: DryRun = False,
    force: Force = False,
    json: JsonFlag = False,
) -> None:
    """Let somebody sign for a namespace.

    With keys of their own they sign too: give --request, and they run `bundle sign add`.
    """
    from bundler import keyholding
    from bundler.rendering import keys
    from schemas.settings import load

    how = options(
        passphrase_file,
        sign_with,
        key_passphrase_file,
        pin_file,
        request,
        dry_run=dry_run,
        force=force,
    )
    done = keyholding.add_publisher(
        load().home, namespace, key or (), threshold or 1, key_type, how
    )
    keys.changed(Output(json=json), done)


@app.command("list")
def publisher_list(json: JsonFlag = False) -> None:
    """List who may sign for which namespace, and how many models each has signed."""
    from bundler import keyholding
    from bundler.rendering import keys
    from schemas.settings import load

    keys.publishers(Output(json=json), *keyholding.publishers(load().home))


@app.command("rotate")
def publisher_rotate(
    namespace: _Namespace,
    key: _Keys = None,
    threshold: Threshold = None,
    key_type: KeyType = "ecdsa-p256",
    passphrase_file: PassphraseFile = None,
    sign_with: SignWith = None,
    key_passphrase_file: KeyPassphraseFile = None,
    pin_file: PinFile = None,
    request: Request = None,
    dry_run: DryRun = False,
    force: Force = False,
    json: JsonFlag = False,
) -> None:
    """Put new keys in the place of all that a publisher has; what it signed for stays."""
    from bundler import keyholding
    from bundler.rendering import keys
    from schemas.settings import load

    how = options(
        passphrase_file,
        sign_with,
        key_passphrase_file,
        pin_file,
        request,
        dry_run=dry_run,
        force=force,
    )
    done = keyholding.rotate_publisher(load().home, namespace, key or (), threshold, key_type, how)
    keys.changed(Output(json=json), done)


@app.command("retire")
def publisher_retire(
    namespace: _Namespace,
    passphrase_file: PassphraseFile = None,
    sign_with: SignWith = None,
    key_passphrase_file: KeyPassphraseFile = None,
    pin_file: PinFile = None,
    request: Request = None,
    dry_run: DryRun = False,
    force: Force = False,
    json: JsonFlag = False,
) -> None:
    """Have a publisher sign for nothing from now on; its own key is not needed.

    What a site has installed stays there. To stop its use too, withdraw it.
    """
    from bundler import keyholding
    from bundler.rendering import keys
    from schemas.settings import load

    how = options(
        passphrase_file,
        sign_with,
        key_passphrase_file,
        pin_file,
        request,
        dry_run=dry_run,
        force=force,
    )
    keys.changed(Output(json=json), keyholding.retire_publisher(load().home, namespace, how))
