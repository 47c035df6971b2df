"""Descriptors and manifests: what is read back is what was written, and nothing else is read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import oci
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from schemas import limits
from schemas.errors import MalformedDocument

# Text that a JSON document can hold: no lone surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
MEDIA_TYPES = st.sampled_from([oci.MODEL_CONFIG, oci.WEIGHT_RAW, oci.DOC_RAW, "text/plain"])
DESCRIPTORS = st.builds(
    Descriptor,
    media_type=MEDIA_TYPES,
    digest=st.binary(max_size=8).map(Digest.of),
    size=st.integers(0, limits.BLOB_BYTES),
    annotations=st.dictionaries(TEXT, TEXT, max_size=3),
    artifact_type=st.none() | st.just(oci.MODEL_ARTIFACT),
)
MANIFESTS = st.builds(
    Manifest,
    config=DESCRIPTORS,
    layers=st.lists(DESCRIPTORS, max_size=3).map(tuple),
    artifact_type=st.none() | st.just(oci.MODEL_ARTIFACT),
    subject=st.none() | DESCRIPTORS,
    annotations=st.dictionaries(TEXT, TEXT, max_size=3),
)


def document(**changes: Any) -> dict[str, Any]:
    blob = {"mediaType": "text/plain", "digest": str(Digest.of(b"")), "size": 0}
    result: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": oci.IMAGE_MANIFEST,
        "config": dict(blob),
        "layers": [dict(blob)],
    }
    result.update(changes)
    return {key: value for key, value in result.items() if value is not ...}


@given(MANIFESTS)
def test_manifest_round_trip(manifest: Manifest) -> None:
    data = manifest.to_bytes()
    assert Manifest.parse(data) == manifest
    assert Manifest.parse(data).to_bytes() == data


@given(DESCRIPTORS)
def test_descriptor_round_trip(descriptor: Descriptor) -> None:
    assert Descriptor.from_document(descriptor.document(), what="x") == descriptor


@given(MANIFESTS, st.data())
def test_cut_and_trailing_bytes_are_refused(manifest: Manifest, data: st.DataObject) -> None:
    whole = manifest.to_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    for wrong in (whole[:cut], whole + b"x", whole + whole):
        with pytest.raises(MalformedDocument):
            Manifest.parse(wrong)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | TEXT,
        lambda children: (
            st.lists(children, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "config",
                        "layers",
                        "mediaType",
                        "schemaVersion",
                        "digest",
                        "size",
                        "annotations",
                    ]
                ),
                children,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_a_manifest_or_refused(value: object) -> None:
    with pytest.raises(MalformedDocument):
        Manifest.parse(json.dumps(value).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"schemaVersion": 1},
        {"schemaVersion": ...},
        {"schemaVersion": "2"},
        {"mediaType": ...},
        {"mediaType": oci.IMAGE_INDEX},
        {"manifests": []},
        {"layers": ...},
        {"layers": {}},
        {"layers": [1]},
        {"layers": [{}]},
        {"config": ...},
        {"config": None},
        {"config": []},
        {"artifactType": 1},
        {"subject": []},
        {"subject": {}},
        {"annotations": []},
        {"annotations": {"a": 1}},
        {"annotations": {"a": None}},
    ],
    ids=lambda changes: json.dumps(changes, default=lambda _: "absent"),
)
def test_malformed_manifests(changes: dict[str, Any]) -> None:
    Manifest.parse(json.dumps(document()).encode())
    with pytest.raises(MalformedDocument):
        Manifest.parse(json.dumps(document(**changes)).encode())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", -1),
        ("size", "1"),
        ("size", True),
        ("size", limits.BLOB_BYTES + 1),
        ("size", ...),
        ("digest", "sha256:12"),
        ("digest", 5),
        ("digest", ...),
        ("mediaType", ""),
        ("mediaType", 5),
        ("mediaType", ...),
        ("artifactType", 5),
        ("annotations", {"a": []}),
    ],
)
def test_malformed_descriptors(key: str, value: object) -> None:
    layer: dict[str, Any] = {"mediaType": "text/plain", "digest": str(Digest.of(b"")), "size": 0}
    if value is ...:
        del layer[key]
    else:
        layer[key] = value
    with pytest.raises(MalformedDocument):
        Manifest.parse(json.dumps(document(layers=[layer])).encode())


def test_an_index_in_disguise_is_refused() -> None:
    """CVE-2021-41190: the same bytes must not be a manifest to one reader, an index to another."""
    both = document(manifests=[])
    for media_type in (oci.IMAGE_MANIFEST, oci.IMAGE_INDEX):
        with pytest.raises(MalformedDocument):
            Manifest.parse(json.dumps(both).encode(), media_type=media_type)


def test_the_announced_type_decides() -> None:
    with pytest.raises(MalformedDocument):
        Manifest.parse(json.dumps(document()).encode(), media_type="application/other")


def test_too_large_is_refused_before_parsing() -> None:
    with pytest.raises(MalformedDocument, match="too large"):
        Manifest.parse(b" " * (limits.MANIFEST_BYTES + 1))


def test_blobs_are_config_and_layers() -> None:
    manifest = Manifest.parse(json.dumps(document()).encode())
    assert manifest.blobs == (manifest.config, *manifest.layers)


def test_annotations_cannot_be_changed() -> None:
    source = {"a": "b"}
    descriptor = Descriptor.for_bytes("text/plain", b"x", source)
    source["a"] = "c"
    assert descriptor.annotations == {"a": "b"}
    with pytest.raises(TypeError):
        descriptor.annotations["a"] = "d"  # type: ignore[index]  # that is the point
