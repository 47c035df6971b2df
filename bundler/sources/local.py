"""A GGUF file on this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from bundler.checks import is_plain_path
from bundler.chunking import Chunking
from bundler.chunks.recipes import Delta
from bundler.files import open_regular
from registry.digest import Digest
from registry.gguf import ModelFacts, model_facts, read_header
from registry.reference import DEFAULT_NAMESPACE, DEFAULT_TAG, Reference
from schemas.errors import InvalidName, UnsupportedRequest, UsageError
from schemas.render import Meter

_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://")


@dataclass(frozen=True, slots=True)
class LocalModel:
    """One model file, read once.

    Attributes:
        reference: What it will be called.
        path: Where it lies.
        digest: Of the whole file.
        size: In bytes.
        facts: What its header says.
        delta: How to make it of what the far side holds, where that pays.
    """

    reference: Reference
    path: Path
    digest: Digest
    size: int
    facts: ModelFacts
    delta: Delta | None = None

    def open(self) -> BinaryIO:
        """Open it again for copying; whoever copies compares the digest."""
        return open_regular(self.path)


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A model file of which only the header was read.

    Attributes:
        reference: What it will be called.
        path: Where it lies.
        size: In bytes.
        facts: What its header says.
    """

    reference: Reference
    path: Path
    size: int
    facts: ModelFacts


def resolve(source: str, name: str | None, chunking: Chunking, progress: Meter) -> LocalModel:
    """Check and hash a local GGUF file.

    Args:
        source: A path as typed.
        name: The model's name as typed; derived from the file's name where None.
        chunking: Hashes the file, and keeps its chunk index.
        progress: Told of the bytes hashed.

    Raises:
        NotFound: No such file.
        UnsupportedRequest: A source of another kind.
        UsageError: Not a regular file.
        InvalidName: The name does not parse, or the file's own cannot travel.
        MalformedModel: The header is not one that may reach an engine.
        StorageFailure: It cannot be read.
    """
    with _opened(source, name) as (file, found):
        progress.begin(f"hashing {found.path.name}", found.size)
        file.seek(0)
        digest, delta = chunking.digest(file, found.size, progress.advance)
    return LocalModel(found.reference, found.path, digest, found.size, found.facts, delta)


def examine(source: str, name: str | None) -> LocalFile:
    """As :func:`resolve`, but read no more than the header."""
    with _opened(source, name) as (_, found):
        return found


@contextmanager
def _opened(source: str, name: str | None) -> Iterator[tuple[BinaryIO, LocalFile]]:
    if match := _SCHEME.match(source):
        raise UnsupportedRequest(
            f"sources of the kind {match[1]}:// cannot be read yet",
            hint="Download the GGUF file and give its path",
        )
    path = Path(source)
    reference = _given_name(name) if name is not None else None
    with open_regular(path) as file:
        _check_file_name(path)
        size = os.fstat(file.fileno()).st_size
        facts = model_facts(read_header(file, size))
        yield file, LocalFile(reference or _derived_name(path, facts), path, size, facts)


def _check_file_name(path: Path) -> None:
    """The manifest carries it, and other tools write to it."""
    if not is_plain_path(path.name):
        raise InvalidName(
            f"the file name {path.name[:120]!r} cannot travel",
            why="it has characters that some system would stumble over",
            hint="Rename the file",
        )


def _given_name(text: str) -> Reference:
    reference = Reference.from_user(text)
    if reference.host is not None or reference.digest is not None:
        raise UsageError(
            f"{text[:120]!r} names a host or a digest", hint="Write it like library/smollm2:135m"
        )
    return reference


def _derived_name(path: Path, facts: ModelFacts) -> Reference:
    """``SmolLM2-135M-Instruct.Q4_1.gguf`` → ``library/smollm2-135m-instruct:q4_1``."""
    stem = re.sub(r"[^a-z0-9]+", "-", path.name.lower().removesuffix(".gguf")).strip("-")
    tag = facts.quantization.lower() if facts.quantization else DEFAULT_TAG
    suffix = "-" + re.sub(r"[^a-z0-9]+", "-", tag)
    return Reference(DEFAULT_NAMESPACE, stem.removesuffix(suffix) or "model", tag)
