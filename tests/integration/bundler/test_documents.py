"""Validly signed nonsense: whoever holds the publisher's keys is believed to be the publisher.

That is all a signature proves. Each bundle here is signed by the right keys and has one flaw.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import (
    ContentMismatch,
    MalformedArchive,
    MalformedDocument,
    MalformedModel,
    OutsideClosure,
    SealiftError,
    TruncatedBundle,
)
from tests.gguf_files import Pieces, broken_variants, string
from tests.support.bundle_simulator import (
    CONFIG,
    DOC,
    INDEX,
    MANIFEST,
    WEIGHTS,
    Edit,
    Forgery,
    describe,
    digest,
    dump,
    forge,
    twin,
)
from tests.support.publisher_simulator import ACME, Simulator
from tests.support.site import Site, check_refused

Stick = Callable[[bytes], Path]
Json = dict[str, Any]

BLOB = b"nobody needs this"
SHA512 = f"sha512:{hashlib.sha512(WEIGHTS).hexdigest()}"
OTHER = Forgery(
    name="library/other:1",
    file="other.gguf",
    weights=Pieces().with_value("general.name", string("Other")).build(),
)
OTHER_MANIFEST = dump(OTHER.manifest_document())


def entry(number: int, **fields: object) -> Edit:
    """Changes one entry of the contents table: 0 manifest, 1 config, 2 weights."""
    return lambda table: table["contents"][number].update(fields)


def model(**fields: object) -> Edit:
    """Changes the first model of the descriptor."""
    return lambda table: table["models"][0].update(fields)


def fields(**values: object) -> Edit:
    """Changes top-level fields."""
    return lambda document: document.update(values)


def without(key: str) -> Edit:
    return lambda document: document.pop(key)


def listed(data: bytes, size: int | None = None) -> Edit:
    """Lists a blob that belongs to no model."""
    item = {
        "digest": digest(data),
        "size": len(data) if size is None else size,
        "encoding": "identity",
    }
    return lambda table: table["contents"].append(item)


DESCRIPTORS: dict[str, tuple[Edit, type[SealiftError]]] = {
    "blob-beside-the-closure": (listed(BLOB), OutsideClosure),
    "blob-that-is-not-carried": (listed(b"absent"), TruncatedBundle),
    "blob-listed-twice": (listed(WEIGHTS), MalformedDocument),
    "blob-listed-twice-with-two-sizes": (listed(WEIGHTS, 5), MalformedDocument),
    "weights-left-out": (lambda t: t["contents"].pop(), OutsideClosure),
    "config-left-out": (lambda t: t["contents"].pop(1), OutsideClosure),
    "manifest-left-out": (lambda t: t["contents"].pop(0), MalformedArchive),
    "contents-empty": (fields(contents=[]), MalformedArchive),
    "models-empty": (fields(models=[]), OutsideClosure),
    "contents-reversed": (lambda t: t["contents"].reverse(), MalformedArchive),
    "weights-before-config": (
        lambda t: t["contents"].append(t["contents"].pop(1)),
        OutsideClosure,
    ),
    "weights-first": (lambda t: t["contents"].insert(0, t["contents"].pop()), MalformedArchive),
    "manifest-size-0": (entry(0, size=0), MalformedDocument),
    "config-size-0": (entry(1, size=0), MalformedDocument),
    "weights-size-0": (entry(2, size=0), MalformedDocument),
    "weights-one-less": (entry(2, size=len(WEIGHTS) - 1), OutsideClosure),
    "weights-one-more": (entry(2, size=len(WEIGHTS) + 1), TruncatedBundle),
    "size-beyond-any-blob": (entry(2, size=2**43), MalformedDocument),
    "size-of-63-bits": (entry(2, size=2**63 - 1), MalformedDocument),
    "size-of-64-bits": (entry(2, size=2**64), MalformedDocument),
    "size-negative": (entry(2, size=-1), MalformedDocument),
    "size-float": (entry(2, size=1024.0), MalformedDocument),
    "size-text": (entry(2, size="1024"), MalformedDocument),
    "size-true": (entry(2, size=True), MalformedDocument),
    "digest-upper-case": (entry(2, digest=digest(WEIGHTS).upper()), MalformedDocument),
    "digest-of-another-kind": (entry(2, digest=SHA512), MalformedDocument),
    "digest-md5": (entry(2, digest="md5:" + "0" * 32), MalformedDocument),
    "digest-with-path": (entry(2, digest="sha256:../../../etc/passwd"), MalformedDocument),
    "digest-short": (entry(2, digest=digest(WEIGHTS)[:-1]), MalformedDocument),
    "encoding-unknown": (entry(2, encoding="zstd"), MalformedDocument),
    "entry-unknown-field": (entry(2, path="../evil"), MalformedDocument),
    "requires-what-is-not-carried": (
        fields(requires=[{"digest": digest(BLOB), "size": 17}]),
        OutsideClosure,
    ),
    "volumes": (fields(volumes=[{}]), MalformedDocument),
    "schema-version-2": (fields(schemaVersion=2), MalformedDocument),
    "unknown-field": (fields(evil=1), MalformedDocument),
    "id-missing": (without("id"), MalformedDocument),
    "id-short": (fields(id="00"), MalformedDocument),
    "sequence-0": (fields(sequence=0), MalformedDocument),
    "issued-on-no-day": (fields(issuedAt="2026-02-30T00:00:00Z"), MalformedDocument),
    "issued-in-year-0": (fields(issuedAt="0000-01-01T00:00:00Z"), MalformedDocument),
    "issued-with-offset": (fields(issuedAt="2026-01-01T00:00:00+01:00"), MalformedDocument),
    "publisher-empty": (fields(publisher=""), MalformedDocument),
    "publisher-endless": (fields(publisher="x" * 300), MalformedDocument),
    "model-twice": (lambda t: t["models"].append(t["models"][0]), MalformedDocument),
    "model-upper-case": (model(name="Library/tiny:1"), MalformedDocument),
    "model-tag-upper-case": (model(name="library/tiny:V1"), MalformedDocument),
    "model-name-dotdot": (model(name="library/../tiny:1"), MalformedDocument),
    "model-name-absolute": (model(name="/etc/passwd:1"), MalformedDocument),
    "model-name-escape": (model(name="library/\x1b[31m:1"), MalformedDocument),
    "model-name-unicode": (model(name="library/t\u0456ny:1"), MalformedDocument),
    "model-without-tag": (model(name="library/tiny"), MalformedDocument),
    "model-with-host": (model(name="evil.example/tiny:1"), MalformedDocument),
    "model-of-another-name": (model(name="library/other:1"), OutsideClosure),
    "model-target-of-the-descriptor": (model(target="bundle/bundle.json"), OutsideClosure),
    "model-target-dotdot": (
        model(target="models/library/x/../tiny/1/manifest.json"),
        OutsideClosure,
    ),
    "model-manifest-of-another-size": (
        lambda t: t["models"][0]["manifest"].update(size=1),
        OutsideClosure,
    ),
    "model-manifest-nobody-signed": (
        model(manifest=describe(MANIFEST, BLOB)),
        OutsideClosure,
    ),
    "model-manifest-announced-as-index": (
        lambda t: t["models"][0]["manifest"].update(mediaType=INDEX),
        MalformedDocument,
    ),
    "model-manifest-with-urls": (
        lambda t: t["models"][0]["manifest"].update(urls=["https://evil.example"]),
        MalformedDocument,
    ),
}


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_signed_descriptor(name: str, site: Site, publisher: Simulator, stick: Stick) -> None:
    edit, wanted = DESCRIPTORS[name]
    bundle = forge(twin(publisher), descriptor=edit, blobs={digest(BLOB): BLOB})
    check_refused(site, stick(bundle), wanted)


@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"",
        lambda _: b"null",
        lambda _: b"[]",
        lambda data: b"\xff\xfe" + data,
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data[:-1],
        lambda data: data[:-1] + b',"id":"' + b"0" * 32 + b'"}',
        lambda data: data.replace(b'"sequence":1', b'"sequence":1e0'),
        lambda data: data.replace(b'"sequence":1', b'"sequence":NaN'),
        lambda data: data.replace(b'"sequence":1', b'"sequence":' + b"9" * 5000),
        lambda data: data.replace(b'"simulated"', b'"\\ud800"'),
        lambda _: b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        lambda _: b'{"x":' + b'{"x":' * 40 + b"1" + b"}" * 41,
    ],
)
def test_signed_descriptor_that_is_no_strict_json(
    change: Callable[[bytes], bytes], site: Site, publisher: Simulator, stick: Stick
) -> None:
    bundle = forge(twin(publisher), descriptor_bytes=change)
    check_refused(site, stick(bundle), MalformedDocument)


def layer(**values: object) -> Edit:
    """Changes the weight layer."""
    return lambda manifest: manifest["layers"][0].update(values)


def second_layer(**values: object) -> Edit:
    """Adds a layer that starts from the weight layer."""

    def edit(manifest: Json) -> None:
        manifest["layers"].append({**copy.deepcopy(manifest["layers"][0]), **values})

    return edit


def title(text: str) -> Edit:
    return layer(annotations={"org.opencontainers.image.title": text})


def config(**values: object) -> Edit:
    """Changes the descriptor of the config."""
    return lambda manifest: manifest["config"].update(values)


MANIFESTS: dict[str, tuple[Edit, type[SealiftError]]] = {
    "image-and-index-at-once": (fields(manifests=[]), MalformedDocument),
    "announced-as-image-and-index-inside": (fields(mediaType=INDEX), MalformedDocument),
    "media-type-missing": (without("mediaType"), MalformedDocument),
    "schema-version-1": (fields(schemaVersion=1), MalformedDocument),
    "artifact-type-missing": (without("artifactType"), OutsideClosure),
    "artifact-type-of-something-else": (fields(artifactType="application/x"), OutsideClosure),
    "config-missing": (without("config"), MalformedDocument),
    "config-of-another-type": (
        config(mediaType="application/vnd.oci.image.config.v1+json"),
        MalformedDocument,
    ),
    "config-one-byte-less": (
        lambda m: m["config"].update(size=m["config"]["size"] - 1),
        MalformedArchive,
    ),
    "config-of-0-bytes": (config(size=0), MalformedDocument),
    "config-larger-than-the-file": (config(size=4 * 2**20 + 1), TruncatedBundle),
    "layers-missing": (without("layers"), MalformedDocument),
    "layers-empty": (fields(layers=[]), MalformedDocument),
    "layers-no-list": (fields(layers={}), MalformedDocument),
    "two-weight-files": (second_layer(), MalformedDocument),
    "weights-in-a-tar": (
        layer(mediaType="application/vnd.cncf.model.weight.v1.tar"),
        MalformedDocument,
    ),
    "one-blob-with-two-sizes": (second_layer(mediaType=DOC, size=7), MalformedDocument),
    "weights-of-0-bytes": (layer(size=0), MalformedDocument),
    "weights-one-byte-less": (layer(size=len(WEIGHTS) - 1), ContentMismatch),
    "weights-one-byte-more": (layer(size=len(WEIGHTS) + 1), ContentMismatch),
    "weights-larger-than-the-file": (layer(size=2**20), TruncatedBundle),
    "weights-larger-than-any-disk": (layer(size=2**41), TruncatedBundle),
    "size-negative": (layer(size=-1), MalformedDocument),
    "size-true": (layer(size=True), MalformedDocument),
    "digest-of-another-kind": (layer(digest=SHA512), MalformedDocument),
    "digest-with-path": (layer(digest="sha256:" + "../" * 20), MalformedDocument),
    "annotations-no-text": (fields(annotations={"x": 1}), MalformedDocument),
    "subject-no-object": (fields(subject=5), MalformedDocument),
    "file-name-dotdot": (title("../../.bashrc"), MalformedDocument),
    "file-name-dotdot-inside": (title("a/../../x"), MalformedDocument),
    "file-name-absolute": (title("/etc/cron.d/x"), MalformedDocument),
    "file-name-of-windows": (title("..\\x"), MalformedDocument),
    "file-name-empty": (title(""), MalformedDocument),
    "file-name-dot": (title("."), MalformedDocument),
    "file-name-with-escape": (title("\x1b]0;x\x07.gguf"), MalformedDocument),
    "file-name-right-to-left": (title("gpj.\u202efugg"), MalformedDocument),
    "file-name-endless": (title("x" * 300), MalformedDocument),
    "file-name-in-a-second-layer": (
        second_layer(
            mediaType=DOC,
            digest=digest(BLOB),
            size=len(BLOB),
            annotations={"org.cncf.model.filepath": "../x"},
        ),
        MalformedDocument,
    ),
    "weights-are-the-config": (
        lambda m: m["layers"][0].update(digest=m["config"]["digest"], size=m["config"]["size"]),
        MalformedDocument,
    ),
    "config-is-the-weights": (
        lambda m: m["config"].update(digest=digest(WEIGHTS), size=len(WEIGHTS)),
        MalformedDocument,
    ),
    "weights-are-another-manifest": (
        layer(digest=digest(OTHER_MANIFEST), size=len(OTHER_MANIFEST)),
        MalformedDocument,
    ),
    "config-is-another-manifest": (
        config(digest=digest(OTHER_MANIFEST), size=len(OTHER_MANIFEST)),
        MalformedDocument,
    ),
    "config-is-nobodys-json": (
        config(digest=digest(b"{}"), size=2),
        MalformedDocument,
    ),
    "weights-are-json": (layer(digest=digest(BLOB), size=len(BLOB)), MalformedModel),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_signed_manifest(name: str, site: Site, publisher: Simulator, stick: Stick) -> None:
    edit, wanted = MANIFESTS[name]
    bundle = forge(
        twin(publisher),
        Forgery(manifest=edit),
        OTHER,
        blobs={digest(BLOB): BLOB, digest(b"{}"): b"{}", SHA512: WEIGHTS},
    )
    check_refused(site, stick(bundle), wanted)


@pytest.mark.parametrize(
    "kind", [INDEX, "application/vnd.docker.distribution.manifest.v2+json", CONFIG]
)
def test_signed_manifest_of_another_type_in_both_places(
    kind: str, site: Site, publisher: Simulator, stick: Stick
) -> None:
    forged = Forgery(
        manifest=fields(mediaType=kind), entry=lambda e: e["manifest"].update(mediaType=kind)
    )
    check_refused(site, stick(forge(twin(publisher), forged)), MalformedDocument)


@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"",
        lambda _: b"[]",
        lambda data: b"\x80" + data,
        lambda data: data[:-1] + b',"mediaType":"' + MANIFEST.encode() + b'"}',
        lambda data: data[:-1] + b',"x":1.5}',
        lambda data: data[:-1] + b',"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        lambda data: data[:-1] + b',"x":"' + b"a" * (4 * 2**20) + b'"}',
    ],
)
def test_signed_manifest_that_is_no_strict_json(
    change: Callable[[bytes], bytes], site: Site, publisher: Simulator, stick: Stick
) -> None:
    bundle = forge(twin(publisher), Forgery(manifest_bytes=change))
    check_refused(site, stick(bundle), MalformedDocument, MalformedArchive)


@pytest.mark.parametrize(
    "edit",
    [
        fields(evil=1),
        lambda c: c.clear(),
        without("modelfs"),
        fields(descriptor="text"),
        fields(config={"architecture": 5}),
        fields(config={"architecture": "llama", "paramSize": 1.5}),
        lambda c: c["descriptor"].update(name="x" * (4 * 2**20)),
    ],
)
def test_signed_config(edit: Edit, site: Site, publisher: Simulator, stick: Stick) -> None:
    bundle = forge(twin(publisher), Forgery(config=edit))
    check_refused(site, stick(bundle), MalformedDocument, MalformedArchive)


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: c.clear(),
        fields(mediaType=INDEX),
        fields(artifactType="application/x"),
        fields(blob_count=1),
        fields(closure_bytes=1),
        fields(closure_bytes="1"),
        without("closure_bytes"),
    ],
)
def test_what_was_signed_beside_the_manifest_does_not_fit_it(
    edit: Edit, site: Site, publisher: Simulator, stick: Stick
) -> None:
    bundle = forge(twin(publisher), Forgery(custom=edit))
    check_refused(site, stick(bundle), OutsideClosure)


@pytest.mark.parametrize("role", [ACME, "bundle"])
def test_model_signed_by_a_role_that_may_not(
    role: str, site: Site, publisher: Simulator, stick: Stick
) -> None:
    check_refused(site, stick(forge(twin(publisher), Forgery(role=role))), OutsideClosure)


def test_index_with_something_of_its_own(site: Site, publisher: Simulator, stick: Stick) -> None:
    for edit in (fields(evil=1), fields(manifests=[]), lambda i: i["manifests"].reverse()):
        bundle = forge(twin(publisher), Forgery(), OTHER, index=edit)
        check_refused(site, stick(bundle), MalformedArchive)


BROKEN = dict(broken_variants())


@pytest.mark.parametrize("flaw", BROKEN)
def test_signed_model_with_a_broken_header(
    flaw: str, site: Site, publisher: Simulator, stick: Stick
) -> None:
    bundle = forge(twin(publisher), Forgery(weights=BROKEN[flaw]))
    wanted = MalformedModel if BROKEN[flaw] else MalformedDocument
    check_refused(site, stick(bundle), wanted)


def test_second_model_is_broken(site: Site, publisher: Simulator, stick: Stick) -> None:
    """Nothing of the first one is installed either."""
    bad = Forgery(name="library/bad:1", weights=BROKEN["version-4"])
    for models in ((Forgery(), bad), (bad, Forgery())):
        check_refused(site, stick(forge(twin(publisher), *models)), MalformedModel)


def test_good_bundles_of_the_simulator_are_accepted(
    site: Site, publisher: Simulator, stick: Stick
) -> None:
    """Or all of the above would prove nothing."""
    again = Forgery(name="library/tiny:2")
    doc = Forgery(
        name="library/doc:1",
        manifest=second_layer(mediaType=DOC, digest=digest(BLOB), size=len(BLOB), annotations={}),
    )
    nested = Forgery(name="acme/tiny:1", file="sub/folder/tiny.gguf")
    for models in ((), (Forgery(),), (Forgery(), again), (Forgery(), OTHER, doc, nested)):
        bundle = forge(twin(publisher), *models, blobs={digest(BLOB): BLOB})
        outcome = site.bundle("verify", stick(bundle), "--json")
        assert outcome.code == 0, outcome
        wanted = [forged.name for forged in models] or ["library/tiny:1"]
        assert [found["name"] for found in outcome.document["models"]] == wanted
