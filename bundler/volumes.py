"""What lies on the sticks: which files are heads, which are volumes, of which bundle.

Files are known by what they hold, not by their names: sticks rename, shorten and reorder.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bundler.archive import layout
from bundler.files import open_regular
from registry.verify import storage_errors
from schemas import strictjson
from schemas.errors import MalformedDocument

_LABEL_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Label:
    """What a volume says of itself; believed only where the signed descriptor agrees.

    Attributes:
        bundle: Id of its bundle.
        number: From 1 on; parity volumes count on their own.
        parity: Whether it is a parity volume.
    """

    bundle: str
    number: int
    parity: bool = False

    def to_bytes(self) -> bytes:
        """``sealift/volume.json``, the first member of every volume."""
        return strictjson.dumps(
            {
                "schemaVersion": 1,
                "bundle": self.bundle,
                "number": self.number,
                "kind": "parity" if self.parity else "data",
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Label:
        """The inverse; only exactly these bytes are accepted.

        Raises:
            MalformedDocument: They are something else.
        """
        fields = strictjson.parse_object(data, what="volume label", max_bytes=_LABEL_BYTES)
        bundle, number = fields.get("bundle"), fields.get("number")
        if isinstance(bundle, str) and isinstance(number, int):
            label = cls(bundle, number, fields.get("kind") == "parity")
            if label.to_bytes() == data:
                return label
        raise MalformedDocument(
            "a volume's label is not as `bundle create` writes it",
            hint="Copy the volumes again from their source",
        )


@dataclass(slots=True)
class Media:
    """Files of bundles, found on sticks or named one by one.

    Attributes:
        heads: Heads, or bundles in one file.
        named: Those of them, and of the volumes, that were not found in a folder.
        volumes: Label to the first file that has it.
        copies: Label to all files that have it.
        strangers: Files that were named and are neither.
        unknown: Files in folders that are neither.
        seen: Device and inode of each.
    """

    heads: list[Path] = field(default_factory=list)
    named: set[Path] = field(default_factory=set)
    strangers: list[Path] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)
    volumes: dict[Label, Path] = field(default_factory=dict)
    copies: dict[Label, list[Path]] = field(default_factory=dict)
    seen: set[tuple[int, int]] = field(default_factory=set)

    @property
    def bundles(self) -> list[str]:
        """Ids of the bundles that volumes are of."""
        return sorted({label.bundle for label in self.volumes})

    def add(self, label: Label, path: Path) -> None:
        """Note a volume; of the same label there may be several."""
        self.volumes.setdefault(label, path)
        self.copies.setdefault(label, []).append(path)

    def of(self, bundle: str) -> dict[int, Path]:
        """The data volumes of one bundle, by number."""
        return {
            label.number: path
            for label, path in sorted(self.volumes.items(), key=lambda item: item[0].number)
            if label.bundle == bundle and not label.parity
        }

    def parity_of(self, bundle: str) -> dict[int, Path]:
        """Its parity volumes, by number."""
        return {
            label.number: path
            for label, path in self.volumes.items()
            if label.bundle == bundle and label.parity
        }


def look(paths: Iterable[Path]) -> Media:
    """Sort files by what they are; folders are looked into, one level deep.

    In a folder, files that are neither head nor volume are passed over.

    Raises:
        NotFound, UsageError, StorageFailure: A path cannot be read.
    """
    media = Media()
    for path in sorted(paths, key=os.path.isdir):  # what is named first: it stays named
        with storage_errors(f"cannot read {path}"):
            if path.is_dir():
                for entry in sorted(os.scandir(path), key=lambda e: e.name):
                    if entry.is_file() and not entry.name.startswith("."):
                        _add(media, path / entry.name, named=False)
            else:
                _add(media, path, named=True)
    return media


def label_of(path: Path) -> Label | None:
    """What a file says that it is; None for anything but a volume with its label whole.

    Raises:
        NotFound, UsageError, StorageFailure: It cannot be read.
    """
    with open_regular(path) as file, storage_errors(f"cannot read {path}"):
        return _label(file.read(layout.BLOCK + _LABEL_BYTES))


def _add(media: Media, path: Path, *, named: bool) -> None:
    with open_regular(path) as file:
        status = os.fstat(file.fileno())
        start = file.read(layout.BLOCK + _LABEL_BYTES)
    if (status.st_dev, status.st_ino) in media.seen:
        return  # named, and in a folder that is named too
    media.seen.add((status.st_dev, status.st_ino))
    label = _label(start)
    if named:
        media.named.add(path)
    if label is not None:
        media.add(label, path)
    elif start.startswith(layout.LAYOUT_NAME.encode() + b"\0"):
        media.heads.append(path)
    else:
        (media.strangers if named else media.unknown).append(path)


def _label(start: bytes) -> Label | None:
    """The label of a volume, from its first bytes; None for anything else."""
    try:
        info = tarfile.TarInfo.frombuf(start[: layout.BLOCK], "ascii", "strict")
    except (tarfile.HeaderError, ValueError):
        return None
    if info.name == layout.VOLUME_NAME and 0 < info.size <= _LABEL_BYTES:
        with suppress(MalformedDocument):  # damaged: what follows may tell more
            return Label.from_bytes(start[layout.BLOCK : layout.BLOCK + info.size])
    return None
