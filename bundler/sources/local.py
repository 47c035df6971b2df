"""A model on this machine: a GGUF or safetensors file, or a folder with all that belongs to one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from bundler.checks import is_plain_path
from bundler.chunking import Chunking
from bundler.files import open_regular
from bundler.sources.folder import Folder, look_into
from bundler.sources.model import FoundModel, LocalBlob, LocalModel, SourceFile
from registry import oci
from registry.gguf import ModelFacts, Provenance, model_provenance, read_header
from registry.reference import DEFAULT_NAMESPACE, DEFAULT_TAG, Reference
from registry.verify import storage_errors
from registry.weights import GGUF, WeightFacts, together, weight_facts
from schemas.errors import InvalidName, UnsupportedRequest, UsageError
from schemas.render import Meter

_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://")
_SUFFIXES: Final = (".gguf", ".safetensors")


def resolve(source: str, name: str | None, chunking: Chunking, progress: Meter) -> LocalModel:
    """Find, check and hash a model; see :func:`examine` and :func:`hashed`."""
    return hashed(examine(source, name), chunking, progress)


def examine(source: str, name: str | None) -> FoundModel:
    """Find a model and check its headers; nothing else is read.

    Args:
        source: A path as typed.
        name: The model's name as typed; derived from the file's or folder's name where None.

    Raises:
        NotFound: No such file; or a folder without weights.
        UnsupportedRequest: A source of another kind, or a file of a kind that does not travel.
        UsageError: Not a regular file.
        InvalidName: The name does not parse, or a file's own cannot travel.
        MalformedModel: A header is not one that may reach an engine.
        StorageFailure: It cannot be read.
    """
    if match := _SCHEME.match(source):
        raise UnsupportedRequest(
            f"sources of the kind {match[1]}:// cannot be read yet",
            hint="Download the model and give the path of its file or folder",
        )
    path = Path(source)
    given = _given_name(name) if name is not None else None
    with storage_errors(f"cannot read {path}"):
        is_folder = path.is_dir()
    return _folder(path, given) if is_folder else _file(path, given)


def hashed(
    found: FoundModel,
    chunking: Chunking,
    progress: Meter,
    piece: Callable[[SourceFile], int | None] = lambda _: None,
) -> LocalModel:
    """Read all files of a model once.

    Args:
        found: See :func:`examine`.
        chunking: Hashes files, and keeps their chunk indexes.
        progress: Told of the bytes hashed.
        piece: Says into segments of how many bytes a file is cut on the way, if it will be.

    Raises:
        ContentMismatch: A file ends early: it changes while it is read.
        StorageFull, StorageFailure: The disk says no.
    """
    blobs = (_hashed(file, chunking, progress, piece(file)) for file in found.files)
    return LocalModel(found, tuple(blobs))


def _hashed(file: SourceFile, chunking: Chunking, progress: Meter, piece: int | None) -> LocalBlob:
    with open_regular(file.path) as source:
        progress.begin(f"hashing {file.path.name}", file.size)
        known = chunking.digest(source, file.size, progress.advance, piece)
    return LocalBlob(file, known.digest, known.delta, piece, known.segments)


def _file(path: Path, given: Reference | None) -> FoundModel:
    origin = Provenance()
    with open_regular(path) as source:
        _check_file_name(path)
        size = os.fstat(source.fileno()).st_size
        known = together([weight_facts(source, size)])
        if known.format == GGUF:
            source.seek(0)
            origin = model_provenance(read_header(source, size))
    reference = given or _derived_name(path, known.model)
    files = (SourceFile(path, path.name, oci.WEIGHT_RAW, size),)
    return FoundModel(reference, path, files, known.model, origin, known.format)


def _folder(path: Path, given: Reference | None) -> FoundModel:
    folder = look_into(path)
    known = together([_weights(file) for file in folder.files if file.media_type == oci.WEIGHT_RAW])
    facts = _facts(known, folder)
    reference = given or _derived_name(path.absolute(), facts)
    return FoundModel(reference, path, folder.files, facts, Provenance(), known.format)


def _weights(file: SourceFile) -> WeightFacts:
    with open_regular(file.path) as source:
        return weight_facts(source, file.size)


def _facts(known: WeightFacts, folder: Folder) -> ModelFacts:
    """What the folder's own files say fills what the weights leave open."""
    return replace(
        known.model,
        architecture=known.model.architecture or folder.architecture,
        license=known.model.license or folder.license,
    )


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
    name = path.name.lower()
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    stem = re.sub(r"[^a-z0-9]+", "-", name).strip("-")
    tag = facts.quantization.lower() if facts.quantization else DEFAULT_TAG
    suffix = "-" + re.sub(r"[^a-z0-9]+", "-", tag)
    return Reference(DEFAULT_NAMESPACE, stem.removesuffix(suffix) or "model", tag)
