"""Several publishers at one site: nobody gets into another's names, or another's past."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from bundler.importer import Wishes
from bundler.trusting import anchors, pin, unpin
from schemas.errors import (
    AlreadyExists,
    ExpiredMetadata,
    InvalidName,
    PolicyRefused,
    RollbackDetected,
    TrustMissing,
)
from tests.support.bundle_simulator import Forgery, forge, twin
from tests.support.governed import START, Desk, desk
from tests.support.publisher_simulator import Simulator

YEAR = timedelta(days=365)


@pytest.fixture(scope="module")
def one() -> Simulator:
    return Simulator(now=START)


@pytest.fixture(scope="module")
def two() -> Simulator:
    return Simulator(now=START)


@pytest.fixture
def site(tmp_path: Path, one: Simulator, two: Simulator) -> Desk:
    """Trusts one as ``simulated`` and two as ``simulated-1``."""
    return desk(tmp_path / "home", one, two)


def repin(site: Desk, publisher: Simulator, name: str, least: int = 0) -> None:
    root = site.home.with_name("again.json")
    root.write_bytes(publisher.root_bytes)
    pin(site.home, root, str(publisher.state().fingerprint), name, least)


def test_namespace_is_the_first_publishers(site: Desk, one: Simulator, two: Simulator) -> None:
    site.bring(forge(twin(one)))
    with pytest.raises(PolicyRefused, match="brought it first"):
        site.bring(forge(twin(two), Forgery(name="library/new:1")))
    site.bring(forge(twin(two), Forgery(name="acme/new:1")))
    assert site.models() == ["acme/new:1", "library/tiny:1"]


def test_one_foreign_namespace_refuses_the_whole_bundle(
    site: Desk, one: Simulator, two: Simulator
) -> None:
    site.bring(forge(twin(one)))
    both = forge(twin(two), Forgery(name="acme/a:1"), Forgery(name="library/b:1"))
    with pytest.raises(PolicyRefused):
        site.bring(both)
    assert site.models() == ["library/tiny:1"]
    site.bring(both, wishes=Wishes(only=("acme/*",)))
    assert site.models() == ["acme/a:1", "library/tiny:1"]


def test_policy_may_let_two_publishers_share(site: Desk, one: Simulator, two: Simulator) -> None:
    site.bring(forge(twin(one)))
    site.rule(
        '[[publisher]]\nanchor = "simulated"\nnames = ["library/*"]\n'
        '[[publisher]]\nanchor = "simulated-1"\nnames = ["library/new*"]\n'
    )
    site.bring(forge(twin(two), Forgery(name="library/new:1")))
    newer = twin(two)
    newer.bump()
    with pytest.raises(PolicyRefused, match="simulated may bring this name"):
        site.bring(forge(newer, Forgery(name="library/tiny:1")))


def test_publisher_pinned_anew_under_an_old_name_inherits_nothing(
    site: Desk, one: Simulator, two: Simulator
) -> None:
    site.bring(forge(twin(one)))
    unpin(site.home, "simulated", dry_run=False)
    unpin(site.home, "simulated-1", dry_run=False)
    repin(site, two, "simulated")
    with pytest.raises(PolicyRefused, match="brought it first"):
        site.bring(forge(twin(two)))


def test_released_names_are_free(site: Desk, one: Simulator, two: Simulator) -> None:
    site.bring(forge(twin(one)))
    unpin(site.home, "simulated", dry_run=False, release=True)
    (event,) = site.events("trust.remove")
    assert event["detail"]["released"] == "library"
    site.bring(forge(twin(two)))
    assert anchors(site.home, None)[0].namespaces == ("library",)


def test_rollback_of_one_is_not_hidden_by_another(
    site: Desk, one: Simulator, two: Simulator
) -> None:
    newer = twin(one)
    newer.bump()
    site.bring(forge(newer, sequence=2))
    site.bring(forge(twin(two), Forgery(name="acme/x:1")))
    with pytest.raises(RollbackDetected):
        site.bring(forge(twin(one)))


def test_second_name_for_one_publisher_is_refused(site: Desk, one: Simulator) -> None:
    """The second name would have no memory, and an old stick would be fresh to it."""
    with pytest.raises(AlreadyExists, match="as simulated"):
        repin(site, one, "again")


def test_later_root_of_a_known_publisher_is_no_other_publisher(site: Desk, one: Simulator) -> None:
    rotated = twin(one)
    rotated.rotate("timestamp")
    site.bring(forge(rotated))
    with pytest.raises(AlreadyExists, match="as simulated"):
        repin(site, rotated, "again")


def test_publisher_that_got_in_twice_is_told_apart_from_nobody(
    tmp_path: Path, one: Simulator
) -> None:
    """Pinned at its second root, then at its first: no import could say which memory counts."""
    rotated = twin(one)
    rotated.rotate("timestamp")
    site = desk(tmp_path / "home", rotated, one)
    for wishes in (Wishes(), Wishes(anchor="simulated-1")):
        with pytest.raises(TrustMissing, match="trusted twice"):
            site.bring(forge(rotated), wishes=wishes)


@pytest.mark.parametrize("name", ["Simulated", "simulated ", "", "a/b", "\u0455imulated", "x" * 65])
def test_name_that_looks_like_another_is_refused(name: str, site: Desk) -> None:
    with pytest.raises(InvalidName):
        repin(site, Simulator(now=START), name)


def test_policy_wants_another_root_under_this_name(site: Desk) -> None:
    site.rule(f'[[publisher]]\nanchor = "acme"\nnames = ["acme/*"]\nfingerprint = "{"1" * 64}"\n')
    with pytest.raises(PolicyRefused, match="another root"):
        repin(site, Simulator(now=START), "acme")


# -- a fresh site, and one that is years behind ----------------------------------------------------


def test_old_stick_at_a_fresh_site_with_the_card(tmp_path: Path) -> None:
    publisher = Simulator(now=START)
    old = forge(twin(publisher))
    publisher.bump()
    site = desk(tmp_path / "home")
    repin(site, publisher, "them", least=2)
    with pytest.raises(RollbackDetected, match="card"):
        site.bring(old)
    assert anchors(site.home, "them")[0].least_timestamp == 2
    site.bring(forge(publisher, sequence=2))
    assert anchors(site.home, "them")[0].least_timestamp == 0


def test_card_that_comes_later_counts_too(tmp_path: Path) -> None:
    publisher = Simulator(now=START)
    site = desk(tmp_path / "home", publisher)
    repin(site, publisher, "simulated", least=2)
    repin(site, publisher, "simulated", least=1)
    with pytest.raises(RollbackDetected, match="v2 at least"):
        site.bring(forge(twin(publisher)))


def test_keys_replaced_after_a_fast_forward_pass_the_card(tmp_path: Path) -> None:
    """Once a timestamp is trusted the card is spent: recovery may start from 1 again."""
    publisher = Simulator(now=START)
    publisher.signed["timestamp"].version = 1000
    site = desk(tmp_path / "home")
    repin(site, publisher, "them", least=1000)
    site.bring(forge(twin(publisher)))
    publisher.rotate("timestamp")
    publisher.bump()
    publisher.signed["timestamp"].version = 1
    site.bring(forge(publisher, sequence=2))


@pytest.mark.parametrize("versions", [2, 50, 200])
def test_site_that_is_years_behind_follows_the_root_chain(versions: int, tmp_path: Path) -> None:
    """Every root but the newest has expired by now."""
    publisher = Simulator(now=START)
    publisher.roots.clear()
    publisher.root.expires = START - versions * YEAR / 100
    publisher.sign_root()
    site = desk(tmp_path / "home", publisher)
    for number in range(2, versions + 1):
        last = number == versions
        publisher.root.expires = START + YEAR if last else START - (versions - number) * YEAR / 100
        publisher.rotate("root" if number % 2 else "timestamp")
    done = site.bring(forge(publisher))
    assert done.verified.trust.versions["root"] == versions


def test_chain_of_which_the_newest_root_has_expired(tmp_path: Path) -> None:
    publisher = Simulator(now=START)
    site = desk(tmp_path / "home", publisher)
    publisher.root.expires = START - YEAR
    publisher.rotate("root")
    with pytest.raises(ExpiredMetadata, match="root metadata"):
        site.bring(forge(publisher))
