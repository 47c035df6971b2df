"""Files beside a model's weights: recognised by their bytes, whatever they are called."""

from __future__ import annotations

import bz2
import json
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

from bundler.scanning.findings import Finding, Severity, bounded
from bundler.scanning.hidden import hidden_characters
from bundler.scanning.pickles import find_pickle
from bundler.scanning.template import scan_template
from registry import safetensors
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import MalformedModel

_PROGRAMS: Final = (
    (b"\x7fELF", "a Linux program or library"),
    (b"MZ", "a Windows program or library"),
    (b"\xcf\xfa\xed\xfe", "a macOS program or library"),
    (b"\xca\xfe\xba\xbe", "a macOS program or Java class"),
    (b"#!", "a script"),
)
_ARCHIVES: Final = ((b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!", "RAR"), (b"\x28\xb5\x2f\xfd", "zstd"))
_ZIP: Final = b"PK\x03\x04"
_ZIP_EMPTY: Final = b"PK\x05\x06"
_NUMPY: Final = b"\x93NUMPY"
_HDF5: Final = b"\x89HDF\r\n\x1a\n"
_TAR_AT: Final = 257
_CODE: Final = (
    ".py",
    ".pyc",
    ".pyo",
    ".so",
    ".dll",
    ".dylib",
    ".sh",
    ".ps1",
    ".bat",
    ".exe",
    ".jar",
)
_CODE_KEYS: Final = frozenset({"auto_map", "trust_remote_code", "custom_pipelines"})


def _unpacked(data: bytes) -> bytes | None:
    """The start of what a compressed file packs; None for one that is not compressed."""
    most = limits.SCAN_PICKLE_BYTES
    try:
        if data.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(wbits=31).decompress(data, most)
        if data[:1] == b"\x78" and data[1:2] in b"\x01\x5e\x9c\xda":
            return zlib.decompressobj().decompress(data, most)
        if data.startswith(b"BZh"):
            return bz2.BZ2Decompressor().decompress(data, most)
        if data.startswith(b"\xfd7zXZ"):
            return lzma.LZMADecompressor(memlimit=limits.SCAN_XZ_MEMORY).decompress(data, most)
    except (zlib.error, OSError, EOFError, lzma.LZMAError, ValueError):
        return None
    return None


def scan_file(source: BinaryIO, size: int, name: str) -> tuple[Finding, ...]:
    """Say what is unusual, or dangerous, about a file that is no GGUF.

    Args:
        source: Seekable, stands anywhere.
        size: Bytes of the file.
        name: For the findings, and for what its ending says.

    Raises:
        StorageFailure: It cannot be read.
    """
    with storage_errors(f"cannot read {name}"):
        source.seek(0)
        head = source.read(limits.SCAN_PICKLE_BYTES)
        return bounded(_all(source, head, size, name))


def _all(source: BinaryIO, head: bytes, size: int, name: str) -> Iterator[Finding]:
    lower = name.lower()
    if lower.endswith(_CODE):
        yield Finding(Severity.WARN, "file-code", name, "is named as a program")
    if head.startswith((_ZIP, _ZIP_EMPTY)) or _has_zip_end(source, size):
        yield from _zip(source, size, name)
    elif lower.endswith((".jinja", ".gotmpl")):
        yield from _template(head, size, name)
    elif lower.endswith(".safetensors") or head[8:9] == b"{":
        yield from _safetensors(source, size, name)
    elif head.lstrip()[:1] == b"{":
        yield from _json(head, size, name)
    else:
        yield from _by_magic(head, name)


def _by_magic(head: bytes, where: str) -> Iterator[Finding]:
    for magic, what in _PROGRAMS:
        if head.startswith(magic):
            yield Finding(Severity.DANGER, "file-program", where, f"is {what}")
            return
    if found := find_pickle(head):
        yield Finding(Severity.DANGER, "file-pickle", where, f"is {found.line()}")
        return
    if inside := _unpacked(head):
        if found := find_pickle(inside):
            yield Finding(Severity.DANGER, "file-pickle", where, f"packs {found.line()}")
        else:
            yield Finding(Severity.WARN, "file-packed", where, "is compressed")
        return
    if head.startswith(_NUMPY) and b"O'" in head[:256]:
        yield Finding(Severity.DANGER, "file-pickle", where, "is a NumPy array of pickled objects")
    elif head.startswith(_HDF5):
        yield Finding(
            Severity.DANGER, "file-hdf5", where, "is HDF5, in which Keras keeps Python code"
        )
    elif head[_TAR_AT : _TAR_AT + 5] == b"ustar":
        yield Finding(Severity.DANGER, "file-archive", where, "is a tar archive, not looked into")
    for magic, kind in _ARCHIVES:
        if head.startswith(magic):
            yield Finding(
                Severity.DANGER, "file-archive", where, f"is a {kind} archive, not looked into"
            )


def _has_zip_end(source: BinaryIO, size: int) -> bool:
    """Whether a zip ends here: its reader looks at the end, whatever the start is."""
    source.seek(max(0, size - limits.SCAN_ZIP_END))
    return b"PK\x05\x06" in source.read(limits.SCAN_ZIP_END)


def _zip(source: BinaryIO, size: int, name: str) -> Iterator[Finding]:
    source.seek(max(0, size - limits.SCAN_ZIP_END))
    tail = source.read(limits.SCAN_ZIP_END)
    end = tail.rfind(b"PK\x05\x06")
    directory = int.from_bytes(tail[end + 12 : end + 16], "little") if end >= 0 else size
    if end < 0 or directory > limits.SCAN_ZIP_DIRECTORY:
        yield _unreadable(name, "its directory is missing or too large")
        return
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
            if len(members) > limits.SCAN_ZIP_MEMBERS:
                yield _unreadable(name, f"it has {len(members)} members")
                return
            for member in members:
                yield from _member(archive, member, name)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        yield _unreadable(name, str(error))
    except (zlib.error, lzma.LZMAError, OSError) as error:
        yield _unreadable(name, str(error))


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Iterator[Finding]:
    where = f"{name}, {member.filename}"
    with archive.open(member) as stream:
        head = stream.read(limits.SCAN_MEMBER_BYTES)
    if member.filename.lower().endswith(_CODE):
        yield Finding(Severity.WARN, "file-code", where, "is named as a program")
    if head.startswith(_ZIP):
        yield _unreadable(where, "it is an archive in an archive")
    elif head.lstrip()[:1] == b"{":
        yield from _json(head, member.file_size, where)
    else:
        yield from _by_magic(head, where)


def _unreadable(where: str, why: str) -> Finding:
    return Finding(Severity.DANGER, "file-archive", where, f"cannot be looked through: {why}")


def _safetensors(source: BinaryIO, size: int, name: str) -> Iterator[Finding]:
    source.seek(0)
    try:
        header = safetensors.read_header(source, size)
    except MalformedModel as error:
        yield Finding(Severity.DANGER, "file-safetensors", name, error.why or error.what)
        return
    for key, text in header.metadata.items():
        yield from hidden_characters(text[: limits.SCAN_GGUF_TEXT], f"{name}, {key}")


def _template(head: bytes, size: int, name: str) -> Iterator[Finding]:
    """A chat template beside the weights, as the runtime takes it in place of their own."""
    yield from _by_magic(head, name)
    if size > len(head):
        yield Finding(Severity.DANGER, "template-too-much", name, f"is a template of {size} bytes")
        return
    yield from scan_template(head.decode("utf-8", "replace"), name)


def _json(head: bytes, size: int, name: str) -> Iterator[Finding]:
    """Configs of tokenizers and models: what they would have a loader run."""
    if size > len(head):
        yield Finding(Severity.WARN, "file-json", name, f"is JSON of {size} bytes, not looked into")
        return
    if any(f'"{key}"'.encode() in head for key in _CODE_KEYS):
        yield Finding(
            Severity.WARN,
            "file-remote-code",
            name,
            "names Python code that loaders run which trust it (auto_map)",
        )
    try:
        document = json.loads(head)
    except (ValueError, RecursionError):
        return  # other programs may read it; nobody here does
    template = document.get("chat_template") if isinstance(document, dict) else None
    if isinstance(template, str):
        yield from scan_template(template, f"{name}, chat_template")
