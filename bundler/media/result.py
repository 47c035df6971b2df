"""What a check of media found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bundler.media.readback import Method


class Kind(StrEnum):
    """What is wrong with an extent."""

    DIFFERS = "differs"  # other bytes than were written
    UNREADABLE = "unreadable"  # the medium answers with an error
    UNVERIFIED = "unverified"  # readable, but only the digest of more than that is known
    MISSING = "missing"  # the file ends before it


class Verdict(StrEnum):
    """What is to be thought of the medium."""

    OK = "ok"
    DAMAGED = "damaged"  # copy the bad files again; if it comes back, replace the medium
    FAKE_CAPACITY = "fake-capacity"  # throw it away


@dataclass(frozen=True, slots=True)
class BadExtent:
    """A run of a file that is not right.

    Attributes:
        offset: In the file, in bytes.
        length: In bytes.
        kind: What is wrong.
    """

    offset: int
    length: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class FileCheck:
    """One file.

    Attributes:
        name: Its name.
        method: How it was read past the page cache; None for a file that is not there.
        checked: Bytes that were compared.
        bad: Merged, ascending.
        excess: Bytes after the expected end.
    """

    name: str
    method: Method | None
    checked: int
    bad: tuple[BadExtent, ...]
    excess: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.bad and not self.excess


@dataclass(frozen=True, slots=True)
class MediaCheck:
    """All files of a medium.

    Attributes:
        verdict: What is to be thought of it.
        why: In words, one line; empty where all is well.
        files: In the order of the check.
        genuine: Of a fake: about how many bytes are real, as far as these files show; else None.
    """

    verdict: Verdict
    why: str
    files: tuple[FileCheck, ...]
    genuine: int | None = None

    @property
    def ok(self) -> bool:
        """Whether all of it can be relied on."""
        return self.verdict is Verdict.OK

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "verdict": str(self.verdict),
            "why": self.why,
            "genuineBytes": self.genuine,
            "files": [
                {
                    "name": file.name,
                    "ok": file.ok,
                    "method": None if file.method is None else str(file.method),
                    "checkedBytes": file.checked,
                    "excessBytes": file.excess,
                    "bad": [
                        {"offset": bad.offset, "length": bad.length, "kind": str(bad.kind)}
                        for bad in file.bad
                    ],
                }
                for file in self.files
            ],
        }
