"""What ``bundle keys`` shows."""

from __future__ import annotations

from pathlib import Path

from bundler.trust.publisher import Publisher
from schemas.render import Output


def publisher(out: Output, result: Publisher) -> None:
    """``bundle keys``."""
    out.fields(
        [
            ("publisher", result.name),
            ("signs for", ", ".join(result.namespaces)),
            ("fingerprint", result.fingerprint.hex),
        ]
    )
    out.note("Next: `bundle keys root -o root.json`; tell its fingerprint by another way.")
    out.result(
        {
            "name": result.name,
            "namespaces": list(result.namespaces),
            "rootFingerprint": str(result.fingerprint),
        }
    )


def exported_root(out: Output, result: Publisher, path: Path) -> None:
    """``bundle keys root``."""
    out.line(f"wrote        {path}")
    out.line(f"fingerprint  {result.fingerprint.hex}")
    out.result({"path": str(path), "rootFingerprint": str(result.fingerprint)})
