"""What scans found, shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bundler.scanning import Finding, Severity
from registry.reference import Reference
from schemas.render import Output

Found = Mapping[Reference, Iterable[Finding]]


def findings(out: Output, found: Found, *, least: Severity = Severity.WARN) -> None:
    """One line per finding, below its model."""
    for name, some in found.items():
        for each in some:
            if each.severity >= least:
                out.line(f"{each.severity.word:<8} {name.shortest}  {each.where}: {each.detail}")


def document(found: Found) -> list[dict[str, Any]]:
    """For scripts."""
    return [
        {"model": str(name), **each.document()} for name, some in found.items() for each in some
    ]


def scanned(out: Output, found: Mapping[str, Iterable[Finding]]) -> None:
    """``bundle scan``."""
    for name, some in found.items():
        said = list(some)
        for each in said:
            out.line(f"{each.severity.word:<8} {name}  {each.where}: {each.detail}")
        if not said:
            out.line(f"ok       {name}")
    out.result(
        {
            "files": [
                {"path": name, "findings": [each.document() for each in some]}
                for name, some in found.items()
            ]
        }
    )
