"""GGUF headers: read within bounds, checked whole before a byte of the file reaches an engine.

The bundler reads a header when it creates and when it imports a bundle, the runtime before it loads
a model. Tensor data are never read here.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Callable
from typing import BinaryIO

from registry.gguf.checks import check_meaning
from registry.gguf.facts import ModelFacts, model_facts, model_info, template_capabilities
from registry.gguf.origin import Provenance, Upstream, model_provenance
from registry.gguf.parse import parse_header
from registry.gguf.projector import (
    ProjectorFacts,
    is_projector,
    projector_bytes,
    projector_facts,
)
from registry.gguf.tables import ValueType
from registry.gguf.types import GGUFArray, GGUFHeader, GGUFText, GGUFValue, TensorInfo
from registry.gguf.window import Cursor, refuse
from schemas.errors import NotFound, StorageFailure
from schemas.limits import GGUF_HEADER_BYTES

__all__ = [
    "GGUFArray",
    "GGUFHeader",
    "GGUFText",
    "GGUFValue",
    "ModelFacts",
    "ProjectorFacts",
    "Provenance",
    "TensorInfo",
    "Upstream",
    "ValueType",
    "is_projector",
    "model_facts",
    "model_info",
    "model_provenance",
    "projector_bytes",
    "projector_facts",
    "read_header",
    "read_header_file",
    "template_capabilities",
]


def read_header(
    source: BinaryIO | bytes | bytearray | memoryview | mmap.mmap,
    size: int,
    *,
    projectors: bool = False,
) -> GGUFHeader:
    """Read and check the header of a GGUF file.

    Args:
        source: The file's first bytes, at least up to its first tensor (more than
            ``GGUF_HEADER_BYTES`` are never looked at), or a binary stream that stands at the
            file's start and is read on from there, a little past the header.
        size: Bytes of the whole file, which the tensors must fit into.
        projectors: Whether it may be a projector, which is no model of its own.

    Raises:
        MalformedModel: Any check of `registry.gguf.parse` or `registry.gguf.checks` failed.
    """
    if isinstance(source, bytes | bytearray | memoryview | mmap.mmap):
        with memoryview(source) as view, view.cast("B") as flat:
            header = _read(lambda offset, length: bytes(flat[offset : offset + length]), size)
    else:
        stream = source
        header = _read(lambda _, length: _read_full(stream.read, length), size)
    check_meaning(header, projectors=projectors)
    return header


def read_header_file(
    path: str | os.PathLike[str] | int, *, projectors: bool = False, adapter: bool = False
) -> GGUFHeader:
    """Read and check the header of a GGUF file on disk.

    Args:
        path: The file, or a descriptor of it (which stays open, and where it stood).
        projectors: As of :func:`read_header`.
        adapter: Whether it must be an adapter.

    Raises:
        MalformedModel: No regular file, or any check failed.
        NotFound: There is no such file.
        StorageFailure: It cannot be opened or read.
    """
    try:
        if isinstance(path, int):
            return _read_descriptor(path, projectors=projectors, adapter=adapter)
        # Without O_NONBLOCK a named pipe would block for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return _read_descriptor(descriptor, projectors=projectors, adapter=adapter)
        finally:
            os.close(descriptor)
    except OSError as error:
        what = f"cannot read {os.fspath(path)!r}" if not isinstance(path, int) else "cannot read"
        why = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            raise NotFound(what, why=why, hint="Check the file's name") from error
        raise StorageFailure(what, why=why, hint="Check the file's permissions") from error


def _read_descriptor(descriptor: int, *, projectors: bool, adapter: bool) -> GGUFHeader:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise refuse("it is no regular file", "Name a .gguf file")

    def fetch(offset: int, length: int) -> bytes:
        at = offset

        def read(count: int) -> bytes:
            nonlocal at
            piece = os.pread(descriptor, count, at)
            at += len(piece)
            return piece

        return _read_full(read, length)

    header = _read(fetch, found.st_size)
    check_meaning(header, projectors=projectors, adapter=adapter)
    return header


def _read(fetch: Callable[[int, int], bytes], size: int) -> GGUFHeader:
    return parse_header(Cursor(fetch, size), size)


def _read_full(read: Callable[[int], bytes | None], length: int) -> bytes:
    """Read until ``length`` bytes or the end; streams and the kernel may return fewer."""
    pieces: list[bytes] = []
    missing = min(length, GGUF_HEADER_BYTES)
    while missing and (piece := read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
