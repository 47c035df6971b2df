"""Attacks on what other tools check, by whoever holds the keys of the role ``bundle``.

That role decides what a bundle carries; the models themselves are signed with other keys. So a thief
of the bundling host can attach what they like to honest models, and must not get it past a site.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from securesystemslib.signer import CryptoSigner

from schemas.errors import (
    BadSignature,
    ContentMismatch,
    MalformedArchive,
    MalformedDocument,
    OutsideClosure,
    SealiftError,
    TruncatedBundle,
)
from tests.gguf_files import Pieces, string
from tests.support.attestation_simulator import (
    BOM_PREDICATE,
    CYCLONEDX,
    SIGSTORE,
    Attachment,
    all_of,
)
from tests.support.bundle_simulator import (
    CONFIG,
    Edit,
    Forgery,
    Member,
    describe,
    digest,
    dump,
    forge,
    members,
    tar,
    twin,
)
from tests.support.publisher_simulator import ACME, LIBRARY, Simulator
from tests.support.site import Site, check_refused, check_sound

Stick = Callable[[bytes], Path]
Json = dict[str, Any]
Make = Callable[[Simulator], Attachment]

STRANGER = CryptoSigner(generate_private_key(SECP256R1()))
OTHER = Forgery(
    name="library/other:1",
    file="other.gguf",
    weights=Pieces().with_value("general.name", string("Other")).build(),
)


def signed(kind: str, **changes: Any) -> Make:
    """By the publisher's own key."""
    return lambda simulator: Attachment(kind, simulator.keys[LIBRARY][0], **changes)


def by(role: str, kind: str = "cosign") -> Make:
    return lambda simulator: Attachment(kind, simulator.keys[role][0])


def fields(**values: object) -> Edit:
    return lambda document: document.update(values)


def without(*path: str) -> Edit:
    def edit(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document.pop(path[-1])

    return edit


def subject(value: str) -> Edit:
    return lambda statement: statement["subject"][0]["digest"].update(sha256=value)


def envelope(**values: object) -> Edit:
    return lambda bundle: bundle["dsseEnvelope"].update(values)


def signature(edit: Callable[[bytes], bytes]) -> Edit:
    """Changes the signature's bytes."""

    def change(bundle: Json) -> None:
        entry = bundle["dsseEnvelope"]["signatures"][0]
        entry["sig"] = base64.b64encode(edit(base64.b64decode(entry["sig"]))).decode()

    return change


def component(**values: object) -> Edit:
    return lambda bom: bom["metadata"]["component"].update(values)


def layers(edit: Callable[[list[Json]], object]) -> Edit:
    return lambda manifest: edit(manifest["layers"])


def second_signature(bundle: Json) -> None:
    signatures = bundle["dsseEnvelope"]["signatures"]
    signatures.append(signatures[0])


def other_payload(bundle: Json) -> None:
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    payload["subject"][0]["name"] = "library/better:1"
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()


ATTACKS: dict[str, tuple[Make, type[SealiftError]]] = {
    # who signed
    "signed-by-a-stranger": (lambda _: Attachment("cosign", STRANGER), BadSignature),
    "model-signature-by-a-stranger": (lambda _: Attachment("signing", STRANGER), BadSignature),
    "bom-signed-by-a-stranger": (lambda _: Attachment("signed-bom", STRANGER), BadSignature),
    "signed-by-another-publisher": (by(ACME), BadSignature),
    "signed-by-the-bundling-host": (by("bundle"), BadSignature),
    "signed-by-the-timestamp-key": (by("timestamp"), BadSignature),
    "signed-by-nobody": (lambda _: Attachment("cosign"), BadSignature),
    "hint-of-the-publisher-by-a-stranger": (
        lambda s: Attachment(
            "cosign",
            STRANGER,
            bundle=lambda b: b["verificationMaterial"].update(
                publicKey={"hint": _hint(s.keys[LIBRARY][0])}
            ),
        ),
        BadSignature,
    ),
    "signature-flipped": (
        signed("cosign", bundle=signature(lambda s: s[:-1] + bytes([s[-1] ^ 1]))),
        BadSignature,
    ),
    "signature-empty": (signed("cosign", bundle=signature(lambda _: b"")), MalformedDocument),
    "signature-with-trailing-bytes": (
        signed("cosign", bundle=signature(lambda s: s + b"\0")),
        BadSignature,
    ),
    "signature-of-zeros": (
        signed("cosign", bundle=signature(lambda _: bytes.fromhex("3006020100020100"))),
        BadSignature,
    ),
    "statement-changed-after-signing": (signed("cosign", bundle=other_payload), BadSignature),
    "two-signatures": (signed("cosign", bundle=second_signature), MalformedDocument),
    "no-signature": (signed("cosign", bundle=envelope(signatures=[])), MalformedDocument),
    # about what
    "cosign-of-another-model": (signed("cosign", about=OTHER), OutsideClosure),
    "model-signature-of-another-model": (signed("signing", about=OTHER), OutsideClosure),
    "signed-bom-of-another-model": (signed("signed-bom", about=OTHER), OutsideClosure),
    "bom-of-another-model": (signed("bom", about=OTHER), OutsideClosure),
    "bom-of-other-files": (signed("bom", statement=component(components=[])), MalformedDocument),
    "bom-without-files": (
        signed("bom", statement=without("metadata", "component", "components")),
        MalformedDocument,
    ),
    "bom-of-a-program": (signed("bom", statement=component(type="application")), MalformedDocument),
    "bom-of-another-specification": (
        signed("bom", statement=fields(specVersion="1.4")),
        MalformedDocument,
    ),
    "signed-bom-that-is-none": (
        signed("signed-bom", statement=fields(predicate={})),
        MalformedDocument,
    ),
    "statement-about-nothing": (signed("cosign", statement=fields(subject=[])), MalformedDocument),
    "statement-about-two": (
        signed("cosign", statement=lambda s: s["subject"].append(s["subject"][0])),
        MalformedDocument,
    ),
    "statement-with-a-digest-too-many": (
        signed("cosign", statement=lambda s: s["subject"][0]["digest"].update(sha512="0" * 128)),
        MalformedDocument,
    ),
    "statement-about-a-wrong-digest": (
        signed("cosign", statement=subject("0" * 64)),
        OutsideClosure,
    ),
    "model-signature-for-more-files": (
        signed(
            "signing",
            statement=lambda s: s["predicate"]["resources"].append(
                {"name": "more", "algorithm": "sha256", "digest": "0" * 64}
            ),
        ),
        OutsideClosure,
    ),
    "model-signature-for-no-files": (
        signed("signing", statement=lambda s: s["predicate"].update(resources=[])),
        OutsideClosure,
    ),
    "model-signature-of-shards": (
        signed(
            "signing", statement=lambda s: s["predicate"]["serialization"].update(method="shards")
        ),
        MalformedDocument,
    ),
    "annotated-as-something-else": (
        signed("cosign", manifest=lambda m: m["annotations"].update(_annotation(BOM_PREDICATE))),
        MalformedDocument,
    ),
    "not-annotated": (signed("cosign", manifest=without("annotations")), MalformedDocument),
    # which artifact
    "subject-of-another-model": (
        signed(
            "cosign",
            manifest=fields(
                subject=describe(
                    "application/vnd.oci.image.manifest.v1+json",
                    dump(OTHER.manifest_document()),
                )
            ),
        ),
        OutsideClosure,
    ),
    "subject-missing": (signed("cosign", manifest=without("subject")), OutsideClosure),
    "subject-of-another-size": (
        signed("cosign", manifest=lambda m: m["subject"].update(size=1)),
        OutsideClosure,
    ),
    "subject-of-another-media-type": (
        signed("cosign", manifest=lambda m: m["subject"].update(mediaType="text/plain")),
        OutsideClosure,
    ),
    "artifact-of-an-unknown-type": (
        signed("cosign", manifest=fields(artifactType="application/x-sh")),
        MalformedDocument,
    ),
    "artifact-without-a-type": (
        signed("cosign", manifest=without("artifactType")),
        MalformedDocument,
    ),
    "signature-passed-off-as-a-bom": (
        signed("cosign", manifest=fields(artifactType=CYCLONEDX)),
        MalformedDocument,
    ),
    "bom-passed-off-as-a-signature": (
        signed(
            "bom",
            manifest=lambda m: (
                m.update(artifactType=SIGSTORE),
                m["layers"][0].update(mediaType=SIGSTORE),
            ),
        ),
        MalformedDocument,
    ),
    "layer-of-another-type": (
        signed("cosign", manifest=layers(lambda found: found[0].update(mediaType="text/plain"))),
        MalformedDocument,
    ),
    "two-layers": (
        signed("cosign", manifest=layers(lambda found: found.append(describe(SIGSTORE, b"more")))),
        MalformedDocument,
    ),
    "no-layer": (signed("cosign", manifest=fields(layers=[])), MalformedDocument),
    "config-that-is-not-empty": (
        signed("cosign", manifest=fields(config=describe(CONFIG, b'{"a":1}'))),
        MalformedDocument,
    ),
    "layer-too-large": (
        signed("cosign", layer=lambda data: data.ljust(2**20 + 1)),
        MalformedDocument,
    ),
    "manifest-too-large": (
        signed("cosign", manifest=lambda m: m["annotations"].update(filler="x" * 2**16)),
        MalformedArchive,
    ),
    "an-index-instead": (
        signed("cosign", manifest=fields(manifests=[])),
        MalformedDocument,
    ),
    "descriptor-of-another-type": (
        signed("cosign", entry=fields(mediaType="application/vnd.oci.image.index.v1+json")),
        MalformedDocument,
    ),
    # what is in the layer
    "bundle-that-is-not-json": (signed("cosign", layer=lambda _: b"PK\3\4"), MalformedDocument),
    "bundle-of-another-version": (
        signed("cosign", bundle=fields(mediaType=SIGSTORE.replace("0.3", "0.1"))),
        MalformedDocument,
    ),
    "bundle-with-a-certificate": (
        signed(
            "cosign",
            bundle=lambda b: b["verificationMaterial"].update(certificate={"rawBytes": "AAAA"}),
        ),
        MalformedDocument,
    ),
    "bundle-with-duplicate-keys": (
        signed("cosign", layer=lambda data: data.replace(b"{", b'{"mediaType":"x",', 1)),
        MalformedDocument,
    ),
    "bundle-nested-deeply": (
        signed("cosign", layer=lambda _: b'{"mediaType":' + b"[" * 40 + b"]" * 40 + b"}"),
        MalformedDocument,
    ),
    "payload-of-another-type": (
        signed("cosign", bundle=envelope(payloadType="text/plain")),
        MalformedDocument,
    ),
    "payload-that-is-not-base64": (
        signed("cosign", bundle=envelope(payload="%%%%")),
        MalformedDocument,
    ),
    "payload-in-a-second-spelling": (
        signed(
            "cosign",
            bundle=lambda b: b["dsseEnvelope"].update(payload=b["dsseEnvelope"]["payload"] + "\n"),
        ),
        MalformedDocument,
    ),
    "bom-with-a-float": (
        signed("bom", layer=lambda data: data.replace(b'"version":1', b'"version":1.0')),
        MalformedDocument,
    ),
}


def _hint(key: CryptoSigner) -> str:
    return digest(str(key.public_key.keyval["public"]).encode()).removeprefix("sha256:")


def _annotation(kind: str) -> Json:
    return {"dev.sigstore.bundle.predicateType": kind}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_does_not_fit_is_refused(
    name: str, site: Site, publisher: Simulator, stick: Stick
) -> None:
    make, wanted = ATTACKS[name]
    simulator = twin(publisher)
    bundle = forge(simulator, Forgery(referrers=(make(simulator),)))
    check_refused(site, stick(bundle), wanted)


def test_what_fits_is_kept_and_found(
    site: Site, publisher: Simulator, stick: Stick, tmp_path: Path
) -> None:
    simulator = twin(publisher)
    bundle = forge(simulator, Forgery(referrers=all_of(simulator.keys[LIBRARY][0])))
    copy = site.copy(tmp_path / "copy")
    assert copy.bundle("import", stick(bundle), "--json").code == 0
    assert check_sound(copy.home) == ["library/tiny:1"]
    assert len(copy._rows("SELECT * FROM referrers")) == 4


def test_a_model_with_two_names_has_attestations_by_both_publishers(
    site: Site, publisher: Simulator, stick: Stick, tmp_path: Path
) -> None:
    simulator = twin(publisher)
    ours = Forgery(referrers=all_of(simulator.keys[LIBRARY][0])[1:3])
    theirs = replace(ours, name="acme/tiny:1", referrers=all_of(simulator.keys[ACME][0])[1:3])
    copy = site.copy(tmp_path / "copy")
    assert copy.bundle("import", stick(forge(simulator, ours, theirs))).code == 0
    assert len(copy._rows("SELECT * FROM referrers")) == 4
    # ... but neither may use the other's
    swapped = [replace(m, referrers=o.referrers) for m, o in ((ours, theirs), (theirs, ours))]
    check_refused(site, stick(forge(simulator, *swapped)), BadSignature)


TABLES: dict[str, tuple[Callable[[Json], object], type[SealiftError]]] = {
    "of-the-other-model": (
        lambda t: t["models"][1].update(referrers=t["models"][0]["referrers"]),
        OutsideClosure,
    ),
    "listed-twice": (
        lambda t: t["models"][0]["referrers"].append(t["models"][0]["referrers"][0]),
        MalformedDocument,
    ),
    "that-is-the-model": (
        lambda t: t["models"][0].update(referrers=[t["models"][0]["manifest"]]),
        MalformedDocument,
    ),
    "that-is-the-other-model": (
        lambda t: t["models"][0].update(referrers=[t["models"][1]["manifest"]]),
        MalformedDocument,
    ),
    "more-than-allowed": (
        lambda t: t["models"][0].update(referrers=t["models"][0]["referrers"] * 17),
        MalformedDocument,
    ),
    "listed-but-not-carried": (
        lambda t: t["contents"].remove(_entry(t, t["models"][0]["referrers"][0])),
        MalformedArchive,
    ),
    "carried-but-not-listed": (lambda t: t["models"][0].pop("referrers"), MalformedArchive),
    "required-of-the-far-side": (
        lambda t: (
            t["requires"].append({key: _layer(t)[key] for key in ("digest", "size")}),
            t["contents"].remove(_layer(t)),
        ),
        OutsideClosure,
    ),
    "none-at-all": (lambda t: t["models"][0].update(referrers=[]), MalformedDocument),
}


def _entry(table: Json, described: Json) -> Json:
    return next(e for e in table["contents"] if e["digest"] == described["digest"])


def _layer(table: Json) -> Json:
    """Of the first attestation: behind two manifests, two artifacts, two configs and the empty one."""
    found: Json = table["contents"][7]
    return found


@pytest.mark.parametrize("name", TABLES)
def test_descriptors_that_list_the_wrong_ones_are_refused(
    name: str, site: Site, publisher: Simulator, stick: Stick
) -> None:
    edit, wanted = TABLES[name]
    simulator = twin(publisher)
    attached = (Attachment("cosign", simulator.keys[LIBRARY][0]),)
    bundle = forge(
        simulator, Forgery(referrers=attached), replace(OTHER, referrers=attached), descriptor=edit
    )
    check_refused(site, stick(bundle), wanted)


BILLS: dict[str, tuple[Callable[[Json], object], type[SealiftError]]] = {
    "of-another-bundle": (
        fields(serialNumber="urn:uuid:3e671687-395b-41f5-a30f-a58921a69b79"),
        OutsideClosure,
    ),
    "without-a-model": (fields(components=[]), OutsideClosure),
    "with-another-model": (lambda b: b["components"][0].update(name="other"), OutsideClosure),
    "with-a-model-too-many": (
        lambda b: b["components"].append({**b["components"][0], "name": "more"}),
        OutsideClosure,
    ),
    "with-another-manifest": (
        lambda b: b["components"][0].update({"bom-ref": "library/tiny:1@sha256:" + "0" * 64}),
        OutsideClosure,
    ),
    "of-another-format": (fields(bomFormat="SPDX"), MalformedDocument),
}


@pytest.mark.parametrize("name", BILLS)
def test_bills_of_something_else_are_refused(
    name: str, site: Site, publisher: Simulator, stick: Stick
) -> None:
    edit, wanted = BILLS[name]
    check_refused(site, stick(with_bom(twin(publisher), edit)), wanted)


def test_a_bill_that_fits_is_accepted(
    site: Site, publisher: Simulator, stick: Stick, tmp_path: Path
) -> None:
    copy = site.copy(tmp_path / "copy")
    bundle = stick(with_bom(twin(publisher), lambda _: None))
    assert copy.bundle("import", bundle, "--quiet").code == 0


def test_a_swapped_bill_is_refused(site: Site, publisher: Simulator, stick: Stick) -> None:
    found = members(with_bom(twin(publisher), lambda _: None))
    swapped = [
        m.with_data(m.data.replace(b"tiny", b"fine")) if m.name.endswith("bom.cdx.json") else m
        for m in found
    ]
    check_refused(site, stick(tar(swapped)), ContentMismatch)


def test_a_missing_bill_is_refused(site: Site, publisher: Simulator, stick: Stick) -> None:
    found = members(with_bom(twin(publisher), lambda _: None))
    rest = [member for member in found if not member.name.endswith("bom.cdx.json")]
    check_refused(site, stick(tar(rest)), MalformedArchive, TruncatedBundle)


def with_bom(simulator: Simulator, edit: Callable[[Json], object]) -> bytes:
    """A bundle with a bill of materials, signed for as it is after the edit."""
    bills: list[bytes] = []

    def describe_bill(table: Json) -> None:
        number = table["id"]
        parts = (number[:8], number[8:12], number[12:16], number[16:20], number[20:])
        bill = {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": "urn:uuid:" + "-".join(parts),
            "version": 1,
            "metadata": {},
            "components": [
                {
                    "type": "machine-learning-model",
                    "bom-ref": "library/tiny:1@" + table["models"][0]["manifest"]["digest"],
                    "group": "library",
                    "name": "tiny",
                    "version": "1",
                }
            ],
        }
        edit(bill)
        bills.append(dump(bill))
        table["bom"] = {"digest": digest(bills[0]), "size": len(bills[0])}

    found = members(forge(simulator, descriptor=describe_bill))
    place = next(n for n, member in enumerate(found) if member.name == "index.json") + 1
    return tar([*found[:place], Member.of("sealift/bom.cdx.json", bills[0]), *found[place:]])
