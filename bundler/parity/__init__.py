"""Reed-Solomon parity over the files of a bundle: volumes that got lost or damaged are made again.

The files stand side by side, each cut into blocks; block ``i`` of all of them is stripe ``i``, and
each parity file holds one parity block per stripe. Of a stripe with M parity blocks, any M blocks
can be bad, a different M in every stripe. Which ones *are* bad is not guessed: a table has the
SHA-256 of every block, and the table's own digest is signed.

See :mod:`.code` for the arithmetic and :mod:`.table` for the format.
"""

from __future__ import annotations

from bundler.parity.encode import Checkpoint, choose_block, encode
from bundler.parity.ranges import FileRange
from bundler.parity.repair import Repairer, patch_files, repair, repair_files
from bundler.parity.restored import RestoredFile
from bundler.parity.scan import Damage, scan
from bundler.parity.table import Table

__all__ = [
    "Checkpoint",
    "Damage",
    "FileRange",
    "Repairer",
    "RestoredFile",
    "Table",
    "choose_block",
    "encode",
    "patch_files",
    "repair",
    "repair_files",
    "scan",
]
