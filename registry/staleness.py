"""How long ago what a publisher said last has expired. Installed models stay usable."""

from __future__ import annotations

from datetime import datetime

from registry.catalogue import Catalogue
from registry.digest import Digest
from schemas import limits, strictjson


def stale_days(catalogue: Catalogue, now: datetime) -> dict[str, int]:
    """Namespaces whose publisher's timestamp has expired, with the whole days since then.

    Args:
        catalogue: Of the store; a few rows are read, however many models there are.
        now: The clock; where it is behind the floor, the floor counts.
    """
    floor = catalogue.clock_floor()
    moment = now if floor is None else max(now, floor)
    late: dict[Digest, int] = {}
    for anchor in catalogue.anchors():
        state = catalogue.trust(anchor.name)
        said = state.metadata.get("timestamp") if state is not None else None
        if said is None:
            continue
        document = strictjson.parse_object(
            said, what="trusted timestamp", max_bytes=limits.TUF_TIMESTAMP_BYTES
        )
        past = moment - datetime.fromisoformat(document["signed"]["expires"])
        if past.total_seconds() >= 0:
            late[anchor.fingerprint] = past.days
    return {name: late[pin] for name, pin in catalogue.namespaces().items() if pin in late}
