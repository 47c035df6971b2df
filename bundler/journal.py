"""What of an import is on the disk for good, so that an interrupted one goes on there.

One text file in the import's staging area; a line is appended, and synced, only after the bytes
that it speaks of are. It is a hint, not evidence: whatever it says, the finished blob must have its
digest.

::

    line ::= hex " " ( number | "+" bytes ) newline

``number``: that segment is in its place. ``bytes``: so much of the front of the blob is.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from registry.digest import Digest
from registry.verify import storage_errors
from schemas import limits

_LINE: Final = re.compile(rb"([0-9a-f]{64}|[0-9a-f]{128}) (\+?)([0-9]{1,15})")
_MAX_BYTES: Final = limits.BUNDLE_BLOBS * 100


class Journal:
    """The journal of one import; use it as a context manager.

    Args:
        path: The file; made where it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._segments: defaultdict[str, set[int]] = defaultdict(set)
        self._fronts: defaultdict[str, int] = defaultdict(int)

    @classmethod
    def looked_at(cls, path: Path) -> Self:
        """As it is on the disk, for somebody who only looks; empty where there is none."""
        journal = cls(path)
        with (
            storage_errors("cannot read an import's journal"),
            suppress(FileNotFoundError),
            path.open("rb") as file,
        ):
            journal._load(file.read(_MAX_BYTES))
        return journal

    def __enter__(self) -> Self:
        with storage_errors("cannot open the import's journal"):
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o600)
            with os.fdopen(os.dup(self._fd), "rb") as file:
                text = file.read(_MAX_BYTES)
        self._load(text)
        if text and not text.endswith(b"\n"):
            self._append("\n")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def segments(self, digest: Digest) -> AbstractSet[int]:
        """Numbers of the segments that are in their place; a live view."""
        return self._segments[digest.hex]

    def front(self, digest: Digest) -> int:
        """Bytes of the blob's front that are in their place."""
        return self._fronts[digest.hex]

    def segments_done(self, digest: Digest, numbers: Iterable[int]) -> None:
        """Record segments whose bytes are synced."""
        lines = []
        for number in numbers:
            self._note(digest.hex, False, number)
            lines.append(f"{digest.hex} {number}\n")
        self._append("".join(lines))

    def front_done(self, digest: Digest, count: int) -> None:
        """Record a front whose bytes are synced."""
        self._note(digest.hex, True, count)
        self._append(f"{digest.hex} +{count}\n")

    def forget(self, digest: Digest) -> None:
        """Start a blob anew: what was recorded of it turned out wrong."""
        known = self._segments.pop(digest.hex, None), self._fronts.pop(digest.hex, None)
        if not any(known):
            return
        lines = [f"{h} {n}\n" for h, numbers in self._segments.items() for n in sorted(numbers)]
        lines += [f"{h} +{n}\n" for h, n in self._fronts.items() if n]
        with storage_errors("cannot write the import's journal"):
            os.ftruncate(self._fd, 0)
        self._append("".join(lines))

    def _load(self, text: bytes) -> None:
        for line in text.split(b"\n"):
            if match := _LINE.fullmatch(line):  # a torn last line says nothing
                self._note(match[1].decode(), bool(match[2]), int(match[3]))

    def _note(self, digest: str, front: bool, number: int) -> None:  # noqa: FBT001
        if front:
            self._fronts[digest] = max(self._fronts[digest], number)
        else:
            self._segments[digest].add(number)

    def _append(self, text: str) -> None:
        with storage_errors("cannot write the import's journal"):
            os.write(self._fd, text.encode())
            os.fdatasync(self._fd)
