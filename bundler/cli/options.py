"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

PassphraseFile = Annotated[
    Optional[Path],  # noqa: UP045 - Typer evaluates it
    typer.Option(
        "--passphrase-file",
        envvar="SEALIFT_PASSPHRASE_FILE",
        metavar="FILE",
        help="Its first line opens the private keys; asked for on a terminal if not given.",
    ),
]
Publisher = Annotated[
    Optional[str],  # noqa: UP045 - Typer evaluates it
    typer.Option("--publisher", metavar="NAME", help="Trust only this pinned publisher for it."),
]
Paths = Annotated[
    list[Path],
    typer.Argument(metavar="BUNDLE…", help="Bundle, head, volumes, or the folder they lie in."),
]
Only = Annotated[
    Optional[list[str]],  # noqa: UP045 - Typer evaluates it
    typer.Option("--only", metavar="PATTERN", help="Only models like library/smollm2:*."),
]

Site = Annotated[
    Optional[str],  # noqa: UP045 - Typer evaluates it
    typer.Option("--site", metavar="SHA256", help="Believe it only of the site with this key."),
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace the output.")]
AcceptLicence = Annotated[
    Optional[list[str]],  # noqa: UP045 - Typer evaluates it
    typer.Option("--accept-licence", metavar="ID", help="Confirm a licence, where policy asks."),
]
AcceptFinding = Annotated[
    Optional[list[str]],  # noqa: UP045 - Typer evaluates it
    typer.Option("--accept-finding", metavar="CODE", help="Confirm what a scan found, likewise."),
]
AcceptStale = Annotated[
    bool,
    typer.Option("--accept-stale", help="Take what has expired, as far as policy lets you."),
]
Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept in receipt and log.")
]
RequestFile = Annotated[
    Optional[Path],  # noqa: UP045 - Typer evaluates it
    typer.Option(
        "--request", metavar="FILE", help="Change nothing; ask other operators to approve it."
    ),
]
Key = Annotated[
    Optional[Path],  # noqa: UP045 - Typer evaluates it
    typer.Option("--key", metavar="FILE", help="With --request: your own private key."),
]
Approvals = Annotated[
    Optional[list[Path]],  # noqa: UP045 - Typer evaluates it
    typer.Option("--approval", metavar="FILE", help="What another operator signed."),
]
