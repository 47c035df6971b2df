"""Attacks on what takes models back, and attacks by it; one per test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from bundler.importer import Imported, Wishes
from bundler.isolated import import_paths
from registry.digest import Digest
from registry.reference import Reference
from registry.store import Store
from registry.withdrawals import Action, Withdrawal
from schemas.errors import (
    BadSignature,
    ContentMismatch,
    MalformedArchive,
    MalformedDocument,
    ModelWithdrawn,
    OutsideClosure,
    RollbackDetected,
    TruncatedBundle,
)
from schemas.render import Output
from tests.gguf_files import Pieces, string
from tests.support.bundle_simulator import Forgery, Member, digest, dump, forge, members, tar, twin
from tests.support.publisher_simulator import LIBRARY, Simulator
from tests.support.site import Site, check_refused, new_site, simulator

Stick = Callable[[bytes], Path]


def weights(name: str) -> bytes:
    """A model file of its own."""
    pieces = Pieces()
    metadata = tuple((k, string(name) if k == "general.name" else v) for k, v in pieces.metadata)
    return Pieces(metadata=metadata).build()


GOOD = Forgery("library/good:1", weights("Good"))
BAD = Forgery("library/bad:1", weights("Bad"))


def manifest_of(model: Forgery) -> str:
    return digest(model.manifest_bytes(dump(model.manifest_document())))


def entry(number: Any, *digests: str, action: str = "block", **more: Any) -> dict[str, Any]:
    return {
        "number": number,
        "at": "2026-12-01T00:00:00Z",
        "action": action,
        "digests": list(digests) or [manifest_of(BAD)],
        "subject": "library/bad:1",
        "reason": "it lies",
        **more,
    }


def listing(*entries: dict[str, Any]) -> bytes:
    return dump({"schemaVersion": 1, "entries": list(entries)})


def withdrawing(publisher: Simulator, *models: Forgery, data: bytes, version: int = 1) -> bytes:
    """A bundle whose metadata sign a list of withdrawals."""
    other = twin(publisher)
    other.withdraw(data)
    for _ in range(version - 1):
        other.bump()
    return forge(other, *(models or (GOOD,)), sequence=version)


@pytest.fixture
def home(tmp_path: Path, publisher: Simulator) -> Site:
    """A site of the test's own."""
    return new_site(tmp_path / "home", publisher)


def bring(site: Site, path: Path, anchor: str | None = None) -> Imported:
    with Output(quiet=True).progress() as meter:
        return import_paths(site.home, [path], Wishes(anchor), meter)


def judged(site: Site, model: Forgery) -> Withdrawal | None:
    with Store.open(site.home, create=False) as store:
        return store.withdrawal_of(Digest.parse(manifest_of(model)))


def action(site: Site, model: Forgery) -> Action | None:
    found = judged(site, model)
    return None if found is None else found.action


# -- whoever holds the stick ----------------------------------------------------------------------


def without(bundle: bytes, name: str) -> bytes:
    return tar([member for member in members(bundle) if member.name != name])


def test_the_list_is_left_out(site: Site, publisher: Simulator, stick: Stick) -> None:
    bundle = withdrawing(publisher, data=listing(entry(1)))
    check_refused(site, stick(without(bundle, "sealift/withdrawn.json")), MalformedArchive)


def test_an_older_list_takes_its_place(site: Site, publisher: Simulator, stick: Stick) -> None:
    bundle = withdrawing(publisher, data=listing(entry(1), entry(2)))
    old = listing(entry(1))
    swapped = [m.with_data(old) if "withdrawn" in m.name else m for m in members(bundle)]
    check_refused(site, stick(tar(swapped)), MalformedArchive)


def test_one_letter_of_the_list_is_another(site: Site, publisher: Simulator, stick: Stick) -> None:
    bundle = withdrawing(publisher, data=listing(entry(1)))
    check_refused(site, stick(bundle.replace(b'"block"', b'"Block"')), ContentMismatch)


def test_a_list_that_nobody_signed(site: Site, publisher: Simulator, stick: Stick) -> None:
    found = members(forge(twin(publisher)))
    at = next(n for n, m in enumerate(found) if m.name == "sealift/bundle.json") + 1
    found.insert(at, Member.of("sealift/withdrawn.json", listing(entry(1))))
    check_refused(site, stick(tar(found)), MalformedArchive)


def test_the_list_stands_elsewhere(site: Site, publisher: Simulator, stick: Stick) -> None:
    found = members(withdrawing(publisher, data=listing(entry(1))))
    at = next(n for n, m in enumerate(found) if "withdrawn" in m.name)
    found[at], found[at + 1] = found[at + 1], found[at]
    check_refused(site, stick(tar(found)), MalformedArchive)


def test_the_list_stands_there_twice(site: Site, publisher: Simulator, stick: Stick) -> None:
    found = members(withdrawing(publisher, data=listing(entry(1))))
    at = next(n for n, m in enumerate(found) if "withdrawn" in m.name)
    check_refused(site, stick(tar([*found[:at], found[at], *found[at:]])), MalformedArchive)


def test_the_bundle_ends_within_the_list(site: Site, publisher: Simulator, stick: Stick) -> None:
    bundle = withdrawing(publisher, data=listing(entry(1)))
    cut = bundle[: bundle.index(b'"it lies"')]
    check_refused(site, stick(cut), TruncatedBundle)


# -- whoever holds some key -----------------------------------------------------------------------


def test_the_list_is_signed_by_a_stranger(site: Site, publisher: Simulator, stick: Stick) -> None:
    thief = twin(publisher)
    thief.withdraw(listing(entry(1)))
    thief.keys["advisories"] = [CryptoSigner.generate_ecdsa()]
    check_refused(site, stick(forge(thief, GOOD)), BadSignature)


def test_the_list_is_signed_by_a_namespaces_key(
    site: Site, publisher: Simulator, stick: Stick
) -> None:
    thief = twin(publisher)
    thief.withdraw(listing(entry(1)))
    thief.keys["advisories"] = thief.keys[LIBRARY]
    check_refused(site, stick(forge(thief, GOOD)), BadSignature)


def test_the_bundles_role_speaks_for_withdrawals(
    site: Site, publisher: Simulator, stick: Stick
) -> None:
    thief = twin(publisher)
    thief.add_target("bundle", "advisories/withdrawn.json", listing(entry(1)))
    thief.withdrawn = listing(entry(1))
    check_refused(site, stick(forge(thief, GOOD)), MalformedArchive)


def test_a_namespace_is_let_speak_for_withdrawals(
    site: Site, publisher: Simulator, stick: Stick
) -> None:
    thief = twin(publisher)
    thief.withdraw(listing(entry(1)), role="publisher-evil")
    check_refused(site, stick(forge(thief, GOOD)), OutsideClosure)


def test_a_list_beyond_all_bounds(site: Site, publisher: Simulator, stick: Stick) -> None:
    check_refused(site, stick(withdrawing(publisher, data=b" " * (2**20 + 1))), MalformedArchive)


@pytest.mark.parametrize(
    "data",
    [
        listing(),
        listing(entry(2)),
        listing(entry(1), entry(1)),
        listing(entry(1), entry(3)),
        listing(entry(1, action="explode")),
        listing(entry(1, severity="high")),
        listing(entry(1, reason="")),
        listing(entry(1, reason="a\nb")),
        listing(entry(1, reason="\u202egnihton")),
        listing(entry(1, reason="x" * 501)),
        listing(entry(1, at="2026-02-30T00:00:00Z")),
        listing(entry(1, at="yesterday")),
        listing(entry(1, digests=[])),
        listing(entry(1, "sha256:" + "A" * 64)),
        listing(entry(1, "md5:" + "0" * 32)),
        listing(entry(1, manifest_of(BAD), manifest_of(BAD))),
        listing(entry(1.0)),
        listing(entry(True)),
        listing(entry(2**70)),
        listing(entry(1)).replace(b'"number":1', b'"number":1,"number":1'),
        listing(entry(1)).replace(b'"entries"', b'"more":[],"entries"'),
        listing(entry(1)) + b"\n",
        listing(entry(1)).replace(b":1,", b": 1,"),
        json.dumps(json.loads(listing(entry(1, reason="\u00e4"))), ensure_ascii=False).encode(),
        b"\xef\xbb\xbf" + listing(entry(1)),
        b"[" * 10_000 + b"]" * 10_000,
        b"{}",
        b"null",
        b"\xff",
    ],
    ids=lambda data: hashlib.sha256(data).hexdigest()[:6],
)
def test_a_signed_list_that_is_none(
    site: Site, publisher: Simulator, stick: Stick, data: bytes
) -> None:
    check_refused(site, stick(withdrawing(publisher, data=data)), MalformedDocument)


def test_history_gets_shorter(home: Site, publisher: Simulator, stick: Stick) -> None:
    bring(home, stick(withdrawing(publisher, data=listing(entry(1), entry(2)))))
    shorter = withdrawing(publisher, data=listing(entry(1)), version=2)
    check_refused(home, stick(shorter), RollbackDetected)


def test_history_is_told_otherwise(home: Site, publisher: Simulator, stick: Stick) -> None:
    bring(home, stick(withdrawing(publisher, data=listing(entry(1)))))
    told = listing(entry(1, action="warn"), entry(2))
    check_refused(home, stick(withdrawing(publisher, data=told, version=2)), RollbackDetected)


def test_history_is_gone(home: Site, publisher: Simulator, stick: Stick) -> None:
    bring(home, stick(withdrawing(publisher, data=listing(entry(1)))))
    thief = twin(publisher)
    thief.withdraw(listing(entry(1)))
    del thief.signed["advisories"].targets["advisories/withdrawn.json"]
    thief.withdrawn = None
    thief.bump()
    check_refused(home, stick(forge(thief, GOOD, sequence=2)), RollbackDetected)


def test_a_stick_from_before_the_withdrawal(home: Site, publisher: Simulator, stick: Stick) -> None:
    old = forge(twin(publisher), BAD)
    bring(home, stick(withdrawing(publisher, data=listing(entry(1)), version=2)))
    check_refused(home, stick(old), RollbackDetected)


# -- what is withdrawn stays out ------------------------------------------------------------------


def test_a_withdrawn_model_comes_again(home: Site, publisher: Simulator, stick: Stick) -> None:
    path = stick(withdrawing(publisher, GOOD, BAD, data=listing(entry(1))))
    outcome = home.bundle("import", path, "--json")
    assert outcome.code == ModelWithdrawn.exit_code
    assert outcome.error["code"] == "model-withdrawn"
    assert "it lies" in outcome.error["why"]
    assert home.models() == ["library/good:1"]
    assert json.loads(outcome.out)["withdrawals"]["refused"] == ["library/bad:1"]
    assert home.bundle("verify", path).code == ModelWithdrawn.exit_code


def test_a_withdrawn_model_is_carried_on_as_a_plain_layout(
    home: Site, publisher: Simulator, stick: Stick, tmp_path: Path
) -> None:
    path = stick(withdrawing(publisher, GOOD, BAD, data=listing(entry(1))))
    layout = tmp_path / "layout"
    outcome = home.bundle("export", path, "--oci-layout", layout)
    assert outcome.code == ModelWithdrawn.exit_code
    assert not layout.exists()
    good = home.bundle("export", path, "--oci-layout", layout, "--only", "library/good:*")
    assert good.code == 0


def test_its_weights_come_under_another_name(
    home: Site, publisher: Simulator, stick: Stick
) -> None:
    renamed = Forgery("library/innocent:2", BAD.weights, "innocent.gguf")
    data = listing(entry(1, digest(BAD.weights)))
    assert bring(home, stick(withdrawing(publisher, renamed, data=data))).verified.models == ()
    assert home.models() == []


def test_the_news_of_it_stay_though_nothing_is_installed(
    home: Site, publisher: Simulator, stick: Stick
) -> None:
    bring(home, stick(forge(twin(publisher), BAD)))
    assert action(home, BAD) is None
    bring(home, stick(withdrawing(publisher, BAD, data=listing(entry(1)), version=2)))
    assert action(home, BAD) is Action.BLOCK


def test_a_bundle_without_models_takes_an_installed_one_back(
    home: Site, publisher: Simulator, stick: Stick
) -> None:
    bring(home, stick(forge(twin(publisher), BAD)))
    advisory = twin(publisher)
    advisory.withdraw(listing(entry(1)))
    advisory.bump()
    bare = forge(advisory, BAD, sequence=2, descriptor=_without_models)
    imported = bring(home, stick(bare))
    assert action(home, BAD) is Action.BLOCK
    applied = imported.verified.applied
    assert applied is not None
    assert list(map(str, applied.installed)) == ["library/bad:1"]


def _without_models(table: dict[str, Any]) -> None:
    table["models"], table["contents"] = [], []


def test_quarantine_lets_it_in_and_not_out(home: Site, publisher: Simulator, stick: Stick) -> None:
    data = listing(entry(1, action="quarantine"))
    bring(home, stick(withdrawing(publisher, BAD, data=data)))
    assert home.models() == ["library/bad:1"]
    found = judged(home, BAD)
    assert found is not None
    assert found.stops


def test_a_release_does_not_outlast_the_next_advisory(
    home: Site, publisher: Simulator, stick: Stick
) -> None:
    first = entry(1, action="quarantine")
    bundle = withdrawing(publisher, BAD, data=listing(first))
    bring(home, stick(bundle))
    with Store.open(home.home) as store:
        store.release(Reference.parse("library/bad:1"), "looked at it")
    bring(home, stick(bundle))  # the same again
    assert action(home, BAD) is Action.WARN
    both = listing(first, entry(2, action="quarantine"))
    bring(home, stick(withdrawing(publisher, BAD, data=both, version=2)))
    assert action(home, BAD) is Action.QUARANTINE


def test_an_end_of_a_withdrawal_is_an_entry_too(
    home: Site, publisher: Simulator, stick: Stick
) -> None:
    bring(home, stick(withdrawing(publisher, BAD, data=listing(entry(1)))))
    ended = listing(entry(1), entry(2, action="none"))
    bring(home, stick(withdrawing(publisher, BAD, data=ended, version=2)))
    assert action(home, BAD) is None
    assert home.models() == ["library/bad:1"]


def test_trust_is_removed_and_given_anew_to_forget_it(
    home: Site, publisher: Simulator, stick: Stick
) -> None:
    bring(home, stick(forge(twin(publisher), BAD)))
    bring(home, stick(withdrawing(publisher, data=listing(entry(1)), version=2)))
    assert home.bundle("trust", "remove", "simulated").code == 0
    assert action(home, BAD) is Action.BLOCK
    new_site(home.home, publisher)
    assert action(home, BAD) is Action.BLOCK
    bring(home, stick(withdrawing(publisher, BAD, data=listing(entry(1)))))
    assert action(home, BAD) is Action.BLOCK


# -- one publisher against another ----------------------------------------------------------------


@pytest.mark.parametrize("named", [manifest_of(GOOD), digest(GOOD.weights)])
def test_a_publisher_withdraws_anothers_model(
    tmp_path: Path, publisher: Simulator, stick: Stick, named: str
) -> None:
    rival = simulator()
    site = new_site(tmp_path / "home", publisher, rival)
    bundle = forge(twin(publisher), GOOD)
    bring(site, stick(bundle))
    attack = withdrawing(
        rival, Forgery("acme/own:1", weights("Own")), data=listing(entry(1, named))
    )
    bring(site, stick(attack))
    assert action(site, GOOD) is None
    assert bring(site, stick(bundle)).verified.models


def test_a_publisher_brings_anothers_model_to_withdraw_it(
    tmp_path: Path, publisher: Simulator, stick: Stick
) -> None:
    rival = simulator()
    site = new_site(tmp_path / "home", publisher, rival)
    bring(site, stick(forge(twin(publisher), GOOD)))
    copied = Forgery("acme/good:1", GOOD.weights, GOOD.file)
    assert manifest_of(copied) == manifest_of(GOOD)
    bring(site, stick(forge(twin(rival), copied)))
    attack = withdrawing(rival, copied, data=listing(entry(1, manifest_of(GOOD))), version=2)
    bring(site, stick(attack))
    assert action(site, GOOD) is Action.WARN


# -- this site's own list -------------------------------------------------------------------------


def test_what_this_site_denies_comes_with_a_bundle(
    home: Site, publisher: Simulator, stick: Stick
) -> None:
    with Store.open(home.home) as store:
        store.deny(Digest.parse(digest(BAD.weights)), "", "not here")
    outcome = home.bundle("import", stick(forge(twin(publisher), GOOD, BAD)), "--json")
    assert outcome.code == ModelWithdrawn.exit_code
    assert "denied by this site: not here" in outcome.error["why"]
    assert home.models() == ["library/good:1"]


def test_a_publisher_overrules_this_site(home: Site, publisher: Simulator, stick: Stick) -> None:
    with Store.open(home.home) as store:
        store.deny(Digest.parse(manifest_of(BAD)), "", "not here")
    ended = listing(entry(1), entry(2, action="none"))
    assert not bring(home, stick(withdrawing(publisher, BAD, data=ended))).verified.models
    assert home.models() == []


def test_times_are_kept_as_they_were_said(home: Site, publisher: Simulator, stick: Stick) -> None:
    bring(home, stick(forge(twin(publisher), BAD)))
    bring(home, stick(withdrawing(publisher, data=listing(entry(1)), version=2)))
    found = judged(home, BAD)
    assert found is not None
    assert found.at == datetime(2026, 12, 1, tzinfo=UTC)
