"""Characters that a person who reads a text does not see, or sees elsewhere than they are.

Unicode 16, general categories Cf, Cc, Co and Cn. For the bidirectional controls see "Trojan Source"
(CVE-2021-42574); the tag characters are an ASCII in invisible ink that models read well.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from bundler.scanning.findings import Finding, Severity

_BIDI: Final = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_ZERO_WIDTH: Final = "\u180e\u200b-\u200d\u2060-\u2064\ufeff\u00ad\u034f\u115f\u1160\u3164\uffa0"
_TAGS: Final = "\U000e0000-\U000e007f"
_SELECTORS: Final = "\U000e0100-\U000e01ef"
_CONTROLS: Final = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
_PRIVATE: Final = "\ue000-\uf8ff\U000f0000-\U0010fffd"
_NONCHARACTERS: Final = "\ufdd0-\ufdef\ufffe\uffff"

_KINDS: Final = (
    ("text-bidi", Severity.DANGER, _BIDI, "turns the direction of the text around it"),
    ("text-tags", Severity.DANGER, _TAGS, "is invisible, and models read it as a letter"),
    ("text-selectors", Severity.DANGER, _SELECTORS, "is invisible and can carry hidden data"),
    ("text-zero-width", Severity.DANGER, _ZERO_WIDTH, "is invisible"),
    ("text-control", Severity.WARN, _CONTROLS, "is a control character"),
    ("text-private", Severity.WARN, _PRIVATE, "has no agreed meaning"),
    ("text-noncharacter", Severity.WARN, _NONCHARACTERS, "is no character"),
)
_PATTERNS: Final = tuple(
    (code, severity, re.compile(f"[{chars}]"), what) for code, severity, chars, what in _KINDS
)


def hidden_characters(text: str, where: str) -> Iterator[Finding]:
    """Find characters that hide, one finding per kind; in linear time.

    Args:
        text: Any text.
        where: What it is, for the finding.
    """
    if text.isascii() and text.isprintable():
        return
    for code, severity, pattern, what in _PATTERNS:
        first = pattern.search(text)
        if first is None:
            continue
        char = first.group()
        count = sum(1 for _ in pattern.finditer(text))
        line = text.count("\n", 0, first.start()) + 1
        times = f", {count} times" if count > 1 else ""
        name = unicodedata.name(char, "unnamed")
        yield Finding(
            severity, code, f"{where}, line {line}", f"U+{ord(char):04X} {name} {what}{times}"
        )
