"""Where a model came from that no bundle brought: made here, or pulled from the mirror.

Nobody signed such a model. It stands in the catalogue's facts of the model under ``made``, and the
withdrawal of what it was made from holds for it too (:mod:`registry.withdrawals`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from registry.digest import Digest

KEY: Final = "made"
How = Literal["created", "uploaded", "pulled"]


@dataclass(frozen=True, slots=True)
class Made:
    """How a model came to be here without a bundle.

    Attributes:
        how: Made from a model that is here, or from a file that was uploaded, or pulled.
        source: Name of the model or file that it was made from; the mirror that it came from.
        by: User of the process that did it.
        at: When, RFC 3339 in UTC.
        bases: Manifests of what it was made from, and that from, and so on.
    """

    how: How
    source: str
    by: str
    at: str
    bases: tuple[Digest, ...] = ()

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Made | None:
        """Read from a model's facts; None for one that a bundle brought."""
        found = facts.get(KEY)
        if not isinstance(found, dict):
            return None
        bases = tuple(Digest.parse(text) for text in found["bases"])
        return cls(found["how"], found["source"], found["by"], found["at"], bases)

    def within(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """A model's facts with this among them."""
        bases = [str(digest) for digest in self.bases]
        return {**facts, KEY: {**self.document(), "bases": bases}}

    def line(self) -> str:
        """For people."""
        if self.how == "pulled":
            return f"pulled from {self.source}, signed by nobody"
        kind = "the file " if self.how == "uploaded" else ""
        return f"made here from {kind}{self.source}, signed by nobody"

    def document(self) -> dict[str, Any]:
        """For scripts."""
        return {"how": self.how, "source": self.source, "by": self.by, "at": self.at}
