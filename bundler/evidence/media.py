"""On which stick did it come? As far as the system says so without asking the device."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_DISK: Final = Path("/dev/disk")
_BLOCK: Final = Path("/sys/dev/block")
_TEXT: Final = 255  # characters of a name that are kept
_SERIAL_BYTES: Final = 256


@dataclass(frozen=True, slots=True)
class Medium:
    """A file and where it lies.

    Attributes:
        file: Its name.
        size: Bytes; None for a pipe.
        label: Of the file system; empty where unknown.
        uuid: Likewise.
        serial: Of the device.
    """

    file: str
    size: int | None = None
    label: str = ""
    uuid: str = ""
    serial: str = ""

    def document(self) -> dict[str, str | int]:
        """For a receipt: what is known."""
        document: dict[str, str | int] = {"file": self.file}
        if self.size is not None:
            document["bytes"] = self.size
        for name in ("label", "uuid", "serial"):
            if text := getattr(self, name):
                document[name] = text
        return document


def media(paths: Iterable[Path]) -> tuple[Medium, ...]:
    """Look at where files lie; what cannot be seen is left out."""
    known: dict[int, tuple[str, str, str]] = {}
    found = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            found.append(Medium(_clean(path.name)))
            continue
        if status.st_dev not in known:
            known[status.st_dev] = _device(status.st_dev)
        found.append(Medium(_clean(path.name), status.st_size, *known[status.st_dev]))
    return tuple(found)


def _device(number: int, disk: Path = _DISK, block: Path = _BLOCK) -> tuple[str, str, str]:
    """Label, UUID and serial number of the device with a number; empty where unknown."""
    node = block / f"{os.major(number)}:{os.minor(number)}"
    return _link(disk / "by-label", number), _link(disk / "by-uuid", number), _serial(node)


def _link(folder: Path, number: int) -> str:
    """The name that udev gives a device in one of its folders."""
    with suppress(OSError):
        for link in sorted(folder.iterdir()):
            if link.stat().st_rdev == number:
                return _clean(_unescaped(link.name))
    return ""


def _serial(node: Path) -> str:
    """The serial number of the USB device that a partition is part of."""
    with suppress(OSError):
        place = node.resolve(strict=True)
        for folder in (place, *place.parents):
            path = folder / "serial"
            if path.is_file():
                with path.open("rb") as file:
                    return _clean(file.read(_SERIAL_BYTES).decode("ascii", "replace").strip())
    return ""


def _unescaped(name: str) -> str:
    r"""Udev writes a space as ``\x20``."""
    text, *rest = name.split("\\x")
    for part in rest:
        try:
            text += chr(int(part[:2], 16)) + part[2:]
        except ValueError:
            return name
    return text


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:_TEXT] or "?"
