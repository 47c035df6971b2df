"""Digests, parsed once (OCI image-spec v1.1, descriptor.md "Digests")."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from schemas.errors import InvalidName

if TYPE_CHECKING:
    from hashlib import _Hash

# digest ::= algorithm ":" encoded; of the registered algorithms we accept these two.
HEX_CHARS: Final = {"sha256": 64, "sha512": 128}
_HEX: Final = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A digest that is known to be well-formed.

    Attributes:
        algorithm: ``sha256`` or ``sha512``.
        hex: Lower-case hexadecimal of exactly the algorithm's length.
    """

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        wanted = HEX_CHARS.get(self.algorithm)
        if wanted is None:
            raise InvalidName(
                f"digest algorithm {self.algorithm!r} is not accepted",
                hint="Use sha256 or sha512",
            )
        if len(self.hex) != wanted or not _HEX.fullmatch(self.hex):
            raise InvalidName(f"{self.algorithm} digest is not {wanted} lower-case hex digits")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Parse ``algorithm:hex``.

        Raises:
            InvalidName: Unknown algorithm, wrong length, or anything but lower-case hex.
        """
        algorithm, colon, encoded = text.partition(":")
        if not colon:
            raise InvalidName(f"{text[:80]!r} is not a digest", why="no colon in it")
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """The SHA-256 digest of bytes at hand."""
        return cls("sha256", hashlib.sha256(data).hexdigest())

    def hasher(self) -> _Hash:
        """A fresh hash object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    @property
    def short(self) -> str:
        """Twelve digits for people, as Ollama and docker show them."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"
