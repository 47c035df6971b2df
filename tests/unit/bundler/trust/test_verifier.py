"""What honest bundles do to a site's trust."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path

import pytest

from bundler.trust.clock import BUILD_DATE
from bundler.trust.verifier import choose_anchor, pin_root, verify_bundle_trust
from registry.digest import Digest
from registry.records import TrustState
from schemas.errors import (
    BadSignature,
    FingerprintMismatch,
    MalformedDocument,
    OutsideClosure,
    RollbackDetected,
    StoreDamaged,
    TrustMissing,
)
from tests.support.publisher_simulator import (
    ACME,
    ACME_MODEL,
    DESCRIPTOR,
    LIBRARY,
    MODEL,
    NOW,
    YEAR,
    Simulator,
    document,
    text,
)


@pytest.fixture
def simulator() -> Simulator:
    return Simulator()


def test_first_bundle_is_believed(simulator: Simulator) -> None:
    verified = verify_bundle_trust(simulator.state(), simulator.issue(), now=NOW, floor=None)
    target = verified.target(MODEL)
    assert (target.role, target.digest, target.size) == (LIBRARY, Digest.of(b"the manifest"), 12)
    assert verified.target(ACME_MODEL).role == ACME
    assert verified.target(DESCRIPTOR).digest == Digest.of(b"the descriptor")
    assert set(verified.versions) == {
        "root",
        "timestamp",
        "snapshot",
        "targets",
        "bundle",
        LIBRARY,
        ACME,
    }
    assert set(verified.versions.values()) == {1}
    assert verified.signers(ACME) == (simulator.keys[ACME][0].public_key.keyid,)
    assert verified.signers("root") == (simulator.keys["root"][0].public_key.keyid,)
    assert verified.signers("nobody") == ()
    assert verified.expires["snapshot"] == NOW + YEAR
    assert (verified.reference_time, verified.time_verdict) == (NOW, "clock")


def test_custom_fields_come_through(simulator: Simulator) -> None:
    simulator.add_target(LIBRARY, MODEL, b"m", {"seq": 3, "licence": "Apache-2.0"})
    verified = verify_bundle_trust(simulator.state(), simulator.issue(), now=NOW, floor=None)
    assert verified.target(MODEL).custom == {"seq": 3, "licence": "Apache-2.0"}
    assert verified.target(DESCRIPTOR).custom == {}


@pytest.mark.parametrize("path", ["models/library/smollm2/135m", "", "a/../b", "bundle/x"])
def test_unsigned_path_is_outside_the_closure(simulator: Simulator, path: str) -> None:
    verified = verify_bundle_trust(simulator.state(), simulator.issue(), now=NOW, floor=None)
    with pytest.raises(OutsideClosure):
        verified.target(path)


def test_same_bundle_again_changes_nothing(simulator: Simulator) -> None:
    members = simulator.issue()
    once = verify_bundle_trust(simulator.state(), members, now=NOW, floor=None).new_state
    again = verify_bundle_trust(once, members, now=NOW, floor=NOW).new_state
    assert again == once


def test_newer_bundle_replaces_the_state(simulator: Simulator) -> None:
    state = verify_bundle_trust(simulator.state(), simulator.issue(), now=NOW, floor=None).new_state
    simulator.bump("timestamp", "snapshot", LIBRARY)
    simulator.add_target(LIBRARY, MODEL, b"another manifest")
    verified = verify_bundle_trust(state, simulator.issue(), now=NOW, floor=NOW)
    assert verified.target(MODEL).digest == Digest.of(b"another manifest")
    assert verified.versions[LIBRARY] == 2
    assert verified.new_state != state


def test_root_chain_carries_a_site_that_is_years_behind(simulator: Simulator) -> None:
    state = simulator.state()
    for _ in range(5):
        simulator.rotate("root")
        simulator.rotate("timestamp")
    verified = verify_bundle_trust(state, simulator.issue(), now=NOW, floor=None)
    assert verified.versions["root"] == 11
    assert sorted(verified.new_state.roots) == list(range(1, 12))


def test_site_that_pinned_a_later_root_gets_the_whole_chain(simulator: Simulator) -> None:
    simulator.rotate("root")
    simulator.rotate("root")
    verified = verify_bundle_trust(simulator.state(2), simulator.issue(), now=NOW, floor=None)
    # Roots before the pinned one are not remembered: they prove nothing here.
    assert sorted(verified.new_state.roots) == [2, 3]


def test_expired_root_on_the_way_does_not_matter(simulator: Simulator) -> None:
    simulator.root.expires = NOW - YEAR
    simulator.roots.clear()
    simulator.sign_root()
    state = simulator.state()
    simulator.root.expires = NOW + YEAR
    simulator.rotate("root")
    verify_bundle_trust(state, simulator.issue(), now=NOW, floor=None)


def test_growing_thresholds_keeps_what_was_signed(simulator: Simulator) -> None:
    state = verify_bundle_trust(simulator.state(), simulator.issue(), now=NOW, floor=None).new_state
    simulator.set_threshold("root", 2, 3)
    simulator.set_threshold("targets", 2, 3)
    simulator.bump()
    verified = verify_bundle_trust(state, simulator.issue(), now=NOW, floor=NOW)
    assert len(verified.signers("targets")) == 3
    simulator.rotate("timestamp")
    simulator.bump()
    verify_bundle_trust(verified.new_state, simulator.issue(), now=NOW, floor=NOW)


def test_replaced_timestamp_and_snapshot_keys_end_a_fast_forward(simulator: Simulator) -> None:
    state = simulator.state()
    simulator.signed["timestamp"].version = simulator.signed["snapshot"].version = 9_999_999_999
    state = verify_bundle_trust(state, simulator.issue(), now=NOW, floor=None).new_state
    simulator.rotate("timestamp")
    simulator.rotate("snapshot")
    simulator.signed["timestamp"].version = simulator.signed["snapshot"].version = 2
    verified = verify_bundle_trust(state, simulator.issue(), now=NOW, floor=NOW)
    assert verified.versions["timestamp"] == 2


def test_metadata_is_valid_until_it_expires_and_not_a_second_longer(simulator: Simulator) -> None:
    members = simulator.issue()
    late = NOW + YEAR - timedelta(seconds=1)
    verify_bundle_trust(simulator.state(), members, now=late, floor=None)


def test_floor_stands_in_for_a_clock_that_was_set_back(simulator: Simulator) -> None:
    back = NOW - timedelta(days=5)
    verified = verify_bundle_trust(simulator.state(), simulator.issue(), now=back, floor=NOW)
    assert (verified.reference_time, verified.time_verdict) == (NOW, "clock_rollback")


def test_build_date_stands_in_for_a_clock_at_1970(simulator: Simulator) -> None:
    epoch = NOW.replace(year=1970)
    verified = verify_bundle_trust(simulator.state(), simulator.issue(), now=epoch, floor=None)
    assert (verified.reference_time, verified.time_verdict) == (BUILD_DATE, "clock_rollback")


def test_pinned_root_is_described(simulator: Simulator) -> None:
    pinned = pin_root(simulator.root_bytes, Digest.of(simulator.root_bytes))
    assert (pinned.version, pinned.threshold, pinned.expires) == (1, 1, NOW + YEAR)
    assert pinned.keyids == (simulator.keys["root"][0].public_key.keyid,)
    assert pinned.trust_state("simulated") == simulator.state()


def test_pinned_root_may_carry_its_predecessors_signature(simulator: Simulator) -> None:
    simulator.rotate("root")
    assert pin_root(simulator.root_bytes, Digest.of(simulator.root_bytes)).version == 2


def test_fingerprint_may_be_sha512(simulator: Simulator) -> None:
    import hashlib

    fingerprint = Digest("sha512", hashlib.sha512(simulator.root_bytes).hexdigest())
    assert pin_root(simulator.root_bytes, fingerprint).trust_state("simulated") == (
        simulator.state()
    )


def test_root_with_another_fingerprint_is_not_pinned(simulator: Simulator) -> None:
    with pytest.raises(FingerprintMismatch, match=str(Digest.of(simulator.root_bytes))):
        pin_root(simulator.root_bytes, Digest.of(b"another"))


def test_root_not_signed_by_itself_is_not_pinned(simulator: Simulator) -> None:
    simulator.sign_root(simulator.keys["targets"][0])
    with pytest.raises(BadSignature):
        pin_root(simulator.root_bytes, Digest.of(simulator.root_bytes))


def test_other_role_is_not_pinned_as_root(simulator: Simulator) -> None:
    data = simulator.issue()["1.targets.json"]
    with pytest.raises(MalformedDocument):
        pin_root(data, Digest.of(data))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"signed":1,"signatures":[]}'])
def test_no_root_at_all_is_not_pinned(data: bytes) -> None:
    with pytest.raises(MalformedDocument):
        pin_root(data, Digest.of(data))


def test_oversized_root_is_not_pinned() -> None:
    data = b" " * 600_000
    with pytest.raises(MalformedDocument, match="too large"):
        pin_root(data, Digest.of(data))


def test_anchor_is_found_among_several(simulator: Simulator) -> None:
    states = [Simulator().state(), simulator.state(), Simulator().state()]
    assert choose_anchor(states, simulator.issue()) is states[1]
    with pytest.raises(TrustMissing):
        choose_anchor(states, Simulator().issue())
    with pytest.raises(TrustMissing, match="trusts no publisher yet"):
        choose_anchor([], simulator.issue())


def test_verification_writes_nowhere(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So that a process which is killed in the middle leaves nothing, and a full disk is no harm."""
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    monkeypatch.chdir(tmp_path)
    old = simulator.issue()
    simulator.bump()
    verified = verify_bundle_trust(simulator.state(), simulator.issue(), now=NOW, floor=None)
    assert verified.target(MODEL).role == LIBRARY
    with pytest.raises(RollbackDetected):
        verify_bundle_trust(verified.new_state, old, now=NOW, floor=None)
    assert not list(tmp_path.iterdir())


def test_damaged_trusted_state_stops_the_import(simulator: Simulator) -> None:
    members = simulator.issue()
    good = verify_bundle_trust(simulator.state(), members, now=NOW, floor=None).new_state
    changed = document(good.metadata["timestamp"])
    changed["signed"]["version"] = -1
    bad_states = [
        TrustState(good.anchor, Digest.of(b"x"), good.roots, good.metadata),
        TrustState(good.anchor, good.fingerprint, good.roots, {"timestamp": b"{}"}),
        TrustState(good.anchor, good.fingerprint, good.roots, {"../x": b"{}"}),
        TrustState(
            good.anchor,
            good.fingerprint,
            good.roots,
            {**good.metadata, "timestamp": text(changed)},
        ),
        TrustState(good.anchor, good.fingerprint, {**good.roots, 3: good.roots[1]}, good.metadata),
    ]
    for state in bad_states:
        with pytest.raises(StoreDamaged):
            verify_bundle_trust(state, members, now=NOW, floor=None)
    with pytest.raises(TrustMissing):
        verify_bundle_trust(
            TrustState(good.anchor, good.fingerprint, {}, {}), members, now=NOW, floor=None
        )
