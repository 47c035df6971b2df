"""``bundle verify``: every check that an import runs, and nothing installed or kept."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO

from bundler.archive.codec import Encoding, decode_piece
from bundler.archive.reader import BlobStream
from bundler.assembly import compare_segment
from bundler.contents import DELTA, IDENTITY, Entry, Part
from bundler.files import Source
from bundler.head import advice, open_head
from bundler.importer import (
    Verified,
    VerifiedModel,
    Wishes,
    scan_found,
    withdrawals_at,
)
from bundler.intake import Need, read_part, read_volume
from bundler.policy.gate import Gate
from bundler.rebuilding import Bases, rebuild_entry
from bundler.scanning.findings import Finding, bounded
from bundler.scanning.models import checked_layer, layer_name
from registry.digest import Digest
from registry.oci import Manifest
from registry.pipeline import Readable, hash_through
from registry.store import Store
from registry.weights import WeightFacts, together, weight_facts
from schemas import limits
from schemas.errors import ContentMismatch, IncompleteBundle
from schemas.render import Meter

if TYPE_CHECKING:
    from hashlib import _Hash


def verify_bundle(
    store: Store,
    source: BinaryIO,
    volumes: Mapping[int, Source],
    *,
    wishes: Wishes,
    now: datetime,
    progress: Meter,
    gate: Gate | None = None,
) -> Verified:
    """Run all checks and install nothing.

    Args:
        store: Whose pinned roots decide, and whose blobs deltas copy from.
        source: The bundle or its head, opened unbuffered, at its start.
        volumes: Files of its volumes by number; all of them.
        wishes: Which models; of others, only where they lie is checked.
        now: The clock.
        progress: Told of each blob's bytes.
        gate: The site's policy, as for an import; None takes the policy alone.

    Raises:
        IncompleteBundle: Volumes are missing.
        ContentError, TrustError: It is not what it claims to be, or not to be believed.
        EnvironmentFault: This machine cannot read it.
    """
    gate = gate or Gate.of(store, looking=True)
    trusted = open_head(
        store.catalogue, source, anchor=wishes.anchor, now=now, allowance=gate.allowance()
    )
    wanted = wishes.wanted(trusted.descriptor)
    head = trusted.read_rest(gate.claims.watch(lambda _: None))
    with advice():
        applied = withdrawals_at(store, head, wanted)
        wanted = applied.kept(wanted)
        gate.first(store, head, wanted)
    need = Need.of(head, wanted)
    need.check(store, rebuilds_held=True)
    weights = {w.digest for layers in head.weights.values() for w in layers} & need.blobs
    names = {
        layer.digest: layer_name(layer)
        for model in wanted
        for layer in head.manifest_of(model).layers
    }
    check = _Check(store, weights, names, progress)
    with closing(check), advice():
        if head.descriptor.volumes:
            _read_volumes(need, volumes, check)
        else:
            for entry in head.large:
                read_part(trusted.reader, Part.all_of(entry), need.blobs, check.take)
            trusted.reader.finish()
        for digest in names.keys() & need.requires.keys():
            with store.blobs.open(digest) as file:
                check.inspect(digest, file, store.blobs.size(digest))
    models = tuple(
        VerifiedModel(
            model,
            head.manifest_of(model),
            head.signers[model.reference],
            together(
                [check.facts[layer.digest] for layer in head.weights[model.manifest.digest]]
            ).document(),
            head.referrers_of(model),
            check.findings_of(head.manifest_of(model)),
        )
        for model in wanted
    )
    with advice():
        gate.second({m.bundled.reference: m.facts for m in models}, scan_found(models))
    trust, before = trusted.trust, trusted.trusted_before
    return Verified(trusted.descriptor, models, trust, before, gate.overrides, applied)


def _read_volumes(need: Need, volumes: Mapping[int, Source], check: _Check) -> None:
    descriptor, wanted = need.head.descriptor, need.volumes()
    if missing := [number for number in wanted if number not in volumes]:
        raise IncompleteBundle(
            f"{len(missing)} of {len(descriptor.volumes)} volumes are not here",
            why=f"missing: {', '.join(map(str, missing[:50]))}",
            hint="Verification needs all volumes at once",
        )
    for number in wanted:
        read_volume(descriptor, number, volumes[number], need.blobs, check.take)


class _Check:
    """Hashes blobs whose segments come in order; keeps the front of layers for a look."""

    def __init__(
        self, store: Store, weights: set[Digest], names: Mapping[Digest, str], progress: Meter
    ) -> None:
        self._bases: Bases = store.blobs
        self._weights = weights
        self._names = names
        self._progress = progress
        self._blob: _Blob | None = None
        self.facts: dict[Digest, WeightFacts] = {}
        self._findings: dict[Digest, tuple[Finding, ...]] = {}

    def take(self, part: Part, stream: BlobStream) -> None:
        """Read one member."""
        entry = part.entry
        self._progress.begin(f"blob {entry.digest.short}", part.size)
        if part.first == 0:
            self._blob = _Blob(entry, keep=entry.digest in self._names)
        blob = self._blob
        assert blob is not None  # noqa: S101 - the volumes' table is in order (checks.check_volumes)
        for number in range(part.first, part.first + part.count):
            blob.segment(number, stream, self._progress)
        if part.first + part.count == len(entry.parts):
            blob.finish(self._bases)
            if entry.digest in self._names:
                blob.front.seek(0)
                self.inspect(entry.digest, blob.front, entry.size)
            self.close()

    def close(self) -> None:
        """Drop what is kept of an unfinished blob."""
        if self._blob is not None:
            self._blob.front.close()
            self._blob = None

    def inspect(self, digest: Digest, file: BinaryIO, size: int) -> None:
        """Look at a weight file's header, and scan what is in any file."""
        if digest in self._weights:
            self.facts[digest] = weight_facts(file, size)
        self._findings[digest] = checked_layer(file, size, self._names[digest])

    def findings_of(self, manifest: Manifest) -> tuple[Finding, ...]:
        """What the scan found in a model's files."""
        return bounded(f for layer in manifest.layers for f in self._findings[layer.digest])


class _Blob:
    """One blob while its segments come: its hash so far, and in a temporary file its front."""

    def __init__(self, entry: Entry, *, keep: bool) -> None:
        self._entry = entry
        self._hash = entry.digest.hasher()
        self._room = limits.GGUF_HEADER_BYTES if keep else 0
        self.front: Any = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed by the caller

    def segment(self, number: int, stream: BlobStream, progress: Meter) -> None:
        """Read the next segment and compare its digest; of a whole blob, its own."""
        entry = self._entry
        segment = entry.parts[number]
        if entry.encoding == IDENTITY and len(entry.parts) == 1:
            source = _Tee(stream, self.front, self._room)
            hash_through(source, entry.size, "sha256", progress=progress.advance, seed=self._hash)
            return
        if entry.encoding == IDENTITY:
            source = _Tee(stream, self.front, self._room, self._hash)
            _, found = hash_through(source, segment.size, "sha256", progress=progress.advance)
            compare_segment(entry, number, found)
            self._room = source.room
            return
        stored = stream.read_exactly(segment.size)
        compare_segment(entry, number, Digest.of(stored).hex)
        progress.advance(segment.size)
        if entry.encoding == DELTA:
            self.front.write(stored)
            return
        raw = decode_piece(Encoding(entry.encoding), stored, entry.raw_range(number)[1])
        self._hash.update(raw)
        self.front.write(memoryview(raw)[: self._room])
        self._room -= min(self._room, len(raw))

    def finish(self, bases: Bases) -> None:
        """Compare the whole.

        Raises:
            ContentMismatch: It is not what was signed.
        """
        entry = self._entry
        if entry.encoding == DELTA:
            with self.front as stored:
                self.front = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed by the caller
                stored.seek(0)
                rebuild_entry(entry, stored, bases, self.front.fileno())
            return
        found = self._hash.hexdigest()
        if found != entry.digest.hex:
            raise ContentMismatch(
                f"blob {entry.digest.short} is not what was signed",
                why=f"it hashes to {found[:12]}",
                hint="Copy the bundle again from its source, and compare",
            )


class _Tee:
    """A reader that keeps a copy of the first bytes, and has all of them hashed once more.

    Attributes:
        room: How many bytes it would still keep.
    """

    def __init__(
        self, source: Readable, copy: BinaryIO, room: int, also: _Hash | None = None
    ) -> None:
        self._source = source
        self._copy = copy
        self._also = also
        self.room = room

    def read(self, n: int, /) -> bytes:
        """Read on."""
        data = self._source.read(n)
        self._keep(memoryview(data))
        return data

    def readinto(self, view: memoryview) -> int:
        """Read on, into memory of the caller's."""
        count = self._source.readinto(view)  # type: ignore[attr-defined]
        self._keep(view[:count])
        return int(count)

    def _keep(self, data: memoryview) -> None:
        if self.room:
            self._copy.write(data[: self.room])
            self.room -= min(self.room, len(data))
        if self._also is not None:
            self._also.update(data)
