"""``bundle extract``: a model's plain files, with all that other tools need to verify them.

::

    FOLDER/NAMESPACE/NAME/TAG/     the files, as their manifest names them
                     .../model.sig     their signature (OpenSSF Model Signing)
                     .../bom.cdx.json  the bill of materials (CycloneDX)
    FOLDER/NAMESPACE.pub           the key that made the signature, if it is one to be believed
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from bundler.attestations import artifacts, sigstore, statements
from bundler.checks import check_file_names, is_plain_path
from bundler.files import free_space, new_file
from bundler.trust.attesting import role_keys
from bundler.trust.names import publisher_role
from registry import oci
from registry.digest import Digest
from registry.oci import Manifest
from registry.records import ModelRecord
from registry.reference import Reference
from registry.staging import sync_folder
from registry.store import Store
from registry.verify import VerifyingReader, storage_errors
from schemas import documents, limits
from schemas.documents import Kind
from schemas.errors import (
    AlreadyExists,
    MalformedDocument,
    NotFound,
    OutsideClosure,
    StorageFull,
)
from schemas.render import Meter


@dataclass(frozen=True, slots=True)
class Extracted:
    """One model, as plain files.

    Attributes:
        reference: Its name.
        folder: Where its files are.
        files: Their names.
        signature: ``model.sig``; None where the model came without one.
        key: The public key for it; None where no trusted publisher has that key any more.
    """

    reference: Reference
    folder: Path
    files: tuple[str, ...]
    signature: Path | None
    key: Path | None


def extract(
    home: Path, names: Sequence[str], folder: Path, progress: Meter
) -> tuple[Extracted, ...]:
    """Write models of the store as plain files; every byte is verified on its way.

    Args:
        home: The store.
        names: Of models, as typed.
        folder: Where to; made if it is not there.
        progress: Told of the bytes.

    Raises:
        NotFound: There is no such model.
        AlreadyExists: It was extracted there already.
        StorageFull, StorageFailure: The disk says no.
    """
    with Store.open(home, create=False) as store:
        records = [_resolve(store, name) for name in names]
        with storage_errors(f"cannot write {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
        if (free := free_space(folder)) < (total := sum(record.size for record in records)):
            raise StorageFull(
                f"not enough space in {folder}", why=f"{total} bytes needed, {free} free"
            )
        return tuple(_extract(store, record, folder, progress) for record in records)


def find_bom(store: Store, record: ModelRecord) -> bytes | None:
    """The bill of materials of a model of the store; None where it came without one."""
    found = [
        layer
        for manifest, layer in _attestations(store, record)
        if manifest.artifact_type == oci.CYCLONEDX_JSON
    ]
    mine = (layer for layer in found if _is_of(layer, record.reference))
    return next(mine, found[0] if found else None)


def _resolve(store: Store, name: str) -> ModelRecord:
    record = store.catalogue.resolve(Reference.from_user(name))
    if record is None:
        raise NotFound(f"model '{name[:120]}' not found", hint="See: sealift list")
    return record


def _extract(store: Store, record: ModelRecord, folder: Path, progress: Meter) -> Extracted:
    reference = record.reference
    place = folder / reference.namespace / reference.name / reference.tag
    files = {
        layer.annotations.get(oci.FILEPATH, f"{layer.digest.hex}.bin"): layer
        for layer in record.manifest.layers
    }
    check_file_names(list(files))
    if not all(map(is_plain_path, files)) or len(files) != len(record.manifest.layers):
        raise MalformedDocument(f"the files of {reference} have unsafe names")
    beside = _beside(store, record, files)
    with _appearing(place) as partial:
        for name, layer in files.items():
            progress.begin(name, layer.size)
            with store.blobs.open(layer.digest) as source:
                reader = VerifyingReader(source, layer.digest, layer.size)
                _copy(reader, partial / name, progress)
        for name, data in beside.items():
            with new_file(partial / name) as file:
                file.write(data)
    signature = beside.get(statements.SIGNATURE_FILE)
    key = None if signature is None else _key(store, record, folder, signature)
    signed = None if signature is None else place / statements.SIGNATURE_FILE
    return Extracted(reference, place, tuple(files), signed, key)


def _copy(source: VerifyingReader, path: Path, progress: Meter) -> None:
    with storage_errors(f"cannot write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        while data := source.read(limits.IO_CHUNK):
            file.write(data)
            progress.advance(len(data))


def _beside(store: Store, record: ModelRecord, files: object) -> dict[str, bytes]:
    """Signature and bill of materials by file name; a file of the model's own goes before."""
    signatures = [
        layer
        for manifest, layer in _attestations(store, record)
        if artifacts.predicate_type(manifest) == statements.MODEL_SIGNING and _hint(layer)
    ]
    bom = find_bom(store, record)
    found = {} if bom is None else {statements.BOM_FILE: bom}
    # Where two publishers signed the same bytes, the one whose key is trusted for this name.
    trusted = {sigstore.hint(key) for key in _keys(store, record.reference)}
    signatures.sort(key=lambda layer: _hint(layer) not in trusted)
    if signatures:
        found[statements.SIGNATURE_FILE] = signatures[0]
    taken = set(files) if isinstance(files, dict) else set()
    return {name: data for name, data in found.items() if name not in taken}


def _attestations(store: Store, record: ModelRecord) -> Iterator[tuple[Manifest, bytes]]:
    for each in store.catalogue.referrers(record.descriptor.digest):
        if each.artifact_type in artifacts.KINDS and each.size <= limits.REFERRER_BYTES:
            try:
                manifest = Manifest.parse(_read(store, each.digest, each.size))
                layer = artifacts.check(manifest, _subject(record))
            except (MalformedDocument, OutsideClosure):  # another tool's; ours were checked
                continue
            yield manifest, _read(store, layer.digest, layer.size)


def _subject(record: ModelRecord) -> oci.Descriptor:
    described = record.descriptor
    return oci.Descriptor(described.media_type, described.digest, described.size)


def _read(store: Store, digest: Digest, size: int) -> bytes:
    with store.blobs.open(digest) as file:
        return VerifyingReader(file, digest, size).read()


def _keys(store: Store, reference: Reference) -> list[EllipticCurvePublicKey]:
    """Those of all trusted publishers that may sign for a model."""
    role = publisher_role(reference.namespace)
    states = (store.catalogue.trust(anchor.name) for anchor in store.catalogue.anchors())
    return [
        key
        for state in states
        if state is not None and state.metadata
        for key in role_keys(state.metadata, role)
    ]


def _key(store: Store, record: ModelRecord, folder: Path, signature: bytes) -> Path | None:
    """Write the public key that a signature verifies with, if it is one that is trusted."""
    hint = _hint(signature)
    found = (k for k in _keys(store, record.reference) if sigstore.hint(k) == hint)
    key = next(found, None)
    if key is None:
        return None
    path = folder / f"{record.reference.namespace}.pub"
    data = sigstore.pem(key)
    with storage_errors(f"cannot write {path}"):
        if path.exists() and path.read_bytes() != data:
            path = folder / f"{record.reference.namespace}.{hint[:8]}.pub"
        path.write_bytes(data)
    return path


def _hint(bundle: bytes) -> str:
    """Which key signed; empty for a bundle of a kind that we do not make."""
    try:
        return sigstore.read(bundle).hint
    except MalformedDocument:
        return ""


def _is_of(bom: bytes, reference: Reference) -> bool:
    try:
        component = documents.load(Kind.MODEL_BOM, bom)["metadata"]["component"]
    except MalformedDocument:  # another tool's
        return False
    named = (component.get("group"), component.get("name"), component.get("version"))
    return named == (reference.namespace, reference.name, reference.tag)


@contextmanager
def _appearing(place: Path) -> Iterator[Path]:
    """A new folder that takes its name only if the block ends well."""
    if place.exists():
        raise AlreadyExists(f"there is a folder {place} already", hint="Remove it first")
    partial = place.with_name(f".{token_hex(8)}.partial")
    with storage_errors(f"cannot write {place}"):
        partial.mkdir(parents=True)
    try:
        yield partial
        with storage_errors(f"cannot write {place}"):
            partial.rename(place)
            sync_folder(place.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
