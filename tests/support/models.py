"""A catalogue's model, without a store."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from registry.digest import Digest
from registry.reference import Reference
from runtime.models import Model

FACTS: dict[str, Any] = {
    "name": "Tiny",
    "architecture": "llama",
    "parameter_size": "134.52M",
    "quantization": "Q4_1",
    "context_length": 8192,
    "embedding_length": 576,
    "license": "apache-2.0",
    "capabilities": ["completion"],
}


def model(name: str = "tiny", **changes: Any) -> Model:
    """A model of that name; its digest follows from the name."""
    plain = Model(
        reference=Reference.parse(name),
        digest=Digest.of(name.encode()),
        weights=Path("/nowhere") / name,
        size=1000,
        modified=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
        facts=FACTS,
        license="apache-2.0",
    )
    return replace(plain, **changes)
