"""Writes audit logs, in a process of its own, and says what that took.

Usage::

    python -m tools.benchmarks.audit_run fill HOME ENTRIES     # 1000 per transaction
    python -m tools.benchmarks.audit_run one HOME ENTRIES      # each in a transaction of its own
    python -m tools.benchmarks.audit_run plain FILE ENTRIES    # bare rows, 1000 per transaction
    python -m tools.benchmarks.audit_run plain-one FILE ENTRIES
    python -m tools.benchmarks.audit_run prove HOME PROOFS     # made and checked
"""

from __future__ import annotations

import json
import random
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

_BATCH: Final = 1000
_SEED: Final = 4


def _documents(count: int) -> Iterator[dict[str, object]]:
    from registry.store import Store

    for number in range(count):
        detail = {"receipt": f"{number:032x}", "digest": f"sha256:{number:064x}"}
        yield Store.audit_event("test.entry", f"{number:032x}", detail)


def write(home: Path, count: int, batch: int) -> dict[str, float]:
    """Append to a store's log; seconds per entry."""
    from registry.store import Store

    with Store.open(home) as store:
        began = time.perf_counter()
        events = _documents(count)
        for start in range(0, count, batch):
            with store.catalogue.transaction() as tx:
                for _ in range(min(batch, count - start)):
                    tx.add_audit_event(next(events))
        return {"each": (time.perf_counter() - began) / count}


def plain(path: Path, count: int, batch: int) -> dict[str, float]:
    """The same bytes as rows of a bare table with the same durability; seconds per entry."""
    from schemas import strictjson

    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY KEY, document BLOB)")
        began = time.perf_counter()
        events = _documents(count)
        for start in range(0, count, batch):
            db.execute("BEGIN IMMEDIATE")
            for _ in range(min(batch, count - start)):
                row = (strictjson.dumps(next(events)),)
                db.execute("INSERT INTO log (document) VALUES (?)", row)
            db.execute("COMMIT")
        return {"each": (time.perf_counter() - began) / count}


def prove(home: Path, count: int) -> dict[str, float]:
    """Make and check proofs of entries here and there; seconds each, bytes, and hashes."""
    from bundler.evidence import exporting, proofs
    from registry.store import Store

    picked = random.Random(_SEED)  # noqa: S311 - the same entries in every run
    with Store.open(home) as store:
        exporting.make_checkpoint(store)
        size = store.catalogue.audit.size
        made = checked = 0.0
        largest = hashes = 0
        for _ in range(count):
            began = time.perf_counter()
            data = proofs.prove_entry(store, picked.randrange(size), entry=False)
            between = time.perf_counter()
            hashes = max(hashes, proofs.verify(data).hashes)
            made, checked = made + between - began, checked + time.perf_counter() - between
            largest = max(largest, len(data))
    return {"make": made / count, "check": checked / count, "bytes": largest, "hashes": hashes}


def main() -> int:
    """Do one of them; the result is one line of JSON."""
    what, place, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    result = {
        "fill": lambda: write(place, count, _BATCH),
        "one": lambda: write(place, count, 1),
        "plain": lambda: plain(place, count, _BATCH),
        "plain-one": lambda: plain(place, count, 1),
        "prove": lambda: prove(place, count),
    }[what]()
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
