"""Changes of keys: what a crash leaves, what is told, and where keys are found."""

from __future__ import annotations

import shutil
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from bundler.trust import keys, names
from bundler.trust.changing import Planner, Wish, change
from bundler.trust.health import State
from bundler.trust.keyring import KeyRing, Secrets
from bundler.trust.publisher import Publisher
from bundler.trust.requests import SignRequest, finish
from bundler.trust.roles import RoleKeys
from bundler.trust.verifier import pin_root, verify_bundle_trust
from registry.records import TrustState
from schemas.errors import (
    AlreadyExists,
    EnvironmentFault,
    InvalidName,
    KeyUnavailable,
    NotFound,
    UsageError,
)
from tests.support.crashing import FORKS, crashes
from tests.support.publisher_simulator import NOW

PASSPHRASE = b"correct horse"
ROUNDS = 1000


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher.init(
        tmp_path / "publisher",
        name="Test",
        namespaces=("library",),
        passphrase=PASSPHRASE,
        now=NOW,
        kdf_rounds=ROUNDS,
    )


def site(publisher: Publisher) -> TrustState:
    return pin_root(publisher.root_bytes, publisher.fingerprint).trust_state("test")


def follow(publisher: Publisher, state: TrustState) -> TrustState:
    """One bundle, taken in by a site."""
    signed = publisher.publish([], lambda n: b"%d" % n, PASSPHRASE, NOW)
    return verify_bundle_trust(state, dict(signed.members), now=NOW, floor=None).new_state


def names_in(publisher: Publisher) -> list[str]:
    """All files but the lock."""
    return sorted(p.name for p in publisher.folder.rglob("*") if p.name != "lock")


def exchange(planner: Planner, *roles: str) -> None:
    for role in roles:
        planner.exchange(role, planner.here(role), [planner.generate(role)])


@FORKS
@pytest.mark.parametrize("role", ["root", "timestamp", "publisher-library"])
def test_killed_while_keys_rotate(role: str, publisher: Publisher, tmp_path: Path) -> None:
    """After every kill the folder signs, by the old key or by the new one, and sites follow."""
    state = site(publisher)
    work = tmp_path / "work"
    before = publisher.health(NOW)
    keys_seen = set()

    def prepare() -> None:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(publisher.folder, work)

    def action() -> None:
        again = Publisher.open(work)
        change(again, lambda p: exchange(p, role), PASSPHRASE, now=NOW, kdf_rounds=ROUNDS)

    for _ in crashes(action, prepare):
        again = Publisher.open(work)
        follow(again, state)
        (health,) = (health for health in again.health(NOW) if health.role == role)
        assert health.at_hand == 1
        keys_seen.add(health.keys[0].keyid)
    assert len(keys_seen) > 2  # the old one, and one for each attempt that got so far
    assert any(key.keyid in keys_seen for health in before for key in health.keys)


@FORKS
def test_killed_while_a_request_is_finished(publisher: Publisher, tmp_path: Path) -> None:
    state = site(publisher)
    anna = keys.generate()
    asked = change(
        publisher,
        lambda p: p.add(names.ROOT, anna.public_key),
        PASSPHRASE,
        wish=Wish.REQUEST,
        now=NOW,
    ).request.to_bytes()

    def action() -> None:
        finish(Publisher.open(publisher.folder), [SignRequest.from_bytes(asked)])

    for _ in crashes(action):
        again = Publisher.open(publisher.folder)
        assert again.versions["root"] in (1, 2)
        if again.versions["root"] == 2:
            break
    follow(Publisher.open(publisher.folder), state)


def test_keys_are_written_as_init_writes_them(publisher: Publisher) -> None:
    change(publisher, lambda p: exchange(p, "root"), PASSPHRASE, now=NOW, kdf_rounds=ROUNDS)
    (path,) = (publisher.folder / "keys").glob("root*")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    keyid = publisher.health(NOW)[0].keys[0].keyid
    assert path.name == f"root@{keyid[:16]}.pem"


def test_looking_opens_no_key_and_leaves_nothing(publisher: Publisher) -> None:
    before = names_in(publisher)

    def ask() -> bytes:
        raise AssertionError

    seen = change(publisher, lambda p: exchange(p, "root"), Secrets(ask), wish=Wish.LOOK, now=NOW)
    assert seen.missing == {"root": 1}
    assert names_in(publisher) == before


def test_wrong_passphrase_and_empty_passphrase(publisher: Publisher) -> None:
    before = names_in(publisher)
    for passphrase in (b"wrong", b""):
        with pytest.raises(KeyUnavailable):
            change(publisher, lambda p: exchange(p, "timestamp"), passphrase, now=NOW)
    assert names_in(publisher) == before


def test_clock_far_behind(publisher: Publisher) -> None:
    with pytest.raises(EnvironmentFault):
        change(
            publisher,
            lambda p: p.renew("root"),
            PASSPHRASE,
            now=NOW.replace(year=1970),
        )


def test_planner_says_what_makes_no_sense(publisher: Publisher) -> None:
    key = keys.generate().public_key
    own = publisher.health(NOW)[0].keys[0].keyid

    def plan(planner: Planner) -> None:
        with pytest.raises(NotFound):
            planner.add("publisher-none", key)
        with pytest.raises(NotFound):
            planner.revoke("root", "")
        with pytest.raises(NotFound):
            planner.revoke("root", "zz")
        with pytest.raises(AlreadyExists):
            planner.delegate("publisher-library", RoleKeys((key,)))
        with pytest.raises(InvalidName):
            planner.delegate("anything", RoleKeys((key,)))
        with pytest.raises(InvalidName):
            planner.retire("bundle")
        planner.add("root", key)
        with pytest.raises(AlreadyExists):
            planner.add("root", key)
        planner.set_threshold("root", 3)
        with pytest.raises(UsageError):
            _ = planner.changes
        planner.set_threshold("root", 2)
        planner.revoke("root", own[:8])
        with pytest.raises(UsageError):
            _ = planner.changes
        planner.renew("targets")
        planner.set_threshold("root", 1)
        assert planner.changes.renewed == {"targets"}

    change(publisher, plan, PASSPHRASE, wish=Wish.LOOK, now=NOW)


def test_threshold_of_two_for_online_roles(publisher: Publisher) -> None:
    state = site(publisher)

    def plan(planner: Planner) -> None:
        for role in ("timestamp", "snapshot", "bundle", "publisher-library"):
            planner.add(role, planner.generate(role))
            planner.set_threshold(role, 2)

    change(publisher, plan, PASSPHRASE, now=NOW, kdf_rounds=ROUNDS)
    follow(publisher, state)
    (second,) = (publisher.folder / "keys").glob("snapshot@*")
    second.unlink()
    with pytest.raises(KeyUnavailable, match="1 of 2"):
        follow(publisher, state)


def test_what_runs_out_when(publisher: Publisher) -> None:
    def states(days: int) -> dict[str, State]:
        return {r.role: r.state for r in publisher.health(NOW + timedelta(days=days))}

    assert set(states(0).values()) == {State.FRESH}
    assert states(310)["publisher-library"] is State.SOON
    assert states(366)["advisories"] is State.EXPIRED
    assert states(366)["root"] is State.FRESH
    days = {r.role: r.days_left(NOW) for r in publisher.health(NOW)}
    assert (days["root"], days["targets"], days["timestamp"]) == (4 * 365, 2 * 365, None)


def test_keys_elsewhere(publisher: Publisher, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    for role in ("root", "targets"):
        (publisher.folder / "keys" / f"{role}.pem").rename(stick / f"{role}.pem")
    (stick / "notes.txt").write_text("x")
    with pytest.raises(KeyUnavailable):
        change(publisher, lambda p: p.renew("root"), PASSPHRASE, now=NOW)
    secrets = Secrets(lambda: PASSPHRASE, (str(stick),))
    change(publisher, lambda p: p.renew("root"), secrets, now=NOW)
    missing = Secrets(lambda: PASSPHRASE, (str(tmp_path / "none"),))
    with pytest.raises(NotFound):
        KeyRing(None, missing).signers("root", ["x"])
    other = Secrets(lambda: b"wrong", (str(stick),), lambda: PASSPHRASE)
    change(publisher, lambda p: p.renew("root"), other, now=NOW)  # nothing of the folder's own
    assert publisher.versions["root"] == 3


def test_role_names_do_not_run_into_each_other(tmp_path: Path) -> None:
    """``publisher-a`` and ``publisher-a-b`` keep their keys apart."""
    publisher = Publisher.init(
        tmp_path / "p",
        name="Test",
        namespaces=("a", "a_b", "a-b"),
        passphrase=PASSPHRASE,
        now=NOW,
        kdf_rounds=ROUNDS,
    )
    state = site(publisher)
    roles = ("publisher-a", "publisher-a_b", "publisher-a-b")
    change(publisher, lambda p: exchange(p, *roles), PASSPHRASE, now=NOW, kdf_rounds=ROUNDS)
    change(publisher, lambda p: exchange(p, roles[0]), PASSPHRASE, now=NOW, kdf_rounds=ROUNDS)
    held = {health.role: health.at_hand for health in publisher.health(NOW)}
    assert set(held.values()) == {1}
    follow(publisher, state)


def test_public_key_files(tmp_path: Path) -> None:
    for key_type in keys.KEY_TYPES:
        key = keys.generate(key_type).public_key
        path = tmp_path / f"{key_type}.pub"
        path.write_bytes(keys.public_pem(key))
        assert keys.load_public(path) == key
    for name, data in {"junk": b"junk", "empty": b"", "big": bytes(100_000)}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(KeyUnavailable):
            keys.load_public(tmp_path / name)
    with pytest.raises(NotFound):
        keys.load_public(tmp_path)
