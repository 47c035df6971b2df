"""Attacks on a site's idea of now, and mistakes that look like them; one per test.

The clock is the importer's own argument; nothing is patched.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bundler.approval.documents import Request
from bundler.policy.gate import Consent, Persons
from bundler.setting_time import SetTime, parse_time, set_time
from bundler.trust.clock import BUILD_DATE, SKEW
from schemas.errors import (
    AlreadyExists,
    ExpiredMetadata,
    PolicyRefused,
    RollbackDetected,
    SealiftError,
    UsageError,
)
from tests.support.bundle_simulator import forge, twin
from tests.support.governed import DAY, START, Desk, approvals, desk, entries, operators
from tests.support.publisher_simulator import LIBRARY, Simulator

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATE = Consent(reason="the courier was late")


@pytest.fixture(scope="module")
def publisher() -> Simulator:
    return Simulator(now=START)


@pytest.fixture
def site(tmp_path: Path, publisher: Simulator) -> Desk:
    return desk(tmp_path / "home", publisher)


def expiring(publisher: Simulator, *roles: str, at: datetime, version: int = 1) -> bytes:
    """A bundle of which some roles expire at a time."""
    late = twin(publisher)
    for _ in range(version - 1):
        late.bump()
    for role in roles:
        late.signed[role].expires = at
    return forge(late, sequence=version)


def issued(publisher: Simulator, at: datetime) -> bytes:
    """A bundle that says it was made at a time, by whoever holds the keys."""
    text = f"{at:%Y-%m-%dT%H:%M:%SZ}"
    return forge(twin(publisher), descriptor=lambda d: d.__setitem__("issuedAt", text))


def refused(error: type[SealiftError], site: Desk, bundle: bytes, **how: Any) -> SealiftError:
    before = site.floor()
    with pytest.raises(error) as caught:
        site.bring(bundle, **how)
    assert type(caught.value) is error
    assert caught.value.hint
    assert (site.floor(), site.models()) == (before, [])
    return caught.value


# -- the clock is wrong --------------------------------------------------------------------------


def test_clock_at_1970_does_not_revive_what_expired_before_this_release(
    site: Desk, publisher: Simulator
) -> None:
    error = refused(
        ExpiredMetadata,
        site,
        expiring(publisher, "timestamp", at=BUILD_DATE - DAY),
        clock=EPOCH,
    )
    assert "the clock here says 1970-01-01 00:00 UTC, which is behind" in error.why
    assert f"taken as now is {BUILD_DATE:%Y-%m-%d}" in error.why
    assert "this release was made then" in error.why


def test_clock_at_1970_is_noted(site: Desk, publisher: Simulator) -> None:
    done = site.bring(forge(twin(publisher)), clock=EPOCH)
    trust = done.verified.trust
    assert (trust.time_verdict, trust.reference_time) == ("clock_rollback", BUILD_DATE)
    assert site.floor() == BUILD_DATE
    (event,) = site.events("import")
    assert event["detail"]["time"] == "clock_rollback"
    assert event["detail"]["clock"] == "1970-01-01T00:00:00Z"


def test_clock_set_back_revives_nothing(site: Desk, publisher: Simulator) -> None:
    site.bring(forge(twin(publisher)), clock=START + 30 * DAY)
    old = expiring(publisher, "timestamp", at=START + 20 * DAY, version=2)
    with pytest.raises(ExpiredMetadata) as caught:
        site.bring(old, clock=START)
    assert "2027-06-01 12:00 UTC, which is behind" in caught.value.why
    assert "taken as now is 2027-07-01 12:00 UTC" in caught.value.why
    assert "this site has seen that time before" in caught.value.why
    assert "set-time" in caught.value.hint


def test_clock_far_ahead_refuses_and_leaves_no_trace(site: Desk, publisher: Simulator) -> None:
    good = forge(twin(publisher))
    error = refused(ExpiredMetadata, site, good, clock=datetime(2099, 1, 1, tzinfo=UTC))
    assert "the clock here says 2099-01-01" in error.why
    assert "if the clock here is wrong, set it first" in error.hint
    site.bring(good)
    assert site.floor() == START


def test_far_future_issue_date_does_not_push_the_floor(site: Desk, publisher: Simulator) -> None:
    """A stolen key would otherwise carry the site past the expiry of its root, for good."""
    site.bring(issued(publisher, START + 3650 * DAY))
    assert site.floor() == START


def test_issue_date_just_beyond_the_skew_does_not_push_the_floor(
    site: Desk, publisher: Simulator
) -> None:
    site.bring(issued(publisher, START + SKEW + timedelta(seconds=1)))
    assert site.floor() == START


def test_issue_date_within_the_skew_is_evidence(site: Desk, publisher: Simulator) -> None:
    site.bring(issued(publisher, START + SKEW))
    assert site.floor() == START + SKEW


def test_issue_date_does_not_count_against_a_clock_at_1970(
    site: Desk, publisher: Simulator
) -> None:
    site.bring(forge(twin(publisher)), clock=EPOCH)
    assert site.floor() == BUILD_DATE


# -- late bundles --------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_grace_counts_to_the_second(role: str, site: Desk, publisher: Simulator) -> None:
    site.rule("[stale]\ngrace_days = 10\n")
    late = expiring(publisher, role, at=START - 10 * DAY)
    refused(ExpiredMetadata, site, late)
    done = site.bring(late, clock=START - timedelta(seconds=1))
    (stale,) = done.verified.overrides.stale
    assert (stale.role, stale.how, stale.days) == (role, "grace", 9)


@pytest.mark.parametrize("role", ["targets", "bundle", LIBRARY])
def test_grace_is_for_freshness_alone(role: str, site: Desk, publisher: Simulator) -> None:
    site.rule("[stale]\ngrace_days = 3650\n")
    error = refused(ExpiredMetadata, site, expiring(publisher, "timestamp", role, at=START - DAY))
    assert role in error.what


def test_grace_is_not_for_the_root(tmp_path: Path) -> None:
    late = Simulator(now=START)
    late.root.expires = START - DAY
    late.roots.clear()
    late.sign_root()
    site = desk(tmp_path / "home", late)
    site.rule('[stale]\ngrace_days = 3650\naccept = "all-but-root"\n')
    error = refused(ExpiredMetadata, site, forge(late), consent=LATE)
    assert "root" in error.what


def test_nothing_stale_is_accepted_without_being_asked_for(
    site: Desk, publisher: Simulator
) -> None:
    error = refused(ExpiredMetadata, site, expiring(publisher, "timestamp", at=START - DAY))
    assert "--accept-stale --reason" in error.hint


def test_accepted_stale_is_remembered_with_its_reason(site: Desk, publisher: Simulator) -> None:
    late = expiring(publisher, "timestamp", "snapshot", at=START - 100 * DAY)
    overrides = site.bring(late, consent=LATE).verified.overrides
    assert overrides.reason == "the courier was late"
    assert [(s.role, s.how, s.days) for s in overrides.stale] == [
        ("timestamp", "accepted", 100),
        ("snapshot", "accepted", 100),
    ]


def test_fresh_bundle_needs_no_reason_and_keeps_none(site: Desk, publisher: Simulator) -> None:
    overrides = site.bring(forge(twin(publisher)), consent=LATE).verified.overrides
    assert (overrides.reason, overrides.stale) == ("", ())


def test_accept_stale_does_not_reach_targets_by_default(site: Desk, publisher: Simulator) -> None:
    refused(ExpiredMetadata, site, expiring(publisher, LIBRARY, at=START - DAY), consent=LATE)


def test_accept_stale_reaches_targets_where_policy_says_so(
    site: Desk, publisher: Simulator
) -> None:
    site.rule('[stale]\naccept = "all-but-root"\n')
    late = expiring(publisher, LIBRARY, "targets", at=START - DAY)
    stale = site.bring(late, consent=LATE).verified.overrides.stale
    assert {each.role for each in stale} == {LIBRARY, "targets"}


def test_policy_may_forbid_accept_stale(site: Desk, publisher: Simulator) -> None:
    site.rule('[stale]\naccept = "never"\n')
    late = expiring(publisher, "timestamp", at=START - DAY)
    refused(PolicyRefused, site, late, consent=LATE)
    refused(ExpiredMetadata, site, late)


def test_accept_stale_excuses_no_rollback(site: Desk, publisher: Simulator) -> None:
    site.bring(expiring(publisher, at=START, version=3))
    with pytest.raises(RollbackDetected):
        site.bring(expiring(publisher, "timestamp", at=START - DAY, version=2), consent=LATE)


def test_accept_stale_wants_a_second_operator(site: Desk, publisher: Simulator) -> None:
    persons = operators("alice", "bob")
    site.rule(entries(persons, rest='actions = ["accept-stale"]'))
    late = expiring(publisher, "timestamp", at=START - DAY)
    refused(PolicyRefused, site, late, consent=LATE)
    request = site.request(late, persons["alice"], consent=LATE)
    assert request.document["reason"] == "the courier was late"
    site.bring(late, consent=LATE, persons=approvals(request, [persons["bob"]]))
    assert site.models()


def test_fresh_bundle_needs_none(site: Desk, publisher: Simulator) -> None:
    site.rule(entries(operators("alice", "bob"), rest='actions = ["accept-stale"]'))
    site.bring(forge(twin(publisher)))
    assert site.models()


# -- the way out for a clock that was ahead once ---------------------------------------------------


@pytest.fixture
def ahead(site: Desk, publisher: Simulator) -> Desk:
    """A site whose clock was 200 days ahead at its one import."""
    site.bring(forge(twin(publisher)), clock=START + 200 * DAY)
    return site


def lower(site: Desk, to: datetime | None = None, **how: Any) -> SetTime:
    how.setdefault("persons", Persons())
    how.setdefault("reason", "the battery was replaced")
    return set_time(site.home, to, clock=START + DAY, **how)


def test_floor_in_the_future_is_lowered_by_a_person(ahead: Desk, publisher: Simulator) -> None:
    brief = expiring(publisher, "timestamp", at=START + 90 * DAY, version=2)
    with pytest.raises(ExpiredMetadata) as caught:
        ahead.bring(brief, clock=START + DAY)
    assert "bundle trust set-time" in caught.value.hint
    result = lower(ahead)
    assert result.done
    assert ahead.floor() == START + DAY
    ahead.bring(brief, clock=START + DAY)
    (event,) = ahead.events("trust.set-time")
    assert event["detail"]["reason"] == "the battery was replaced"
    assert (event["detail"]["from"], event["detail"]["to"]) == (
        "2027-12-18T12:00:00Z",
        "2027-06-02T12:00:00Z",
    )


def test_floor_cannot_sink_below_a_signed_time(ahead: Desk) -> None:
    with pytest.raises(UsageError, match="was signed then"):
        lower(ahead, START - timedelta(seconds=1))
    assert lower(ahead, START).done


def test_floor_cannot_sink_below_this_release(site: Desk, publisher: Simulator) -> None:
    site.bring(issued(publisher, BUILD_DATE - DAY), clock=START)
    with pytest.raises(UsageError, match="this release was made then"):
        lower(site, BUILD_DATE - timedelta(seconds=1))
    assert lower(site, BUILD_DATE).done


def test_forged_signed_time_does_not_lock_the_floor(site: Desk, publisher: Simulator) -> None:
    site.bring(issued(publisher, START + 300 * DAY), clock=START + 200 * DAY)
    assert lower(site).after == START + DAY


def test_floor_is_not_raised_by_a_person(ahead: Desk) -> None:
    with pytest.raises(UsageError, match="already"):
        lower(ahead, START + 400 * DAY)
    assert ahead.floor() == START + 200 * DAY


def test_floor_is_not_lowered_without_a_reason(ahead: Desk) -> None:
    with pytest.raises(UsageError, match="reason"):
        lower(ahead, reason="  ")


def test_dry_run_lowers_nothing(ahead: Desk) -> None:
    assert not lower(ahead, dry_run=True).done
    assert ahead.floor() == START + 200 * DAY
    assert ahead.events("trust.set-time") == []


def test_lowering_wants_a_second_operator_once_each_time(ahead: Desk) -> None:
    persons = operators("alice", "bob")
    ahead.rule(entries(persons))
    with pytest.raises(PolicyRefused, match="1 other operator must approve"):
        lower(ahead)
    asked = lower(ahead, persons=Persons(requester=persons["alice"]))
    assert not asked.done
    approved = approvals(Request.read(asked.request), [persons["bob"]])
    with pytest.raises(PolicyRefused, match="another change of time"):
        lower(ahead, persons=approved, reason="another")
    with pytest.raises(PolicyRefused, match="another change of time"):
        lower(ahead, START, persons=approved)
    assert lower(ahead, persons=approved).done
    (event,) = ahead.events("trust.set-time")
    assert event["detail"]["requester"] == "alice"
    assert event["detail"]["approvers"].startswith("bob:")


def test_approval_of_lowering_is_used_up(ahead: Desk, publisher: Simulator) -> None:
    persons = operators("alice", "bob")
    ahead.rule(entries(persons, rest='actions = ["set-time"]'))
    asked = lower(ahead, persons=Persons(requester=persons["alice"]))
    approved = approvals(Request.read(asked.request), [persons["bob"]])
    assert lower(ahead, persons=approved).done
    ahead.bring(expiring(publisher, at=START, version=2), clock=START + 200 * DAY)
    with pytest.raises(AlreadyExists, match="used before"):
        lower(ahead, persons=approved)
    assert ahead.floor() == START + 200 * DAY


def test_site_without_a_floor_has_nothing_to_lower(site: Desk) -> None:
    with pytest.raises(UsageError, match="no floor"):
        lower(site)


@pytest.mark.parametrize("text", ["", "tomorrow", "2027-13-01", "2027-01-01T00:00:00+02:00"])
def test_time_that_is_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse_time(text)
