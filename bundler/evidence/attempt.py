"""What becomes known of one import while it runs; its receipt is made of it, however it ends."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from bundler.evidence.media import Medium, media
from registry.digest import Digest

if TYPE_CHECKING:
    from bundler.head import TrustedHead
    from bundler.policy.gate import Gate
    from bundler.trust.site import SiteKey

_PACKAGES: Final = ("bundler", "registry", "schemas")  # what an import consists of
_SUFFIXES: Final = frozenset({".py", ".sql", ".json"})


@dataclass(slots=True)
class Attempt:
    """One import, from the files to its end. Each step adds what it learns.

    Attributes:
        key: The site's; signs the receipt.
        clock: As it was read once.
        media: The files, and the sticks that they lie on.
        descriptor: The descriptor's bytes, as soon as they were read; not believed by that.
        head: Once it is believed.
        gate: Knows what policy and people said.
        volumes: Numbers of the volumes at hand.
        lost: Numbers of those that were made again from parity; None where it was not needed.
        withdrawals: Digest to action: what the publisher's list says of what is here.
        missing: Blobs that a differential bundle needs and the store has not.
    """

    key: SiteKey
    clock: datetime
    media: tuple[Medium, ...] = ()
    descriptor: bytes | None = None
    head: TrustedHead | None = None
    gate: Gate | None = None
    volumes: tuple[int, ...] = ()
    lost: Collection[int] | None = None
    withdrawals: Mapping[Digest, str] = field(default_factory=lambda: MappingProxyType({}))
    missing: int = 0

    def see(self, paths: Iterable[Path], clock: datetime) -> None:
        """The files that it comes in now; with the next stick, these are others."""
        self.media, self.clock, self.lost = media(paths), clock, None


def host() -> str:
    """The machine's name."""
    return socket.gethostname()[:255] or "unknown"


@cache
def tool_digest() -> Digest:
    """Of the files that an import consists of, as they are installed here.

    SHA-256 over one line per file, ``<SHA-256 of the file>  <path>``, in the paths' order: what
    ``sha256sum`` prints and hashes again.
    """
    home = Path(__file__).parents[2]
    total = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((home / package).rglob("*")):
            if path.suffix in _SUFFIXES and path.is_file():
                name = path.relative_to(home).as_posix()
                total.update(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n".encode())
    return Digest("sha256", total.hexdigest())
