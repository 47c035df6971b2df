"""Where a passphrase comes from: a file, or a person at a terminal. Never an argument."""

from __future__ import annotations

import sys
from getpass import getpass
from pathlib import Path
from typing import Final

from schemas.errors import KeyUnavailable

MIN_CHARS: Final = 8  # of a new one; what protects the key is its many-round derivation
_MAX_BYTES: Final = 4096
_HINT: Final = "Give --passphrase-file FILE, or run it on a terminal"


def read_passphrase(file: Path | None) -> bytes:
    """The passphrase of existing keys.

    Raises:
        KeyUnavailable: The file cannot be read or is empty; or there is none and nobody to ask.
    """
    return _from_file(file) if file is not None else _ask("Passphrase of the signing keys: ")


def read_pin(file: Path | None, token: str) -> bytes:
    """The PIN of a key in hardware.

    Raises:
        KeyUnavailable: As :func:`read_passphrase`.
    """
    return _from_file(file) if file is not None else _ask(f"PIN of {token}: ", "--pin-file")


def new_passphrase(file: Path | None) -> bytes:
    """The passphrase of keys to be made; asked for twice on a terminal.

    Raises:
        KeyUnavailable: As :func:`read_passphrase`; or it is too short, or typed differently.
    """
    if file is not None:
        passphrase = _from_file(file)
    else:
        passphrase = _ask("New passphrase for the signing keys: ")
        if _ask("The same again: ") != passphrase:
            raise KeyUnavailable("the two passphrases differ", hint="Run it again")
    if len(passphrase) < MIN_CHARS:
        raise KeyUnavailable(
            "the passphrase is too short",
            why=f"it has fewer than {MIN_CHARS} characters",
            hint="Take several words that do not belong together",
        )
    return passphrase


def _from_file(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            line = stream.readline(_MAX_BYTES + 1).rstrip(b"\r\n")
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise KeyUnavailable(
            f"cannot read the passphrase file {file}", why=why, hint=_HINT
        ) from error
    if not line:
        raise KeyUnavailable(f"the passphrase file {file} is empty", hint=_HINT)
    if len(line) > _MAX_BYTES:
        raise KeyUnavailable(
            f"the passphrase in {file} is too long",
            why=f"more than {_MAX_BYTES} bytes in its first line",
            hint="Write it on a line of its own",
        )
    return line


def _ask(prompt: str, option: str = "--passphrase-file") -> bytes:
    if not sys.stdin.isatty():
        what = "no PIN for the token" if "pin" in option else "no passphrase for the signing keys"
        raise KeyUnavailable(what, hint=f"Give {option} FILE, or run it on a terminal")
    return getpass(prompt).encode()
