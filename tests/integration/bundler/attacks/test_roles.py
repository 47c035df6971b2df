"""Every role of the metadata under every attack, through ``verify`` and ``import``: one test each.

The site has imported a bundle at version 5 under root 2. The attacker comes next, with version 6; then
the publisher does, with version 6 too. The attack must be refused, change nothing but the evidence of
it, and be in nobody's way: the publisher's bundle must go in afterwards, as if nothing had been.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata

from bundler.importer import Wishes
from bundler.isolated import import_paths
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
)
from schemas.render import Output
from tests.support.bundle_simulator import Forgery, Member, digest, dump, forge, members, tar, twin
from tests.support.publisher_simulator import ACME, ADVISORIES, LIBRARY, Simulator, document, text
from tests.support.site import Site, check_refused, new_site, simulator

ROOT: Final = "root"
ROLES: Final = (ROOT, "timestamp", "snapshot", "targets", ADVISORIES, "bundle", LIBRARY)
TOP: Final = (ROOT, "timestamp", "snapshot", "targets")
PAST: Final = datetime(2026, 11, 2, tzinfo=UTC)
FOLDER: Final = "sealift/trust/"
Change = Callable[[bytes], bytes]
Stick = Callable[[bytes], Path]


def withdrawn() -> bytes:
    """A list that takes back something that nobody has."""
    entry = {
        "number": 1,
        "at": "2026-11-20T00:00:00Z",
        "action": "warn",
        "digests": [digest(b"something else")],
        "subject": "library/else:1",
        "reason": "an example",
    }
    return dump({"schemaVersion": 1, "entries": [entry]})


@dataclass(frozen=True)
class Scene:
    """A site that has seen version 5, and the publisher, who is at version 6."""

    site: Site
    publisher: Simulator

    def thief(self) -> Simulator:
        """Somebody with the publisher's keys; what they sign nobody else sees."""
        return twin(self.publisher)

    def good(self) -> bytes:
        return forge(self.thief(), sequence=6)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    publisher = simulator()
    home = tmp_path_factory.mktemp("scene") / "home"
    site = new_site(home, publisher)
    publisher.withdraw(withdrawn())
    publisher.rotate("timestamp")
    for signed in publisher.signed.values():
        signed.version = 5
    path = home.with_name("first.tar")
    path.write_bytes(forge(twin(publisher), sequence=5))
    take(site, path)
    publisher.bump()
    return Scene(site, publisher)


@pytest.fixture
def scene(seen: Scene, tmp_path: Path) -> Scene:
    return Scene(seen.site.copy(tmp_path / "home"), seen.publisher)


def take(site: Site, path: Path) -> list[str]:
    with Output(quiet=True).progress() as meter:
        import_paths(site.home, [path], Wishes(), meter)
    return site.models()


def attack(scene: Scene, stick: Stick, bundle: bytes, *wanted: type[SealiftError]) -> None:
    """Refused, for one of these reasons; then the good bundle goes in."""
    check_refused(scene.site, stick(bundle), *wanted)
    assert take(scene.site, stick(scene.good())) == ["library/tiny:1"]


def path_of(scene: Scene, role: str) -> str:
    """Where the role's file of version 6 lies; the root's has version 3."""
    if role == "timestamp":
        return f"{FOLDER}timestamp.json"
    return f"{FOLDER}{3 if role == ROOT else 6}.{role}.json"


def with_root(scene: Scene, edit: Callable[[Simulator], None] | None = None) -> Simulator:
    """A thief who publishes root 3, changed before it is signed by those who may."""
    thief = scene.thief()
    thief.rotate("snapshot", sign=False)
    if edit is not None:
        edit(thief)
    thief.sign_root()
    return thief


def sign_changed(scene: Scene, role: str, change: Change) -> bytes:
    """A file changed by the one who signs it and all that lists it."""

    def encode(metadata: Metadata[Any]) -> bytes:
        data = metadata.to_bytes()
        changed = change(data)
        assert changed != data
        return changed

    if role == ROOT:
        thief = with_root(scene)
        thief.roots[-1] = change(thief.roots[-1])
        return forge(thief, sequence=6)
    thief = scene.thief()
    thief.encode[role] = encode
    return forge(thief, sequence=6)


def on_the_stick(bundle: bytes, name: str, change: Callable[[Member], list[Member]]) -> bytes:
    """A member changed by somebody without keys."""
    found = members(bundle)
    assert name in [member.name for member in found]
    return tar([new for m in found for new in (change(m) if m.name == name else [m])])


def grow(thief: Simulator, role: str, threshold: int, *keys: Any) -> None:
    """More keys for a role; root 3 or the targets say so."""
    if role in TOP:
        thief.rotate("snapshot", sign=False)
        for key in keys:
            thief.root.add_key(key, role)
        thief.root.roles[role].threshold = threshold
        return
    targets = thief.signed["targets"]
    for key in keys:
        targets.add_key(key, role)
    targets.delegations.roles[role].threshold = threshold


def finish(thief: Simulator, role: str) -> bytes:
    if role in TOP:
        thief.sign_root()
    return forge(thief, sequence=6)


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_wrong_key(scene: Scene, stick: Stick, role: str) -> None:
    thief = scene.thief()
    thief.keys[role] = [CryptoSigner.generate_ecdsa()]
    if role == ROOT:
        thief.rotate("snapshot")
    attack(scene, stick, forge(thief, sequence=6), BadSignature)


@pytest.mark.parametrize("role", ROLES)
def test_key_of_another_role(scene: Scene, stick: Stick, role: str) -> None:
    thief = scene.thief()
    thief.keys[role] = thief.keys[ACME if role != ACME else LIBRARY]
    if role == ROOT:
        thief.rotate("snapshot")
    attack(scene, stick, forge(thief, sequence=6), BadSignature)


@pytest.mark.parametrize("role", ROLES)
def test_no_signature_at_all(scene: Scene, stick: Stick, role: str) -> None:
    def strip(data: bytes) -> bytes:
        return text({**document(data), "signatures": []})

    bundle = sign_changed(scene, role, strip)
    attack(scene, stick, bundle, BadSignature, MalformedDocument)


@pytest.mark.parametrize("role", ROLES)
def test_below_threshold(scene: Scene, stick: Stick, role: str) -> None:
    thief = scene.thief()
    grow(thief, role, 2, CryptoSigner.generate_ecdsa().public_key)
    attack(scene, stick, finish(thief, role), BadSignature)


@pytest.mark.parametrize("role", ROLES)
def test_one_signature_listed_twice(scene: Scene, stick: Stick, role: str) -> None:
    def twice(data: bytes) -> bytes:
        parsed = document(data)
        return text({**parsed, "signatures": parsed["signatures"] * 2})

    attack(scene, stick, sign_changed(scene, role, twice), MalformedDocument)


@pytest.mark.parametrize("role", ROLES)
def test_one_key_under_two_ids_counted_twice(scene: Scene, stick: Stick, role: str) -> None:
    thief = scene.thief()
    key = thief.keys[role][0]
    public = key.public_key
    alias = SSlibKey("0" * 64, public.keytype, public.scheme, dict(public.keyval))
    grow(thief, role, 2, alias)
    thief.keys[role] = [key, CryptoSigner(key._private_key, alias)]
    attack(scene, stick, finish(thief, role), MalformedDocument)


# -- time and versions -----------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_expired(scene: Scene, stick: Stick, role: str) -> None:
    if role == ROOT:
        thief = with_root(scene, lambda it: setattr(it.root, "expires", PAST))
    else:
        thief = scene.thief()
        thief.signed[role].expires = PAST
    attack(scene, stick, forge(thief, sequence=6), ExpiredMetadata)


@pytest.mark.parametrize("role", ROLES)
def test_rolled_back(scene: Scene, stick: Stick, role: str) -> None:
    thief = scene.thief()
    if role == ROOT:
        thief.roots.pop()
    else:
        thief.signed[role].version = 4
    attack(scene, stick, forge(thief, sequence=6), RollbackDetected, BadSignature)


@pytest.mark.parametrize("role", ROLES)
def test_fast_forwarded_by_somebody_without_keys(scene: Scene, stick: Stick, role: str) -> None:
    """So that the true files look old from now on."""
    far = 2_000_000_000

    def ahead(member: Member) -> list[Member]:
        parsed = document(member.data)
        parsed["signed"]["version"] = far
        name = member.name if role == "timestamp" else f"{FOLDER}{far}.{role}.json"
        return [Member.of(name, text(parsed))]

    thief = with_root(scene) if role == ROOT else scene.thief()
    bundle = on_the_stick(forge(thief, sequence=6), path_of(scene, role), ahead)
    attack(scene, stick, bundle, BadSignature, MalformedArchive)


@pytest.mark.parametrize("role", ROLES)
def test_mixed_with_another_set(scene: Scene, stick: Stick, role: str) -> None:
    """A file of the right name and version, rightly signed, that belongs to other files."""
    if role == ROOT:
        thief = scene.thief()
        thief.root = Metadata[Any].from_bytes(thief.roots.pop(0)).signed
        thief.roots.clear()
        thief.sign_root()
        thief.rotate("snapshot")
        other = {f"{FOLDER}2.root.json": thief.roots[-1]}
        path = f"{FOLDER}2.root.json"
    else:
        thief = scene.thief()
        thief.signed[role].unrecognized_fields["fork"] = "yes"
        other = {m.name: m.data for m in members(forge(thief, sequence=6))}
        path = path_of(scene, role)
    bundle = on_the_stick(scene.good(), path, lambda m: [m.with_data(other[path])])
    wanted = (BadSignature, ContentMismatch, OutsideClosure, MalformedArchive)
    attack(scene, stick, bundle, *wanted)


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_missing(scene: Scene, stick: Stick, role: str) -> None:
    path = f"{FOLDER}1.root.json" if role == ROOT else path_of(scene, role)
    bundle = on_the_stick(scene.good(), path, lambda _: [])
    attack(scene, stick, bundle, MalformedArchive)


@pytest.mark.parametrize("role", ROLES)
def test_oversized(scene: Scene, stick: Stick, role: str) -> None:
    most = {
        ROOT: limits.TUF_ROOT_BYTES,
        "timestamp": limits.TUF_TIMESTAMP_BYTES,
        "snapshot": limits.TUF_SNAPSHOT_BYTES,
    }.get(role, limits.TUF_TARGETS_BYTES)

    def pad(thief: Simulator) -> None:
        payload = thief.root if role == ROOT else thief.signed[role]
        payload.unrecognized_fields["padding"] = "x" * most

    if role == ROOT:
        thief = with_root(scene, pad)
    else:
        thief = scene.thief()
        pad(thief)
    attack(scene, stick, forge(thief, sequence=6), MalformedDocument, MalformedArchive)


@pytest.mark.parametrize(
    "name", ["06.{}.json", "6.{}.JSON", "6.{}.json ", "./6.{}.json", "6..{}.json", "+6.{}.json"]
)
@pytest.mark.parametrize("role", ["timestamp", "targets", ADVISORIES, "bundle", LIBRARY])
def test_name_in_another_spelling(scene: Scene, stick: Stick, role: str, name: str) -> None:
    found = FOLDER + name.format(role)
    bundle = on_the_stick(
        scene.good(), path_of(scene, role), lambda m: [m, Member.of(found, m.data)]
    )
    attack(scene, stick, bundle, MalformedArchive)


# -- documents -------------------------------------------------------------------------------------


def deep(depth: int) -> Change:
    nest = b"[" * depth + b"]" * depth
    return lambda data: data.replace(b'"expires"', b'"deep":' + nest + b',"expires"', 1)


def version(wanted: bytes) -> Change:
    def change(data: bytes) -> bytes:
        number = document(data)["signed"]["version"]
        old = b'"version":%d' % number
        head, _, tail = data.rpartition(old)
        return head + wanted.replace(b"N", b"%d" % number) + tail

    return change


DOCUMENTS: Final[dict[str, Change]] = {
    "deep JSON": deep(100),
    "very deep JSON": deep(5000),
    "duplicate keys": version(b'"version":N,"version":N'),
    "duplicate keys that differ": version(b'"version":99,"version":N'),
    "unknown field": lambda data: text({**document(data), "note": "nobody signed this"}),
    "unknown field in a signature": lambda data: data.replace(b'"sig":', b'"note":"x","sig":', 1),
    "version is a text": version(b'"version":"N"'),
    "version is a float": version(b'"version":N.0'),
    "version is negative": version(b'"version":-N'),
    "expires is a number": lambda data: _put(data, "expires", 4102444800),
    "payload is a list": lambda data: text({**document(data), "signed": []}),
    "type of another role": lambda data: _put(
        data, "_type", "snapshot" if document(data)["signed"]["_type"] == ROOT else ROOT
    ),
    "another spelling": lambda data: json.dumps(document(data), indent=1).encode(),
    "something behind it": lambda data: data + b"\n{}",
}


def _put(data: bytes, field: str, value: object) -> bytes:
    parsed = document(data)
    parsed["signed"][field] = value
    return text(parsed)


@pytest.mark.parametrize("flaw", DOCUMENTS)
@pytest.mark.parametrize("role", ROLES)
def test_document(scene: Scene, stick: Stick, role: str, flaw: str) -> None:
    bundle = sign_changed(scene, role, DOCUMENTS[flaw])
    attack(scene, stick, bundle, MalformedDocument, MalformedArchive)


# -- across roles ----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [ACME, "bundle", ADVISORIES])
def test_model_of_a_publisher_signed_by_another_role(scene: Scene, stick: Stick, role: str) -> None:
    bundle = forge(scene.thief(), Forgery("library/evil:1", role=role), sequence=6)
    attack(scene, stick, bundle, OutsideClosure)


@pytest.mark.parametrize("number", [1, 2])
def test_root_chain_with_a_gap(scene: Scene, stick: Stick, number: int) -> None:
    bundle = forge(with_root(scene), sequence=6)
    bundle = on_the_stick(bundle, f"{FOLDER}{number}.root.json", lambda _: [])
    attack(scene, stick, bundle, MalformedArchive, BadSignature, RollbackDetected)


def test_stolen_timestamp_key_alone_brings_nothing_in(scene: Scene, stick: Stick) -> None:
    """It can sign another timestamp; what that lists, others must have signed."""
    thief, stranger = scene.thief(), simulator()
    for role in ("snapshot", "targets", "bundle", LIBRARY):
        thief.keys[role] = stranger.keys[role]
    attack(scene, stick, forge(thief, sequence=6), BadSignature)


def test_stolen_online_keys_push_far_ahead_until_they_are_replaced(
    scene: Scene, stick: Stick
) -> None:
    """What such a thief can do, and what ends it: replaced keys, in one new root."""
    thief = scene.thief()
    for role in ("timestamp", "snapshot"):
        thief.signed[role].version = 1_000_000
    take(scene.site, stick(forge(thief, sequence=6)))
    check_refused(scene.site, stick(scene.good()), RollbackDetected)
    honest = scene.thief()
    honest.bump()
    honest.rotate("timestamp")
    honest.rotate("snapshot")
    assert take(scene.site, stick(forge(honest, sequence=7))) == ["library/tiny:1"]
    thief.bump()
    check_refused(scene.site, stick(forge(thief, sequence=8)), BadSignature, RollbackDetected)


def test_stolen_timestamp_key_cannot_set_the_clock_ahead(scene: Scene, stick: Stick) -> None:
    """A time of issue far ahead is no evidence: the floor stays where it was."""
    far = f"{datetime.now(UTC) + timedelta(days=3000):%Y-%m-%dT%H:%M:%SZ}"
    bundle = forge(scene.thief(), descriptor=lambda d: d.__setitem__("issuedAt", far), sequence=6)
    take(scene.site, stick(bundle))
    honest = scene.thief()
    honest.bump()
    assert take(scene.site, stick(forge(honest, sequence=7))) == ["library/tiny:1"]
