"""The descriptor: round trip, order, and what follows from it."""

from __future__ import annotations

import os
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.checks import (
    check_closure,
    check_custom,
    check_model,
    check_order,
    check_uses,
    is_plain_path,
)
from bundler.contents import Entry, closure
from bundler.descriptor import BundleDescriptor, BundledModel
from bundler.trust.names import model_target
from registry import oci
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from registry.reference import Reference
from schemas import limits, strictjson
from schemas.documents import Kind, validate
from schemas.errors import MalformedArchive, MalformedDocument, OutsideClosure

COMPONENTS = st.from_regex(r"[a-z0-9]{1,8}(?:[._-][a-z0-9]{1,4})?", fullmatch=True)
# A first component with a dot would be a host.
NAMESPACES = st.from_regex(r"[a-z0-9]{2,8}(?:-[a-z0-9]{1,4})?", fullmatch=True).filter(
    lambda text: text != "localhost"
)
TAGS = st.from_regex(r"[a-z0-9_][a-z0-9._-]{0,10}", fullmatch=True)
REFERENCES = st.builds(Reference, namespace=NAMESPACES, name=COMPONENTS, tag=TAGS)
# Few different blobs, so that models share them; a blob's size follows from it.
BLOBS = st.integers(0, 12)


def blob(number: int, media_type: str = oci.DOC_RAW) -> Descriptor:
    return Descriptor(media_type, Digest.of(bytes([number])), (number + 1) * 1000)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    layers = [blob(20 + n) for n in draw(st.lists(BLOBS, max_size=4))]
    weights = blob(40 + draw(BLOBS), oci.WEIGHT_RAW)
    config = blob(60 + draw(BLOBS), oci.MODEL_CONFIG)
    return Manifest(config, (weights, *layers), oci.MODEL_ARTIFACT)


@st.composite
def bundled(draw: st.DrawFn) -> list[tuple[BundledModel, Manifest]]:
    names = draw(st.lists(REFERENCES, max_size=5, unique_by=str))
    pairs = []
    for name in names:
        manifest = draw(manifests())
        described = Descriptor.for_bytes(oci.IMAGE_MANIFEST, manifest.to_bytes())
        pairs.append((BundledModel(name, model_target(name), described), manifest))
    return pairs


def build(pairs: list[tuple[BundledModel, Manifest]]) -> BundleDescriptor:
    blobs = closure((model.manifest, manifest) for model, manifest in pairs)
    return describe(
        tuple(model for model, _ in pairs), tuple(Entry(item.digest, item.size) for item in blobs)
    )


def describe(models: tuple[BundledModel, ...], contents: tuple[Entry, ...]) -> BundleDescriptor:
    return BundleDescriptor(
        id="0" * 32,
        sequence=7,
        issued_at="2026-12-01T12:00:00Z",
        publisher="us",
        models=models,
        contents=contents,
    )


def by_digest(pairs: list[tuple[BundledModel, Manifest]]) -> dict[Digest, Manifest]:
    return {model.manifest.digest: manifest for model, manifest in pairs}


@given(bundled())
def test_round_trip(pairs: list[tuple[BundledModel, Manifest]]) -> None:
    descriptor = build(pairs)
    data = descriptor.to_bytes()
    assert BundleDescriptor.from_bytes(data) == descriptor
    assert BundleDescriptor.from_bytes(data).to_bytes() == data
    validate(Kind.BUNDLE, strictjson.parse(data, what="test", max_bytes=len(data)))


@given(bundled())
def test_contents_are_the_closure_in_the_order_of_one_pass(
    pairs: list[tuple[BundledModel, Manifest]],
) -> None:
    contents = build(pairs).contents
    place = {member.digest: number for number, member in enumerate(contents)}
    assert len(place) == len(contents)
    wanted = {model.manifest.digest for model, _ in pairs}
    for _, manifest in pairs:
        wanted |= {item.digest for item in manifest.blobs}
    assert place.keys() == wanted
    configs = [place[manifest.config.digest] for _, manifest in pairs]
    layers = [place[item.digest] for _, manifest in pairs for item in manifest.layers]
    heads = [place[model.manifest.digest] for model, _ in pairs]
    assert max(heads, default=-1) < min(configs, default=99)
    assert max(configs, default=-1) < min(layers, default=99)


@given(bundled())
def test_what_is_built_passes_the_checks(pairs: list[tuple[BundledModel, Manifest]]) -> None:
    descriptor = build(pairs)
    found = by_digest(pairs)
    head = check_order(descriptor)
    assert head + check_closure(descriptor, found) == descriptor.contents
    assert check_uses(found) == {manifest.config.digest for manifest in found.values()}
    for manifest in found.values():
        assert [layer.media_type for layer in check_model(manifest)] == [oci.WEIGHT_RAW]


@given(bundled(), st.randoms(use_true_random=False), st.integers(0, 3))
def test_any_other_contents_do_not(
    pairs: list[tuple[BundledModel, Manifest]], random: Random, how: int
) -> None:
    descriptor = build(pairs)
    contents = list(descriptor.contents)
    place = random.randrange(len(contents) + 1)
    if how == 0:
        contents.insert(place, Entry(Digest.of(b"extra"), 5))
    elif contents:
        place %= len(contents)
        if how == 1:
            contents.pop(place)
        elif how == 2:
            contents[place] = Entry(contents[place].digest, contents[place].size + 1)
        else:
            contents.append(contents.pop(place))
    changed = replace(descriptor, contents=tuple(contents))
    if changed == descriptor:
        return
    found = by_digest(pairs)
    with pytest.raises((MalformedArchive, OutsideClosure)):
        check_all(changed, found)


def check_all(descriptor: BundleDescriptor, found: dict[Digest, Manifest]) -> None:
    check_order(descriptor)
    check_closure(descriptor, found)


@given(bundled())
def test_index_names_every_model(pairs: list[tuple[BundledModel, Manifest]]) -> None:
    descriptor = build(pairs)
    index = strictjson.parse_object(descriptor.index(), what="index", max_bytes=2**20)
    assert (index["schemaVersion"], index["mediaType"]) == (2, oci.IMAGE_INDEX)
    names = [entry["annotations"][oci.REF_NAME] for entry in index["manifests"]]
    assert names == [str(model.reference) for model, _ in pairs]


def test_blob_of_two_sizes_has_no_closure() -> None:
    one, two = blob(1), replace(blob(1), size=5)
    manifest = Manifest(blob(2), (one, two), oci.MODEL_ARTIFACT)
    with pytest.raises(MalformedDocument, match="two sizes: 2000 and 5 bytes"):
        closure([(blob(3), manifest)])


def test_blob_used_twice_travels_once() -> None:
    manifest = Manifest(blob(2), (blob(1), blob(1)), oci.MODEL_ARTIFACT)
    assert [m.digest for m in closure([(blob(3), manifest)])] == [
        blob(3).digest,
        blob(2).digest,
        blob(1).digest,
    ]


@pytest.mark.parametrize(
    "path",
    ["tiny.gguf", "a/b/c", "Größe.gguf", "..x", "x..", "a b", "-", "~", "模型.gguf", "x" * 255],
)
def test_file_name_that_may_travel(path: str) -> None:
    assert is_plain_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "/",
        "/x",
        "x/",
        "a//b",
        "a/../b",
        "./a",
        "a/.",
        "a\\b",
        "..\\a",
        "a\nb",
        "\x1b[m",
        "a\x00",
        "\u202ex",
        os.fsdecode(b"\xff.gguf"),
        "a\x7f",
        "x" * 256,
    ],
)
def test_file_name_that_may_not(path: str) -> None:
    assert not is_plain_path(path)


@given(st.text(max_size=30))
def test_plain_path_stays_below(path: str) -> None:
    from pathlib import PurePosixPath

    if is_plain_path(path):
        pure = PurePosixPath("/base") / path
        assert ".." not in pure.parts
        assert str(pure) == f"/base/{path}"


def test_manifests_that_together_are_too_large() -> None:
    names = [Reference("library", f"m{n}") for n in range(17)]
    models = tuple(
        BundledModel(
            name,
            model_target(name),
            Descriptor(oci.IMAGE_MANIFEST, Digest.of(str(name).encode()), limits.MANIFEST_BYTES),
        )
        for name in names
    )
    contents = tuple(Entry(m.manifest.digest, m.manifest.size) for m in models)
    descriptor = describe(models, contents)
    with pytest.raises(MalformedArchive, match="too large"):
        check_order(descriptor)


def test_custom_fields_must_be_there_and_equal() -> None:
    check_custom("x", {"a": 1, "b": "c", "more": 5}, {"a": 1, "b": "c"})
    wrong: list[dict[str, str | int]] = [{}, {"a": 1}, {"a": 2, "b": "c"}, {"a": "1", "b": "c"}]
    for signed in wrong:
        with pytest.raises(OutsideClosure):
            check_custom("x", signed, {"a": 1, "b": "c"})
