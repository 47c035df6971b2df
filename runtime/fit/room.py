"""How much memory there is: the machine's, and what control groups leave of it.

``MemAvailable`` (Linux ``Documentation/filesystems/proc.rst``) tells what can be had without
swapping; it counts caches of files as free. Control groups limit it further, each for all below it:
version 2 by ``memory.max`` and ``memory.high``, version 1 by ``memory.limit_in_bytes``; what they
count as used also holds caches of files, which go when memory is needed.

The files are opened before the front-end confines itself, and read again through their
descriptors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Final, Self

_READ_BYTES: Final = 16 * 1024  # memory.stat of version 1 has about 1.5 KiB
_CGROUPS: Final = Path("/sys/fs/cgroup")
_LEVELS: Final = 64  # of control groups in one another


@dataclass(frozen=True, slots=True)
class Room:
    """What can be had now.

    Attributes:
        bytes: Without anybody's harm.
        limit: What says so: ``the machine``, or a control group's path.
    """

    bytes: int
    limit: str


class _File:
    """A file of the kernel's, read again and again."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, self._descriptor)

    def text(self) -> str:
        """All of it; empty if it cannot be read any more."""
        try:
            return os.pread(self._descriptor, _READ_BYTES, 0).decode("ascii", "replace")
        except OSError:  # the group is gone
            return ""


@dataclass(frozen=True, slots=True)
class _Group:
    """One control group that limits memory: its files."""

    name: str
    limits: tuple[_File, ...]
    usage: _File
    stat: _File

    def room(self) -> int | None:
        """What it leaves; None if it has no limit."""
        found = [value for file in self.limits if (value := _count(file.text())) is not None]
        usage = _count(self.usage.text())
        if not found or usage is None:
            return None
        cached = _fields(self.stat.text(), " ")
        # Version 1 tells of the group itself and, as total_…, of all below it.
        prefix = "total_" if "total_active_file" in cached else ""
        files = sum(cached.get(f"{prefix}{kind}_file", 0) for kind in ("active", "inactive"))
        return max(min(found) - max(usage - files, 0), 0)


class Meter:
    """Tells how much memory there is; one per process, closed at its end.

    Args:
        root: Where ``/proc`` and ``/sys`` lie.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        with ExitStack() as stack:
            self._memory = _open(root / "proc/meminfo", stack)
            self._groups = tuple(_groups(root, stack))
            self._stack = stack.pop_all()

    def room(self) -> Room | None:
        """What can be had now; None where the kernel does not tell."""
        text = self._memory.text() if self._memory is not None else ""
        kilobytes = _fields(text, ":").get("MemAvailable")
        found = [] if kilobytes is None else [Room(kilobytes * 1024, "the machine")]
        for group in self._groups:
            left = group.room()
            if left is not None:
                found.append(Room(left, group.name))
        return min(found, key=lambda room: room.bytes, default=None)

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _open(path: Path, stack: ExitStack) -> _File | None:
    try:
        return _File(path, stack)
    except OSError:
        return None


def _groups(root: Path, stack: ExitStack) -> Iterator[_Group]:
    """The groups that limit this process, the innermost first."""
    memberships = _open(root / "proc/self/cgroup", stack)
    for line in memberships.text().splitlines() if memberships is not None else ():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            mount = _CGROUPS
            names: tuple[str, ...] = ("memory.max", "memory.high")
            usage = "memory.current"
        elif "memory" in controllers.split(","):
            mount, names = _CGROUPS / "memory", ("memory.limit_in_bytes",)
            usage = "memory.usage_in_bytes"
        else:
            continue
        for folder in _upwards(path):
            where = root / mount.relative_to("/") / folder.relative_to("/")
            group = _group(where, str(mount / folder.relative_to("/")), names, usage, stack)
            if group is not None:
                yield group


def _upwards(path: str) -> list[PurePosixPath]:
    """A group and those that it lies in; the mount's own root last.

    Inside a container the path may be the host's, and only the root be there.
    """
    group = PurePosixPath("/" + path.strip("/"))
    if ".." in group.parts:
        return [PurePosixPath("/")]
    return [group, *group.parents][:_LEVELS]


def _group(
    folder: Path, name: str, limits: tuple[str, ...], usage: str, stack: ExitStack
) -> _Group | None:
    found = [_open(folder / limit, stack) for limit in limits]
    used, stat = _open(folder / usage, stack), _open(folder / "memory.stat", stack)
    present = tuple(file for file in found if file is not None)
    if not present or used is None or stat is None:
        return None
    return _Group(name, present, used, stat)


def _count(text: str) -> int | None:
    """A number; None for ``max`` and for the largest one, which mean no limit."""
    text = text.strip()
    if not text.isdecimal():
        return None
    value = int(text)
    return value if value < _NO_LIMIT else None


# Version 1 writes the largest multiple of a page below 2**63 (mm/page_counter.c).
_NO_LIMIT: Final = 2**62


def _fields(text: str, separator: str) -> dict[str, int]:
    """Lines of a name and a number."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(separator)
        number = value.strip().partition(" ")[0]
        if number.isdecimal():
            found[name] = int(number)
    return found
