"""``bundle import`` and ``bundle verify``: believe nothing before it is verified.

One pass over the archive, each byte read once. The checks, in order:

1. the first member is an OCI layout: else this is no bundle
2. the trust metadata leads from a pinned root to a fresh, complete, not older snapshot
3. the descriptor is the one that was signed
4. every model's manifest is the one that its publisher signed
5. every header, name, size and order is what the descriptor predicts; so is ``index.json``
6. the archive carries the closure of its models, nothing more and nothing less, and each is a model
7. every blob is what its digest says
8. every weight file may reach an engine
9. the archive ends where it should

Until all nine hold, bytes lie in a staging area of their own. Then the blobs move into the store,
and ONE transaction brings models, trusted metadata, clock floor, receipt and audit entry. A crash
leaves the state before or the state after, and perhaps blobs that nobody refers to, which garbage
collection takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, BinaryIO, Final

from bundler import checks
from bundler.archive import layout
from bundler.archive.reader import ArchiveReader
from bundler.descriptor import BundleDescriptor, BundledModel, Member
from bundler.records import receipt
from bundler.sinks import BlobSink, Discard, Staging
from bundler.trust.names import BUNDLE_TARGET, model_target
from bundler.trust.publisher import manifest_custom
from bundler.trust.verifier import (
    VerifiedTarget,
    VerifiedTrust,
    choose_anchor,
    verify_bundle_trust,
)
from registry import oci
from registry.digest import Digest
from registry.gguf import model_facts
from registry.oci import Manifest
from registry.records import TrustState
from registry.reference import Reference
from registry.staging import StagingArea
from registry.store import Store
from schemas import documents, limits
from schemas.documents import Kind
from schemas.errors import (
    ContentError,
    ContentMismatch,
    MalformedArchive,
    OutsideClosure,
    SealiftError,
    StoreBusy,
    TrustError,
    TrustMissing,
)
from schemas.render import Meter

_TRUST_OR_DESCRIPTOR: Final = re.compile(
    f"(?:{re.escape(layout.TRUST_FOLDER)}{layout.TRUST_NAME.pattern}"
    f"|{re.escape(layout.DESCRIPTOR_NAME)})"
)


@dataclass(frozen=True, slots=True)
class VerifiedModel:
    """One model that passed every check.

    Attributes:
        bundled: Its name and manifest descriptor.
        manifest: Parsed from the signed bytes.
        signer: The TUF role that signed for it.
        facts: What its weight file's header says.
    """

    bundled: BundledModel
    manifest: Manifest
    signer: str
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verified:
    """What a bundle turned out to hold.

    Attributes:
        descriptor: The signed description.
        models: In the descriptor's order.
        trust: Whom it rests on.
        trusted_before: The state that the checks started from.
        size: Of the archive, in bytes.
    """

    descriptor: BundleDescriptor
    models: tuple[VerifiedModel, ...]
    trust: VerifiedTrust
    trusted_before: TrustState
    size: int


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did.

    Attributes:
        verified: What was believed, and why.
        receipt: The document that was recorded.
    """

    verified: Verified
    receipt: dict[str, Any]


def verify_bundle(
    store: Store, source: BinaryIO, *, anchor: str | None, now: datetime, progress: Meter
) -> Verified:
    """Run all checks and install nothing.

    Args:
        store: Whose pinned roots decide.
        source: The bundle: a regular file, opened unbuffered, at its start.
        anchor: Name of the pinned root to use; None takes the one that fits.
        now: The clock.
        progress: Told of each blob's bytes.

    Raises:
        ContentError, TrustError: It is not what it claims to be, or not to be believed.
        EnvironmentFault: This machine cannot read it.
    """
    return _check(store, source, Discard(source), anchor=anchor, now=now, progress=progress)


def import_bundle(
    store: Store, source: BinaryIO, *, anchor: str | None, now: datetime, progress: Meter
) -> Imported:
    """Run all checks, then install the models; the module's description gives the order.

    Args:
        store: Where to, and whose pinned roots decide.
        source: The bundle, opened unbuffered, at its start; a pipe will do.
        anchor: Name of the pinned root to use; None takes the one that fits.
        now: The clock.
        progress: Told of each blob's bytes.

    Raises:
        ContentError, TrustError, EnvironmentFault: As :func:`verify_bundle`; nothing changed.
        StoreBusy: Another process is changing the store.
    """
    with store.blobs.stage("import") as area:
        sink = Staging(store.blobs, area)
        verified = _check(store, source, sink, anchor=anchor, now=now, progress=progress)
        with store.lock():
            return _install(store, area, sink, verified, now)


def _check(
    store: Store,
    source: BinaryIO,
    sink: BlobSink,
    *,
    anchor: str | None,
    now: datetime,
    progress: Meter,
) -> Verified:
    with _advice():
        reader = ArchiveReader(source)
        reader.open_first(layout.LAYOUT_NAME, oci.LAYOUT_FILE)
        trust_files, descriptor_bytes = _read_head(reader)
        state = _state(store, trust_files, anchor)
        floor = store.catalogue.clock_floor()
        trust = verify_bundle_trust(state, trust_files, now=now, floor=floor)
        _compare(trust.target(BUNDLE_TARGET), Digest.of(descriptor_bytes), len(descriptor_bytes))
        descriptor = BundleDescriptor.from_bytes(descriptor_bytes)
        models = _read_models(reader, sink, descriptor, trust, progress)
        return Verified(descriptor, models, trust, state, reader.position)


@contextmanager
def _advice() -> Iterator[None]:
    """Every refusal says what to do next; where nobody knows better, this."""
    try:
        yield
    except (ContentError, TrustError) as error:
        if error.hint:
            raise
        raise type(error)(error.what, why=error.why, hint=checks.FROM_PUBLISHER) from error


def _read_head(reader: ArchiveReader) -> tuple[dict[str, bytes], bytes]:
    """Trust files by name, and the descriptor: bounded, held in memory, not yet believed."""
    files: dict[str, bytes] = {}
    total = 0
    while True:
        name, data = reader.next_small(_TRUST_OR_DESCRIPTOR, _head_limit)
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


def _head_limit(name: str) -> int:
    is_descriptor = name == layout.DESCRIPTOR_NAME
    return limits.DESCRIPTOR_BYTES if is_descriptor else limits.TUF_TARGETS_BYTES


def _state(store: Store, trust_files: dict[str, bytes], name: str | None) -> TrustState:
    """The trusted state that the bundle's metadata must continue."""
    names = [anchor.name for anchor in store.catalogue.anchors()]
    if name is not None and name not in names:
        raise TrustMissing(
            f"no publisher {name!r} is trusted here",
            why=f"there are {', '.join(names)}" if names else "there is none at all",
            hint="Look at `bundle trust show`, or pin its root with `bundle trust init`",
        )
    chosen = names if name is None else [name]
    states = [state for each in chosen if (state := store.catalogue.trust(each)) is not None]
    return choose_anchor(states, trust_files)


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


def _read_models(
    reader: ArchiveReader,
    sink: BlobSink,
    descriptor: BundleDescriptor,
    trust: VerifiedTrust,
    progress: Meter,
) -> tuple[VerifiedModel, ...]:
    """Everything behind the descriptor, which alone says what comes there (checks 4 to 9)."""
    targets = {model.reference: _target(trust, model) for model in descriptor.models}
    index = descriptor.index()
    contents = descriptor.contents
    reader.expect_members(
        [(layout.INDEX_NAME, len(index)), *((member.name, member.size) for member in contents)]
    )
    _read_index(reader, index)
    manifests = _read_manifests(reader, sink, descriptor, targets)
    weights = {digest: checks.check_model(item) for digest, item in manifests.items()}
    configs = checks.check_uses(manifests)
    rest = checks.check_closure(descriptor, manifests)
    sink.reserve(sum(member.size for member in rest))
    for member in rest:
        if member.digest in configs:
            _read_config(reader, sink, member)
        else:
            _read_blob(reader, sink, member, progress)
    facts = {
        digest: asdict(model_facts(sink.header(Member(layer.digest, layer.size))))
        for digest, layer in weights.items()
    }
    reader.finish()
    return tuple(
        VerifiedModel(
            bundled=model,
            manifest=manifests[model.manifest.digest],
            signer=targets[model.reference].role,
            facts=facts[model.manifest.digest],
        )
        for model in descriptor.models
    )


def _read_index(reader: ArchiveReader, expected: bytes) -> None:
    if reader.expect_small(layout.INDEX_NAME, len(expected)) != expected:
        raise MalformedArchive(
            "the bundle's index is not the one that follows from what was signed",
            why="index.json differs from the descriptor",
            hint="Copy the bundle again from its source, and compare",
        )


def _read_manifests(
    reader: ArchiveReader,
    sink: BlobSink,
    descriptor: BundleDescriptor,
    targets: Mapping[Reference, VerifiedTarget],
) -> dict[Digest, Manifest]:
    """The signed manifests stand first in the contents, in the models' order, each once."""
    found: dict[Digest, Manifest] = {}
    computed: dict[Digest, dict[str, str | int]] = {}
    for member in checks.check_order(descriptor):
        data = _read_small(reader, member, limits.MANIFEST_BYTES)
        found[member.digest] = Manifest.parse(data)
        computed[member.digest] = manifest_custom(data)
        sink.add_small(data)
    for model in descriptor.models:
        signed = targets[model.reference].custom
        checks.check_custom(str(model.reference), signed, computed[model.manifest.digest])
    return found


def _read_config(reader: ArchiveReader, sink: BlobSink, member: Member) -> None:
    data = _read_small(reader, member, limits.CONFIG_BYTES)
    documents.load(Kind.MODEL_CONFIG, data)
    sink.add_small(data)


def _read_blob(reader: ArchiveReader, sink: BlobSink, member: Member, progress: Meter) -> None:
    progress.begin(f"blob {member.digest.short}", member.size)
    stream = reader.expect_blob(member.name, member.size)
    sink.add_large(stream, member, progress)
    reader.end_blob(stream)


def _read_small(reader: ArchiveReader, member: Member, max_bytes: int) -> bytes:
    if member.size > max_bytes:
        raise MalformedArchive(f"{member.name} is too large", why=f"{member.size} > {max_bytes}")
    data = reader.expect_small(member.name, member.size)
    if Digest.of(data) != member.digest:
        raise ContentMismatch(
            f"{member.name} is not what its name says",
            why=f"its bytes hash to {Digest.of(data).short}",
            hint="Copy the bundle again from its source, and compare",
        )
    return data


def _refuse_race(store: Store, verified: Verified) -> None:
    """Another import under the same anchor may have finished while this one verified.

    Where it was of the same bundle, it left what this one would leave.
    """
    state = store.catalogue.trust(verified.trusted_before.anchor)
    if state not in (verified.trusted_before, verified.trust.new_state):
        raise StoreBusy(
            "another import was faster",
            why="it changed what this site trusts while this bundle was verified",
            hint="Run it again",
        )


def _install(
    store: Store, area: StagingArea, sink: Staging, verified: Verified, now: datetime
) -> Imported:
    """Blobs first, then everything else in one transaction."""
    _refuse_race(store, verified)
    record = receipt(verified, sink, area.bytes_added, now)
    fresh = [digest for digest in area.digests if not store.blobs.has(digest)]
    try:
        area.install()
        _commit(store, verified, record)
    except BaseException:
        _withdraw(store, fresh)
        raise
    return Imported(verified, record)


def _commit(store: Store, verified: Verified, record: dict[str, Any]) -> None:
    with store.catalogue.transaction() as tx:
        for model in verified.models:
            for blob in (model.bundled.manifest, *model.manifest.blobs):
                tx.put_blob(blob)
            reference = model.bundled.reference
            tx.put_manifest(
                reference.repository, model.bundled.manifest, model.manifest, model.facts
            )
            tx.set_tag(reference, model.bundled.manifest.digest)
        tx.set_trust(verified.trust.new_state.anchor, verified.trust.new_state)
        tx.set_clock_floor(verified.trust.reference_time)
        tx.add_receipt(record["id"], documents.dump(Kind.RECEIPT, record))
        tx.add_audit_event(
            store.audit_event("import", record["bundle"]["id"], {"receipt": record["id"]})
        )


def _withdraw(store: Store, blobs: Sequence[Digest]) -> None:
    """Take blobs out again that were installed for a commit which failed.

    Whoever else claimed one meanwhile holds a link of its own to it. Only where the file system has
    no links must they stay, for collection, while another import is under way.
    """
    with suppress(SealiftError, OSError):  # what cannot be removed is collected later
        known = store.catalogue.blob_sizes()
        if store.blobs.live_areas() > 1 or not known.keys().isdisjoint(blobs):
            return
        for digest in blobs:
            store.blobs.path(digest).unlink(missing_ok=True)
