"""``bundle import`` and ``bundle verify``: believe nothing before it is verified.

The head settles whom to believe and what to expect (checks 1 to 6, :mod:`bundler.head`). Then,
while each byte of the large blobs is read once:

7. every segment and every blob is what its digest says
8. every weight file may reach an engine
9. the archive ends where it should

Until all nine hold, bytes lie in a staging area of the bundle's own, which an interrupted import
goes on with. Then the blobs move into the store, and ONE transaction brings models, trusted
metadata, clock floor, receipt and audit entry. A crash leaves the state before or the state after,
and perhaps blobs that nobody refers to, which garbage collection takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO

from bundler import supplements
from bundler.advisories.applying import Applied, apply
from bundler.clock import parse_rfc3339
from bundler.descriptor import BundleDescriptor, BundledModel
from bundler.evidence import receipts, recording
from bundler.evidence.attempt import Attempt
from bundler.files import Source, open_regular, write_file
from bundler.head import Head, advice, trust_front
from bundler.intake import Need, assemble, incomplete
from bundler.policy.gate import Gate
from bundler.policy.model import Found
from bundler.policy.overrides import NONE, Overrides
from bundler.reading import read_front
from bundler.scanning.findings import Finding, bounded
from bundler.scanning.models import checked_layer, layer_name
from bundler.trust.clock import after_import, noted
from bundler.trust.verifier import VerifiedTrust
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from registry.records import TrustState
from registry.staging import StagingArea
from registry.store import Store
from registry.verify import storage_errors
from registry.weights import WeightFacts, together, weight_facts
from schemas.errors import (
    BlobsMissing,
    ContentError,
    NotFound,
    PolicyRefused,
    SealiftError,
    StorageFailure,
    StorageFull,
    StoreBusy,
    TrustError,
)
from schemas.render import Meter

_HEAD: str = "head.tar"


@dataclass(frozen=True, slots=True)
class VerifiedModel:
    """One model that passed every check.

    Attributes:
        bundled: Its name and manifest descriptor.
        manifest: Parsed from the signed bytes.
        signer: The TUF role that signed for it.
        facts: What its weight file's header says.
        referrers: What other tools check, by the descriptors of their manifests.
        findings: What the scan found.
    """

    bundled: BundledModel
    manifest: Manifest
    signer: str
    facts: dict[str, Any]
    referrers: tuple[tuple[Descriptor, Manifest], ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """All that it consists of, and all that refers to it."""
        pairs = ((self.bundled.manifest, self.manifest), *self.referrers)
        return tuple(blob for each, item in pairs for blob in (each, *item.blobs))


@dataclass(frozen=True, slots=True)
class Verified:
    """What a bundle turned out to hold.

    Attributes:
        descriptor: The signed description.
        models: Those that were asked for and are complete, in the descriptor's order.
        trust: Whom it rests on.
        trusted_before: The state that the checks started from.
        overrides: The policy that counted, and what persons decided under it.
        applied: What was withdrawn, and which models it concerns.
    """

    descriptor: BundleDescriptor
    models: tuple[VerifiedModel, ...]
    trust: VerifiedTrust
    trusted_before: TrustState
    overrides: Overrides = NONE
    applied: Applied | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did.

    Attributes:
        verified: What was believed, and why.
        receipt: The document that was recorded.
        waiting: Names of models whose blobs have yet to come (``--partial``).
        mended: Numbers of the volumes of which parity made anything again.
        request: For other operators, where that was asked for; then nothing was installed, and
            there is no receipt.
    """

    verified: Verified
    receipt: dict[str, Any]
    waiting: tuple[str, ...] = ()
    request: bytes = b""
    mended: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operator asked for.

    Attributes:
        anchor: Name of the pinned root to use; None takes the one that fits.
        only: Patterns of model names; empty for all.
        partial: Install models that are complete even if others are not.
    """

    anchor: str | None = None
    only: tuple[str, ...] = ()
    partial: bool = False

    def wanted(self, descriptor: BundleDescriptor) -> tuple[BundledModel, ...]:
        """The models of a bundle that were asked for.

        Raises:
            NotFound: None of them.
        """
        patterns = [pattern.lower() for pattern in self.only]
        chosen = tuple(
            model
            for model in descriptor.models
            if not patterns or any(_matches(model, pattern) for pattern in patterns)
        )
        if not chosen and patterns:
            raise NotFound(
                f"no model of the bundle is called {', '.join(self.only)[:200]}",
                hint="See `bundle inspect` for what it holds",
            )
        return chosen


def _matches(model: BundledModel, pattern: str) -> bool:
    names = (str(model.reference), model.reference.shortest, model.reference.repository)
    return any(fnmatchcase(name, pattern) for name in names)


def import_bundle(
    store: Store,
    source: BinaryIO,
    volumes: Mapping[int, Source],
    *,
    wishes: Wishes,
    now: datetime,
    progress: Meter,
    gate: Gate | None = None,
    attempt: Attempt | None = None,
) -> Imported:
    """Run all checks, then install the models; the module's description gives the order.

    Interrupted, it goes on where it was when it is called again with the same bundle.

    Args:
        store: Where to, and whose pinned roots decide.
        source: The bundle or its head, opened unbuffered, at its start; a pipe will do.
        volumes: Files of its volumes by number, as far as they are at hand.
        wishes: What to install.
        now: The clock.
        progress: Told of each blob's bytes.
        gate: The site's policy and what persons said; None takes the policy alone.
        attempt: Takes notes for the receipt. A refusal is for the caller to record.

    Raises:
        IncompleteBundle: Volumes have yet to come; what came is kept.
        BlobsMissing: It is a differential bundle for another site; nothing was written.
        ContentError, TrustError, EnvironmentFault: A check failed; nothing is installed. What came
            of a bundle in one file is dropped, verified segments of volumes are kept.
        PolicyRefused: The site's policy says no, or wants somebody to say yes first. What waits
            for a yes is kept once all of it was read.
        StoreBusy: Another process is changing the store, or importing this bundle.
    """
    gate = gate or Gate.of(store)
    attempt = attempt or recording.begin(store, now)
    attempt.gate, attempt.volumes = gate, tuple(volumes)
    allowance, anchor = gate.allowance(), wishes.anchor
    with advice():
        front = read_front(source)
        attempt.descriptor = front.descriptor_bytes
        trusted = trust_front(store.catalogue, front, anchor=anchor, now=now, allowance=allowance)
    attempt.head = trusted
    wanted = wishes.wanted(trusted.descriptor)
    with _area(store, trusted.descriptor) as area:
        with _drop_on_refusal(area, keep=bool(trusted.descriptor.volumes), gate=gate):
            head = trusted.read_rest(gate.claims.watch(lambda data: _take_small(area, data)))
            applied = withdrawals_at(store, head, wanted)
            wanted = applied.kept(wanted)
            attempt.withdrawals = applied.document()
            gate.first(store, head, wanted)
            need = Need.of(head, wanted)
            need.check(store, rebuilds_held=False)
            if trusted.descriptor.volumes:
                _keep_head(area, source, trusted.reader.position)
            complete = assemble(store, area, need, volumes, progress)
            if complete != wanted and not (wishes.partial and complete):
                raise incomplete(need, area)
            models = tuple(_verified(store, area, head, model) for model in complete)
            gate.second({m.bundled.reference: m.facts for m in models}, scan_found(models))
        trust, before = trusted.trust, trusted.trusted_before
        verified = Verified(trusted.descriptor, models, trust, before, gate.overrides, applied)
        here = {model.reference for model in complete}
        waiting = tuple(str(m.reference) for m in wanted if m.reference not in here)
        if gate.requesting:
            return Imported(verified, {}, waiting, gate.request(store, trust.reference_time))
        keep = bool(trusted.descriptor.volumes)
        with store.lock(), _drop_on_refusal(area, keep=keep, also=StorageFailure):
            record = _install(store, area, verified, waiting, attempt, gate)
        if complete == wanted:
            area.discard()
        return Imported(verified, record, waiting)


def staged_head(store: Store, bundle: str) -> Path | None:
    """The head of a bundle of which volumes came earlier."""
    path = store.blobs.kept_area(bundle) / _HEAD
    return path if path.is_file() else None


@contextmanager
def _area(store: Store, descriptor: BundleDescriptor) -> Iterator[StagingArea]:
    """The bundle's own area; while another process imports the same bundle, one to throw away."""
    with ExitStack() as stack:
        try:
            area = stack.enter_context(store.blobs.stage(descriptor.id, kept=True))
        except StoreBusy:
            if descriptor.volumes:
                raise
            area = stack.enter_context(store.blobs.stage("import"))
        yield area


@contextmanager
def _drop_on_refusal(
    area: StagingArea,
    *,
    keep: bool,
    also: type[SealiftError] = StorageFull,
    gate: Gate | None = None,
) -> Iterator[None]:
    """A bundle that is refused leaves nothing; an interruption leaves what can be gone on with.

    So does a full disk; and while the store itself is written, ``also`` any other trouble with it.
    What only waits for a person's yes at the ``gate`` stays, if there was more than the head.
    """
    begun = bool(area.digests)
    try:
        with advice():
            yield
    except (ContentError, TrustError, StorageFull, also) as error:
        waits = isinstance(error, PolicyRefused) and gate is not None and gate.waits(begun=begun)
        if not (keep or waits) or isinstance(error, BlobsMissing):
            area.discard()
        raise


def _take_small(area: StagingArea, data: bytes) -> None:
    if not area.claim(Digest.of(data), len(data)):
        area.add_bytes(data)


def _keep_head(area: StagingArea, source: BinaryIO, size: int) -> None:
    """Later sittings may come with volumes alone, and verify this copy anew."""
    if not source.seekable():
        return
    with storage_errors("cannot keep the bundle's head"):
        source.seek(0)
        data = source.read(size)
    write_file(area.folder / _HEAD, data)


def _verified(store: Store, area: StagingArea, head: Head, model: BundledModel) -> VerifiedModel:
    found: list[WeightFacts] = []
    findings: list[Finding] = []
    weights = {layer.digest for layer in head.weights[model.manifest.digest]}
    for layer in head.manifest_of(model).layers:
        staged = area.path(layer.digest)
        path = staged if staged.exists() else store.blobs.path(layer.digest)
        with open_regular(path) as file:
            if layer.digest in weights:
                found.append(weight_facts(file, layer.size))
            findings += checked_layer(file, layer.size, layer_name(layer))
    facts = together(found).document()
    return VerifiedModel(
        model,
        head.manifest_of(model),
        head.signers[model.reference],
        facts,
        head.referrers_of(model),
        bounded(findings),
    )


def withdrawals_at(store: Store, head: Head, wanted: Sequence[BundledModel]) -> Applied:
    """What is withdrawn of the wanted models; see :func:`bundler.advisories.applying.apply`."""
    models = [(model, head.blobs_of(model)) for model in wanted]
    return apply(store.catalogue, head.trusted.trust, head.withdrawn, models)


def scan_found(models: Sequence[VerifiedModel]) -> list[Found]:
    """What the scan found, as the policy is asked about it."""
    return [
        Found(f.code, f.severity.word, f"{model.bundled.reference.shortest}: {f.where}", f.detail)
        for model in models
        for f in model.findings
    ]


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
    store: Store,
    area: StagingArea,
    verified: Verified,
    waiting: Sequence[str],
    attempt: Attempt,
    gate: Gate,
) -> dict[str, Any]:
    """Blobs first, then everything else in one transaction."""
    _refuse_race(store, verified)
    wanted = {blob.digest: blob.size for model in verified.models for blob in model.blobs}
    fresh = {d: size for d, size in wanted.items() if not store.blobs.has(d)}
    record = receipts.accepted(attempt, verified, fresh, len(wanted) - len(fresh), waiting)
    try:
        area.install(wanted)
        return _commit(store, verified, record, attempt, gate)
    except BaseException:
        _withdraw(store, area, list(fresh))
        raise


def _commit(
    store: Store, verified: Verified, record: dict[str, Any], attempt: Attempt, gate: Gate
) -> dict[str, Any]:
    trust, descriptor = verified.trust, verified.descriptor
    late = noted(trust.clock, trust.reference_time, trust.time_verdict)
    with store.catalogue.transaction() as tx:
        # In the order of their keys: many then share a page, however large the catalogue is.
        blobs = (blob for model in verified.models for blob in model.blobs)
        for blob in sorted(blobs, key=lambda blob: blob.digest):
            tx.put_blob(blob)
        for model in sorted(verified.models, key=lambda model: model.bundled.manifest.digest):
            reference = model.bundled.reference
            tx.put_manifest(
                reference.repository, model.bundled.manifest, model.manifest, model.facts
            )
            for each, item in model.referrers:
                tx.put_manifest(reference.repository, each, item)
            tx.set_tag(reference, model.bundled.manifest.digest)
        names = (model.bundled.reference.namespace for model in verified.models)
        if verified.applied is not None:
            verified.applied.commit(tx, [m.bundled.manifest.digest for m in verified.models])
        gate.claim(tx, names, trust.new_state.fingerprint)
        seen = store.catalogue.supplements(verified.trusted_before.anchor)
        supplements.commit(tx, seen, descriptor, trust, verified.trusted_before)
        complete = recording.keep(store, tx, attempt, record, late)
        issued = parse_rfc3339(descriptor.issued_at)
        tx.set_clock_floor(*after_import(trust.reference_time, trust.clock, issued))
    return complete


def _withdraw(store: Store, area: StagingArea, blobs: Sequence[Digest]) -> None:
    """Take blobs back that were installed for a commit which failed: they wait in the area again.

    Whoever else claimed one meanwhile holds a link of its own to it. Only where the file system has
    no links must they stay, for collection, while another import is under way.
    """
    with suppress(SealiftError, OSError):  # what cannot be removed is collected later
        known = store.catalogue.blob_sizes()
        if store.blobs.live_areas() > 1 or not known.keys().isdisjoint(blobs):
            return
        for digest in blobs:
            with suppress(FileNotFoundError):
                store.blobs.path(digest).replace(area.path(digest))
