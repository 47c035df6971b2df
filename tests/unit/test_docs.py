"""The documents say what the code does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

from runtime.server.metrics import Metrics, gauges
from schemas.errors import SealiftError
from schemas.settings import Serve


def _all(cls: type[SealiftError]) -> Iterator[type[SealiftError]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _all(sub)


def test_errors_are_documented_with_their_codes(repository: Path) -> None:
    text = (repository / "docs/errors.md").read_text()
    rows = set(re.findall(r"^\| `([a-z-]+)` \| (\d+) \| (\d+) \|", text, re.MULTILINE))
    assert rows == {(c.code, str(c.exit_code), str(c.http_status)) for c in _all(SealiftError)}


def test_settings_and_metrics_of_the_server_are_documented(repository: Path) -> None:
    text = (repository / "docs/operations.md").read_text()
    names = set(re.findall(r"`([a-z_]+)`", text))
    assert {field.name.removesuffix("_ms") for field in fields(Serve)} <= names
    metrics = Metrics()
    found = [*metrics.registry.collect(), *gauges((), 0, 0.0, datetime.now(UTC))]
    total = {f"{each.name}_total" if each.type == "counter" else each.name for each in found}
    assert total <= names
    assert {name for name in names if name.startswith("sealift_")} <= total


def test_links_between_documents_lead_somewhere(repository: Path) -> None:
    for page in [*repository.glob("*.md"), *repository.glob("docs/*.md")]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_threat_table_names_tests_that_exist(repository: Path) -> None:
    text = (repository / "docs/trust.md").read_text()
    _, _, rest = text.partition("| attack | answer | tests |\n|---|---|---|\n")
    rows = re.findall(r"^\| (.+) \| (.+) \| (.+) \|$", rest.partition("\n\n")[0], re.MULTILINE)
    sources = "\n".join(path.read_text() for path in (repository / "tests").rglob("test_*.py"))
    there = set(re.findall(r"def (test_\w+)\(", sources))
    assert len(rows) >= 30
    for attack, _, tests in rows:
        named = re.findall(r"`(\w+)`", tests)
        assert named, attack
        assert set(named) <= there, attack
    assert set(re.findall(r"`(test_\w+)`", text)) <= there


def test_the_model_of_trust_stays_three_pages(repository: Path) -> None:
    assert len((repository / "docs/trust.md").read_text().split()) <= 1900
