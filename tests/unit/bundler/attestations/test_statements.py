"""Statements follow from manifests, and are believed of no other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.attestations import artifacts, statements
from registry import oci
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from registry.reference import Reference
from schemas.errors import MalformedDocument, OutsideClosure

NAME = Reference.parse("library/tiny:1")
BLOBS = {"model.gguf": b"weights", "sub/config.json": b"{}", "a.txt": b"text"}


def manifest(blobs: dict[str, bytes]) -> Manifest:
    layers = tuple(
        Descriptor(oci.WEIGHT_RAW, Digest.of(data), len(data), {oci.FILEPATH: name})
        for name, data in blobs.items()
    )
    return Manifest(Descriptor.for_bytes(oci.MODEL_CONFIG, b"{}"), layers, oci.MODEL_ARTIFACT)


MODEL = manifest(BLOBS)
DESCRIBED = Descriptor.for_bytes(oci.IMAGE_MANIFEST, MODEL.to_bytes())


def test_model_signing_names_files_in_order_and_hashes_their_digests() -> None:
    document = json.loads(statements.model_signing(NAME, MODEL))
    resources = document["predicate"]["resources"]
    assert [each["name"] for each in resources] == ["a.txt", "model.gguf", "sub/config.json"]
    digests = b"".join(hashlib.sha256(BLOBS[each["name"]]).digest() for each in resources)
    subject = document["subject"][0]["digest"]["sha256"]
    assert subject == hashlib.sha256(digests).hexdigest()


MAKERS: list[Callable[[Manifest], bytes]] = [
    lambda model: statements.model_signing(NAME, model),
    lambda model: statements.cosign(NAME, Digest.of(model.to_bytes())),
    lambda model: statements.cyclonedx(NAME, Digest.of(model.to_bytes()), {"bomFormat": "x"}),
]


@pytest.mark.parametrize("make", MAKERS)
def test_a_statement_is_about_its_model_and_no_other(make: Callable[[Manifest], bytes]) -> None:
    statement = statements.read(make(MODEL))
    statements.check_subject(statement, DESCRIBED.digest, MODEL)
    for changed in ({**BLOBS, "more": b"more"}, {"model.gguf": b"other"}, {}):
        other = manifest(changed)
        with pytest.raises(OutsideClosure):
            statements.check_subject(statement, Digest.of(other.to_bytes()), other)


@pytest.mark.parametrize("make", MAKERS)
@given(data=st.data())
def test_changed_statements_never_raise_anything_else(
    make: Callable[[Manifest], bytes], data: st.DataObject
) -> None:
    document: dict[str, Any] = json.loads(make(MODEL))
    values: st.SearchStrategy[Any] = (
        st.none() | st.integers(0, 3) | st.text(max_size=4) | st.just({}) | st.just([])
    )
    place = document if data.draw(st.booleans()) else document["predicate"]
    if place:
        place[data.draw(st.sampled_from(sorted(place)))] = data.draw(values)
    try:
        statement = statements.read(json.dumps(document).encode())
        statements.check_subject(statement, DESCRIBED.digest, MODEL)
    except (MalformedDocument, OutsideClosure):
        return


def test_artifacts_are_made_as_they_are_checked() -> None:
    for referrer in (
        artifacts.bill(DESCRIBED, b"{}"),
        artifacts.signature(DESCRIBED, b"{}", statements.COSIGN),
    ):
        parsed = Manifest.parse(referrer.manifest_bytes)
        layer = artifacts.check(parsed, DESCRIBED)
        assert (layer.digest, layer.size) == (Digest.of(b"{}"), 2)
        other = Descriptor.for_bytes(oci.IMAGE_MANIFEST, b"other")
        with pytest.raises(OutsideClosure):
            artifacts.check(parsed, other)
