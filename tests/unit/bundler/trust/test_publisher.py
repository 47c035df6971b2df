"""The publisher's folder: what it signs, what a crash leaves, and that the far side believes it."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from bundler.trust import keys
from bundler.trust.publisher import Publisher, SignedModel, TrustMetadata, manifest_custom
from bundler.trust.staleness import Allowance
from bundler.trust.verifier import pin_root, verify_bundle_trust
from registry import oci
from registry.digest import Digest
from registry.records import TrustState
from registry.reference import Reference
from schemas import limits
from schemas.errors import (
    AlreadyExists,
    EnvironmentFault,
    ExpiredMetadata,
    InvalidName,
    KeyUnavailable,
    MalformedDocument,
    NotFound,
    StorageFailure,
    StoreBusy,
    StoreDamaged,
    TrustError,
    UsageError,
)
from tests.support.crashing import FORKS, crashes
from tests.support.publisher_simulator import NOW, YEAR

PASSPHRASE = b"correct horse"
ROUNDS = 1000
MODEL = "library/smollm2:135m"


def init(folder: Path, namespaces: tuple[str, ...] = ("library",)) -> Publisher:
    return Publisher.init(
        folder,
        name="Test",
        namespaces=namespaces,
        passphrase=PASSPHRASE,
        now=NOW,
        kdf_rounds=ROUNDS,
    )


def model(name: str = MODEL, weight: bytes = b"weight", licence: str = "MIT") -> SignedModel:
    manifest = oci.Manifest(
        oci.Descriptor.for_bytes(oci.MODEL_CONFIG, b"{}"),
        (oci.Descriptor.for_bytes(oci.WEIGHT_RAW, weight),),
        oci.MODEL_ARTIFACT,
    )
    return SignedModel(Reference.parse(name), manifest.to_bytes(), licence)


def publish(publisher: Publisher, *models: SignedModel, now: datetime = NOW) -> TrustMetadata:
    return publisher.publish(models, lambda n: b'{"n":%d}' % n, PASSPHRASE, now)


def site(publisher: Publisher) -> TrustState:
    return pin_root(publisher.root_bytes, publisher.fingerprint).trust_state("test")


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return init(tmp_path / "publisher")


@pytest.mark.parametrize("key_type", keys.KEY_TYPES)
def test_what_it_signs_is_believed(tmp_path: Path, key_type: str) -> None:
    publisher = Publisher.init(
        tmp_path / "home" / "publisher",
        name="Tëst",
        namespaces=("library", "acme"),
        passphrase=PASSPHRASE,
        key_type=key_type,
        now=NOW,
        kdf_rounds=ROUNDS,
    )
    signed = publish(publisher, model(), model("acme/tiny:1"))
    verified = verify_bundle_trust(site(publisher), dict(signed.members), now=NOW, floor=None)
    target = verified.target("models/library/smollm2/135m/manifest.json")
    assert target.role == "publisher-library"
    assert target.digest == Digest.of(model().manifest)
    assert target.custom == {
        "mediaType": oci.IMAGE_MANIFEST,
        "artifactType": oci.MODEL_ARTIFACT,
        "blob_count": 2,
        "closure_bytes": len(model().manifest) + 8,
        "licence": "MIT",
        "seq": 1,
    }
    assert verified.target("models/acme/tiny/1/manifest.json").role == "publisher-acme"
    assert verified.target("bundle/bundle.json").digest == Digest.of(signed.descriptor)
    assert verified.versions == signed.versions
    assert min(verified.expires.values()) == signed.expires
    assert (publisher.name, publisher.namespaces) == ("Tëst", ("library", "acme"))


def test_members_in_order(publisher: Publisher) -> None:
    signed = publish(publisher, model())
    assert [name for name, _ in signed.members] == [
        "1.root.json",
        "timestamp.json",
        "1.snapshot.json",
        "1.targets.json",
        "1.advisories.json",
        "1.bundle.json",
        "2.publisher-library.json",
    ]
    assert (signed.sequence, signed.descriptor) == (1, b'{"n":1}')


def test_each_bundle_follows_the_one_before(publisher: Publisher) -> None:
    state = site(publisher)
    for n in range(1, 4):
        signed = publish(publisher, model(f"library/m:{n}"))
        verified = verify_bundle_trust(state, dict(signed.members), now=NOW, floor=None)
        state = verified.new_state
        assert signed.sequence == n
        for earlier in range(1, n + 1):  # entries never disappear
            verified.target(f"models/library/m/{earlier}/manifest.json")
    assert Publisher.open(publisher.folder).sequence == 3


def test_same_model_again_is_not_signed_again(publisher: Publisher) -> None:
    publish(publisher, model())
    again = publish(publisher, model())
    assert again.versions["publisher-library"] == 2
    changed = publish(publisher, model(weight=b"other"))
    assert changed.versions["publisher-library"] == 3
    relicensed = publish(publisher, model(weight=b"other", licence="Apache-2.0"))
    assert relicensed.versions["publisher-library"] == 4


def test_bundle_without_models(publisher: Publisher) -> None:
    signed = publish(publisher)
    verify_bundle_trust(site(publisher), dict(signed.members), now=NOW, floor=None)


def test_namespace_added_later(publisher: Publisher) -> None:
    state = site(publisher)
    with pytest.raises(NotFound, match="bundle keys add-namespace acme"):
        publish(publisher, model("acme/tiny:1"))
    publisher.add_namespace("acme", PASSPHRASE, now=NOW, kdf_rounds=ROUNDS)
    with pytest.raises(AlreadyExists):
        publisher.add_namespace("acme", PASSPHRASE, now=NOW, kdf_rounds=ROUNDS)
    signed = publish(publisher, model("acme/tiny:1"))
    verified = verify_bundle_trust(state, dict(signed.members), now=NOW, floor=None)
    assert verified.target("models/acme/tiny/1/manifest.json").role == "publisher-acme"


def test_key_left_by_an_interrupted_add_is_used(publisher: Publisher) -> None:
    orphan = keys.generate()
    path = publisher.folder / "keys" / "publisher-acme.pem"
    keys.save(path, orphan, PASSPHRASE, rounds=ROUNDS)
    publisher.add_namespace("acme", PASSPHRASE, now=NOW, kdf_rounds=ROUNDS)
    signed = publish(publisher, model("acme/tiny:1"))
    verified = verify_bundle_trust(site(publisher), dict(signed.members), now=NOW, floor=None)
    assert verified.signers("publisher-acme") == (orphan.public_key.keyid,)


def test_wrong_passphrase_changes_nothing(publisher: Publisher) -> None:
    before = tree(publisher.folder)
    with pytest.raises(KeyUnavailable):
        publisher.publish([model()], lambda _: b"", b"wrong", NOW)
    with pytest.raises(KeyUnavailable):
        publisher.add_namespace("acme", b"wrong", now=NOW, kdf_rounds=ROUNDS)
    assert tree(publisher.folder) == before


def test_two_models_of_one_name(publisher: Publisher) -> None:
    with pytest.raises(UsageError, match="twice"):
        publish(publisher, model(), model(weight=b"other"))


def test_manifest_that_is_none(publisher: Publisher) -> None:
    with pytest.raises(MalformedDocument):
        publish(publisher, SignedModel(Reference.parse(MODEL), b"{}"))


def test_computed_fields_win(publisher: Publisher) -> None:
    honest = model()
    lying = SignedModel(honest.reference, honest.manifest, "", {"blob_count": 9, "note": "x"})
    signed = publish(publisher, lying)
    verified = verify_bundle_trust(site(publisher), dict(signed.members), now=NOW, floor=None)
    custom = verified.target(lying.target).custom
    assert (custom["blob_count"], custom["note"]) == (2, "x")
    assert manifest_custom(honest.manifest).items() <= custom.items()


def test_failed_descriptor_publishes_nothing(publisher: Publisher) -> None:
    before = tree(publisher.folder)

    def fail(_: int) -> bytes:
        raise StorageFailure("no")

    with pytest.raises(StorageFailure):
        publisher.publish([model()], fail, PASSPHRASE, NOW)
    assert tree(publisher.folder) == before
    assert publish(publisher, model()).sequence == 1


def test_clock_that_is_far_behind_signs_nothing(publisher: Publisher) -> None:
    with pytest.raises(EnvironmentFault, match="1970"):
        publish(publisher, now=NOW.replace(year=1970))


def test_folder_is_never_overwritten(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(AlreadyExists):
        init(publisher.folder)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(AlreadyExists):
        init(tmp_path / "link")


@pytest.mark.parametrize("namespaces", [("A",), ("a", "a"), ("a/b",), ("",)])
def test_bad_namespaces_leave_no_folder(tmp_path: Path, namespaces: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        init(tmp_path / "publisher", namespaces)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "x" * 256, "a\nb"])
def test_bad_name_leaves_no_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidName):
        Publisher.init(
            tmp_path / "p", name=name, namespaces=(), passphrase=PASSPHRASE, kdf_rounds=ROUNDS
        )
    assert not list(tmp_path.iterdir())


def test_empty_passphrase_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailable):
        Publisher.init(tmp_path / "p", name="x", namespaces=(), passphrase=b"")
    assert not list(tmp_path.iterdir())


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="bundle keys init"):
        Publisher.open(tmp_path / "none")


def test_only_the_owner_may_look_in(publisher: Publisher) -> None:
    modes = {p: p.stat().st_mode & 0o077 for p in publisher.folder.rglob("*") if p.is_dir()}
    assert not any(modes.values())
    assert publisher.folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["publisher.json", "1.targets.json", "1.root.json"])
def test_damaged_folder_says_so(publisher: Publisher, name: str) -> None:
    path = publisher.folder / "metadata" / "0000000001" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises((StoreDamaged, MalformedDocument)):
        Publisher.open(publisher.folder)
    path.unlink()
    with pytest.raises(StoreDamaged):
        Publisher.open(publisher.folder)


def test_foreign_metadata_in_the_folder_is_not_published(
    publisher: Publisher, tmp_path: Path
) -> None:
    foreign = init(tmp_path / "other").folder / "metadata" / "0000000001" / "1.targets.json"
    ours = publisher.folder / "metadata" / "0000000001" / "1.targets.json"
    ours.write_bytes(foreign.read_bytes())
    before = tree(publisher.folder)
    with pytest.raises((TrustError, MalformedDocument)):
        publish(publisher, model())
    assert tree(publisher.folder) == before


def test_two_at_once(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STORE_LOCK_SECONDS", 0.05)
    other = Publisher.open(publisher.folder)

    def meanwhile(sequence: int) -> bytes:
        with pytest.raises(StoreBusy):
            publish(other)
        return b"%d" % sequence

    assert publisher.publish([], meanwhile, PASSPHRASE, NOW).sequence == 1
    assert publish(other).sequence == 2  # it reads again what is on disk


def test_roles_that_run_out_are_renewed(publisher: Publisher) -> None:
    state = site(publisher)
    now = NOW
    for _ in range(12):  # six years, twice a year
        now += timedelta(days=170)
        signed = publish(publisher, now=now)
        assert signed.expires >= now + timedelta(days=180)
        arrival = signed.expires - timedelta(seconds=1)
        state = verify_bundle_trust(state, dict(signed.members), now=arrival, floor=None).new_state
    assert publisher.versions["root"] >= 5  # reissued about yearly; the site of year 0 came along


def test_a_late_bundle_is_late_for_timestamp_and_snapshot_alone(publisher: Publisher) -> None:
    """So a grace, or a person with a reason, is enough; at any time of the publisher's life."""
    state = site(publisher)
    for month in range(0, 40, 4):
        now = NOW + timedelta(days=30 * month)
        signed = publish(publisher, model(f"library/m:{month}"), now=now)
        arrival = signed.expires + timedelta(days=80)
        with pytest.raises(ExpiredMetadata):
            verify_bundle_trust(state, dict(signed.members), now=arrival, floor=None)
        state = verify_bundle_trust(
            state, dict(signed.members), now=arrival, floor=None, allowance=Allowance(accept=True)
        ).new_state


def test_offline_keys_are_asked_for_only_when_needed(publisher: Publisher) -> None:
    for role in ("root", "targets"):
        (publisher.folder / "keys" / f"{role}.pem").rename(publisher.folder.parent / f"{role}.pem")
    publish(publisher, model())
    publish(publisher, now=NOW + timedelta(days=400))
    late = publish(publisher, now=NOW + timedelta(days=2 * 365 - 100))
    # They cut the bundle short.
    assert late.expires == publisher.expires == NOW + timedelta(days=2 * 365)
    with pytest.raises(KeyUnavailable, match="targets"):
        publish(publisher, now=NOW + timedelta(days=2 * 365))
    (publisher.folder.parent / "targets.pem").rename(publisher.folder / "keys" / "targets.pem")
    signed = publish(publisher, now=NOW + timedelta(days=2 * 365 - 100))
    assert signed.versions["root"] == 1


def test_key_file_of_another_key(publisher: Publisher) -> None:
    path = publisher.folder / "keys" / "timestamp.pem"
    path.unlink()
    keys.save(path, keys.generate(), PASSPHRASE, rounds=ROUNDS)
    with pytest.raises(KeyUnavailable, match="another key"):
        publish(publisher)


def test_bundle_expires_half_a_year_later(publisher: Publisher) -> None:
    assert publish(publisher).expires == NOW + timedelta(days=180)
    assert publisher.versions["root"] == 1
    assert Publisher.open(publisher.folder).fingerprint == Digest.of(publisher.root_bytes)
    assert timedelta(days=180) < YEAR


# -- crashes -----------------------------------------------------------------------------------------


def tree(folder: Path) -> dict[str, bytes]:
    """All files but the empty lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


@FORKS
def test_crash_while_publishing_never_gives_one_version_to_two_files(publisher: Publisher) -> None:
    state = site(publisher)
    released: dict[str, bytes] = {}
    steps = 0

    def action() -> None:
        publish(Publisher.open(publisher.folder), model(f"library/m:{steps + 1}"))

    for steps in crashes(action):
        signed = publish(Publisher.open(publisher.folder), model(f"library/after:{steps}"))
        for name, data in signed.members:
            version = str(signed.versions["timestamp"]) if name == "timestamp.json" else ""
            assert released.setdefault(version + name, data) == data
        state = verify_bundle_trust(state, dict(signed.members), now=NOW, floor=None).new_state
    assert steps > 8


@FORKS
def test_crash_while_adding_a_namespace_is_made_good_by_the_next_try(publisher: Publisher) -> None:
    def action() -> None:
        again = Publisher.open(publisher.folder)
        again.add_namespace("acme", PASSPHRASE, now=NOW, kdf_rounds=ROUNDS)

    for _ in crashes(action):
        again = Publisher.open(publisher.folder)
        if "acme" not in again.namespaces:
            assert again.namespaces == ("library",)
            continue
        signed = publish(again, model("acme/tiny:1"))
        verify_bundle_trust(site(again), dict(signed.members), now=NOW, floor=None)
        return
    pytest.fail("the namespace was never added")


@FORKS
def test_crash_during_init_leaves_no_folder_or_a_whole_one(tmp_path: Path) -> None:
    folder = tmp_path / "publisher"
    for _ in crashes(lambda: init(folder)):
        if folder.exists():
            publish(Publisher.open(folder), model())
            return
    pytest.fail("it was never made")
