"""What a scan found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from registry.gguf.facts import one_line

MOST: Final = 100  # findings of one scan; more say nothing new


class Severity(IntEnum):
    """How much a finding should worry a person.

    ``INFO`` is worth knowing and usual, ``WARN`` is unusual and may be harmless, ``DANGER`` has no
    good reason to be in a model.
    """

    INFO = 0
    WARN = 1
    DANGER = 2

    @property
    def word(self) -> str:
        """As it is written in documents and policies."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One unusual thing.

    Attributes:
        severity: How much it should worry.
        code: Stable, for scripts and policies: ``template-reserved-name``.
        where: Which part of which file: ``chat template, line 3``.
        detail: In words, one bounded printable line.
    """

    severity: Severity
    code: str
    where: str
    detail: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", one_line(self.where))
        object.__setattr__(self, "detail", one_line(self.detail))

    def line(self) -> str:
        """For people."""
        return f"{self.severity.word}: {self.where}: {self.detail}"

    def document(self) -> dict[str, Any]:
        """For scripts and receipts."""
        return {
            "code": self.code,
            "severity": self.severity.word,
            "where": self.where,
            "detail": self.detail,
        }


def worst(findings: Iterable[Finding]) -> Severity | None:
    """The highest severity; None where nothing was found."""
    return max((finding.severity for finding in findings), default=None)


def of_severity(findings: Iterable[Finding], least: Severity) -> tuple[Finding, ...]:
    """Those of at least a severity, the worst first."""
    return tuple(sorted((f for f in findings if f.severity >= least), key=lambda f: -f.severity))


def bounded(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Each once, the worst first, at most :data:`MOST`."""
    unique = dict.fromkeys(findings)
    return tuple(sorted(unique, key=lambda finding: -finding.severity))[:MOST]
