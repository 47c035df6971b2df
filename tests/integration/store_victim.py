"""A process that imports into a store and stops where it is told, so that a test can kill it there.

Usage: ``store_victim.py HOME NAME SEED SIZE POINT``; POINT is ``add``, ``installed``, ``written``,
``locked`` or ``never``. It prints ``ready`` before it begins, the point's name when it is there, and
``done`` after the commit. Until then it waits for a line on its standard input.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from registry.reference import Reference
from registry.store import Store
from tests.store_models import tiny


class Halting:
    """Bytes that stop coming half-way."""

    def __init__(self, data: bytes, point: str) -> None:
        self._file = io.BytesIO(data)
        self._half = len(data) // 2
        self._point = point

    def read(self, n: int, /) -> bytes:
        here = self._file.tell()
        if here == self._half:
            stop_at("add", self._point)
        return self._file.read(min(n, self._half - here) if here < self._half else n)


def stop_at(here: str, point: str) -> None:
    if here == point:
        sys.stdout.write(f"{here}\n")
        sys.stdout.flush()
        sys.stdin.readline()


def main() -> None:
    home, name, seed, size, point = sys.argv[1:]
    model, reference = tiny(int(seed), int(size)), Reference.parse(name)
    with Store.open(Path(home)) as store:
        stop_at("ready", "ready")
        with store.blobs.stage("victim") as area:
            weights = model.manifest.layers[0]
            area.add(Halting(model.weights, point), weights.digest, weights.size)
            area.add_bytes(model.config)
            area.add_bytes(model.manifest.to_bytes())
            with store.lock():
                stop_at("locked", point)
                area.install()
                stop_at("installed", point)
                with store.catalogue.transaction() as tx:
                    for blob in model.manifest.blobs:
                        tx.put_blob(blob)
                    tx.put_manifest(
                        reference.repository, model.descriptor, model.manifest, {"seed": 1}
                    )
                    tx.set_tag(reference, model.descriptor.digest)
                    stop_at("written", point)
        sys.stdout.write("done\n")
        sys.stdout.flush()


main()
