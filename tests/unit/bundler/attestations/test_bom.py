"""Bills of materials: what they say, that they are CycloneDX 1.6, that they are always the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.attestations.bom import bundle_bom, check_bundle_bom, check_model_bom, model_bom
from bundler.chunking import Chunking
from bundler.descriptor import BundledModel
from bundler.modelpack import PackedModel, pack
from bundler.sources import resolve
from bundler.trust.names import model_target
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from schemas import documents, strictjson
from schemas.documents import Kind
from schemas.errors import MalformedDocument, OutsideClosure
from schemas.render import Meter
from tests.gguf_files import Pieces, string, u32

Make = Callable[..., PackedModel]

_BASE = "http://cyclonedx.org/schema/"


@cache
def cyclonedx() -> jsonschema_rs.Draft7Validator:
    """The official schema, with those that it refers to."""
    folder = resources.files("cyclonedx.schema._res")

    def load(name: str) -> Any:
        return json.loads(folder.joinpath(f"{name}.SNAPSHOT.schema.json").read_bytes())

    names = ("spdx", "jsf-0.82", "cryptography-defs")
    known = [(f"{_BASE}{name}.SNAPSHOT.schema.json", load(name)) for name in names]
    return jsonschema_rs.Draft7Validator(
        load("bom-1.6"),
        registry=jsonschema_rs.Registry(known),
        validate_formats=True,
    )


@pytest.fixture
def make(tmp_path: Path, chunking: Chunking, meter: Meter) -> Make:
    """Pack a model with these metadata."""

    def run(name: str = "library/tiny:1", **values: str | int) -> PackedModel:
        pieces = Pieces()
        for key, value in values.items():
            encoded = u32(value) if isinstance(value, int) else string(value)
            pieces = pieces.with_value("general." + key.replace("__", "."), encoded)
        path = tmp_path / "tiny.gguf"
        path.write_bytes(pieces.build())
        return pack(resolve(str(path), name, chunking, meter))

    return run


def component(model: PackedModel) -> dict[str, Any]:
    found: dict[str, Any] = model_bom(model)["metadata"]["component"]
    return found


def unknown(model: PackedModel) -> set[str]:
    properties = component(model)["properties"]
    return {each["value"] for each in properties if each["name"] == "sealift:unknown"}


def dump(model: PackedModel) -> bytes:
    return documents.dump(Kind.MODEL_BOM, model_bom(model))


def test_what_a_file_says_of_itself_is_told(make: Make) -> None:
    model = make(
        license="apache-2.0",
        author="Ada",
        organization="Analytical Engines",
        repo_url="https://models.example/tiny",
        base_model__count=1,
        base_model__0__name="Less Tiny",
        base_model__0__version="2",
        base_model__0__organization="Difference Engines",
        base_model__0__repo_url="https://models.example/less-tiny",
        dataset__count=1,
        dataset__0__name="Notes",
    )
    cyclonedx().validate(model_bom(model))
    found = component(model)
    assert found["type"] == "machine-learning-model"
    assert (found["group"], found["name"], found["version"]) == ("library", "tiny", "1")
    assert found["licenses"] == [{"expression": "Apache-2.0", "acknowledgement": "declared"}]
    assert found["authors"] == [{"name": "Ada"}]
    assert found["supplier"] == {"name": "Analytical Engines"}
    assert found["externalReferences"][0]["url"] == "https://models.example/tiny"
    (ancestor,) = found["pedigree"]["ancestors"]
    assert (ancestor["name"], ancestor["version"]) == ("Less Tiny", "2")
    assert ancestor["externalReferences"][0]["url"] == "https://models.example/less-tiny"
    assert found["modelCard"]["modelParameters"]["datasets"][0]["name"] == "Notes"
    assert found["hashes"][0]["content"] == model.source.digest.hex
    assert not unknown(model)


def test_what_is_unknown_is_called_so_and_not_guessed(make: Make) -> None:
    model = make()
    cyclonedx().validate(model_bom(model))
    assert unknown(model) == {"licence", "pedigree", "source", "datasets"}
    assert not {"licenses", "pedigree", "externalReferences"} & component(model).keys()


def test_a_licence_that_is_no_spdx_id_keeps_its_name_and_address(make: Make) -> None:
    model = make(license="gemma", license__name="Gemma Terms", license__link="https://l.example/g")
    cyclonedx().validate(model_bom(model))
    assert component(model)["licenses"] == [
        {
            "license": {
                "name": "Gemma Terms",
                "url": "https://l.example/g",
                "acknowledgement": "declared",
            }
        }
    ]


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "https://a b", "https://", "file:///etc/passwd", "x" * 2000]
)
def test_what_is_no_web_address_is_dropped(make: Make, address: str) -> None:
    model = make(repo_url=address)
    assert "source" in unknown(model)
    assert "externalReferences" not in component(model)


def test_a_million_base_models_are_not_listed(make: Make) -> None:
    assert unknown(make(base_model__count=2**31)) >= {"pedigree"}


def test_the_same_model_gives_the_same_bytes(make: Make) -> None:
    assert dump(make()) == dump(make())
    assert dump(make()) != dump(make("library/tiny:2"))
    assert dump(make()) != dump(make("acme/tiny:1"))


def test_what_is_made_passes_the_check(make: Make) -> None:
    model = make()
    check_model_bom(dump(model), model.descriptor.digest, model.manifest)
    other = make("library/tiny:2", license="mit")
    with pytest.raises(OutsideClosure):
        check_model_bom(dump(model), other.descriptor.digest, model.manifest)
    with pytest.raises(OutsideClosure):
        check_model_bom(dump(model), model.descriptor.digest, other.manifest)


def test_a_bundles_bill_links_to_those_of_its_models(make: Make) -> None:
    models = [make(), make("acme/other:2", license="mit")]
    bundled = [
        BundledModel(m.source.reference, model_target(m.source.reference), m.descriptor)
        for m in models
    ]
    bills = [dump(models[0]), None]
    data = bundle_bom(
        "0" * 32,
        "2026-11-23T20:00:00Z",
        "somebody",
        [(b, m.manifest, bill) for b, m, bill in zip(bundled, models, bills, strict=True)],
    )
    document = strictjson.parse_object(data, what="BOM", max_bytes=10_000)
    cyclonedx().validate(document)
    digests = {str(each.reference): each.manifest.digest for each in bundled}
    check_bundle_bom(data, "0" * 32, digests)
    with pytest.raises(OutsideClosure):
        check_bundle_bom(data, "1" * 32, digests)
    with pytest.raises(OutsideClosure):
        check_bundle_bom(data, "0" * 32, {**digests, "acme/more:1": Digest.of(b"")})
    first, second = document["components"]
    serial = model_bom(models[0])["serialNumber"].removeprefix("urn:uuid:")
    assert first["externalReferences"][0]["url"] == f"urn:cdx:{serial}/1"
    assert first["externalReferences"][0]["hashes"][0]["content"] == Digest.of(dump(models[0])).hex
    assert "externalReferences" not in second


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


@given(st.data())
def test_any_change_of_what_we_read_is_refused_or_makes_no_difference(data: st.DataObject) -> None:
    """Never another exception."""
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": "urn:uuid:" + "0" * 8 + ("-" + "0" * 4) * 3 + "-" + "0" * 12,
        "version": 1,
        "metadata": {"component": {"type": "machine-learning-model", "components": []}},
        "components": [],
    }
    places: list[dict[str, Any]] = [
        document,
        document["metadata"],
        document["metadata"]["component"],
    ]
    where = data.draw(st.sampled_from(places))
    where[data.draw(st.sampled_from(sorted(where)))] = data.draw(JSON)
    manifest = Manifest(Descriptor.for_bytes("a/b", b"{}"), ())
    raw = json.dumps(document).encode()
    with pytest.raises((MalformedDocument, OutsideClosure)):
        check_model_bom(raw, Digest.of(b""), manifest)
    with pytest.raises((MalformedDocument, OutsideClosure)):
        check_bundle_bom(raw, "0" * 32, {"a/b:c": Digest.of(b"")})
