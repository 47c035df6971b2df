"""What lies before the large blobs of a bundle: its description, signed, and all that is small."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from io import BytesIO
from typing import Final

from bundler.archive import layout
from bundler.archive.writer import ArchiveWriter
from bundler.attestations.making import bill_of
from bundler.clock import parse_rfc3339, rfc3339
from bundler.contents import Entry, closure, spread
from bundler.descriptor import BundleDescriptor, BundledModel
from bundler.forms import Form
from bundler.modelpack import PackedModel
from bundler.parity import Table
from bundler.storing import Stored
from bundler.trust.keyring import Secrets
from bundler.trust.names import model_target
from bundler.trust.publisher import Publisher, SignedModel, TrustMetadata
from bundler.workbench import Workbench
from registry import oci
from registry.digest import Digest
from registry.oci import Descriptor, Manifest

# What an interrupted attempt signed tells a site what was true then; much older is stale.
_SIGNED_LASTS: Final = timedelta(days=1)
# What is signed about a model names so many weight files: `bundle withdraw NAME` takes them back.
_WEIGHTS_NAMED: Final = 16


def describe(
    packed: Sequence[PackedModel],
    blobs: Mapping[Digest, Stored],
    publisher: str,
    begun: Mapping[str, str],
    form: Form,
) -> BundleDescriptor:
    """The descriptor, but for the sequence number that publishing draws."""
    bundled = [_bundled(model) for model in packed]
    pairs = ((b.manifest, model.manifest) for b, model in zip(bundled, packed, strict=True))
    files = {blob.digest for model in packed for blob in model.source.blobs}
    contents = tuple(
        blobs[blob.digest].entry if blob.digest in blobs else Entry(blob.digest, blob.size)
        for blob in closure(pairs, _referrers(packed))
        if blob.digest in blobs or blob.digest not in files
    )
    large = [entry for entry in contents if entry.digest in blobs]
    needed = (files - blobs.keys()) | {base for entry in large for base in entry.bases}
    plan = BundleDescriptor(
        id=begun["id"],
        sequence=1,
        issued_at=begun["issued"],
        publisher=publisher,
        models=tuple(bundled),
        contents=contents,
        requires=tuple((digest, form.held[digest]) for digest in sorted(needed)),
        volumes=tuple(spread(large, form.volume_size)) if form.volume_size else (),
        supplements=form.supplements,
        countersigned=form.countersigned,
    )
    bom = bill_of(plan, packed)
    return replace(plan, bom=(Digest.of(bom), len(bom)))


def signed_head(
    bench: Workbench,
    publisher: Publisher,
    packed: Sequence[PackedModel],
    plan: BundleDescriptor,
    passphrase: Secrets | bytes,
    now: datetime,
    *,
    table: Table | None = None,
) -> tuple[BundleDescriptor, bytes]:
    """The final descriptor, and all that lies before the large blobs.

    What was signed for an interrupted attempt is taken over as long as it is the publisher's last
    word, and fresh.
    """
    found = bench.signed()
    if found is not None:
        document, head = found
        descriptor = replace(plan, sequence=document["sequence"])
        same = document["head"] == str(Digest.of(head)) and document["descriptor"] == str(
            Digest.of(descriptor.to_bytes())
        )
        # Keys that were replaced meanwhile, or something withdrawn, make it stale at once.
        last = (
            document["sequence"] == publisher.sequence
            and document.get("withdrawn", "") == _withdrawn(publisher.withdrawn)
            and document.get("versions") == dict(publisher.versions)
        )
        fresh = now - parse_rfc3339(document["signed"]) < _SIGNED_LASTS
        if same and (bench.placing or (last and fresh)):
            return descriptor, head
    trust = publisher.publish(
        [to_be_signed(model) for model in packed],
        lambda sequence: replace(plan, sequence=sequence).to_bytes(),
        passphrase=passphrase,
        now=now,
    )
    descriptor = replace(plan, sequence=trust.sequence)
    head = _head(descriptor, trust, packed, table)
    document = {
        "sequence": trust.sequence,
        "signed": rfc3339(now),
        "descriptor": str(Digest.of(trust.descriptor)),
        "head": str(Digest.of(head)),
        "withdrawn": _withdrawn(trust.withdrawn),
        "versions": dict(trust.versions),
    }
    bench.keep_signed(document, head)
    return descriptor, head


def _head(
    descriptor: BundleDescriptor,
    trust: TrustMetadata,
    packed: Sequence[PackedModel],
    table: Table | None,
) -> bytes:
    small = {Digest.of(data): data for p in packed for data in (p.manifest_bytes, p.config_bytes)}
    small |= {Digest.of(d): d for p in packed for each in p.referrers for d in each.blobs}
    sink = BytesIO()
    writer = ArchiveWriter(sink)
    writer.add_bytes(layout.LAYOUT_NAME, oci.LAYOUT_FILE)
    for name, data in trust.members:
        writer.add_bytes(layout.TRUST_FOLDER + name, data)
    writer.add_bytes(layout.DESCRIPTOR_NAME, descriptor.to_bytes())
    if trust.withdrawn is not None:
        writer.add_bytes(layout.WITHDRAWN_NAME, trust.withdrawn)
    writer.add_bytes(layout.INDEX_NAME, descriptor.index())
    writer.add_bytes(layout.BOM_NAME, bill_of(descriptor, packed))
    for entry in descriptor.contents:
        if entry.digest in small:
            writer.add_bytes(entry.name, small[entry.digest])
    if table is not None:
        writer.add_bytes(layout.PARITY_NAME, table.encode())
    return sink.getvalue()


def _withdrawn(data: bytes | None) -> str:
    """Which list of withdrawals a head carries; empty for none."""
    return "" if data is None else str(Digest.of(data))


def _bundled(model: PackedModel) -> BundledModel:
    reference = model.source.reference
    refer = tuple(each.descriptor for each in model.referrers)
    return BundledModel(reference, model_target(reference), model.descriptor, refer)


def _referrers(packed: Sequence[PackedModel]) -> Iterator[tuple[Descriptor, Manifest]]:
    return ((each.descriptor, each.manifest) for model in packed for each in model.referrers)


def to_be_signed(model: PackedModel) -> SignedModel:
    """What a publisher signs about a model."""
    source = model.source
    weights = [str(x.digest) for x in model.manifest.layers if x.media_type == oci.WEIGHT_RAW]
    few = len(weights) <= _WEIGHTS_NAMED
    custom: dict[str, str | int] = {"weights": " ".join(weights)} if few else {}
    return SignedModel(
        source.reference, model.manifest_bytes, licence=source.facts.license, custom=custom
    )
