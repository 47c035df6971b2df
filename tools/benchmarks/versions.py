"""Makes a new version of a model, in a process of its own as it needs the memory of both.

Usage::

    python versions.py rename OLD NEW    # the header grows, everything behind it moves
    python versions.py layer OLD NEW     # other weights in one layer
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from registry.gguf import GGUFHeader, read_header_file

_LAYER: Final = "blk.7."
_NAME: Final = b"a much longer name, which moves all of the data behind the header"


def rename(old: Path, new: Path) -> None:
    """The same model with a longer ``general.name``."""
    raw = old.read_bytes()
    header = read_header_file(old)
    key = b"general.name"
    value = raw.index(struct.pack("<Q", len(key)) + key) + 8 + len(key) + 4  # its type
    end = value + 8 + struct.unpack_from("<Q", raw, value)[0]
    head = raw[:value] + struct.pack("<Q", len(_NAME)) + _NAME
    head += raw[end : _end_of_table(raw, header)]
    head += bytes(-len(head) % header.alignment)
    new.write_bytes(head + raw[header.data_offset :])
    if read_header_file(new).data_offset == header.data_offset:
        raise SystemExit("the longer name moved nothing")


def layer(old: Path, new: Path) -> None:
    """The same model with random bytes for all tensors of one layer."""
    raw = bytearray(old.read_bytes())
    header = read_header_file(old)
    for tensor in header.tensors:
        if tensor.name.startswith(_LAYER):
            start = header.data_offset + tensor.offset
            raw[start : start + tensor.size_bytes] = os.urandom(tensor.size_bytes)
    new.write_bytes(raw)


def _end_of_table(raw: bytes, header: GGUFHeader) -> int:
    """Where the header ends without its padding: after the last tensor's type and offset."""
    last = header.tensors[-1]
    name = last.name.encode()
    start = raw.rindex(struct.pack("<Q", len(name)) + name, 0, header.data_offset)
    return start + 8 + len(name) + 4 + 8 * len(last.dims) + 4 + 8


if __name__ == "__main__":
    {"rename": rename, "layer": layer}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
