"""What leaves an isolated site: its inventory and its want-lists, small, signed and in plain ASCII.

A person can look at such a file before it goes, and carry it as a file or as a series of QR codes.
The connected side treats it as hostile: strict, bounded, and believed only for the site whose key
signed it.
"""

from __future__ import annotations

from bundler.inventory.held import HeldModel, Inventory, KnownPublisher, export, read
from bundler.inventory.wanted import WantList, export_want_list, read_want_list

__all__ = [
    "HeldModel",
    "Inventory",
    "KnownPublisher",
    "WantList",
    "export",
    "export_want_list",
    "read",
    "read_want_list",
]
