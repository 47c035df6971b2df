"""The documents say what the code does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import SealiftError


def _all(cls: type[SealiftError]) -> Iterator[type[SealiftError]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _all(sub)


def test_errors_are_documented_with_their_codes(repository: Path) -> None:
    text = (repository / "docs/errors.md").read_text()
    rows = set(re.findall(r"^\| `([a-z-]+)` \| (\d+) \| (\d+) \|", text, re.MULTILINE))
    assert rows == {(c.code, str(c.exit_code), str(c.http_status)) for c in _all(SealiftError)}


def test_links_between_documents_lead_somewhere(repository: Path) -> None:
    for page in [*repository.glob("*.md"), *repository.glob("docs/*.md")]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name} links to {link}"
