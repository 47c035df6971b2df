"""The one byte sequence that a list of members has (POSIX.1-2017 pax, "ustar Interchange Format").

A bundle is a plain tar, but not any tar: every header is a function of its member's name and size,
all padding is zero, and nothing follows the end. So the reader does not interpret headers, it
*predicts* them, and any other byte anywhere is refused: links, devices, duplicates, odd names,
sizes in two places, trailing data. What tar readers disagree on cannot be expressed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

BLOCK: Final = 512
NAME_BYTES: Final = 100  # the name field; nothing of ours needs the prefix field beside it
RECORD: Final = 20 * BLOCK  # tar's default blocking factor; other tools pad the end to it
USTAR_MAX: Final = 8**11 - 1  # the size field has eleven octal digits; larger needs a pax record

LAYOUT_NAME: Final = "oci-layout"
TRUST_FOLDER: Final = "sealift/trust/"
DESCRIPTOR_NAME: Final = "sealift/bundle.json"
WITHDRAWN_NAME: Final = "sealift/withdrawn.json"
INDEX_NAME: Final = "index.json"
VOLUME_NAME: Final = "sealift/volume.json"
PARITY_NAME: Final = "sealift/parity.bin"
BOM_NAME: Final = "sealift/bom.cdx.json"
VOLUME_OVERHEAD: Final = 2 * BLOCK + RECORD  # volume.json and the end of the archive, at most

# "timestamp.json" | version "." role ".json", as in bundler.trust.names; no leading zeros
TRUST_NAME: Final = re.compile(
    r"(?:timestamp|[1-9][0-9]{0,9}\.[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*)\.json"
)

_PAX_NAME: Final = "././@PaxHeader"


def header(name: str, size: int) -> bytes:
    """The header blocks of a regular file.

    Args:
        name: ASCII, at most ``NAME_BYTES``; all names that we make are.
        size: In bytes.

    Returns:
        512 bytes, or 1,536 where the size needs a pax record (8 GiB and more).
    """
    if size <= USTAR_MAX:
        return _block(name, size, b"0")
    record = _pax_record("size", str(size))
    return _block(_PAX_NAME, len(record), b"x") + record.ljust(BLOCK, b"\0") + _block(name, 0, b"0")


def padding(size: int) -> int:
    """Zero bytes after a member's data, up to the next block."""
    return -size % BLOCK


def trailer(position: int) -> bytes:
    """What ends an archive: two zero blocks, and zeros up to a whole record."""
    end = position + 2 * BLOCK
    return bytes(2 * BLOCK + -end % RECORD)


def blob_name(digest_text: str) -> str:
    """Where a blob lies, as in an OCI image layout: ``blobs/sha256/<hex>``."""
    return f"blobs/{digest_text.replace(':', '/', 1)}"


def member_size(size: int) -> int:
    """Bytes that a member of this size takes in an archive, header and padding included."""
    return BLOCK * (1 if size <= USTAR_MAX else 3) + size + padding(size)


def end_of_archive(position: int, sizes: Iterable[int]) -> int:
    """Size in bytes of an archive of which ``position`` were read and members of these follow."""
    end = position + sum(member_size(size) for size in sizes)
    return end + len(trailer(end))


def _block(name: str, size: int, typeflag: bytes) -> bytes:
    encoded = name.encode("ascii")
    if len(encoded) > NAME_BYTES:
        raise ValueError(f"member name is over {NAME_BYTES} bytes: {name!r}")
    fields = (
        encoded.ljust(NAME_BYTES, b"\0"),
        b"0000644\0",  # mode
        b"0000000\0",  # uid
        b"0000000\0",  # gid
        b"%011o\0" % size,
        b"00000000000\0",  # mtime: a bundle's bytes depend on its contents alone
        b"        ",  # checksum, counted as spaces
        typeflag,
        bytes(100),  # link name
        b"ustar\x0000",
        bytes(32),  # user name
        bytes(32),  # group name
        b"0000000\0",  # device major
        b"0000000\0",  # device minor
        bytes(155),  # name prefix
        bytes(12),
    )
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _pax_record(key: str, value: str) -> bytes:
    # "%d %s=%s\n": the length counts itself
    rest = len(f" {key}={value}\n")
    length = rest + len(str(rest))
    while length != rest + len(str(length)):
        length = rest + len(str(length))
    return f"{length} {key}={value}\n".encode("ascii")
