"""The head of a bundle: all that lies before the large blobs, and all that is settled there.

The checks, in order:

1. the first member is an OCI layout: else this is no bundle
2. the trust metadata leads from a pinned root to a fresh, complete, not older snapshot
3. the descriptor is the one that was signed
4. every model's manifest is the one that its publisher signed
5. every header, name, size and order is what the descriptor predicts; so is ``index.json``
6. what is carried and what is required are the closure of its models, nothing more and nothing
   less, and each is a model
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Final

from bundler import checks
from bundler.archive import layout
from bundler.archive.reader import ArchiveReader
from bundler.contents import Entry
from bundler.descriptor import BundleDescriptor, BundledModel
from bundler.trust.names import BUNDLE_TARGET, model_target
from bundler.trust.publisher import manifest_custom
from bundler.trust.verifier import (
    VerifiedTarget,
    VerifiedTrust,
    choose_anchor,
    verify_bundle_trust,
)
from registry import oci
from registry.catalogue import Catalogue
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from registry.records import TrustState
from registry.reference import Reference
from schemas import documents, limits
from schemas.documents import Kind
from schemas.errors import (
    ContentError,
    ContentMismatch,
    MalformedArchive,
    OutsideClosure,
    TrustError,
    TrustMissing,
)

_TRUST_OR_DESCRIPTOR: Final = re.compile(
    f"(?:{re.escape(layout.TRUST_FOLDER)}{layout.TRUST_NAME.pattern}"
    f"|{re.escape(layout.DESCRIPTOR_NAME)})"
)
_COPY_AGAIN: Final = "Copy the bundle again from its source, and compare"

TakeSmall = Callable[[bytes], None]
"""Takes a manifest or a config, verified already."""


@dataclass(frozen=True, slots=True)
class TrustedHead:
    """A head whose descriptor is believed (checks 1 to 3), with the reader behind it.

    Attributes:
        reader: Stands behind the descriptor.
        descriptor: Signed.
        trust: Whom it rests on.
        trusted_before: The state that the checks started from.
    """

    reader: ArchiveReader
    descriptor: BundleDescriptor
    trust: VerifiedTrust
    trusted_before: TrustState

    def read_rest(self, take: TakeSmall) -> Head:
        """Read index, manifests and configs (checks 4 to 6).

        Args:
            take: Given every manifest and config.

        Raises:
            ContentError, TrustError: A check failed.
        """
        with advice():
            return _read_rest(self, take)


@dataclass(frozen=True, slots=True)
class Head:
    """A head that passed all of its checks.

    Attributes:
        trusted: What was believed before.
        manifests: By digest.
        weights: Manifest digest to its one weight layer.
        signers: Model to the role that signed for it.
        large: The entries that follow, in this file or in volumes.
        parity_table: ``sealift/parity.bin``, compared with its signed digest; None without parity.
    """

    trusted: TrustedHead
    manifests: Mapping[Digest, Manifest]
    weights: Mapping[Digest, Descriptor]
    signers: Mapping[Reference, str]
    large: tuple[Entry, ...]
    parity_table: bytes | None = None

    @property
    def descriptor(self) -> BundleDescriptor:
        """The signed description."""
        return self.trusted.descriptor

    def manifest_of(self, model: BundledModel) -> Manifest:
        """A model's manifest."""
        return self.manifests[model.manifest.digest]

    def blobs_of(self, model: BundledModel) -> tuple[Descriptor, ...]:
        """All that a model consists of, its manifest first."""
        return (model.manifest, *self.manifest_of(model).blobs)


def open_head(
    catalogue: Catalogue, source: BinaryIO, *, anchor: str | None, now: datetime
) -> TrustedHead:
    """Read up to the descriptor and settle trust (checks 1 to 3).

    Args:
        catalogue: Whose pinned roots decide.
        source: The bundle, opened unbuffered, at its start; a pipe will do.
        anchor: Name of the pinned root to use; None takes the one that fits.
        now: The clock.

    Raises:
        ContentError, TrustError: A check failed.
        EnvironmentFault: It cannot be read.
    """
    with advice():
        reader = ArchiveReader(source)
        reader.open_first(layout.LAYOUT_NAME, oci.LAYOUT_FILE)
        files, descriptor = _read_trust(reader)
        state = _state(catalogue, files, anchor)
        trust = verify_bundle_trust(state, files, now=now, floor=catalogue.clock_floor())
        _compare(trust.target(BUNDLE_TARGET), Digest.of(descriptor), len(descriptor))
        return TrustedHead(reader, BundleDescriptor.from_bytes(descriptor), trust, state)


@contextmanager
def advice() -> Iterator[None]:
    """Every refusal says what to do next; where nobody knows better, this."""
    try:
        yield
    except (ContentError, TrustError) as error:
        if error.hint:
            raise
        raise type(error)(error.what, why=error.why, hint=checks.FROM_PUBLISHER) from error


def _read_trust(reader: ArchiveReader) -> tuple[dict[str, bytes], bytes]:
    """Trust files by name, and the descriptor: bounded, held in memory, not yet believed."""
    files: dict[str, bytes] = {}
    total = 0
    while True:
        name, data = reader.next_small(_TRUST_OR_DESCRIPTOR, _limit)
        if name == layout.DESCRIPTOR_NAME:
            return files, data
        name = name.removeprefix(layout.TRUST_FOLDER)
        if name in files:
            raise MalformedArchive("the bundle has a trust file twice", why=name)
        files[name] = data
        total += len(data)
        if len(files) > limits.TRUST_MEMBERS or total > limits.TRUST_TOTAL_BYTES:
            raise MalformedArchive(
                "the bundle has too much trust metadata", why=f"{len(files)} files, {total} bytes"
            )


def _limit(name: str) -> int:
    is_descriptor = name == layout.DESCRIPTOR_NAME
    return limits.DESCRIPTOR_BYTES if is_descriptor else limits.TUF_TARGETS_BYTES


def _state(catalogue: Catalogue, files: Mapping[str, bytes], name: str | None) -> TrustState:
    """The trusted state that the bundle's metadata must continue."""
    names = [anchor.name for anchor in catalogue.anchors()]
    if name is not None and name not in names:
        raise TrustMissing(
            f"no publisher {name!r} is trusted here",
            why=f"there are {', '.join(names)}" if names else "there is none at all",
            hint="Look at `bundle trust show`, or pin its root with `bundle trust init`",
        )
    chosen = names if name is None else [name]
    states = [state for each in chosen if (state := catalogue.trust(each)) is not None]
    return choose_anchor(states, files)


def _compare(target: VerifiedTarget, digest: Digest, size: int) -> None:
    """See that a signed target has these bytes."""
    if (target.digest, target.size) != (digest, size):
        raise OutsideClosure(
            f"{target.path} is not the file that was signed",
            why=f"{digest.short} of {size} bytes, signed was {target.digest.short}",
            hint=checks.FROM_PUBLISHER,
        )


def _target(trust: VerifiedTrust, model: BundledModel) -> VerifiedTarget:
    if model.target != model_target(model.reference):
        raise OutsideClosure(
            f"{model.reference} points to another model's signature", why=model.target
        )
    target = trust.target(model.target)
    _compare(target, model.manifest.digest, model.manifest.size)
    return target


def _read_rest(head: TrustedHead, take: TakeSmall) -> Head:
    descriptor, reader = head.descriptor, head.reader
    targets = {model.reference: _target(head.trust, model) for model in descriptor.models}
    index = descriptor.index()
    if not descriptor.volumes:
        sizes = [entry.stored_size for entry in descriptor.contents]
        reader.expect_members([len(index), *sizes])
    if reader.expect_small(layout.INDEX_NAME, len(index)) != index:
        raise MalformedArchive(
            "the bundle's index is not the one that follows from what was signed",
            why="index.json differs from the descriptor",
            hint=_COPY_AGAIN,
        )
    manifests = _read_manifests(reader, take, descriptor, targets)
    weights = {digest: checks.check_model(item) for digest, item in manifests.items()}
    configs = checks.check_uses(manifests)
    rest = checks.check_closure(descriptor, manifests)
    small = [entry for entry in rest if entry.digest in configs]
    large = tuple(entry for entry in rest if entry.digest not in configs)
    for entry in small:
        data = _read_small(reader, entry, limits.CONFIG_BYTES)
        documents.load(Kind.MODEL_CONFIG, data)
        take(data)
    table = None
    if descriptor.volumes:
        checks.check_volumes(descriptor, large)
        table = _read_parity(reader, descriptor)
        reader.finish()
    signers = {reference: target.role for reference, target in targets.items()}
    return Head(head, manifests, weights, signers, large, table)


def _read_manifests(
    reader: ArchiveReader,
    take: TakeSmall,
    descriptor: BundleDescriptor,
    targets: Mapping[Reference, VerifiedTarget],
) -> dict[Digest, Manifest]:
    """The signed manifests stand first in the contents, in the models' order, each once."""
    found: dict[Digest, Manifest] = {}
    computed: dict[Digest, dict[str, str | int]] = {}
    for entry in checks.check_order(descriptor):
        data = _read_small(reader, entry, limits.MANIFEST_BYTES)
        found[entry.digest] = Manifest.parse(data)
        computed[entry.digest] = manifest_custom(data)
        take(data)
    for model in descriptor.models:
        signed = targets[model.reference].custom
        checks.check_custom(str(model.reference), signed, computed[model.manifest.digest])
    return found


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
