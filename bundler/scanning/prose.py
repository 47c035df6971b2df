"""What a template itself says to the model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from jinja2 import nodes

from bundler.scanning.findings import Finding, Severity
from bundler.scanning.triggers import prose
from schemas import limits

_WORD: Final = re.compile(r"[^\W\d_]{2,}")
_LEAST_WORDS: Final = 5
_GAP: Final = r"[\s,;:]{1,4}"
_RULES: Final = (
    (
        "template-overrides",
        Severity.DANGER,
        (
            rf"\b(?:ignore|disregard|forget|override){_GAP}(?:\w+{_GAP}){{0,3}}"
            r"(?:previous|prior|earlier|above|preceding|system|safety|user'?s?)"
            rf"{_GAP}(?:\w+{_GAP})?"
            r"(?:instructions?|prompts?|messages?|rules|guidelines|requests?)"
        ),
        "tells the model to ignore instructions",
    ),
    (
        "template-secrecy",
        Severity.DANGER,
        (
            rf"\b(?:do{_GAP}not|don'?t|never|without){_GAP}(?:ever{_GAP})?"
            rf"(?:tell(?:ing)?|reveal(?:ing)?|mention(?:ing)?|disclos(?:e|ing)|inform(?:ing)?|admit)"
            rf"{_GAP}(?:\w+{_GAP}){{0,4}}(?:users?|humans?|anyone|anybody|this|that|these|it)\b"
            r"(?!\s+about\s+(?:function|tool)\s+calls)"  # as Qwen's templates say
            r"|\bsecretly\b|\bcovertly\b"
        ),
        "tells the model to keep something from the user",
    ),
    (
        "template-sends-out",
        Severity.DANGER,
        (
            r"\bexfiltrat\w*|"
            rf"\b(?:send|post|upload|leak|forward){_GAP}(?:\w+{_GAP}){{0,6}}to{_GAP}"
            r"(?:https?://|\w+@\w)"
        ),
        "tells the model to send something somewhere",
    ),
    (
        "template-address",
        Severity.WARN,
        r"\bhttps?://(?!(?:www\.)?(?:example\.(?:com|org|net)|json-schema\.org|w3\.org)\b)[^\s'\"<>]{3,}",
        "names an address in the network",
    ),
    (
        "template-code",
        Severity.WARN,
        r"<script\b|\bcurl\s+-|\bwget\s+http|\brm\s+-rf\b|\bos\.system\b|\bpowershell\b",
        "has a command in its text",
    ),
    (
        "template-credentials",
        Severity.WARN,
        rf"\b(?:api{_GAP}?keys?|passwords?|private{_GAP}keys?|credentials|access{_GAP}tokens?)\b",
        "speaks of credentials",
    ),
)
_COMPILED: Final = tuple(
    (code, severity, re.compile(pattern, re.IGNORECASE), what)
    for code, severity, pattern, what in _RULES
)


def prose_findings(tree: nodes.Template, where: str) -> Iterator[Finding]:
    """What the template tells the model beside what people write.

    Args:
        tree: Of the template.
        where: What it is, for the findings.
    """
    yield from said_findings(prose([tree]), where)


def said_findings(said: str, where: str) -> Iterator[Finding]:
    """The same of a text: what stands in a template in whichever language."""
    for code, severity, pattern, what in _COMPILED:
        if match := pattern.search(said):
            yield Finding(severity, code, where, f"{what}: {match.group()!r}")
    words = len(_WORD.findall(said))
    if len(said) > limits.TEMPLATE_SCAN_PROSE:
        yield Finding(
            Severity.WARN, "template-prose", where, f"says {words} words of its own to the model"
        )
    elif words >= _LEAST_WORDS:
        sentence = max(re.split(r"[\n<>]+", said), key=len).strip()
        yield Finding(
            Severity.INFO,
            "template-instruction",
            where,
            f"says {words} words of its own, such as {sentence!r}",
        )
