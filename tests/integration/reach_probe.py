"""Confines itself as ``sealift serve`` does and tells what it can still reach of the home.

Run by test_reach.py: ``python reach_probe.py HOME FILE...``; one JSON object per line.
"""

from __future__ import annotations

import ipaddress
import json
import sys
from pathlib import Path

from registry.store import Store
from runtime.sandbox import confine_front_end
from runtime.server.audit import Entry
from runtime.server.governance import govern
from runtime.server.serve import reach
from schemas.settings import Serve, Settings


def main() -> None:
    home, files = Path(sys.argv[1]), [Path(text) for text in sys.argv[2:]]
    settings = Settings(home, Serve(audit_bytes=65536, audit_files=2))
    with Store.open(home) as store:
        governance = govern(settings, ipaddress.ip_address("127.0.0.1"), None)
        readable, writable = reach(store)
        report = confine_front_end(readable=readable, writable=writable)
        tell(landlock=report.landlock)
        governance.start()
        assert governance.audit is not None
        for number in range(900):  # enough to begin a new file
            governance.audit.add(Entry({"number": number, "pad": "x" * 100}))
        governance.audit.close()
        for path in files:
            tell(path=str(path), read=works(path.read_bytes), write=works(path.open, "r+b"))
        store.blobs.clear_abandoned()
        with store.blobs.stage() as area:
            digest = area.add_bytes(b"new")
            area.install()
        with store.lock():
            tell(stored=store.blobs.has(digest))
        event = store.audit_event("model.refuse", "x", {}, outcome="refused")
        with store.catalogue.transaction() as tx:
            tx.add_audit_event(event)
        tell(events=len(store.catalogue.audit_events()))


def works(call: object, *arguments: object) -> bool:
    try:
        result = call(*arguments)  # type: ignore[operator]
    except OSError:
        return False
    if hasattr(result, "close"):
        result.close()
    return True


def tell(**document: object) -> None:
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    main()
