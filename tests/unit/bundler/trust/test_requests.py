"""Co-signing by file: what is shown is all there is, and nothing in a request is believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Metadata, TargetFile

from bundler.trust import keys, names
from bundler.trust.changing import Planner, Wish, change
from bundler.trust.publisher import Publisher
from bundler.trust.requests import (
    Review,
    SignRequest,
    add_signature,
    finish,
    known_fingerprint,
    merge,
    review,
)
from bundler.trust.roles import RoleKeys
from bundler.trust.wording import statements
from registry.digest import Digest
from schemas import limits
from schemas.errors import (
    BadSignature,
    KeyUnavailable,
    MalformedDocument,
    SealiftError,
    TrustMissing,
    UsageError,
)
from tests.support.publisher_simulator import NOW

PASSPHRASE = b"correct horse"
ROUNDS = 1000
EVE = keys.generate()
REQUESTS: dict[Path, SignRequest] = {}
ANNA = keys.generate(keys.ED25519)


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


def ask(publisher: Publisher, plan: Callable[[Planner], None]) -> SignRequest:
    asked = change(
        publisher, plan, PASSPHRASE, wish=Wish.REQUEST, now=NOW, kdf_rounds=ROUNDS
    ).request
    assert SignRequest.from_bytes(asked.to_bytes()) == asked
    return asked


def add_anna(planner: Planner) -> None:
    planner.add(names.ROOT, ANNA.public_key, "Anna")
    planner.set_threshold(names.ROOT, 2)


def add_acme(planner: Planner) -> None:
    planner.delegate("publisher-acme", RoleKeys((ANNA.public_key,)))


def look(publisher: Publisher, request: SignRequest) -> Review:
    return review(request, known_fingerprint(publisher.fingerprint))


def words(reviewed: Review) -> str:
    return "\n".join(line for each in statements(reviewed) for line in each.changes)


def forged(
    request: SignRequest, role: str, edit: Callable[[Any], None], *signers: CryptoSigner
) -> SignRequest:
    """The request with a proposed role changed, and signed by whom the forger has."""
    name = next(n for n in request.proposed if names.parse_member(n)[0] == role)
    metadata: Metadata[Any] = Metadata.from_bytes(request.proposed[name])
    edit(metadata.signed)
    metadata.signatures.clear()
    for signer in signers:
        metadata.sign(signer, append=True)
    renamed = names.member_name(role, metadata.signed.version)
    proposed = {n: data for n, data in request.proposed.items() if n != name}
    return replace(request, proposed={**proposed, renamed: metadata.to_bytes()})


def test_every_change_has_its_words(publisher: Publisher) -> None:
    request = ask(publisher, add_anna)
    assert words(look(publisher, request)) == (
        f"key {ANNA.public_key.keyid[:16]} (said to be Anna) may sign root from now on\n"
        "root needs 2 of 2 signatures instead of 1 of 1"
    )
    retired = ask(publisher, lambda planner: planner.retire("publisher-library"))
    assert "publisher library may sign for no model any more" in words(look(publisher, retired))
    renewed = ask(publisher, lambda planner: planner.renew(names.TARGETS))
    assert words(look(publisher, renewed)) == "nothing but its expiry"
    withdrawn = ask(publisher, lambda planner: planner.withdraw(b"{}"))
    assert "signs for advisories/withdrawn.json: 2 bytes" in words(look(publisher, withdrawn))
    assert withdrawn.withdrawn == b"{}"


def test_withdrawals_are_co_signed(publisher: Publisher) -> None:
    def two(planner: Planner) -> None:
        planner.add(names.ADVISORIES, ANNA.public_key)
        planner.set_threshold(names.ADVISORIES, 2)

    request = ask(publisher, two)
    request, _ = add_signature(look(publisher, request), ANNA)
    finish(publisher, [request])
    with pytest.raises(KeyUnavailable, match="advisories"):
        publisher.withdraw(lambda _: b"{}", PASSPHRASE, now=NOW)
    request = ask(publisher, lambda planner: planner.withdraw(b"{}"))
    request, roles = add_signature(look(publisher, request), ANNA)
    finish(publisher, [request])
    assert (roles, publisher.withdrawn) == (("advisories",), b"{}")
    with pytest.raises(MalformedDocument):
        look(publisher, replace(request, withdrawn=b"[]"))
    with pytest.raises(MalformedDocument):
        look(publisher, replace(request, withdrawn=None))


def test_new_root_is_signed_by_old_and_new(publisher: Publisher) -> None:
    request = ask(publisher, add_anna)
    assert look(publisher, request).missing == {"root": 1}
    with pytest.raises(KeyUnavailable):
        finish(publisher, [request])
    signed, roles = add_signature(look(publisher, request), ANNA)
    assert roles == ("root",)
    with pytest.raises(KeyUnavailable, match="already"):
        add_signature(look(publisher, signed), ANNA)
    assert not finish(publisher, [request, signed]).missing
    assert publisher.versions["root"] == 2


def test_folder_that_changed_meanwhile(publisher: Publisher) -> None:
    request = ask(publisher, lambda planner: planner.renew("publisher-library"))
    change(publisher, lambda planner: planner.renew("publisher-library"), PASSPHRASE, now=NOW)
    with pytest.raises(UsageError, match="changed since"):
        finish(publisher, [request])
    change(publisher, lambda planner: planner.renew(names.ROOT), PASSPHRASE, now=NOW)
    with pytest.raises(UsageError, match="newest root"):
        finish(publisher, [request])


def test_signatures_of_different_requests_do_not_mix(publisher: Publisher) -> None:
    one, two = ask(publisher, add_anna), ask(publisher, add_acme)
    with pytest.raises(UsageError, match="copies"):
        merge([one, two])
    other = forged(one, "root", lambda signed: setattr(signed, "expires", NOW), ANNA)
    with pytest.raises(UsageError, match="copies"):
        merge([one, other])


def test_nobody_is_known(publisher: Publisher) -> None:
    with pytest.raises(TrustMissing):
        review(ask(publisher, add_anna), known_fingerprint(Digest.of(b"")))


# -- a forger between the key holders ---------------------------------------------------------------


def extra_field(signed: Any) -> None:
    signed.unrecognized_fields["note"] = "x"


def wide_path(signed: Any) -> None:
    signed.delegations.roles["publisher-acme"].paths = ["models/*/*/*/manifest.json"]


def other_order(signed: Any) -> None:
    roles = signed.delegations.roles
    signed.delegations.roles = dict(reversed(roles.items()))


def stranger(signed: Any) -> None:
    signed.add_key(EVE.public_key, "publisher-library")


def not_terminating(signed: Any) -> None:
    signed.delegations.roles["publisher-acme"].terminating = False


def skipped(signed: Any) -> None:
    signed.version += 1


def strange_role(signed: Any) -> None:
    signed.delegations.roles["all"] = DelegatedRole("all", [], 1, terminating=True, paths=["*"])
    signed.add_key(EVE.public_key, "all")


@pytest.mark.parametrize(
    "edit", [extra_field, wide_path, other_order, not_terminating, skipped, strange_role]
)
def test_what_cannot_be_shown_is_not_signed(
    edit: Callable[[Any], None], publisher: Publisher
) -> None:
    with pytest.raises((MalformedDocument, SealiftError)) as caught:
        look(publisher, forged(ask(publisher, add_acme), "targets", edit))
    assert not isinstance(caught.value, BadSignature)


def test_stranger_among_the_keys_is_shown(publisher: Publisher) -> None:
    request = forged(ask(publisher, add_acme), "targets", stranger)
    assert f"key {EVE.public_key.keyid[:16]} may sign publisher library" in words(
        look(publisher, request)
    )


def test_target_put_in_is_shown(publisher: Publisher) -> None:
    def add(signed: Any) -> None:
        signed.targets["models/acme/x/1/manifest.json"] = TargetFile.from_data(
            "models/acme/x/1/manifest.json", b"bad", ["sha256"]
        )

    request = forged(ask(publisher, add_acme), "publisher-acme", add)
    assert "signs for models/acme/x/1/manifest.json: 3 bytes" in words(look(publisher, request))


def test_signature_by_somebody_else(publisher: Publisher) -> None:
    request = forged(ask(publisher, add_acme), "targets", lambda _: None, EVE)
    with pytest.raises(BadSignature, match="may not sign"):
        look(publisher, request)


def test_base_that_hides_a_target(publisher: Publisher) -> None:
    """A forged state of today that has the bad model already: then no difference would show."""

    def add(signed: Any) -> None:
        signed.targets["models/acme/x/1/manifest.json"] = TargetFile.from_data(
            "models/acme/x/1/manifest.json", b"bad", ["sha256"]
        )

    request = forged(ask(publisher, add_acme), "publisher-acme", add)
    metadata: Metadata[Any] = Metadata.from_bytes(request.proposed["1.publisher-acme.json"])
    metadata.signatures.clear()
    base = {**request.base, "1.publisher-acme.json": metadata.to_bytes()}
    metadata.signed.version = 2
    proposed = {n: data for n, data in request.proposed.items() if n != "1.publisher-acme.json"} | {
        "2.publisher-acme.json": metadata.to_bytes()
    }
    with pytest.raises(BadSignature, match="nobody delegates"):
        look(publisher, replace(request, base=base, proposed=proposed))


def test_base_that_is_not_signed(publisher: Publisher) -> None:
    request = ask(publisher, add_acme)
    name = next(name for name in request.base if "targets" in name)
    metadata: Metadata[Any] = Metadata.from_bytes(request.base[name])
    metadata.signatures.clear()
    with pytest.raises(BadSignature):
        look(publisher, replace(request, base={**request.base, name: metadata.to_bytes()}))


@pytest.mark.parametrize("role", ["snapshot", "timestamp", "bundle"])
def test_online_roles_are_not_signed_by_file(role: str, publisher: Publisher) -> None:
    publisher.publish([], lambda n: b"%d" % n, PASSPHRASE, NOW)
    request = ask(publisher, add_acme)
    current = publisher.folder / "metadata" / "0000000002"
    (path,) = current.glob(f"*{role}.json")
    data = path.read_bytes()
    with pytest.raises(SealiftError):
        look(publisher, replace(request, proposed={path.name: data}))


def test_request_of_another_shape(publisher: Publisher) -> None:
    document = json.loads(ask(publisher, add_acme).to_bytes())
    changes: list[dict[str, Any]] = [
        {"extra": 1},
        {"schemaVersion": 2},
        {"proposed": {}},
        {"publisher": 1},
        {"base": {"../x.json": "{}"}},
        {"keyNames": {"x": "y"}},
        {"keyNames": {"0" * 64: "\u202e"}},
    ]
    for change_ in changes:
        with pytest.raises(MalformedDocument):
            SignRequest.from_bytes(json.dumps({**document, **change_}).encode())
    with pytest.raises(MalformedDocument, match="too large"):
        SignRequest.from_bytes(bytes(limits.SIGN_REQUEST_BYTES + 1))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_changed_anywhere(data: st.DataObject, publisher: Publisher) -> None:
    """Whatever is changed in a request: it is refused, or what is signed is what is shown."""
    if publisher.folder not in REQUESTS:
        REQUESTS[publisher.folder] = ask(publisher, add_acme)
    good = REQUESTS[publisher.folder]
    text = bytearray(good.to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, 1_000_000)) % len(text)
        text[at] = data.draw(st.integers(0, 255))
    try:
        read = SignRequest.from_bytes(bytes(text))
        reviewed = look(publisher, read)
    except SealiftError:
        return
    assert reviewed.request.base == good.base
    assert statements(reviewed)


@given(st.binary(max_size=300))
def test_noise(noise: bytes) -> None:
    with pytest.raises(MalformedDocument):
        SignRequest.from_bytes(noise)
