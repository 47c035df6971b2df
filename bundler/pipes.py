"""Bundles from standard input and to standard output: tape drives, data diodes, other commands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

from registry.verify import storage_errors
from schemas.errors import UsageError

PIPE: Final = Path("-")
"""Stands for standard input or output; a file of that name is ``./-``."""


def is_pipe(paths: Sequence[Path]) -> bool:
    """Whether the bundle comes from standard input.

    Raises:
        UsageError: From there and from files at once.
    """
    if PIPE in paths and len(paths) > 1:
        raise UsageError(
            "standard input cannot be read beside files", hint="Give - alone, or files alone"
        )
    return list(paths) == [PIPE]


def standard_input() -> BinaryIO:
    """Standard input, unbuffered; closing it leaves the process's own open.

    Raises:
        UsageError: It is a terminal.
        StorageFailure: It is closed.
    """
    with storage_errors("cannot read standard input"):
        pipe = os.fdopen(os.dup(0), "rb", buffering=0)
    if pipe.isatty():
        pipe.close()
        raise UsageError("a bundle is no text to be typed", hint="Pipe it: cat BUNDLE | … -")
    return pipe


def standard_output() -> BinaryIO:
    """Standard output, unbuffered; closing it leaves the process's own open.

    Raises:
        UsageError: It is a terminal.
        StorageFailure: It is closed.
    """
    with storage_errors("cannot write standard output"):
        pipe = os.fdopen(os.dup(1), "wb", buffering=0)
    if pipe.isatty():
        pipe.close()
        raise UsageError("a bundle is no text to be shown", hint="Pipe it: … -o - | COMMAND")
    return pipe
