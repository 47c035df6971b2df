"""``bundle create``: models → layers → signatures → one archive, or a head and volumes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from bundler.archive.writer import ArchiveWriter
from bundler.attestations.making import attest
from bundler.clock import rfc3339
from bundler.descriptor import BundleDescriptor
from bundler.extents import volume_size
from bundler.files import check_output
from bundler.forms import Form, check_pipe, volume_path
from bundler.heading import describe, signed_head
from bundler.making_parity import described, write_parity
from bundler.modelpack import PackedModel, pack
from bundler.pipes import PIPE
from bundler.readiness import check_names, check_space
from bundler.scanning.findings import Finding
from bundler.sources import LocalModel
from bundler.storing import Stored, store
from bundler.trust.keyring import Secrets
from bundler.trust.publisher import Publisher
from bundler.workbench import Workbench, is_placing, sweep
from bundler.writing import write_all, write_first, write_volume
from registry.digest import Digest
from registry.reference import Reference
from schemas.render import Meter
from schemas.version import VERSION

__all__ = ["Created", "Form", "create_bundle", "create_to_pipe"]


@dataclass(frozen=True, slots=True)
class Created:
    """What came out.

    Attributes:
        path: The bundle, or its head.
        volumes: Its volumes, in order, those with parity last.
        size: Of all files, in bytes.
        descriptor: What it holds.
        fingerprint: Of the root that the far side must have pinned.
        expires: Until when it may be imported, UTC.
        findings: What a scan of the models found.
    """

    path: Path
    volumes: tuple[Path, ...]
    size: int
    descriptor: BundleDescriptor
    fingerprint: Digest
    expires: datetime
    findings: Mapping[Reference, tuple[Finding, ...]] = field(default_factory=dict, hash=False)


def create_bundle(
    publisher: Publisher,
    sources: Sequence[LocalModel],
    output: Path,
    *,
    form: Form,
    passphrase: Secrets | bytes,
    now: datetime,
    progress: Meter,
) -> Created:
    """Sign models and write them into one bundle.

    Files appear under their names only when all of them are complete and on disk, the head last.
    Interrupted, it goes on where it was when the same is asked for again: finished encodings are
    taken over, and at most ``limits.SEGMENT_BYTES`` are written twice. So is the bundle's number,
    unless another one was given out meanwhile; a number that is not taken over stays unused.

    Raises:
        UsageError: No model, two under one name, or volumes that are too small.
        AlreadyExists: An output is there and may not be overwritten.
        ContentMismatch: A source changed since it was hashed.
        StoreBusy: Another process is writing this bundle.
        TrustError: The keys or the workspace cannot sign this.
        StorageFull, StorageFailure: The disk says no.
    """
    if sources or not form.advisories_only:
        check_names(sources)
    sweep(output)
    check_output(output, overwrite=form.overwrite or is_placing(output))
    packed = attest([pack(source) for source in sources], publisher, passphrase)
    with Workbench(output, _request(publisher, packed, output, form)) as bench:
        overwrite = form.overwrite or bench.placing
        check_output(output, overwrite=overwrite)
        begun = bench.plan(id=secrets.token_hex(16), issued=rfc3339(now))
        blobs = _store(packed, form, bench, progress)
        plan = describe(packed, blobs, publisher.name, begun, form)
        targets = _targets(output, len(plan.volumes), form.parity if plan.volumes else 0)
        for path in targets.values():
            check_output(path, overwrite=overwrite)
        check_space(output, _outputs_size(plan, form) - bench.outputs_used)
        if not bench.placing:
            for number in range(1, len(plan.volumes) + 1):
                write_volume(bench, number, plan, blobs, progress)
        table = None
        if form.parity and plan.volumes:
            table = write_parity(bench, plan, form.parity, progress)
        plan = replace(plan, parity=None if table is None else described(table))
        descriptor, head = signed_head(bench, publisher, packed, plan, passphrase, now, table=table)
        if not bench.placing:
            write_first(bench, descriptor, head, blobs, progress)
        bench.place(targets)
    size = sum(path.stat().st_size for path in targets.values())
    volumes = tuple(path for number, path in sorted(targets.items()) if number)
    return Created(output, volumes, size, descriptor, publisher.fingerprint, publisher.expires)


def create_to_pipe(
    publisher: Publisher,
    sources: Sequence[LocalModel],
    sink: BinaryIO,
    spool: Path,
    *,
    form: Form,
    passphrase: Secrets | bytes,
    now: datetime,
    progress: Meter,
) -> Created:
    """As :func:`create_bundle`, in one file and one pass, to whoever reads the other end.

    What went into a pipe is gone, so this cannot go on after an interruption; it starts anew.

    Args:
        publisher: Signs.
        sources: Hashed already.
        sink: Opened for unbuffered writing; never sought in.
        spool: A folder of its own for encoded blobs, which must be signed for before they go.
        form: How it is written.
        passphrase: Of the keys.
        now: The clock.
        progress: Told of the bytes.

    Raises:
        UsageError: No model, two under one name, or volumes, which no pipe has.
        ContentMismatch: A source changed since it was hashed.
        TrustError: The keys or the workspace cannot sign this.
        StorageFull, StorageFailure: The disk says no, or nobody reads any more.
    """
    if sources or not form.advisories_only:
        check_names(sources)
    check_pipe(form)
    packed = attest([pack(source) for source in sources], publisher, passphrase)
    with Workbench(spool / "bundle", _request(publisher, packed, spool, form)) as bench:
        begun = bench.plan(id=secrets.token_hex(16), issued=rfc3339(now))
        blobs = _store(packed, form, bench, progress)
        plan = describe(packed, blobs, publisher.name, begun, form)
        descriptor, head = signed_head(bench, publisher, packed, plan, passphrase, now)
        writer = ArchiveWriter(sink)
        write_all(writer, descriptor, head, blobs, progress)
    size, root = writer.position, publisher.fingerprint
    return Created(PIPE, (), size, descriptor, root, publisher.expires)


def _targets(output: Path, volumes: int, parity: int) -> dict[int, Path]:
    """What each output of the workbench will be called; the head is 0, parity comes last."""
    targets = {0: output} | {n: volume_path(output, n) for n in range(1, volumes + 1)}
    return targets | {volumes + n: volume_path(output, n, "p") for n in range(1, parity + 1)}


def _outputs_size(plan: BundleDescriptor, form: Form) -> int:
    """Bytes of all outputs, but for the head."""
    if not plan.volumes:
        return sum(entry.stored_size for entry in plan.contents)
    sizes = [volume_size(plan, number) for number in range(1, len(plan.volumes) + 1)]
    return sum(sizes) + form.parity * max(sizes)


def _request(
    publisher: Publisher, packed: Sequence[PackedModel], output: Path, form: Form
) -> dict[str, Any]:
    """All that decides what will be written: only for the same may work be taken over."""
    return {
        "tool": VERSION,
        "publisher": publisher.name,
        "root": str(publisher.fingerprint),
        "output": output.name,
        "models": [[str(p.source.reference), str(p.descriptor.digest)] for p in packed],
        "compression": str(form.compression),
        "volumeSize": form.volume_size or 0,
        "parity": form.parity,
        "supplements": form.supplements or "",
        "held": sorted([str(digest), size] for digest, size in form.held.items()),
        "countersigned": [dict(each) for each in form.countersigned],
    }


def _store(
    packed: Sequence[PackedModel], form: Form, bench: Workbench, progress: Meter
) -> dict[Digest, Stored]:
    """How each file is stored; those that the far side has are left out."""
    files = {blob.digest: blob for model in packed for blob in model.source.blobs}
    return {
        digest: store(
            blob,
            compression=form.compression,
            piece=form.piece,
            bench=bench,
            progress=progress,
        )
        for digest, blob in files.items()
        if digest not in form.held
    }
