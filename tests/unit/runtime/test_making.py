"""Models made here: what they consist of, where they say they come from, whose word holds for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from registry import oci
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from registry.parts import Part, layers_of, part_layer
from registry.records import ModelRecord
from registry.reference import Reference
from registry.store import Store
from registry.withdrawals import AcceptedList, Action, Withdrawn
from runtime.making import Recipe, make
from runtime.messages import Message
from runtime.models import Model, Models
from runtime.options import Options
from runtime.parts import Parts, read_parts, write_parts
from schemas.errors import (
    AlreadyExists,
    InvalidName,
    MalformedModel,
    ModelWithdrawn,
    NotFound,
    UnsupportedRequest,
    UsageError,
)
from tests.gguf_files import tiny_gguf
from tests.serving import install

BASE = Reference.parse("library/tiny")
MINE = Reference.parse("me/mine")
ACME = Digest.of(b"acme")
AT = datetime(2026, 12, 1, tzinfo=UTC)
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}{{ tools }}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    install(tmp_path / "home", tiny_gguf(tmp_path / "tiny.gguf"), "library/tiny:latest")
    with Store.open(tmp_path / "home") as store:
        yield store


def record(store: Store, reference: Reference) -> ModelRecord:
    found = store.catalogue.resolve(reference)
    assert found is not None
    return found


def digest(store: Store, reference: Reference) -> Digest:
    return record(store, reference).descriptor.digest


def model(store: Store, reference: Reference = MINE) -> Model:
    return Models(store).get(reference)


def sign(store: Store, reference: Reference) -> None:
    """As a bundle of acme leaves it."""
    with store.catalogue.transaction() as tx:
        tx.add_anchor("acme", ACME)
        tx.withdrawals.vouch(digest(store, reference), ACME)


def withdraw(store: Store, what: Digest, action: Action = Action.BLOCK, number: int = 1) -> None:
    with store.catalogue.transaction() as tx:
        last = {what: Withdrawn(what, action, "it lies", number, AT)}
        tx.withdrawals.accept(ACME, AcceptedList(number, number, b"{}"), last)


WHOLE = Recipe(
    MINE,
    BASE,
    template=TEMPLATE,
    system="Be brief.",
    parameters={"temperature": 0.5, "stop": ["</s>"], "num_ctx": 256},
    messages=(Message("user", "Hi"), Message("assistant", "Ho")),
    licenses=("MIT",),
)


def test_all_that_a_recipe_sets_is_in_the_model(store: Store) -> None:
    statuses = make(store, WHOLE)
    made = model(store)
    assert made.template == TEMPLATE
    assert made.system == "Be brief."
    assert made.options == Options({"temperature": 0.5, "stop": ("</s>",)}, {"num_ctx": 256})
    assert [(m.role, m.content) for m in made.messages] == [("user", "Hi"), ("assistant", "Ho")]
    assert made.license == "MIT"
    assert made.weights == model(store, BASE).weights, "no weights are copied"
    assert made.capabilities == ("completion", "tools"), "its template speaks of tools"
    assert model(store, BASE).capabilities == ("completion",)
    assert statuses[0].startswith("using existing layer sha256:")
    assert [s.split(" sha256")[0] for s in statuses[1:-2]] == ["creating new layer"] * 5
    assert statuses[-2:] == ["writing manifest", "success"]
    again = make(store, WHOLE)
    assert all("creating" not in status for status in again)


def test_it_says_where_it_comes_from(store: Store) -> None:
    make(store, WHOLE)
    made = model(store).made
    assert made is not None
    assert made.line() == "made here from tiny:latest, signed by nobody"
    assert made.bases == (digest(store, BASE),)
    annotations = record(store, MINE).manifest.annotations
    assert annotations[oci.BASE_DIGEST] == str(digest(store, BASE))
    assert annotations[oci.BASE_NAME] == "tiny:latest"
    assert model(store, BASE).made is None
    events = [entry.event for entry in store.catalogue.audit_events()]
    assert [(e["action"], e["subject"]) for e in events] == [("model.create", "me/mine:latest")]


def test_equal_recipes_give_equal_models(store: Store, tmp_path: Path) -> None:
    make(store, WHOLE)
    first = digest(store, MINE)
    make(store, replace(WHOLE, reference=Reference.parse("me/other")))
    assert digest(store, Reference.parse("me/other")) == first


def test_what_is_inherited_and_what_is_replaced(store: Store) -> None:
    make(store, WHOLE)
    child = Reference.parse("me/child")
    make(
        store,
        Recipe(child, MINE, system="Be long.", parameters={"temperature": 1.0}, licenses=("BSD",)),
    )
    made = model(store, child)
    assert (made.system, made.template) == ("Be long.", TEMPLATE)
    assert made.options == Options({"temperature": 1.0, "stop": ("</s>",)}, {"num_ctx": 256})
    assert len(made.messages) == 2
    assert made.license == "MIT\n\nBSD"
    assert made.made is not None
    assert set(made.made.bases) == {digest(store, MINE), digest(store, BASE)}
    make(store, Recipe(child, MINE, messages=(Message("user", "Yo"),)))
    assert [m.content for m in model(store, child).messages] == ["Yo"]


def test_a_file_that_was_uploaded(store: Store, tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "other.gguf", name="Other", licence="mit")
    with store.blobs.stage() as area, store.lock():
        weights = area.add_bytes(path.read_bytes())
        area.install()
    statuses = make(store, Recipe(MINE, weights=weights, file="other.gguf", system="S"))
    assert statuses[0] == "parsing GGUF"
    made = model(store)
    assert made.facts["name"] == "Other"
    assert made.license == "mit"
    assert made.made is not None
    assert made.made.line() == "made here from the file other.gguf, signed by nobody"
    config = json.loads(store.blobs.read(record(store, MINE).manifest.config.digest, 10_000))
    assert config["descriptor"]["licenses"] == ["MIT"]
    assert len(config["modelfs"]["diffIds"]) == 2


def test_what_cannot_be_made(store: Store) -> None:
    with pytest.raises(NotFound, match="model 'nope:latest' not found"):
        make(store, Recipe(MINE, Reference.parse("nope")))
    with pytest.raises(UsageError, match="blob not found"):
        make(store, Recipe(MINE, weights=Digest.of(b"x")))
    with pytest.raises(UsageError, match="neither 'from' or 'files'"):
        make(store, Recipe(MINE))
    with pytest.raises(InvalidName):
        Recipe(Reference.parse("example.org/me/mine"), BASE)
    with store.blobs.stage() as area, store.lock():
        junk = area.add_bytes(b"not a model")
        area.install()
    with pytest.raises(MalformedModel):
        make(store, Recipe(MINE, weights=junk))
    assert store.catalogue.resolve(MINE) is None


def test_nothing_unsigned_takes_the_name_of_what_is_signed(store: Store) -> None:
    sign(store, BASE)
    before = digest(store, BASE)
    with pytest.raises(AlreadyExists, match="came signed in a bundle"):
        make(store, Recipe(BASE, BASE, system="x"))
    assert digest(store, BASE) == before
    make(store, WHOLE)
    make(store, Recipe(MINE, BASE, system="x"))
    assert model(store).system == "x", "what was made here may be made anew"
    with pytest.raises(AlreadyExists, match="came signed in a bundle"):
        store.copy_model(MINE, BASE)
    store.copy_model(BASE, MINE)
    assert digest(store, MINE) == before, "what is signed may have any name"


@pytest.mark.parametrize("action", [Action.WARN, Action.QUARANTINE, Action.BLOCK])
def test_a_withdrawn_base_withdraws_what_was_made_from_it(store: Store, action: Action) -> None:
    sign(store, BASE)
    make(store, WHOLE)
    child = Reference.parse("me/child")
    make(store, Recipe(child, MINE, system="x"))
    assert model(store, child).withdrawal is None
    withdraw(store, digest(store, BASE), action)
    for name in (BASE, MINE, child):
        found = model(store, name).withdrawal
        assert found is not None
        assert found.action is action
    everything = store.catalogue.withdrawals.all()
    assert everything.keys() == {digest(store, name) for name in (BASE, MINE, child)}
    if action is not Action.WARN:
        with pytest.raises(ModelWithdrawn):
            make(store, Recipe(Reference.parse("me/late"), MINE))


def test_removing_the_base_does_not_save_what_was_made_from_it(store: Store) -> None:
    sign(store, BASE)
    make(store, WHOLE)
    base = digest(store, BASE)
    store.remove_model(BASE)
    withdraw(store, base)
    found = model(store).withdrawal
    assert found is not None
    assert found.action is Action.BLOCK


def test_withdrawn_weights_are_withdrawn_under_any_name(store: Store) -> None:
    sign(store, BASE)
    weights = layers_of(record(store, BASE).manifest.layers, Part.MODEL)[0].digest
    make(store, Recipe(MINE, weights=weights, file="copy.gguf"))
    withdraw(store, digest(store, BASE))
    assert model(store).withdrawal is not None, "by the manifest that has the same weights"


def test_what_was_made_can_be_released_from_quarantine(store: Store) -> None:
    sign(store, BASE)
    make(store, WHOLE)
    withdraw(store, digest(store, BASE), Action.QUARANTINE)
    store.release(MINE, "looked at it")
    found = model(store).withdrawal
    assert found is not None
    assert found.action is Action.WARN
    base = model(store, BASE).withdrawal
    assert base is not None
    assert base.action is Action.QUARANTINE


def test_denying_a_base_denies_what_was_made_from_it(store: Store) -> None:
    make(store, WHOLE)
    store.deny(digest(store, BASE), "tiny", "no")
    found = model(store).withdrawal
    assert found is not None
    assert found.stops


# -- layers -----------------------------------------------------------------------------------------


def with_layers(store: Store, *layers: tuple[Descriptor, bytes]) -> Reference:
    """A model of the base's weights with these layers, as a bundle may bring it."""
    base = record(store, BASE)
    manifest = Manifest(
        config=base.manifest.config,
        layers=(*base.manifest.layers, *(layer for layer, _ in layers)),
        artifact_type=base.manifest.artifact_type,
    )
    reference = Reference.parse("acme/odd")
    data = manifest.to_bytes()
    with store.blobs.stage() as area, store.lock():
        for _, blob in layers:
            area.add_bytes(blob)
        area.add_bytes(data)
        area.install()
        with store.catalogue.transaction() as tx:
            for each in manifest.blobs:
                tx.put_blob(each)
            whole = Descriptor.for_bytes(oci.IMAGE_MANIFEST, data)
            tx.put_manifest(reference.repository, whole, manifest, dict(base.facts))
            tx.set_tag(reference, whole.digest)
    return reference


def ollama(kind: str, data: bytes) -> tuple[Descriptor, bytes]:
    return Descriptor.for_bytes(f"{oci.OLLAMA_LAYER}{kind}", data), data


def test_ollamas_own_layers_are_honoured(store: Store) -> None:
    name = with_layers(
        store,
        ollama("template", b"{{ .System }}x{{ range .Foo }}"),
        ollama("system", b"Be kind."),
        ollama("params", b'{"stop":["<|im_end|>"],"temperature":0.1,"mirostat":1,"new":{}}'),
        ollama("messages", b'[{"role":"user","content":"Hi"}]'),
        ollama("license", b"Apache"),
        ollama("license", b"MIT"),
    )
    found = model(store, name)
    assert found.template is None, "a Go template that does not parse is not in force"
    assert found.foreign_template
    assert found.system == "Be kind."
    assert found.options == Options({"stop": ("<|im_end|>",), "temperature": 0.1})
    assert [m.content for m in found.messages] == ["Hi"]
    assert found.license == "Apache\n\nMIT"


def test_a_go_template_is_in_force(store: Store) -> None:
    name = with_layers(store, ollama("template", b"{{ .Prompt }}!"))
    found = model(store, name)
    assert not found.foreign_template
    assert found.template == "{{ .Prompt }}!"
    assert "tools" not in found.capabilities


def test_a_go_template_is_kept_as_what_it_is(store: Store) -> None:
    make(store, Recipe(Reference.parse("go"), base=BASE, template="{{ .Prompt }}!"))
    record = store.catalogue.resolve(Reference.parse("go"))
    assert record is not None
    assert "modelfile/template.gotmpl" in [
        layer.annotations.get(oci.FILEPATH) for layer in record.manifest.layers
    ]
    assert model(store, Reference.parse("go")).template == "{{ .Prompt }}!"


def test_a_go_template_says_what_the_model_can_do(store: Store) -> None:
    name = with_layers(
        store,
        ollama(
            "template", b"{{ .Tools }}{{ range .Messages }}{{ .Thinking }}{{ .Content }}{{ end }}"
        ),
    )
    assert {"tools", "thinking"} <= set(model(store, name).capabilities)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("params", b"[]"),
        ("params", b"{"),
        ("params", b'{"temperature":"hot"}'),
        ("messages", b"{}"),
        ("messages", b'[{"role":"tool","content":"x"}]'),
        ("messages", b"[" * 5000),
        ("system", b"\xff"),
    ],
)
def test_what_does_not_parse_is_listed_and_not_served(store: Store, kind: str, data: bytes) -> None:
    name = with_layers(store, ollama(kind, data))
    assert {m.reference.repository for m in Models(store).all()} == {"library/tiny", "acme/odd"}
    with pytest.raises(MalformedModel):
        model(store, name)


def test_too_many_layers(store: Store) -> None:
    name = with_layers(store, *(ollama("license", f"{n}".encode()) for n in range(65)))
    with pytest.raises(MalformedModel, match="too many layers"):
        model(store, name)


def test_parts_come_back_as_they_were_written(store: Store) -> None:
    parts = Parts(TEMPLATE, "ä\n", {"seed": 1}, (Message("user", "x"),), ("a", "b"))
    written = write_parts(parts)
    with store.blobs.stage() as area, store.lock():
        for _, data in written:
            area.add_bytes(data)
        area.install()
    assert read_parts(store.blobs, tuple(layer for layer, _ in written)) == parts
    names = [layer.annotations[oci.FILEPATH] for layer, _ in written]
    assert names == [
        "modelfile/template.jinja",
        "modelfile/system.txt",
        "modelfile/params.json",
        "modelfile/messages.json",
        "modelfile/license.txt",
        "modelfile/license-2.txt",
    ]


def test_layers_of_no_concern(store: Store) -> None:
    other = part_layer(Part.SYSTEM, b"x")
    readme = Descriptor(oci.DOC_RAW, other.digest, 1, {oci.FILEPATH: "README.md"})
    assert read_parts(store.blobs, (readme,)) == Parts()


def test_unservable_bases(store: Store) -> None:
    base = record(store, BASE)
    two = (*base.manifest.layers, *base.manifest.layers)
    manifest = Manifest(config=base.manifest.config, layers=two)
    data = manifest.to_bytes()
    reference = Reference.parse("acme/shards")
    with store.blobs.stage() as area, store.lock():
        area.add_bytes(data)
        area.install()
        with store.catalogue.transaction() as tx:
            whole = Descriptor.for_bytes(oci.IMAGE_MANIFEST, data)
            tx.put_manifest(reference.repository, whole, manifest, dict(base.facts))
            tx.set_tag(reference, whole.digest)
    with pytest.raises(UnsupportedRequest, match="nothing can be made"):
        make(store, Recipe(MINE, reference))
