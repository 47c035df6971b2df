"""Reading the front of a bundle, as strictly whether it is believed or only looked at.

What comes out is well-formed, bounded and agrees with itself. Whether it is to be believed is for
:mod:`bundler.head`; ``bundle inspect`` shows it as what somebody claims.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

from bundler import checks
from bundler.archive import layout
from bundler.archive.reader import ArchiveReader
from bundler.attestations.bom import check_bundle_bom
from bundler.attestations.checking import Checker, KeysOf
from bundler.contents import Entry
from bundler.descriptor import BundleDescriptor
from bundler.trust.publisher import manifest_custom
from registry import oci
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from schemas import documents, limits
from schemas.documents import Kind
from schemas.errors import ContentMismatch, MalformedArchive

_TRUST_OR_DESCRIPTOR: Final = re.compile(
    f"(?:{re.escape(layout.TRUST_FOLDER)}{layout.TRUST_NAME.pattern}"
    f"|{re.escape(layout.DESCRIPTOR_NAME)})"
)
_COPY_AGAIN: Final = "Copy the bundle again from its source, and compare"

TakeSmall = Callable[[bytes], None]
"""Takes a manifest or a config, verified already."""

Customs = Mapping[Digest, Mapping[str, str | int]]
"""What must have been signed about each manifest, by its digest."""

_Manifests = dict[Digest, Manifest]


@dataclass(frozen=True, slots=True)
class Front:
    """All up to the descriptor, not yet believed.

    Attributes:
        reader: Stands behind the descriptor.
        trust_files: By name, without their folder.
        descriptor_bytes: As they stand there.
    """

    reader: ArchiveReader
    trust_files: Mapping[str, bytes]
    descriptor_bytes: bytes


@dataclass(frozen=True, slots=True)
class Body:
    """Index, manifests and configs, as the descriptor predicts them.

    Attributes:
        manifests: By digest.
        weights: Manifest digest to its weight layers.
        large: The entries that follow, in this file or in volumes.
        parity_table: ``sealift/parity.bin``, compared with its digest; None without parity.
        referrers: Manifests of what other tools check, by digest.
        bom: The bundle's bill of materials; empty where it has none.
    """

    manifests: Mapping[Digest, Manifest]
    weights: Mapping[Digest, tuple[Descriptor, ...]]
    large: tuple[Entry, ...]
    parity_table: bytes | None
    referrers: Mapping[Digest, Manifest]
    bom: bytes


def read_front(source: BinaryIO) -> Front:
    """Read trust files and descriptor into memory, bounded.

    Args:
        source: The bundle, opened unbuffered, at its start; a pipe will do.

    Raises:
        ContentError: It is no bundle, or a broken one.
        EnvironmentFault: It cannot be read.
    """
    reader = ArchiveReader(source)
    reader.open_first(layout.LAYOUT_NAME, oci.LAYOUT_FILE)
    files: dict[str, bytes] = {}
    total = 0
    while True:
        name, data = reader.next_small(_TRUST_OR_DESCRIPTOR, _limit)
        if name == layout.DESCRIPTOR_NAME:
            return Front(reader, files, data)
        name = name.removeprefix(layout.TRUST_FOLDER)
        if name in files:
            raise MalformedArchive("the bundle has a trust file twice", why=name)
        files[name] = data
        total += len(data)
        if len(files) > limits.TRUST_MEMBERS or total > limits.TRUST_TOTAL_BYTES:
            raise MalformedArchive(
                "the bundle has too much trust metadata", why=f"{len(files)} files, {total} bytes"
            )


def read_withdrawn(reader: ArchiveReader, signed: tuple[Digest, int] | None) -> bytes | None:
    """Read the publisher's list of withdrawals, which follows the descriptor.

    Args:
        reader: Stands behind the descriptor.
        signed: The list's digest and size, as metadata have them; None where they have none, and
            then the bundle has none either.

    Raises:
        ContentError: It is not there, or not the one that was signed.
    """
    if signed is None:
        return None
    digest, size = signed
    if size > limits.WITHDRAWN_BYTES:
        raise MalformedArchive("the bundle's list of withdrawals is too large")
    data = reader.expect_small(layout.WITHDRAWN_NAME, size)
    if Digest.of(data) != digest:
        raise ContentMismatch(
            "the bundle's list of withdrawals is not the one that was signed", hint=_COPY_AGAIN
        )
    return data


def read_body(
    reader: ArchiveReader,
    descriptor: BundleDescriptor,
    take: TakeSmall,
    check_customs: Callable[[Customs], None],
    keys: KeysOf | None = None,
    beside: TakeSmall | None = None,
) -> Body:
    """Read what lies between descriptor and withdrawals, and the large blobs.

    Args:
        reader: Stands behind the descriptor, and the list of withdrawals where there is one.
        descriptor: Predicts every header, name, size and order.
        take: Given every manifest and config.
        check_customs: Told, once the manifests are read, what must have been signed about them;
            raises where it was not.
        keys: Whose attestations are believed; None to look at them only.
        beside: Given all that belongs to referrers; None has ``take`` do that too.

    Raises:
        ContentError, OutsideClosure: It is not what the descriptor says, or makes no sense.
        BadSignature: An attestation is signed by nobody who may.
    """
    index = descriptor.index()
    if not descriptor.volumes:
        sizes = [entry.stored_size for entry in descriptor.contents]
        bom_size = [] if descriptor.bom is None else [descriptor.bom[1]]
        reader.expect_members([len(index), *bom_size, *sizes])
    if reader.expect_small(layout.INDEX_NAME, len(index)) != index:
        raise MalformedArchive(
            "the bundle's index is not the one that follows from what was signed",
            why="index.json differs from the descriptor",
            hint=_COPY_AGAIN,
        )
    bom = _read_bom(reader, descriptor)
    beside = beside or take
    manifests, referrers = _read_manifests(reader, take, beside, descriptor, check_customs)
    weights = {digest: checks.check_model(item) for digest, item in manifests.items()}
    configs = checks.check_uses(manifests, referrers)
    attestations = Checker(descriptor, manifests, referrers, keys)
    rest = checks.check_closure(descriptor, manifests, referrers)
    layers = {layer.digest for item in manifests.values() for layer in item.layers}
    large = tuple(entry for entry in rest if entry.digest in layers)
    for entry in rest[: len(rest) - len(large)]:
        if entry.digest in configs:
            take(_read_config(reader, entry))
        else:
            beside(attestations.checked(_read_small(reader, entry, limits.ATTESTATION_BYTES)))
    if bom:
        models = {str(m.reference): m.manifest.digest for m in descriptor.models}
        check_bundle_bom(bom, descriptor.id, models)
    table = None
    if descriptor.volumes:
        checks.check_volumes(descriptor, large)
        table = _read_parity(reader, descriptor)
        reader.finish()
    return Body(manifests, weights, large, table, referrers, bom)


def _limit(name: str) -> int:
    is_descriptor = name == layout.DESCRIPTOR_NAME
    return limits.DESCRIPTOR_BYTES if is_descriptor else limits.TUF_TARGETS_BYTES


def _read_manifests(
    reader: ArchiveReader,
    take: TakeSmall,
    beside: TakeSmall,
    descriptor: BundleDescriptor,
    check_customs: Callable[[Customs], None],
) -> tuple[_Manifests, _Manifests]:
    """The manifests stand first in the contents, in the models' order, each once.

    Returns:
        Those of models, and those of their referrers.
    """
    found: _Manifests = {}
    referrers: _Manifests = {}
    computed: dict[Digest, Mapping[str, str | int]] = {}
    models = {model.manifest.digest for model in descriptor.models}
    for entry in checks.check_order(descriptor):
        if entry.digest in models:
            data = _read_small(reader, entry, limits.MANIFEST_BYTES)
            found[entry.digest] = Manifest.parse(data)
            computed[entry.digest] = manifest_custom(data)
            take(data)
        else:
            data = _read_small(reader, entry, limits.REFERRER_BYTES)
            referrers[entry.digest] = Manifest.parse(data)
            beside(data)
    check_customs(computed)
    return found, referrers


def _read_bom(reader: ArchiveReader, descriptor: BundleDescriptor) -> bytes:
    if descriptor.bom is None:
        return b""
    digest, size = descriptor.bom
    bom = reader.expect_small(layout.BOM_NAME, size)
    if Digest.of(bom) != digest:
        raise ContentMismatch(
            "the bundle's bill of materials is not the one that was signed", hint=_COPY_AGAIN
        )
    return bom


def _read_config(reader: ArchiveReader, entry: Entry) -> bytes:
    data = _read_small(reader, entry, limits.CONFIG_BYTES)
    documents.load(Kind.MODEL_CONFIG, data)
    return data


def _read_parity(reader: ArchiveReader, descriptor: BundleDescriptor) -> bytes | None:
    parity = descriptor.parity
    if parity is None:
        return None
    if parity.table_size > limits.PARITY_TABLE_BYTES:
        raise MalformedArchive("the bundle's parity table is too large")
    table = reader.expect_small(layout.PARITY_NAME, parity.table_size)
    if Digest.of(table) != parity.table:
        raise ContentMismatch("the parity table is not the one that was signed", hint=_COPY_AGAIN)
    return table


def _read_small(reader: ArchiveReader, entry: Entry, max_bytes: int) -> bytes:
    if entry.size > max_bytes or len(entry.parts) > 1:
        raise MalformedArchive(f"{entry.name} is too large", why=f"{entry.size} > {max_bytes}")
    data = reader.expect_small(entry.name, entry.size)
    if Digest.of(data) != entry.digest:
        raise ContentMismatch(
            f"{entry.name} is not what its name says",
            why=f"its bytes hash to {Digest.of(data).short}",
            hint=_COPY_AGAIN,
        )
    return data
