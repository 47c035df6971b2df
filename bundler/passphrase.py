"""Where a passphrase comes from: a file, or a person at a terminal. Never an argument."""

from __future__ import annotations

import sys
from getpass import getpass
from pathlib import Path
from typing import Final

from registry.verify import storage_errors
from schemas.errors import KeyUnavailable

MIN_CHARS: Final = 8  # of a new one; what protects the key is its many-round derivation
_MAX_BYTES: Final = 4096
_HINT: Final = "Give --passphrase-file FILE, or run it on a terminal"


def read_passphrase(file: Path | None) -> bytes:
    """The passphrase of existing keys.

    Raises:
        KeyUnavailable: There is no file and nobody to ask.
        StorageFailure: The file cannot be read.
    """
    return _from_file(file) if file is not None else _ask("Passphrase of the signing keys: ")


def new_passphrase(file: Path | None) -> bytes:
    """The passphrase of keys to be made; asked for twice on a terminal.

    Raises:
        KeyUnavailable: As :func:`read_passphrase`; or it is too short, or typed differently.
        StorageFailure: The file cannot be read.
    """
    if file is not None:
        passphrase = _from_file(file)
    else:
        passphrase = _ask("New passphrase for the signing keys: ")
        if _ask("The same again: ") != passphrase:
            raise KeyUnavailable("the two passphrases differ", hint="Run it again")
    if len(passphrase) < MIN_CHARS:
        raise KeyUnavailable(f"the passphrase has fewer than {MIN_CHARS} characters")
    return passphrase


def _from_file(file: Path) -> bytes:
    with storage_errors(f"cannot read the passphrase file {file}"), file.open("rb") as stream:
        line = stream.readline(_MAX_BYTES).rstrip(b"\r\n")
    if not line:
        raise KeyUnavailable(f"the passphrase file {file} is empty", hint=_HINT)
    return line


def _ask(prompt: str) -> bytes:
    if not sys.stdin.isatty():
        raise KeyUnavailable("no passphrase for the signing keys", hint=_HINT)
    return getpass(prompt).encode()
