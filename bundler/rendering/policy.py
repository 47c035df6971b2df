"""What ``sealift policy`` shows."""

from __future__ import annotations

from bundler.policy.model import Policy
from bundler.policy.words import words
from schemas.render import Output


def policy(out: Output, result: Policy, *, checked: bool) -> None:
    """``sealift policy check`` and ``show``."""
    out.line(f"policy  {result.source}")
    out.line(f"digest  {result.digest.hex}")
    for line in words(result):
        out.line(f"- {line}")
    if checked:
        out.line("It can be used, and does not contradict itself.")
    out.result({"source": result.source, "digest": str(result.digest), "words": words(result)})
