"""Fingerprints as people copy them."""

from __future__ import annotations

from registry.digest import Digest
from schemas.errors import InvalidName


def parse_fingerprint(text: str) -> Digest:
    """A SHA-256 fingerprint as people copy it: groups, colons and upper case are fine.

    Raises:
        InvalidName: Not 64 hexadecimal digits.
    """
    digits = text.strip().lower().removeprefix("sha256:")
    digits = "".join(c for c in digits if c not in " :-\t\r\n\u00a0")
    try:
        return Digest("sha256", digits)
    except InvalidName:
        raise InvalidName(
            "the fingerprint is not 64 hexadecimal digits",
            why=f"it has {len(digits)} characters" if len(digits) != 64 else "one is no digit",
            hint="Copy it whole from the publisher's paper",
        ) from None


def in_groups(fingerprint: Digest) -> str:
    """As it is read aloud: 16 groups of four digits."""
    return " ".join(fingerprint.hex[i : i + 4] for i in range(0, len(fingerprint.hex), 4))
