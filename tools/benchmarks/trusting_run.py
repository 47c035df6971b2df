"""Verifies the head of a bundle, in a process of its own, and says what that took.

Usage::

    python -m tools.benchmarks.trusting_run HOME BUNDLE
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main() -> int:
    """Do it; the result, in seconds, is one line of JSON."""
    from bundler.clock import now
    from bundler.head import open_head
    from registry.store import Store

    home, bundle = map(Path, sys.argv[1:])
    with Store.open(home) as store, bundle.open("rb", buffering=0) as source:
        began = time.perf_counter()
        trusted = open_head(store.catalogue, source, anchor=None, now=now())
        between = time.perf_counter()
        head = trusted.read_rest(lambda _: None)
        ended = time.perf_counter()
    result = {
        "metadata": between - began,
        "closure": ended - between,
        "bytes": trusted.reader.position,
        "models": len(head.manifests),
    }
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
