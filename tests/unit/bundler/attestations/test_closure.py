"""Where referrers stand in a bundle: behind their models' manifests, before everything large."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.attestations import artifacts, statements
from bundler.attestations.checking import Checker
from bundler.checks import check_closure, check_order, check_uses
from bundler.contents import Entry, closure
from bundler.descriptor import BundleDescriptor, BundledModel
from bundler.trust.names import model_target
from registry import oci
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from registry.reference import Reference
from schemas import documents, limits
from schemas.documents import Kind
from schemas.errors import MalformedArchive, MalformedDocument, OutsideClosure


def model(number: int) -> tuple[Descriptor, Manifest]:
    """Some models share their config, some their weights."""
    config = Descriptor.for_bytes(oci.MODEL_CONFIG, b"config %d" % (number // 3))
    weights = Descriptor.for_bytes(oci.WEIGHT_RAW, b"weights %d" % (number // 2))
    extra = Descriptor.for_bytes(oci.DOC_RAW, b"doc %d" % number)
    manifest = Manifest(config, (weights, extra), oci.MODEL_ARTIFACT)
    return Descriptor.for_bytes(oci.IMAGE_MANIFEST, manifest.to_bytes()), manifest


@st.composite
def bundles(
    draw: st.DrawFn,
) -> tuple[BundleDescriptor, dict[Digest, Manifest], dict[Digest, Manifest]]:
    """A descriptor, the models' manifests and those of the referrers."""
    numbers = draw(st.lists(st.integers(0, 7), min_size=1, max_size=5))
    bundled: list[BundledModel] = []
    manifests: dict[Digest, Manifest] = {}
    referrers: dict[Digest, Manifest] = {}
    for place, number in enumerate(numbers):  # the same model may come under several names
        described, manifest = model(number)
        manifests[described.digest] = manifest
        wanted = draw(st.lists(st.integers(0, 4), max_size=4, unique=True))
        made = [artifacts.signature(described, b"bundle %d" % n, statements.COSIGN) for n in wanted]
        referrers |= {each.descriptor.digest: each.manifest for each in made}
        name = Reference.parse(f"library/model{place}:1")
        attached = tuple(each.descriptor for each in made)
        bundled.append(BundledModel(name, model_target(name), described, attached))
    blobs = closure(
        [(each.manifest, manifests[each.manifest.digest]) for each in bundled],
        [(each, referrers[each.digest]) for item in bundled for each in item.referrers],
    )
    descriptor = BundleDescriptor(
        id="0" * 32,
        sequence=1,
        issued_at="2026-11-23T20:00:00Z",
        publisher="somebody",
        models=tuple(bundled),
        contents=tuple(Entry(blob.digest, blob.size) for blob in blobs),
        bom=(Digest.of(b"bom"), 3),
    )
    return descriptor, manifests, referrers


@given(bundles())
def test_round_trip_and_checks(
    bundle: tuple[BundleDescriptor, dict[Digest, Manifest], dict[Digest, Manifest]],
) -> None:
    descriptor, manifests, referrers = bundle
    assert BundleDescriptor.from_bytes(descriptor.to_bytes()) == descriptor
    head = check_order(descriptor)
    assert {entry.digest for entry in head} == manifests.keys() | referrers.keys()
    assert head + check_closure(descriptor, manifests, referrers) == descriptor.contents
    configs = check_uses(manifests, referrers)
    Checker(descriptor, manifests, referrers, None)
    layers = {layer.digest for item in manifests.values() for layer in item.layers}
    kinds = [entry.digest in layers for entry in descriptor.contents]
    assert kinds == sorted(kinds), "what is large comes last"
    place = {entry.digest: n for n, entry in enumerate(descriptor.contents)}
    beside = {blob.digest for item in referrers.values() for blob in item.blobs}
    assert max(map(place.__getitem__, configs)) < min(map(place.__getitem__, beside), default=99)


@given(bundles(), st.data())
def test_one_less_or_in_another_order_is_refused(
    bundle: tuple[BundleDescriptor, dict[Digest, Manifest], dict[Digest, Manifest]],
    data: st.DataObject,
) -> None:
    descriptor, manifests, referrers = bundle
    found = list(descriptor.contents)
    place = data.draw(st.integers(0, len(found) - 1))
    entry = found.pop(place)
    if data.draw(st.booleans()):
        found.insert(data.draw(st.integers(0, len(found))), entry)
    if tuple(found) == descriptor.contents:
        return
    changed = replace(descriptor, contents=tuple(found))

    def check() -> None:
        check_order(changed)
        check_closure(changed, manifests, referrers)

    with pytest.raises((MalformedArchive, OutsideClosure)):
        check()


def test_a_referrer_cannot_be_another_kind_of_blob_too() -> None:
    described, manifest = model(0)
    made = artifacts.signature(described, b"bundle", statements.COSIGN)
    mine = {made.descriptor.digest: made.manifest}
    for twin in (made.descriptor, made.manifest.layers[0], made.manifest.config):
        layer = Descriptor(oci.WEIGHT_RAW, twin.digest, twin.size)
        other = replace(manifest, layers=(layer,))
        with pytest.raises(MalformedDocument):
            check_uses({described.digest: other}, mine)


def test_the_schema_has_our_limit() -> None:
    model_schema = documents.schema(Kind.BUNDLE)["properties"]["models"]["items"]
    assert model_schema["properties"]["referrers"]["maxItems"] == limits.REFERRERS
