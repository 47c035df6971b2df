"""Options of all verbs that sign with private keys, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from bundler.keyholding import Options
    from bundler.trust.keyring import Secrets

SignWith = Annotated[
    Optional[list[str]],  # noqa: UP045 - Typer evaluates it
    typer.Option(
        "--sign-with",
        metavar="KEY",
        help="A private key elsewhere: a file, a folder of them, a pkcs11: URI. May be repeated.",
    ),
]
KeyPassphraseFile = Annotated[
    Optional[Path],  # noqa: UP045 - Typer evaluates it
    typer.Option(
        "--key-passphrase-file",
        metavar="FILE",
        help="Opens the keys of --sign-with. [default: the same passphrase]",
    ),
]
PinFile = Annotated[
    Optional[Path],  # noqa: UP045 - Typer evaluates it
    typer.Option(
        "--pin-file",
        envvar="SEALIFT_PIN_FILE",
        metavar="FILE",
        help="Its first line is the PIN of a key in hardware; asked for if not given.",
    ),
]
Request = Annotated[
    Optional[Path],  # noqa: UP045 - Typer evaluates it
    typer.Option(
        "--request", metavar="FILE", help="Change nothing; write a request for `bundle sign add`."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")]
KeyType = Annotated[str, typer.Option(help="Of a key that is made: ecdsa-p256, or ed25519.")]
Threshold = Annotated[
    Optional[int],  # noqa: UP045 - Typer evaluates it
    typer.Option(min=1, max=64, help="How many keys must sign from now on."),
]


def secrets(
    passphrase_file: Path | None,
    sign_with: Sequence[str] | None = None,
    key_passphrase_file: Path | None = None,
    pin_file: Path | None = None,
) -> Secrets:
    """What opens private keys, asked for only when it is needed."""
    from bundler.passphrase import read_passphrase, read_pin
    from bundler.trust.keyring import Secrets

    other = key_passphrase_file
    return Secrets(
        lambda: read_passphrase(passphrase_file),
        tuple(sign_with or ()),
        None if other is None else lambda: read_passphrase(other),
        lambda token: read_pin(pin_file, token),
    )


def options(
    passphrase_file: Path | None,
    sign_with: Sequence[str] | None,
    key_passphrase_file: Path | None,
    pin_file: Path | None,
    request: Path | None = None,
    *,
    dry_run: bool = False,
    force: bool = False,
) -> Options:
    """The same for verbs that change keys."""
    from bundler.keyholding import Options

    found = secrets(passphrase_file, sign_with, key_passphrase_file, pin_file)
    return Options(found, request, dry_run, force)
