"""What a source yields: a model's files, first as they were found, then with their digests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from bundler.archive.pieces import Segment
from bundler.chunks.recipes import Delta
from bundler.files import open_regular
from registry import oci
from registry.digest import Digest
from registry.gguf import ModelFacts, Provenance
from registry.reference import Reference
from registry.weights import GGUF


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that is to be a layer.

    Attributes:
        path: Where it lies.
        name: What it is called within the model: a relative path with slashes.
        media_type: Of the layer.
        size: In bytes.
    """

    path: Path
    name: str
    media_type: str
    size: int


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model of which no more than headers were read.

    Attributes:
        reference: What it will be called.
        path: The file or folder that was given.
        files: All of it: weights first.
        facts: What the headers say.
        provenance: Where the model says that it comes from.
        format: Of its weights: ``gguf``, ``safetensors`` or ``mixed``.
    """

    reference: Reference
    path: Path
    files: tuple[SourceFile, ...]
    facts: ModelFacts
    provenance: Provenance = field(default_factory=Provenance)
    format: str = GGUF

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class LocalBlob:
    """A file, read once.

    Attributes:
        file: Which.
        digest: Of all its bytes.
        delta: How to make it of what the far side holds, where that pays.
        piece: Bytes per segment, if the file was cut while it was read.
        segments: Then these.
    """

    file: SourceFile
    digest: Digest
    delta: Delta | None = None
    piece: int | None = None
    segments: tuple[Segment, ...] = ()

    @property
    def size(self) -> int:
        """In bytes."""
        return self.file.size

    @property
    def label(self) -> str:
        """For people."""
        return self.file.name.rpartition("/")[2]

    def open(self) -> BinaryIO:
        """Open it again for copying; whoever copies compares the digest."""
        return open_regular(self.file.path)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model, read once.

    Attributes:
        found: What it is.
        blobs: Its files, in the same order.
    """

    found: FoundModel
    blobs: tuple[LocalBlob, ...]

    @property
    def reference(self) -> Reference:
        """What it will be called."""
        return self.found.reference

    @property
    def path(self) -> Path:
        """The file or folder that was given."""
        return self.found.path

    @property
    def facts(self) -> ModelFacts:
        """What the headers say."""
        return self.found.facts

    @property
    def provenance(self) -> Provenance:
        """Where the model says that it comes from."""
        return self.found.provenance

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self.found.size

    @property
    def weights(self) -> tuple[LocalBlob, ...]:
        """The weight files; at least one."""
        return tuple(blob for blob in self.blobs if blob.file.media_type == oci.WEIGHT_RAW)

    @property
    def digest(self) -> Digest:
        """Of the first weight file: of a model in one file, the model's."""
        return self.blobs[0].digest
