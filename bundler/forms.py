"""How a bundle is to be written, as far as that is known before a model was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundler.archive.codec import Compression
from registry.digest import Digest
from schemas import limits
from schemas.errors import UsageError


@dataclass(frozen=True, slots=True)
class Form:
    """How a bundle is to be written.

    Attributes:
        compression: Whether blobs are encoded where that pays.
        volume_size: Most bytes per volume; None for one file.
        overwrite: Whether files may be there already.
        held: Blobs that the far side has, with their sizes in bytes: left out, or built upon.
        supplements: Id of a bundle for which this one sends what a site lacked.
        parity: How many volumes may get lost or damaged.
        countersigned: Checkpoints of sites' audit logs, countersigned here, as documents.
        advisories_only: It brings no models, only what its publisher withdrew.
        strict: Models of which a scan finds anything unusual are refused.
    """

    compression: Compression = Compression.AUTO
    volume_size: int | None = None
    overwrite: bool = False
    held: Mapping[Digest, int] = field(default_factory=dict, hash=False)
    supplements: str | None = None
    parity: int = 0
    countersigned: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    advisories_only: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        if self.volume_size is not None and self.volume_size < limits.VOLUME_BYTES_MIN:
            raise UsageError(
                f"volumes of {self.volume_size} bytes are too small",
                hint=f"Give --volume-size at least {limits.VOLUME_BYTES_MIN // limits.MIB}Mi",
            )

        if self.advisories_only and self.volume_size is not None:
            raise UsageError("withdrawals fit into one file", hint="Leave out --volume-size")
        if self.parity and self.volume_size is None:
            raise UsageError("--parity needs volumes", hint="Give --volume-size too")

    @property
    def piece(self) -> int | None:
        """Bytes per segment of a blob that travels as it is; several fit into a volume."""
        if self.volume_size is None:
            return None
        return min(limits.SEGMENT_BYTES, self.volume_size // 64)


def volume_path(output: Path, number: int, kind: str = "v") -> Path:
    """``models.bundle.tar`` → ``models.bundle.v001.tar``."""
    return output.with_name(f"{output.stem}.{kind}{number:03}{output.suffix}")


def check_pipe(form: Form, *, check_media: bool = False) -> None:
    """See that a bundle of this form can go through a pipe.

    Raises:
        UsageError: It has volumes, and so perhaps parity; or it is to be read back.
    """
    if form.volume_size is not None:
        raise UsageError(
            "volumes cannot go through a pipe",
            why="one stream is one file",
            hint="Leave out --volume-size and --parity, or write to a file",
        )
    if check_media:
        raise UsageError(
            "what went into a pipe cannot be read back",
            hint="Leave out --check-media, or write to a file",
        )
