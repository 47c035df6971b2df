"""Attacks on the rule of two persons, one per test; each file is signed by somebody real."""

from __future__ import annotations

import base64
import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bundler.approval.documents import APPROVAL_TYPE, Request, approve
from bundler.importer import Wishes
from bundler.policy.gate import Consent, Persons
from bundler.setting_time import set_time
from bundler.trust.dsse import PersonKey, make_key, seal
from schemas import strictjson
from schemas.errors import BadSignature, MalformedDocument, PolicyRefused, SealiftError
from tests.support.bundle_simulator import Forgery, forge, twin
from tests.support.governed import DAY, START, Desk, approvals, desk, entries, operators
from tests.support.publisher_simulator import Simulator

KEYS = operators("alice", "bob", "carol")
ALICE, BOB, CAROL = KEYS.values()
BOTH = (Forgery(), Forgery(name="library/two:1"))


@pytest.fixture(scope="module")
def publisher() -> Simulator:
    return Simulator(now=START)


@pytest.fixture(scope="module")
def bundle(publisher: Simulator) -> bytes:
    return forge(twin(publisher), *BOTH)


@pytest.fixture(scope="module")
def asked(
    tmp_path_factory: pytest.TempPathFactory, publisher: Simulator, bundle: bytes
) -> tuple[Desk, Request]:
    """A site of three operators, two of whom must agree; one has asked the other."""
    site = desk(tmp_path_factory.mktemp("approvals") / "home", publisher)
    site.rule(entries(KEYS))
    return site, site.request(bundle, ALICE)


@pytest.fixture
def site(asked: tuple[Desk, Request], tmp_path: Path) -> Desk:
    shutil.copytree(asked[0].home, tmp_path / "home")
    return Desk(tmp_path / "home")


@pytest.fixture
def request_(asked: tuple[Desk, Request]) -> Request:
    return asked[1]


def refused(
    site: Desk,
    bundle: bytes,
    persons: Persons | None,
    match: str,
    *,
    error: type[SealiftError] = PolicyRefused,
    **how: Any,
) -> None:
    with pytest.raises(error, match=match) as caught:
        site.bring(bundle, persons=persons, **how)
    assert caught.value.hint
    assert (site.models(), site.floor()) == ([], None)


def spare_entry(name: str, key: PersonKey) -> str:
    """One more key of somebody."""
    return "\n[[operator]]" + entries({name: key}).partition("[[operator]]")[2]


def signed_anew(request: Request, key: PersonKey, **changes: Any) -> Request:
    """The request with other content, by whoever signs it."""
    document = {**request.document, **changes}
    kind = json.loads(request.data)["payloadType"]
    return Request.read(seal(key, strictjson.dumps(document), kind))


def test_enough_persons_agree(site: Desk, bundle: bytes, request_: Request) -> None:
    staged = sum(1 for _ in (site.home / "staging").rglob("sha256-*"))
    assert staged > 0  # what was verified waits for the answer
    overrides = site.bring(bundle, persons=approvals(request_, [BOB])).verified.overrides
    assert (overrides.requester, [a.name for a in overrides.approvers]) == ("alice", ["bob"])
    assert overrides.request == request_.id
    assert len(site.models()) == 2
    (event,) = site.events("approval.request")
    assert event["detail"]["requester"] == "alice"


def test_nobody_was_asked(site: Desk, bundle: bytes) -> None:
    refused(site, bundle, None, "1 other operator must approve")


def test_staged_bytes_outlive_a_run_without_approval(site: Desk, bundle: bytes) -> None:
    before = sorted(p.name for p in (site.home / "staging").rglob("sha256-*"))
    refused(site, bundle, None, "must approve")
    assert sorted(p.name for p in (site.home / "staging").rglob("sha256-*")) == before


def test_own_request_is_not_approved(request_: Request) -> None:
    with pytest.raises(PolicyRefused, match="their own request"):
        approve(request_, ALICE, START)


def test_own_approval_written_by_other_means(site: Desk, bundle: bytes, request_: Request) -> None:
    document = {
        "schemaVersion": 1,
        "request": base64.b64encode(request_.data).decode(),
        "approver": base64.b64encode(ALICE.public).decode(),
        "approvedAt": "2027-06-01T12:00:00Z",
    }
    forged = seal(ALICE, strictjson.dumps(document), APPROVAL_TYPE)
    refused(site, bundle, Persons((forged,)), "1 by alice, who asked")


def test_second_key_of_the_one_who_asked(site: Desk, bundle: bytes) -> None:
    spare = make_key("ed25519")
    site.rule(entries(KEYS) + spare_entry("alice", spare))
    request = site.request(bundle, ALICE)
    refused(site, bundle, approvals(request, [spare]), "1 by alice, who asked")


def test_one_person_twice(site: Desk, bundle: bytes) -> None:
    spare = make_key("ed25519")
    site.rule(entries(KEYS, 2) + spare_entry("bob", spare))
    request = site.request(bundle, ALICE)
    refused(site, bundle, approvals(request, [BOB, BOB, spare]), "1 of 2 other persons")
    site.bring(bundle, persons=approvals(request, [BOB, spare, CAROL]))


def test_stranger_approves(site: Desk, bundle: bytes, request_: Request) -> None:
    persons = approvals(request_, [make_key("ecdsa-p256")])
    refused(site, bundle, persons, "1 by keys that the policy does not name")


def test_stranger_asks(site: Desk, bundle: bytes, request_: Request) -> None:
    stranger = make_key("ecdsa-p256")
    with pytest.raises(PolicyRefused, match="only an operator"):
        site.request(bundle, stranger)
    key = {"name": "alice", "key": base64.b64encode(stranger.public).decode()}
    forged = signed_anew(request_, stranger, requester=key)
    refused(site, bundle, approvals(forged, [BOB]), "no operator of the policy")


def test_approval_for_another_bundle(site: Desk, publisher: Simulator, request_: Request) -> None:
    other = forge(twin(publisher), Forgery(name="library/other:1"))
    refused(site, other, approvals(request_, [BOB]), "another bundle")


def test_approval_for_a_twin_of_the_bundle_under_its_id(
    site: Desk, publisher: Simulator, request_: Request
) -> None:
    other = forge(
        twin(publisher), *BOTH, descriptor=lambda d: d.__setitem__("publisher", "simulatee")
    )
    refused(site, other, approvals(request_, [BOB]), "another bundle")


def test_approval_at_another_site(
    tmp_path: Path, publisher: Simulator, bundle: bytes, request_: Request
) -> None:
    other = desk(tmp_path / "elsewhere", publisher)
    other.rule(entries(KEYS))
    refused(other, bundle, approvals(request_, [BOB]), "another site")


def test_approval_under_another_policy(site: Desk, bundle: bytes, request_: Request) -> None:
    site.rule(entries(KEYS) + "\n# one more line\n")
    refused(site, bundle, approvals(request_, [BOB]), "policy has changed")


def test_approval_that_expired(site: Desk, bundle: bytes, request_: Request) -> None:
    persons = approvals(request_, [BOB])
    refused(site, bundle, persons, "they expired on", clock=START + 7 * DAY)
    site.bring(bundle, persons=persons, clock=START + 7 * DAY - timedelta(seconds=1))


def test_approval_from_the_future(site: Desk, bundle: bytes, request_: Request) -> None:
    early = START - timedelta(seconds=1)
    refused(site, bundle, approvals(request_, [BOB]), "from the future", clock=early)


def test_request_that_gives_itself_more_time(site: Desk, bundle: bytes, request_: Request) -> None:
    longer = signed_anew(request_, ALICE, expiresAt="2037-06-01T12:00:00Z")
    refused(site, bundle, approvals(longer, [BOB]), "more than 7 days")


def test_request_changed_after_it_was_signed(request_: Request) -> None:
    envelope = json.loads(request_.data)
    envelope["payload"] = base64.b64encode(
        strictjson.dumps({**request_.document, "reason": "another"})
    ).decode()
    with pytest.raises(BadSignature):
        Request.read(strictjson.dumps(envelope))


def test_approval_with_another_request_in_it(site: Desk, bundle: bytes, request_: Request) -> None:
    """Bob approved one thing; whoever carries the file puts another into it."""
    (good,) = approvals(request_, [BOB]).approvals
    envelope = json.loads(good)
    inner = json.loads(base64.b64decode(envelope["payload"]))
    changed = signed_anew(request_, ALICE, reason="another")
    inner["request"] = base64.b64encode(changed.data).decode()
    envelope["payload"] = base64.b64encode(strictjson.dumps(inner)).decode()
    forged = Persons((strictjson.dumps(envelope),))
    refused(site, bundle, forged, "signature of the approval is wrong", error=BadSignature)


def test_approvals_of_two_requests(site: Desk, bundle: bytes, request_: Request) -> None:
    second = signed_anew(request_, ALICE, id="b" * 32)
    mixed = approvals(request_, [BOB]).approvals + approvals(second, [CAROL]).approvals
    refused(site, bundle, Persons(mixed), "different requests")


def test_request_in_place_of_an_approval(site: Desk, bundle: bytes, request_: Request) -> None:
    persons = Persons((request_.data,))
    refused(site, bundle, persons, "something else", error=MalformedDocument)


def test_approval_with_two_signatures(site: Desk, bundle: bytes, request_: Request) -> None:
    one, two = (json.loads(a) for a in approvals(request_, [BOB, CAROL]).approvals)
    one["signatures"] += two["signatures"]
    persons = Persons((strictjson.dumps(one),))
    refused(site, bundle, persons, "one signature", error=MalformedDocument)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"x" * 100, b'{"payload":1}', b"[" * 10_000])
def test_approval_that_is_none(data: bytes, site: Desk, bundle: bytes) -> None:
    refused(site, bundle, Persons((data,)), ".", error=MalformedDocument)


def test_more_models_than_were_approved(site: Desk, publisher: Simulator, bundle: bytes) -> None:
    request = site.request(bundle, ALICE, wishes=Wishes(only=("library/two:1",)))
    persons = approvals(request, [BOB])
    refused(site, bundle, persons, "more is about to be done.*library/tiny:1")
    site.bring(bundle, persons=persons, wishes=Wishes(only=("library/two:1",)))
    assert site.models() == ["library/two:1"]


def test_licence_that_was_not_approved(site: Desk, publisher: Simulator) -> None:
    site.rule('[licences]\nconfirm = ["MIT"]\n' + entries(KEYS))
    model = Forgery(custom=lambda custom: custom.__setitem__("licence", "MIT"))
    bundle = forge(twin(publisher), model)
    yes = Consent(licences=("MIT",))
    request = site.request(bundle, ALICE, consent=yes)
    assert [each["item"] for each in request.document["confirmed"]] == ["MIT"]
    hidden = signed_anew(request, ALICE, confirmed=[])
    refused(site, bundle, approvals(hidden, [BOB]), "confirmed", consent=yes)
    site.bring(bundle, persons=approvals(request, [BOB]), consent=yes)


def test_metadata_that_went_stale_after_the_approval(site: Desk, publisher: Simulator) -> None:
    brief = twin(publisher)
    brief.signed["timestamp"].expires = START + DAY
    bundle = forge(brief)
    persons = approvals(site.request(bundle, ALICE), [BOB])
    late = Consent(reason="it took a while")
    refused(site, bundle, persons, "stale: timestamp", clock=START + 2 * DAY, consent=late)
    site.bring(bundle, persons=persons)


def test_approval_of_an_import_sets_no_time(site: Desk, bundle: bytes, request_: Request) -> None:
    persons = approvals(request_, [BOB])
    site.bring(bundle, persons=persons, clock=START + 3 * DAY)
    with pytest.raises(PolicyRefused, match="for another thing"):
        set_time(site.home, START + DAY, "because", persons, clock=START + 3 * DAY)


def test_too_many_approvals(site: Desk, bundle: bytes, request_: Request) -> None:
    (good,) = approvals(request_, [BOB]).approvals
    refused(site, bundle, Persons((good,) * 65), "65 approvals")


def test_policy_that_nobody_can_satisfy_is_refused(site: Desk, bundle: bytes) -> None:
    site.rule(entries({"alice": ALICE}))
    refused(site, bundle, None, "cannot be used")


def test_one_key_for_two_persons_is_refused(site: Desk, bundle: bytes) -> None:
    site.rule(entries({"alice": ALICE, "bob": ALICE}))
    refused(site, bundle, None, "cannot be used")
