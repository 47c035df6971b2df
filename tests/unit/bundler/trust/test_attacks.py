"""Attacks on the metadata of a bundle, one per test, named after the flaw.

The site has imported one good bundle before, unless a test says otherwise. Every refusal leaves the
good bundle acceptable, since verification changes nothing; that is checked with each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata, MetaFile, Targets

from bundler.trust.verifier import VerifiedTrust, verify_bundle_trust
from registry.digest import Digest
from registry.records import TrustState
from schemas import limits
from schemas.errors import (
    BadSignature,
    ContentMismatch,
    ExpiredMetadata,
    MalformedArchive,
    MalformedDocument,
    OutsideClosure,
    RollbackDetected,
    SealiftError,
    TrustMissing,
)
from tests.support.publisher_simulator import (
    ACME,
    ACME_MODEL,
    DELEGATED,
    DESCRIPTOR,
    LIBRARY,
    MODEL,
    NOW,
    ONLINE,
    YEAR,
    Simulator,
    document,
    resigned,
    text,
)


@dataclass
class Site:
    """An isolated site that has imported one good bundle."""

    publisher: Simulator
    good: dict[str, bytes]
    state: TrustState

    def verify(self, members: Mapping[str, bytes]) -> VerifiedTrust:
        return verify_bundle_trust(self.state, members, now=NOW, floor=NOW)

    def refuses(
        self, error: type[SealiftError], members: Mapping[str, bytes], match: str = "."
    ) -> None:
        with pytest.raises(error, match=match) as caught:
            self.verify(members)
        assert type(caught.value) is error
        assert "\n" not in str(caught.value)
        assert self.verify(self.good).new_state == self.state


@pytest.fixture
def site() -> Site:
    publisher = Simulator()
    for role in ONLINE:
        publisher.signed[role].version = 5
    good = publisher.issue()
    state = verify_bundle_trust(publisher.state(), good, now=NOW, floor=None).new_state
    publisher.bump()
    return Site(publisher, good, state)


# -- roots -----------------------------------------------------------------------------------------


def test_root_of_a_stranger(site: Site) -> None:
    site.refuses(TrustMissing, Simulator().issue(), "does not trust")


def test_stranger_grafted_behind_the_pinned_root(site: Site) -> None:
    stranger = Simulator()
    stranger.root.version = 2
    stranger.roots = [site.publisher.roots[0]]
    stranger.sign_root()
    site.refuses(BadSignature, stranger.issue())


def test_new_root_not_signed_by_the_old_keys(site: Site) -> None:
    site.publisher.rotate("root", sign=False)
    site.publisher.sign_root()
    site.refuses(BadSignature, site.publisher.issue(), "root v2")


def test_new_root_not_signed_by_its_own_keys(site: Site) -> None:
    old = site.publisher.keys["root"]
    site.publisher.rotate("root", sign=False)
    site.publisher.sign_root(*old)
    site.refuses(BadSignature, site.publisher.issue(), "too few")


def test_root_chain_with_a_gap(site: Site) -> None:
    site.publisher.rotate("timestamp")
    site.publisher.rotate("timestamp")
    members = site.publisher.issue()
    del members["2.root.json"]
    site.refuses(BadSignature, members)


def test_root_chain_without_its_beginning(site: Site) -> None:
    site.publisher.rotate("timestamp")
    members = site.publisher.issue()
    del members["1.root.json"]
    site.refuses(MalformedArchive, members, "1.root.json")


def test_root_chain_that_ends_before_the_trusted_root(site: Site) -> None:
    before = site.publisher.issue()
    site.publisher.rotate("timestamp")
    site.publisher.bump()
    state = site.verify(site.publisher.issue()).new_state
    with pytest.raises(RollbackDetected, match="v1, this site has v2"):
        verify_bundle_trust(state, before, now=NOW, floor=None)


def test_root_version_that_skips_one(site: Site) -> None:
    site.publisher.rotate("timestamp", sign=False)
    site.publisher.root.version = 3
    site.publisher.sign_root()
    site.refuses(MalformedArchive, site.publisher.issue(), "misnamed")


def test_two_different_roots_of_one_version(site: Site) -> None:
    forked = replace(site)
    site.publisher.rotate("timestamp")
    state = site.verify(site.publisher.issue()).new_state
    forked.publisher.roots.pop()
    forked.publisher.root.version = 1
    forked.publisher.rotate("timestamp")
    with pytest.raises(BadSignature, match="two different roots v2"):
        verify_bundle_trust(state, forked.publisher.issue(), now=NOW, floor=None)


def test_forged_root_before_the_pinned_one_is_not_remembered(site: Site) -> None:
    """Whoever got hold of a retired root key can rewrite what came before, but not what counts."""
    publisher = Simulator()
    retired = publisher.keys["root"]
    honest = publisher.roots[0]
    publisher.rotate("root")
    state = publisher.state(2)
    forged = Metadata[Any].from_bytes(honest)
    forged.signed.unrecognized_fields["forged"] = "yes"
    forged.sign(retired[0])
    good = publisher.issue()
    verified = verify_bundle_trust(
        state, {**good, "1.root.json": forged.to_bytes()}, now=NOW, floor=None
    )
    assert sorted(verified.new_state.roots) == [2]
    verify_bundle_trust(verified.new_state, good, now=NOW, floor=None)


def test_endless_root_rotations(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TUF_ROOT_ROTATIONS", 3)
    for _ in range(4):
        site.publisher.rotate("timestamp")
    site.refuses(MalformedArchive, site.publisher.issue(), "too many root versions")


# -- keys and thresholds -----------------------------------------------------------------------------


@pytest.mark.parametrize("role", ONLINE)
def test_wrong_key(site: Site, role: str) -> None:
    site.publisher.keys[role] = [CryptoSigner.generate_ecdsa()]
    site.refuses(BadSignature, site.publisher.issue(), f"{role} v6")


@pytest.mark.parametrize("role", ONLINE)
def test_key_of_another_role(site: Site, role: str) -> None:
    other = "timestamp" if role != "timestamp" else "snapshot"
    site.publisher.keys[role] = site.publisher.keys[other]
    site.refuses(BadSignature, site.publisher.issue(), f"{role} v6")


@pytest.mark.parametrize("role", ONLINE)
def test_unsigned(site: Site, role: str) -> None:
    site.publisher.keys[role] = []
    site.refuses(BadSignature, site.publisher.issue(), "too few")


@pytest.mark.parametrize("role", ONLINE)
def test_stray_signature_beside_a_good_one(site: Site, role: str) -> None:
    site.publisher.keys[role].append(CryptoSigner.generate_ecdsa())
    site.refuses(BadSignature, site.publisher.issue(), "may not sign")


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_below_threshold(site: Site, role: str) -> None:
    site.publisher.set_threshold(role, 2, 3)
    del site.publisher.keys[role][1:]
    site.refuses(BadSignature, site.publisher.issue(), "1 of 2")


def test_root_below_threshold(site: Site) -> None:
    site.publisher.set_threshold("root", 2, 3)
    site.publisher.rotate("timestamp", sign=False)
    site.publisher.sign_root(site.publisher.keys["root"][0])
    site.refuses(BadSignature, site.publisher.issue(), "1 of 2")


def test_broken_signature_beside_enough_good_ones(site: Site) -> None:
    site.publisher.set_threshold("timestamp", 1, 2)

    def break_second(metadata: Metadata[Any]) -> bytes:
        last = list(metadata.signatures.values())[-1]
        last.signature = next(iter(metadata.signatures.values())).signature
        return metadata.to_bytes()

    site.publisher.encode["timestamp"] = break_second
    site.refuses(BadSignature, site.publisher.issue(), "wrong signature")


def test_one_signature_listed_twice(site: Site) -> None:
    site.publisher.set_threshold("timestamp", 2, 2)
    del site.publisher.keys["timestamp"][1:]

    def twice(metadata: Metadata[Any]) -> bytes:
        parsed = document(metadata.to_bytes())
        parsed["signatures"] *= 2
        return text(parsed)

    site.publisher.encode["timestamp"] = twice
    site.refuses(MalformedDocument, site.publisher.issue(), "Multiple signatures")


def test_one_key_under_two_ids_counted_twice(site: Site) -> None:
    """python-tuf counts key ids; a role that lists one key under two of them needs one signer."""
    key = site.publisher.keys["timestamp"][0]
    twin = SSlibKey("0" * 64, *_parts(key.public_key))
    site.publisher.root.add_key(twin, "timestamp")
    site.publisher.root.roles["timestamp"].threshold = 2
    site.publisher.root.version = 2
    site.publisher.sign_root()
    site.publisher.keys["timestamp"] = [key, CryptoSigner(key._private_key, twin)]
    site.refuses(MalformedDocument, site.publisher.issue(), "not what its id says")


def test_one_key_in_two_spellings_counted_twice(site: Site) -> None:
    key = site.publisher.keys["timestamp"][0]
    spelt = key.public_key.keyval["public"].replace("\n", "\r\n")
    twin = SSlibKey("1" * 64, "ecdsa", "ecdsa-sha2-nistp256", {"public": spelt})
    site.publisher.root.add_key(twin, "timestamp")
    site.publisher.root.version = 2
    site.publisher.sign_root()
    site.refuses(MalformedDocument, site.publisher.issue(), "not what its id says")


def test_key_that_is_none(site: Site) -> None:
    for public in ("", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "é"):
        root = document(site.publisher.root_bytes)
        keyid = site.publisher.keys["timestamp"][0].public_key.keyid
        root["signed"]["keys"][keyid]["keyval"]["public"] = public
        site.refuses(MalformedDocument, {**site.publisher.issue(), "1.root.json": text(root)})


def test_threshold_that_no_set_of_keys_meets(site: Site) -> None:
    site.publisher.root.roles["timestamp"].threshold = 2
    site.publisher.root.version = 2
    site.publisher.sign_root()
    site.refuses(MalformedDocument, site.publisher.issue(), "more signatures than")


def test_role_that_names_a_key_nobody_holds(site: Site) -> None:
    site.publisher.root.roles["timestamp"].keyids.append("2" * 64)
    site.publisher.root.version = 2
    site.publisher.sign_root()
    site.refuses(MalformedDocument, site.publisher.issue(), "does not hold")


def _parts(key: SSlibKey) -> tuple[str, str, dict[str, Any]]:
    return key.keytype, key.scheme, dict(key.keyval)


# -- time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ONLINE)
def test_expired(site: Site, role: str) -> None:
    site.publisher.signed[role].expires = NOW
    site.refuses(ExpiredMetadata, site.publisher.issue(), f"{role} metadata .v6. expired on 2026")


def test_expired_newest_root(site: Site) -> None:
    site.publisher.root.expires = NOW
    site.publisher.rotate("timestamp")
    site.refuses(ExpiredMetadata, site.publisher.issue(), "root metadata")


def test_freeze_by_setting_the_clock_back(site: Site) -> None:
    """The bundle has expired; the clock says it has not, the floor knows better."""
    for role in ONLINE:
        site.publisher.signed[role].expires = NOW
    with pytest.raises(ExpiredMetadata, match="which is behind"):
        verify_bundle_trust(
            site.state, site.publisher.issue(), now=NOW - timedelta(days=2), floor=NOW
        )


def test_freeze_with_the_very_bundle_that_was_imported(site: Site) -> None:
    with pytest.raises(ExpiredMetadata):
        verify_bundle_trust(site.state, site.good, now=NOW + YEAR, floor=NOW)


# -- rollback ------------------------------------------------------------------------------------------


def test_rollback_to_an_older_bundle(site: Site) -> None:
    for role in ONLINE:
        site.publisher.signed[role].version = 4
    site.refuses(RollbackDetected, site.publisher.issue(), "timestamp is v4, this site has v5")


def test_rollback_to_an_older_bundle_that_has_expired(site: Site) -> None:
    for role in ONLINE:
        site.publisher.signed[role].version = 4
        site.publisher.signed[role].expires = NOW - YEAR
    site.refuses(RollbackDetected, site.publisher.issue())


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", *DELEGATED])
def test_rollback_of_one_role(site: Site, role: str) -> None:
    site.publisher.signed[role].version = 4
    site.refuses(RollbackDetected, site.publisher.issue(), f"{role} is v4, this site has v5")


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", *DELEGATED])
def test_two_different_files_of_one_version(site: Site, role: str) -> None:
    site.publisher.signed[role].version = 5
    site.publisher.signed[role].unrecognized_fields["fork"] = "yes"
    members = site.publisher.issue()
    if role in ("timestamp", "snapshot"):
        site.refuses(BadSignature, members, f"two different files {role} v5")
    else:  # a new snapshot says so, and its signer may: TUF knows of versions going up only
        site.verify(members)


def test_role_that_disappears(site: Site) -> None:
    delegations = site.publisher.signed["targets"].delegations
    del delegations.roles[ACME]
    del delegations.keys[site.publisher.keys[ACME][0].public_key.keyid]
    members = site.publisher.issue()
    del members[f"6.{ACME}.json"]
    snapshot = site.publisher.signed["snapshot"]
    del snapshot.meta[f"{ACME}.json"]
    members = resigned(members, site.publisher, "snapshot")
    timestamp = site.publisher.signed["timestamp"]
    timestamp.snapshot_meta = MetaFile.from_data(6, members["6.snapshot.json"], ["sha256"])
    members = resigned(members, site.publisher, "timestamp")
    site.refuses(RollbackDetected, members, f"no {ACME}")


# -- sets that do not belong together --------------------------------------------------------------------


@pytest.mark.parametrize("role", ["snapshot", "targets", *DELEGATED])
def test_mix_and_match(site: Site, role: str) -> None:
    """A file of the right name and version, rightly signed, out of another set."""
    ours = site.publisher.issue()
    site.publisher.signed[role].unrecognized_fields["fork"] = "yes"
    theirs = site.publisher.issue()
    name = f"6.{role}.json"
    site.refuses(ContentMismatch, {**ours, name: theirs[name]}, f"{role} metadata is not the file")


@pytest.mark.parametrize("role", ["snapshot", "targets", *DELEGATED])
def test_older_file_under_a_new_name(site: Site, role: str) -> None:
    members = site.publisher.issue()
    members[f"6.{role}.json"] = site.good[f"5.{role}.json"]
    site.refuses(ContentMismatch, members)


def test_timestamp_of_one_set_over_files_of_another(site: Site) -> None:
    members = site.publisher.issue()
    members["timestamp.json"] = site.good["timestamp.json"]
    site.refuses(MalformedArchive, members, "5.snapshot.json")


@pytest.mark.parametrize("role", ["targets", *DELEGATED])
def test_snapshot_lists_another_version_than_the_file_has(site: Site, role: str) -> None:
    members = site.publisher.issue()
    meta = site.publisher.signed["snapshot"].meta[f"{role}.json"]
    meta.version = 7
    members[f"7.{role}.json"] = members.pop(f"6.{role}.json")
    members = resigned(members, site.publisher, "snapshot")
    site.publisher.signed["timestamp"].snapshot_meta = MetaFile.from_data(
        6, members["6.snapshot.json"], ["sha256"]
    )
    members = resigned(members, site.publisher, "timestamp")
    site.refuses(MalformedArchive, members, "misnamed")


@pytest.mark.parametrize("field", ["length", "hashes"])
@pytest.mark.parametrize("role", ["snapshot", "timestamp"])
def test_listing_without_length_or_hash(site: Site, role: str, field: str) -> None:
    """TUF lets them out; then a file of the right version could be any file."""

    def without(metadata: Metadata[Any]) -> bytes:
        meta = metadata.signed.snapshot_meta if role == "timestamp" else metadata.signed.meta
        entry = meta if role == "timestamp" else meta[f"{LIBRARY}.json"]
        setattr(entry, field, None)
        metadata.sign(site.publisher.keys[role][0])
        return metadata.to_bytes()

    site.publisher.encode[role] = without
    site.refuses(MalformedDocument, site.publisher.issue(), field)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", *DELEGATED])
def test_missing_member(site: Site, role: str) -> None:
    members = site.publisher.issue()
    name = "timestamp.json" if role == "timestamp" else f"6.{role}.json"
    del members[name]
    site.refuses(MalformedArchive, members, f"there is no {name}")


@pytest.mark.parametrize(
    "name", ["7.targets.json", "6.evil.json", "3.root.json", "1.publisher-zz.json"]
)
def test_extra_member(site: Site, name: str) -> None:
    members = site.publisher.issue()
    site.refuses(MalformedArchive, {**members, name: members["6.targets.json"]}, "a file too many")


@pytest.mark.parametrize(
    "name",
    [
        "root.json",
        "1.timestamp.json",
        "0.targets.json",
        "01.targets.json",
        "6.Targets.json",
        "../6.targets.json",
        "6./etc/passwd.json",
        "6.targets.json\n",
        "6.targets.jsom",
        "6.a..b.json",
        "٦.targets.json",
        "99999999999.targets.json",
        "6." + "a" * 400 + ".json",
        "",
    ],
)
def test_member_of_no_known_name(site: Site, name: str) -> None:
    site.refuses(MalformedArchive, {**site.publisher.issue(), name: b"{}"}, "no known name")


def test_too_many_members(site: Site) -> None:
    extra = {f"{n}.x.json": b"" for n in range(1, limits.TRUST_MEMBERS + 1)}
    site.refuses(MalformedArchive, {**site.publisher.issue(), **extra}, "too many files")


def test_too_many_bytes(site: Site) -> None:
    extra = {"9.x.json": bytes(limits.TRUST_TOTAL_BYTES)}
    site.refuses(MalformedArchive, {**site.publisher.issue(), **extra}, "too large")


@pytest.mark.parametrize(
    ("role", "size"), [("timestamp", 16_384), ("snapshot", 2_000_000), (LIBRARY, 5_000_000)]
)
def test_oversized_member(site: Site, role: str, size: int) -> None:
    site.publisher.signed[role].unrecognized_fields["padding"] = "x" * size
    site.refuses(MalformedDocument, site.publisher.issue(), "too large")


# -- spelling ------------------------------------------------------------------------------------------


def _rewrite(change: Callable[[bytes], bytes]) -> Callable[[Metadata[Any]], bytes]:
    def encode(metadata: Metadata[Any]) -> bytes:
        data = metadata.to_bytes()
        changed = change(data)
        assert changed != data
        return changed

    return encode


SPELLINGS: dict[str, Callable[[bytes], bytes]] = {
    "space": lambda data: data.replace(b'":', b'": ', 1),
    "trailing newline": lambda data: data + b"\n",
    "leading space": lambda data: b" " + data,
    "byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "indentation": lambda data: json.dumps(json.loads(data), indent=1, sort_keys=True).encode(),
    "key order": lambda data: json.dumps(
        dict(reversed(json.loads(data).items())), separators=(",", ":")
    ).encode(),
    "escaped letter": lambda data: data.replace(b'"expires"', b'"\\u0065xpires"', 1),
    "duplicate key": lambda data: data.replace(b'"version":6', b'"version":6,"version":6'),
    "duplicate key, other value": lambda data: data.replace(
        b'"version":6', b'"version":9,"version":6'
    ),
    "upper-case signature": lambda data: _upper(data, "sig"),
    "upper-case key id": lambda data: _upper(data, "keyid"),
    "space in signature": lambda data: data.replace(b'"sig":"30', b'"sig":"30 '),
    "float version": lambda data: data.replace(b'"version":6', b'"version":6.0'),
    "exponent version": lambda data: data.replace(b'"version":6', b'"version":6e0'),
    "text version": lambda data: data.replace(b'"version":6', b'"version":"6"'),
    "true version": lambda data: data.replace(b'"version":6', b'"version":true'),
    "null version": lambda data: data.replace(b'"version":6', b'"version":null'),
    "huge version": lambda data: data.replace(b'"version":6', b'"version":' + b"9" * 5000),
    "not a number": lambda data: data.replace(b'"version":6', b'"version":NaN'),
    "short year": lambda data: data.replace(b'"expires":"2027-', b'"expires":"27-'),
    "no such day": lambda data: data.replace(b"-12-01T", b"-02-30T"),
    "other time zone": lambda data: data.replace(b':00Z"', b':00+00:00"'),
    "other specification": lambda data: data.replace(b'"1.0.31"', b'"2.0.0"'),
    "unsigned field": lambda data: text({**json.loads(data), "note": "not signed"}),
    "unsigned field in a signature": lambda data: data.replace(b'"sig":', b'"note":"x","sig":'),
    "no signed part": lambda data: text({"signatures": json.loads(data)["signatures"]}),
    "signatures as an object": lambda data: text({**json.loads(data), "signatures": {}}),
    "an array": lambda data: b"[" + data + b"]",
    "empty": lambda data: data[:0],
    "half": lambda data: data[: len(data) // 2],
    "twice": lambda data: data + data,
    "no text": lambda data: b"\xff" + data[1:],
    "half a surrogate": lambda data: data.replace(b'"expires"', b'"\\ud800":1,"expires"'),
    "deep nesting": lambda data: data.replace(
        b'"expires"', b'"deep":' + b"[" * 100 + b"]" * 100 + b',"expires"'
    ),
    "very deep nesting": lambda data: data.replace(
        b'"expires"', b'"deep":' + b"[" * 7000 + b"]" * 7000 + b',"expires"'
    ),
}


def _upper(data: bytes, field: str) -> bytes:
    parsed = json.loads(data)
    parsed["signatures"][0][field] = parsed["signatures"][0][field].upper()
    return text(parsed)


@pytest.mark.parametrize("flaw", SPELLINGS)
@pytest.mark.parametrize("role", ["timestamp", LIBRARY])
def test_spelling(site: Site, role: str, flaw: str) -> None:
    """Signed by nobody where the payload changes; still a matter of form before it is one of trust."""
    site.publisher.encode[role] = _rewrite(SPELLINGS[flaw])
    site.refuses(MalformedDocument, site.publisher.issue())


def test_unsigned_listing_in_the_timestamp(site: Site) -> None:
    """python-tuf drops what it does not know there before it checks the signature."""

    def add(metadata: Metadata[Any]) -> bytes:
        parsed = document(metadata.to_bytes())
        parsed["signed"]["meta"]["evil.json"] = parsed["signed"]["meta"]["snapshot.json"]
        return text(parsed)

    site.publisher.encode["timestamp"] = add
    site.refuses(MalformedDocument, site.publisher.issue())


def test_role_that_writes_another_roles_type(site: Site) -> None:
    members = site.publisher.issue()
    site.refuses(MalformedDocument, {**members, "timestamp.json": members["6.snapshot.json"]})


# -- targets -------------------------------------------------------------------------------------------


def test_target_of_another_namespace(site: Site) -> None:
    site.publisher.add_target(ACME, "models/library/evil/1/manifest.json", b"evil")
    verified = site.verify(site.publisher.issue())
    with pytest.raises(OutsideClosure):
        verified.target("models/library/evil/1/manifest.json")


def test_target_of_another_namespace_that_its_owner_signed_too(site: Site) -> None:
    site.publisher.add_target(ACME, MODEL, b"evil")
    target = site.verify(site.publisher.issue()).target(MODEL)
    assert (target.role, target.digest) == (LIBRARY, Digest.of(b"the manifest"))


def test_descriptor_signed_by_a_publisher(site: Site) -> None:
    site.publisher.add_target(LIBRARY, DESCRIPTOR, b"evil")
    assert site.verify(site.publisher.issue()).target(DESCRIPTOR).role == "bundle"


def test_model_signed_by_the_bundling_host(site: Site) -> None:
    site.publisher.add_target("bundle", "models/library/evil/1/manifest.json", b"evil")
    with pytest.raises(OutsideClosure):
        site.verify(site.publisher.issue()).target("models/library/evil/1/manifest.json")


@pytest.mark.parametrize(
    "path", ["models/acme/tiny/1/2/manifest.json", "models/acme/manifest.json", "models/acme/x/y/z"]
)
def test_target_of_another_depth(site: Site, path: str) -> None:
    site.publisher.add_target(ACME, path, b"x")
    with pytest.raises(OutsideClosure):
        site.verify(site.publisher.issue()).target(path)


@pytest.mark.parametrize(
    "path",
    [
        "models/acme/../evil/manifest.json",
        "models/acme/x/./manifest.json",
        "models/acme//1/manifest.json",
        "/models/acme/x/1/manifest.json",
        "models/acme/X/1/manifest.json",
        "models/acme/x/1/manifest.json\n",
        "models/acme/x/1%2f/manifest.json",
        "models/acme/\u0455/1/manifest.json",  # Cyrillic
        "models\\acme\\x\\1\\manifest.json",
        "models/acme/" + "x" * 600 + "/1/manifest.json",
    ],
)
def test_target_name_outside_the_grammar(site: Site, path: str) -> None:
    site.publisher.add_target(ACME, path, b"x")
    site.refuses(MalformedDocument, site.publisher.issue(), "schema")


@pytest.mark.parametrize(
    "custom",
    [
        {"a": [1]},
        {"a": {}},
        {"a": None},
        {"a": True},
        {"a b": 1},
        {"a": "x" * 2000},
        dict.fromkeys((f"k{n}" for n in range(100)), 1),
    ],
)
def test_custom_field_that_is_no_text_or_integer(site: Site, custom: dict[str, object]) -> None:
    site.publisher.add_target(ACME, ACME_MODEL, b"x", custom)
    site.refuses(MalformedDocument, site.publisher.issue(), "schema")


def test_target_without_a_sha256(site: Site) -> None:
    site.publisher.signed[ACME].targets[ACME_MODEL].hashes = {"md5": "0" * 32}
    site.refuses(MalformedDocument, site.publisher.issue(), "schema")


@pytest.mark.parametrize("pattern", ["**", "models/[a-z]*", "models/?", "../*", "/models/*", "A/*"])
def test_delegated_path_outside_the_grammar(site: Site, pattern: str) -> None:
    site.publisher.signed["targets"].delegations.roles[ACME].paths = [pattern]
    site.refuses(MalformedDocument, site.publisher.issue(), "schema")


@pytest.mark.parametrize("name", ["Publisher", "a/b", "..", "a..b", "root", "targets", ""])
def test_delegated_role_name_outside_the_grammar(site: Site, name: str) -> None:
    site.publisher.signed["targets"].delegations.roles[ACME].name = name
    site.refuses(MalformedDocument, site.publisher.issue())


def test_delegation_by_hash_prefix(site: Site) -> None:
    role = site.publisher.signed["targets"].delegations.roles[ACME]
    role.paths, role.path_hash_prefixes = None, [""]
    site.refuses(MalformedDocument, site.publisher.issue(), "schema")


def test_publisher_that_delegates_to_itself(site: Site) -> None:
    delegations = site.publisher.signed["targets"].delegations
    site.publisher.signed[ACME].delegations = delegations
    site.refuses(MalformedDocument, site.publisher.issue(), "two roles delegate to")


def test_delegated_role_that_the_snapshot_does_not_list(site: Site) -> None:
    members = site.publisher.issue()
    del site.publisher.signed["snapshot"].meta[f"{ACME}.json"]
    del members[f"6.{ACME}.json"]
    members = resigned(members, site.publisher, "snapshot")
    site.publisher.signed["timestamp"].snapshot_meta = MetaFile.from_data(
        6, members["6.snapshot.json"], ["sha256"]
    )
    members = resigned(members, site.publisher, "timestamp")
    site.refuses(MalformedArchive, members, "does not list")


def test_role_in_the_snapshot_that_nobody_delegates_to(site: Site) -> None:
    data = Metadata(Targets(expires=NOW + YEAR)).to_bytes()
    members = site.publisher.issue()
    members["1.orphan.json"] = data
    site.publisher.signed["snapshot"].meta["orphan.json"] = MetaFile.from_data(1, data, ["sha256"])
    members = resigned(members, site.publisher, "snapshot")
    site.publisher.signed["timestamp"].snapshot_meta = MetaFile.from_data(
        6, members["6.snapshot.json"], ["sha256"]
    )
    members = resigned(members, site.publisher, "timestamp")
    site.refuses(MalformedArchive, members)
