"""Sizes as people write them."""

from __future__ import annotations

import re
from typing import Final

from schemas.errors import UsageError

_SIZE: Final = re.compile(r"([0-9]{1,15})([KMGTkmgt]?)(i?)B?")


def parse_size(text: str) -> int:
    """Bytes in ``3900M`` or ``25G``: powers of 1000, as sticks are sold; ``Mi`` is 1024².

    Raises:
        UsageError: Anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text[:40]!r} is not a size", hint="Write 3900M, 25G or 64Mi")
    base = 1024 if match[3] else 1000
    power = "KMGT".index(match[2].upper()) + 1 if match[2] else 0
    return int(match[1]) * int(base**power)
