"""Every document that crosses a boundary: by its schema when written, by its schema when read."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import documents, strictjson
from schemas.documents import Kind
from schemas.errors import MalformedDocument

DIGEST = "sha256:" + "0" * 64
TIME = "2030-01-01T00:00:00Z"
TOOL = {"name": "sealift", "version": "0.1.0"}
MANIFEST = {
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "digest": DIGEST,
    "size": 500,
}

HASH = "A" * 43 + "="
NOTE = "sealift\n7\nroot\n\n\N{EM DASH} sealift AAAA\n"

BOM = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "serialNumber": "urn:uuid:00000000-0000-4000-8000-000000000000",
    "version": 1,
}

# By the specifications of others, which have more members than Sealift reads: where they are open.
OPEN: dict[Kind, set[tuple[Any, ...]]] = {
    Kind.STATEMENT: {("predicate",)},
    Kind.MODEL_BOM: {
        (),
        ("metadata",),
        ("metadata", "component"),
        ("metadata", "component", "components", 0),
    },
    Kind.BUNDLE_BOM: {(), ("metadata",), ("components", 0)},
}

# Where the version of a document is told by a specification of others.
VERSION_KEYS = {
    Kind.SIGSTORE_BUNDLE: "mediaType",
    Kind.STATEMENT: "_type",
    Kind.MODEL_BOM: "specVersion",
    Kind.BUNDLE_BOM: "specVersion",
}

EXAMPLES: dict[Kind, dict[str, Any]] = {
    Kind.BUNDLE: {
        "schemaVersion": 1,
        "id": "a" * 32,
        "sequence": 1,
        "issuedAt": TIME,
        "publisher": "acme",
        "tool": TOOL,
        "models": [
            {
                "name": "library/smollm2:135m",
                "target": "models/library/smollm2/135m/manifest.json",
                "manifest": MANIFEST,
            }
        ],
        "contents": [{"digest": DIGEST, "size": 500, "encoding": "identity"}],
        "requires": [],
        "volumes": [],
    },
    Kind.RECEIPT_V1: {
        "schemaVersion": 1,
        "id": "b" * 32,
        "verdict": "accepted",
        "bundle": {"id": "a" * 32, "sequence": 1, "issuedAt": TIME, "publisher": "acme"},
        "trust": {"anchor": "acme", "root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
        "time": {"clock": TIME, "reference": TIME, "verdict": "clock"},
        "models": [{"name": "library/smollm2:135m", "manifest": DIGEST, "signer": "library"}],
        "blobs": {"added": 3, "reused": 0, "bytesAdded": 12345},
        "tool": TOOL,
    },
    Kind.RECEIPT: {
        "schemaVersion": 2,
        "id": "0" * 32,
        "site": "a" * 64,
        "host": "isolated",
        "operators": [{"name": "operator", "uid": 1000, "part": "operator"}],
        "tool": {**TOOL, "digest": DIGEST},
        "verdict": {"outcome": "rejected", "code": "bad-signature", "words": "it is forged"},
        "media": [
            {"file": "b.tar", "bytes": 5, "label": "STICK", "uuid": "AB-CD", "serial": "007"}
        ],
        "bundle": {
            "id": "1" * 32,
            "sequence": 7,
            "issuedAt": TIME,
            "publisher": "acme",
            "descriptor": DIGEST,
            "believed": True,
            "volumes": [1, 3],
            "parity": True,
            "lost": [2],
        },
        "previous": {"id": "2" * 32, "sequence": 6},
        "trust": {
            "anchor": "acme",
            "fingerprint": DIGEST,
            "before": {"root": {"version": 1, "digest": DIGEST}},
            "after": {"root": {"version": 2, "digest": DIGEST}},
        },
        "time": {"clock": TIME, "reference": TIME, "floor": TIME, "verdict": "clock"},
        "models": [
            {
                "name": "library/smollm2:135m",
                "path": "models/library/smollm2/135m/manifest.json",
                "manifest": DIGEST,
                "signer": "publisher-library",
                "keys": ["b" * 64],
            }
        ],
        "waiting": ["library/other:1"],
        "warnings": ["the log was rewritten"],
        "blobs": {"added": 3, "reused": 0, "missing": 0, "bytesAdded": 12345},
        "withdrawals": [{"digest": DIGEST, "action": "warn"}],
        "policy": {
            "policy": DIGEST,
            "reason": "the courier was late",
            "confirmed": [],
            "stale": [],
            "request": "",
            "requester": "ann",
            "approvers": ["bob"],
        },
        "log": {"size": 7, "root": HASH},
    },
    Kind.CHECKPOINT: {
        "schemaVersion": 1,
        "site": "a" * 64,
        "time": TIME,
        "tool": TOOL,
        "checkpoint": NOTE,
        "since": {"size": 3, "proof": [HASH]},
    },
    Kind.AUDIT_EXPORT: {
        "schemaVersion": 1,
        "site": "a" * 64,
        "time": TIME,
        "tool": TOOL,
        "checkpoint": NOTE,
        "first": 3,
        "before": [HASH],
        "entries": [
            {
                "leaf": HASH,
                "at": TIME,
                "reference": TIME,
                "action": "import",
                "outcome": "done",
                "entry": "AAAA",
            }
        ],
    },
    Kind.AUDIT_PROOF: {
        "schemaVersion": 1,
        "publicKey": "AAAA",
        "checkpoint": NOTE,
        "inclusion": {"index": 3, "leaf": HASH, "path": [HASH], "entry": "AAAA"},
    },
    Kind.COUNTERSIGNATURE: {"schemaVersion": 1, "note": NOTE, "publicKey": "AAAA"},
    Kind.AUDIT_EVENT_V1: {
        "schemaVersion": 1,
        "at": TIME,
        "actor": "operator",
        "action": "import",
        "subject": "library/smollm2:135m",
        "outcome": "done",
        "detail": {"blobs": 3, "note": "by hand", "late": False},
    },
    Kind.AUDIT_EVENT: {
        "schemaVersion": 2,
        "at": TIME,
        "reference": TIME,
        "actor": "operator",
        "uid": 1000,
        "action": "import",
        "subject": "library/smollm2:135m",
        "outcome": "done",
        "detail": {"blobs": 3, "note": "by hand", "late": False},
    },
    Kind.CONFIG: {
        "schema_version": 1,
        "serve": {"host": "127.0.0.1:11434", "keep_alive": "5m", "num_parallel": 4},
    },
    Kind.MODEL_CONFIG: {
        "descriptor": {"name": "smollm2", "licenses": ["Apache-2.0"]},
        "config": {"architecture": "transformer", "format": "gguf", "paramSize": "135M"},
        "modelfs": {"type": "layers", "diffIds": [DIGEST]},
    },
    Kind.REPORT: {
        "schemaVersion": 1,
        "about": ["Site: 0000"],
        "payload": "e30=",
        "payloadType": "application/vnd.sealift.inventory.v1+json",
        "publicKey": "AAAA",
        "signatures": [{"keyid": "0" * 64, "sig": "AAAA"}],
    },
    Kind.INVENTORY: {
        "schemaVersion": 1,
        "site": "0" * 64,
        "time": TIME,
        "clockFloor": TIME,
        "tool": TOOL,
        "publishers": [
            {"fingerprint": DIGEST, "root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}
        ],
        "models": [{"name": "library/smollm2:135m", "manifest": DIGEST}],
        "blobs": {"count": 1, "digests": "A" * 43, "sizes": "AQ"},
    },
    Kind.WANT_LIST: {
        "schemaVersion": 1,
        "site": "0" * 64,
        "time": TIME,
        "tool": TOOL,
        "bundle": {"id": "a" * 32, "sequence": 1},
        "blobs": {"count": 1, "digests": "A" * 43, "sizes": "AQ"},
    },
    Kind.SIGN_REQUEST: {
        "schemaVersion": 1,
        "publisher": "acme",
        "base": {"1.root.json": "{}"},
        "proposed": {"2.root.json": "{}"},
        "keyNames": {"0" * 64: "Anna"},
    },
    Kind.WITHDRAWN: {
        "schemaVersion": 1,
        "entries": [
            {
                "number": 1,
                "at": TIME,
                "action": "block",
                "digests": [DIGEST],
                "subject": "library/smollm2:135m",
                "reason": "it leaks what it was trained on",
            }
        ],
    },
    Kind.SIGSTORE_BUNDLE: {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": "0" * 64}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": "e30=",
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": "AAAA", "keyid": ""}],
        },
    },
    Kind.STATEMENT: {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "smollm2", "digest": {"sha256": "0" * 64}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {},
    },
    Kind.MODEL_BOM: {
        **BOM,
        "metadata": {
            "component": {
                "type": "machine-learning-model",
                "bom-ref": DIGEST,
                "name": "smollm2",
                "components": [
                    {
                        "type": "file",
                        "name": "model.gguf",
                        "hashes": [{"alg": "SHA-256", "content": "0" * 64}],
                    }
                ],
            },
        },
    },
    Kind.BUNDLE_BOM: {
        **BOM,
        "metadata": {},
        "components": [
            {
                "type": "machine-learning-model",
                "bom-ref": DIGEST,
                "group": "library",
                "name": "smollm2",
                "version": "135m",
            }
        ],
    },
    Kind.POLICY: {
        "schema_version": 1,
        "publisher": [{"anchor": "acme", "fingerprint": "0" * 64, "names": ["acme/*"]}],
        "licences": {"allow": ["MIT"], "others": "confirm", "unknown": "refuse"},
        "models": {"formats": ["gguf"], "architectures": ["llama"], "max_bytes": "70G"},
        "stale": {"grace_days": 14, "accept": "freshness"},
        "approval": {"required": 1, "actions": ["import"], "valid_days": 7},
        "operator": [{"name": "alice", "key": "AAAA"}],
        "scan": {"severity": {"danger": "refuse"}, "code": {"text-bidi": "refuse"}},
    },
    Kind.API_KEYS: {
        "schemaVersion": 1,
        "keys": [
            {
                "id": "0" * 12,
                "name": "alice",
                "roles": ["infer"],
                "hash": DIGEST,
                "created": TIME,
                "expires": TIME,
                "revoked": TIME,
                "requestsPerMinute": 1,
                "tokensPerMinute": 1,
            }
        ],
    },
    Kind.APPROVAL_REQUEST: {
        "schemaVersion": 1,
        "id": "a" * 32,
        "action": "set-time",
        "site": DIGEST,
        "policy": DIGEST,
        "requestedAt": TIME,
        "expiresAt": TIME,
        "requester": {"name": "alice", "key": "AAAA"},
        "reason": "the clock was ahead",
        "time": {"from": TIME, "to": TIME},
    },
    Kind.APPROVAL: {
        "schemaVersion": 1,
        "request": "AAAA",
        "approver": "AAAA",
        "approvedAt": TIME,
    },
}


def paths(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    if here:
        yield here
    if isinstance(value, dict):
        for key, child in value.items():
            yield from paths(child, (*here, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from paths(child, (*here, index))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        document = document[step]
    return document


def test_every_kind_has_an_example() -> None:
    assert EXAMPLES.keys() == set(Kind)


@pytest.mark.parametrize("kind", list(Kind))
def test_the_schema_itself(kind: Kind) -> None:
    from jsonschema_rs import meta

    schema = documents.schema(kind)
    meta.validate(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:sealift:schema:{kind.stem}"
    name, version = kind.stem.rsplit(".", 1)
    assert kind.title == f"{name.replace('-', ' ')} {version}"


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every sub-schema that describes an object."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for child in schema.values():
            yield from objects(child)
    elif isinstance(schema, list):
        for child in schema:
            yield from objects(child)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in OPEN])
def test_no_object_takes_unknown_keys(kind: Kind) -> None:
    for found in objects(documents.schema(kind)):
        extra = found.get("additionalProperties")
        assert extra is False or (isinstance(extra, dict) and "maxProperties" in found)


@pytest.mark.parametrize("kind", list(Kind))
def test_round_trip(kind: Kind) -> None:
    data = documents.dump(kind, EXAMPLES[kind])
    assert documents.load(kind, data) == EXAMPLES[kind]
    assert documents.dump(kind, documents.load(kind, data)) == data


@pytest.mark.parametrize("kind", list(Kind))
def test_an_unknown_key_anywhere_is_refused(kind: Kind) -> None:
    for path in [(), *paths(EXAMPLES[kind])]:
        document = copy.deepcopy(EXAMPLES[kind])
        place = at(document, path)
        if not isinstance(place, dict) or path == ("detail",):
            continue
        place["unknown"] = 1
        if path in OPEN.get(kind, ()):
            documents.validate(kind, document)
        else:
            with pytest.raises(MalformedDocument):
                documents.validate(kind, document)


JUNK: list[Any] = [None, [], {}, "", "x\n", -1, 2**63, True, "\u0000", ["x"], {"x": 1}]


@pytest.mark.parametrize("kind", list(Kind))
def test_junk_in_any_place_never_passes_for_another_type(kind: Kind) -> None:
    """Each value replaced in turn: refused, or of the type that the schema takes there."""
    for path in paths(EXAMPLES[kind]):
        original = at(EXAMPLES[kind], path)
        for junk in JUNK:
            document = copy.deepcopy(EXAMPLES[kind])
            at(document, path[:-1])[path[-1]] = junk
            if type(junk) is type(original):
                continue  # may be fine, as an empty list of models is
            if path[-1] == "keep_alive" or path[0] == "detail":
                continue  # of several types by design
            with pytest.raises(MalformedDocument):
                documents.load(kind, strictjson.dumps(document))


@pytest.mark.parametrize("kind", list(Kind))
def test_every_required_key_is_required(kind: Kind) -> None:
    for key in documents.schema(kind).get("required", []):
        document = copy.deepcopy(EXAMPLES[kind])
        del document[key]
        with pytest.raises(MalformedDocument, match=key):
            documents.dump(kind, document)


@pytest.mark.parametrize("kind", list(Kind))
@given(data=st.data())
def test_cut_and_trailing_bytes(kind: Kind, data: st.DataObject) -> None:
    whole = documents.dump(kind, EXAMPLES[kind])
    cut = data.draw(st.integers(0, len(whole) - 1))
    for wrong in (whole[:cut], whole + b"}", whole + whole):
        with pytest.raises(MalformedDocument):
            documents.load(kind, wrong)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.MODEL_CONFIG])
def test_other_versions_are_refused(kind: Kind) -> None:
    """A ModelPack config has no version of its own."""
    ours = next((k for k in ("schemaVersion", "schema_version") if k in EXAMPLES[kind]), None)
    key = ours or VERSION_KEYS[kind]
    others = (EXAMPLES[kind][key] + 1, "1") if ours else ("1.7", EXAMPLES[kind][key] + "1")
    for version in (0, None, *others):
        with pytest.raises(MalformedDocument):
            documents.validate(kind, {**EXAMPLES[kind], key: version})


def test_too_large_is_refused_before_parsing() -> None:
    with pytest.raises(MalformedDocument, match="too large"):
        documents.load(Kind.AUDIT_EVENT, b" " * (Kind.AUDIT_EVENT.max_bytes + 1))


def test_what_fails_is_never_written() -> None:
    with pytest.raises(MalformedDocument, match="at: "):
        documents.dump(Kind.AUDIT_EVENT, {**EXAMPLES[Kind.AUDIT_EVENT], "at": "now"})


@pytest.mark.parametrize(
    "time",
    [
        "2030-01-01T00:00:00Z\n",
        "2030-13-01T00:00:00Z",
        "2030-02-30T00:00:00Z",
        "2030-01-01T25:00:00Z",
        "2030-01-01 00:00:00Z",
        "2030-01-01T00:00:00+01:00",
        "2030-01-01T00:00:00.5Z",
    ],
)
def test_times_have_one_form(time: str) -> None:
    with pytest.raises(MalformedDocument):
        documents.validate(Kind.AUDIT_EVENT, {**EXAMPLES[Kind.AUDIT_EVENT], "at": time})


@pytest.mark.parametrize("digest", [DIGEST + "\n", DIGEST.upper(), DIGEST[:-1], "md5:" + "0" * 32])
def test_digests_have_one_form(digest: str) -> None:
    document = copy.deepcopy(EXAMPLES[Kind.BUNDLE])
    document["contents"][0]["digest"] = digest
    with pytest.raises(MalformedDocument, match="contents/0/digest"):
        documents.validate(Kind.BUNDLE, document)


@pytest.mark.parametrize(
    "name", ["smollm2", "library/smollm2", "Library/x:1", "a/b/c:1", "../x:1", "library/x:1\n"]
)
def test_model_names_are_full(name: str) -> None:
    document = copy.deepcopy(EXAMPLES[Kind.BUNDLE])
    document["models"][0]["name"] = name
    with pytest.raises(MalformedDocument):
        documents.validate(Kind.BUNDLE, document)
