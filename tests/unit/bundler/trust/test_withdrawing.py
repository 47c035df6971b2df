"""The role for withdrawals: its own key, its own paths, and folders made before it existed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundler.trust import keys, names
from bundler.trust import publisher as publisher_module
from bundler.trust.publisher import Publisher, TrustMetadata
from bundler.trust.repository import Repository
from bundler.trust.verifier import pin_root, verify_bundle_trust
from registry.digest import Digest
from registry.records import TrustState
from schemas.errors import KeyUnavailable, MalformedDocument, StoreDamaged
from tests.support.publisher_simulator import NOW

PASSPHRASE = b"correct horse"
ROUNDS = 1000


def init(folder: Path) -> Publisher:
    return Publisher.init(
        folder,
        name="Test",
        namespaces=("library",),
        passphrase=PASSPHRASE,
        now=NOW,
        kdf_rounds=ROUNDS,
    )


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return init(tmp_path / "publisher")


@pytest.fixture
def early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """A folder as releases made it that knew no withdrawals."""
    with monkeypatch.context() as patch:
        roles = [role for role in publisher_module._ROLES if role != "advisories"]
        patch.setattr(publisher_module, "_ROLES", roles)
        return init(tmp_path / "early")


def site(publisher: Publisher) -> TrustState:
    return pin_root(publisher.root_bytes, publisher.fingerprint).trust_state("test")


def publish(publisher: Publisher) -> TrustMetadata:
    return publisher.publish([], lambda n: b'{"n":%d}' % n, PASSPHRASE, NOW)


def withdraw(publisher: Publisher, data: bytes) -> None:
    publisher.withdraw(lambda _: data, PASSPHRASE, now=NOW, kdf_rounds=ROUNDS)


def test_nothing_is_withdrawn_at_first(publisher: Publisher) -> None:
    signed = publish(publisher)
    assert (publisher.withdrawn, signed.withdrawn) == (None, None)
    assert "1.advisories.json" in dict(signed.members)


def test_list_is_signed_by_its_own_role(publisher: Publisher) -> None:
    withdraw(publisher, b"first")
    seen: list[bytes | None] = []

    def second(before: bytes | None) -> bytes:
        seen.append(before)
        return b"second"

    publisher.withdraw(second, PASSPHRASE, now=NOW)
    signed = publish(publisher)
    verified = verify_bundle_trust(site(publisher), dict(signed.members), now=NOW, floor=None)
    target = verified.target(names.WITHDRAWN_TARGET)
    assert (target.role, target.digest) == ("advisories", Digest.of(b"second"))
    assert verified.signers("advisories") != verified.signers("targets")
    assert (seen, signed.withdrawn) == ([b"first"], b"second")
    assert Publisher.open(publisher.folder).withdrawn == b"second"


def test_early_folder_goes_on_and_gets_the_role_when_it_needs_it(early: Publisher) -> None:
    state = site(early)
    first = publish(early)
    assert not any("advisories" in name for name, _ in first.members)
    state = verify_bundle_trust(state, dict(first.members), now=NOW, floor=None).new_state
    withdraw(early, b"list")
    second = publish(early)
    verified = verify_bundle_trust(state, dict(second.members), now=NOW, floor=None)
    assert verified.target(names.WITHDRAWN_TARGET).role == "advisories"
    assert next(iter(Repository(dict(second.members)).delegated)) == "advisories"


def test_early_folder_without_its_targets_key_cannot_withdraw(early: Publisher) -> None:
    (early.folder / "keys" / "targets.pem").unlink()
    with pytest.raises(KeyUnavailable, match="targets"):
        withdraw(early, b"list")
    assert not (early.folder / "keys" / "advisories.pem").exists()


def test_key_left_by_an_interrupted_withdrawal_is_used(early: Publisher) -> None:
    orphan = keys.generate()
    keys.save(early.folder / "keys" / "advisories.pem", orphan, PASSPHRASE, rounds=ROUNDS)
    withdraw(early, b"list")
    verified = verify_bundle_trust(site(early), dict(publish(early).members), now=NOW, floor=None)
    assert verified.signers("advisories") == (orphan.public_key.keyid,)


def test_list_that_no_site_would_read_is_not_signed(publisher: Publisher) -> None:
    with pytest.raises(MalformedDocument):
        withdraw(publisher, bytes(2**20 + 1))
    assert publisher.withdrawn is None


def test_changed_list_in_the_folder_is_noticed(publisher: Publisher) -> None:
    withdraw(publisher, b"list")
    (path,) = publisher.folder.glob("metadata/*2/withdrawn.json")
    path.write_bytes(b"lost")
    with pytest.raises(StoreDamaged):
        Publisher.open(publisher.folder)
    path.unlink()
    with pytest.raises(StoreDamaged):
        Publisher.open(publisher.folder)
