"""Which imports brought a model, and who had signed it: read from their receipts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from registry.database import from_microseconds
from registry.digest import Digest

Query = Callable[..., Iterable[tuple[Any, ...]]]
"""Runs a statement with its values."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One accepted import that brought a model.

    Attributes:
        receipt: Its id.
        bundle: Id of the bundle.
        sequence: The publisher's running number.
        at: When, UTC.
        publisher: What this site calls the publisher now; what the receipt calls it, where the
            publisher is no longer trusted.
        fingerprint: Of the publisher's pinned root.
        trusted: Whether the publisher still is.
        name: Of the model in that bundle.
        signer: The TUF role that signed for it.
        keys: Ids of the keys that signed the role.
    """

    receipt: str
    bundle: str
    sequence: int
    at: datetime
    publisher: str
    fingerprint: str
    trusted: bool
    name: str
    signer: str
    keys: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "publisher": self.publisher,
            "fingerprint": self.fingerprint,
            "trusted": self.trusted,
            "signer": self.signer,
            "keys": list(self.keys),
            "name": self.name,
            "bundle": self.bundle,
            "sequence": self.sequence,
            "receipt": self.receipt,
            "imported_at": self.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


_ARRIVALS: Final = """
    SELECT i.id, i.bundle, i.sequence, i.at,
           coalesce(a.name, json_extract(d.text, '$.trust.anchor'), i.publisher),
           coalesce(json_extract(d.text, '$.trust.fingerprint'), a.fingerprint, ''),
           a.name IS NOT NULL,
           coalesce(json_extract(m.value, '$.name'), ''),
           coalesce(json_extract(m.value, '$.signer'), ''),
           coalesce(json_extract(m.value, '$.keys'), '[]')
      FROM imports AS i
      JOIN (SELECT id, CAST(document AS TEXT) AS text FROM receipts) AS d ON d.id = i.id
      JOIN json_each(d.text, '$.models') AS m
      LEFT JOIN trust_anchors AS a
        ON a.fingerprint = json_extract(d.text, '$.trust.fingerprint')
     WHERE i.verdict = 'accepted' AND json_valid(d.text)
       AND json_extract(m.value, '$.manifest') = ?
     ORDER BY i.at DESC, i.id
     LIMIT ?
"""


def arrivals_of(query: Query, manifest: Digest, most: int) -> list[Arrival]:
    """The imports that brought a model, the newest first.

    Args:
        query: Runs SQL.
        manifest: Of the model.
        most: How many at most.
    """
    return [
        Arrival(
            receipt=row[0],
            bundle=row[1],
            sequence=row[2],
            at=from_microseconds(row[3]),
            publisher=row[4],
            fingerprint=row[5],
            trusted=bool(row[6]),
            name=row[7],
            signer=row[8],
            keys=tuple(json.loads(row[9])),
        )
        for row in query(_ARRIVALS, str(manifest), most)
    ]
