"""Stage, install and register blobs; report how it ended.

Usage: ``store_filler.py HOME SIZE PIECE LIMIT``: SIZE bytes, as blobs of PIECE bytes each, in a
process that may write no file larger than LIMIT bytes (0: any).
"""

from __future__ import annotations

import io
import resource
import sys
from pathlib import Path

from registry.digest import Digest
from registry.oci import Descriptor
from registry.store import Store
from schemas.errors import SealiftError


def main() -> None:
    home = Path(sys.argv[1])
    size, piece, limit = map(int, sys.argv[2:])
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    pieces = [n.to_bytes(4, "big") * (piece // 4) for n in range(size // piece)]
    descriptors = [Descriptor.for_bytes("text/plain", data) for data in pieces]
    with Store.open(home) as store, store.blobs.stage() as area:
        for data, descriptor in zip(pieces, descriptors, strict=True):
            area.add(io.BytesIO(data), Digest.of(data), descriptor.size)
        with store.lock():
            area.install()
            with store.catalogue.transaction() as tx:
                for descriptor in descriptors:
                    tx.put_blob(descriptor)


try:
    main()
    sys.stdout.write("done\n")
except SealiftError as error:
    sys.stdout.write(f"{error.code} {error.line()}\n")
