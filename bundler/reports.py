"""What travels back from an isolated site: inventories and want-lists, made there and read here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bundler.clock import now
from bundler.descriptor import BundleDescriptor
from bundler.files import check_output, read_bounded, write_file
from bundler.inventory import (
    Inventory,
    WantList,
    export,
    export_want_list,
    qr,
    read,
    read_want_list,
)
from registry.digest import Digest
from registry.store import Store
from registry.verify import storage_errors
from schemas import limits, strictjson
from schemas.errors import AlreadyExists, BlobsMissing, MalformedDocument, SealiftError

_FRAMES_BYTES: Final = limits.QR_FRAMES * (limits.QR_FRAME_CHARS + 64)
_WANT_SUFFIX: Final = ".want"
_WANT_LIST_TYPE: Final = "application/vnd.sealift.want-list.v1+json"


@dataclass(frozen=True, slots=True)
class Exported:
    """An inventory that was made.

    Attributes:
        inventory: What it says.
        data: The file's bytes.
        path: Where it was written; None for nowhere yet.
        pictures: Its QR codes as PNG files.
    """

    inventory: Inventory
    data: bytes
    path: Path | None
    pictures: tuple[Path, ...] = ()


def export_inventory(
    home: Path,
    output: Path | None,
    pictures: Path | None,
    *,
    least_size: int = 0,
    overwrite: bool = False,
) -> Exported:
    """Make a site's inventory, and write it.

    Args:
        home: The store.
        output: A file for it; None for none.
        pictures: A folder for its QR codes, ``inventory-0001.png`` and so on; None for none.
        least_size: Bytes; smaller blobs are left out.
        overwrite: Whether files may be there already.

    Raises:
        AlreadyExists: A file is there and may not be overwritten.
        UnsupportedRequest: It takes more QR codes than anybody scans.
        KeyUnavailable, StorageFull, StorageFailure: As they come.
    """
    if output is not None:
        check_output(output, overwrite=overwrite)
    with Store.open(home) as store:
        data = export(store, now=now(), least_size=least_size)
    paths: list[Path] = []
    if pictures is not None:
        with storage_errors(f"cannot make {pictures}"):
            pictures.mkdir(parents=True, exist_ok=True)
        frames = qr.frames(data)
        paths = [pictures / f"inventory-{n:04}.png" for n in range(1, len(frames) + 1)]
        for path in paths:
            check_output(path, overwrite=overwrite)
        for path, frame in zip(paths, frames, strict=True):
            write_file(path, qr.png(frame))
    if output is not None:
        write_file(output, data)
    return Exported(read(data), data, output, tuple(paths))


def read_report(path: Path, site: Digest | None = None) -> Inventory | WantList:
    """Verify a report that came from a site; a hostile file.

    Args:
        path: The file.
        site: Fingerprint of the site's key, if it is known.

    Raises:
        MalformedDocument: Neither an inventory nor a want-list.
        BadSignature: The signature is wrong.
        FingerprintMismatch: Another site's.
        NotFound, UsageError, StorageFailure: It cannot be read.
    """
    data = read_bounded(path, limits.REPORT_BYTES)
    document = strictjson.parse_object(data, what="the report", max_bytes=limits.REPORT_BYTES)
    if document.get("payloadType") == _WANT_LIST_TYPE:
        return read_want_list(data, site)
    return read(data, site)


def read_inventory(path: Path, site: Digest | None = None) -> Inventory:
    """As :func:`read_report`, of an inventory alone."""
    return read(read_bounded(path, limits.REPORT_BYTES), site)


def read_wanted(path: Path, site: Digest | None = None) -> WantList:
    """As :func:`read_report`, of a want-list alone."""
    return read_want_list(read_bounded(path, limits.REPORT_BYTES), site)


def join(paths: Sequence[Path], output: Path, *, overwrite: bool) -> Inventory | WantList:
    """Make a report of the texts of its QR codes, in any order, one per line.

    Args:
        paths: Files with the texts; all together are one report.
        output: Where it goes.
        overwrite: Whether a file may be there already.

    Raises:
        MalformedDocument: A text was misread, is missing, or is of another report.
        AlreadyExists: The output is there and may not be overwritten.
    """
    check_output(output, overwrite=overwrite)
    joiner = qr.Joiner()
    for path in paths:
        for line in read_bounded(path, _FRAMES_BYTES).split(b"\n"):
            try:
                text = line.decode("ascii").strip()
            except UnicodeDecodeError:
                raise MalformedDocument(
                    f"{path.name} has a line that no QR code of ours holds",
                    hint="Give the texts of the codes, one per line",
                ) from None
            if text:
                joiner.add(text)
    write_file(output, joiner.data())
    return read_report(output)


def write_want_list(
    store: Store, descriptor: BundleDescriptor, output: Path, name: str, error: BlobsMissing
) -> BlobsMissing:
    """Write down what a bundle needs and the store has not.

    Args:
        store: Into which the bundle was to be imported.
        descriptor: Of the bundle; believed.
        output: Where to; in a folder, ``<name>.want``.
        name: Of the bundle's file; of one from a pipe, a likeness.
        error: What the import ended with; says what is missing.

    Returns:
        The error, saying where the list is.
    """
    path = output / f"{name}{_WANT_SUFFIX}" if output.is_dir() else output
    try:
        number = descriptor.sequence
        data = export_want_list(store.home, descriptor.id, number, error.blobs, now=now())
        _check_replaceable(path)
        write_file(path, data)
    except SealiftError as problem:
        hint = f"The want-list could not be written ({problem.what}); give --want-list FILE"
        return BlobsMissing(error.what, why=error.why, hint=hint)
    return BlobsMissing(
        error.what,
        why=error.why,
        hint=f"Carry the want-list {path} back; there: bundle create --want {path.name} MODEL…;"
        " import what comes, then this bundle again",
    )


def _check_replaceable(path: Path) -> None:
    """An earlier want-list may be replaced, nothing else."""
    if path.exists() or path.is_symlink():
        try:
            read_wanted(path)
        except SealiftError:
            raise AlreadyExists(f"{path} is there and no want-list") from None
