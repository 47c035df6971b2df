"""``bundle trust explain``: what it says of bundles that are believed, and of those that are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from schemas.errors import IncompleteBundle, ModelWithdrawn
from tests.support.bundle_simulator import Forgery, digest, dump, forge, members, tar, twin
from tests.support.publisher_simulator import ACME, LIBRARY, Simulator
from tests.support.site import Outcome, Site, new_site, simulator
from tests.support.trip import Trip

Stick = Callable[[bytes], Path]


def explain(site: Site, path: Path, *options: str) -> Any:
    """As JSON; nothing changes by it, and the words fit a terminal."""
    before = site.snapshot()
    told = site.bundle("trust", "explain", path, "--json", *options)
    assert told.code == 0, told.err
    words(site, path, *options)
    assert site.snapshot() == before
    return told.document


def words(site: Site, path: Path, *options: str) -> str:
    shown: Outcome = site.bundle("trust", "explain", path, "--quiet", *options)
    assert shown.code == 0, shown.err
    assert max(map(len, shown.out.splitlines())) <= 80
    return shown.out


def states(told: Any) -> list[str]:
    return [check["state"] for check in told["checks"]]


def signed(told: Any, role: str) -> Any:
    return next(each for each in told["roles"] if each["role"] == role)


def test_believed_before_the_payload_is_read(
    site: Site, good: bytes, publisher: Simulator, stick: Stick
) -> None:
    told = explain(site, stick(good))
    assert (told["believed"], told["payloadRead"], told["error"]) == (True, False, None)
    assert states(told) == ["holds"] * 6 + ["not run"] * 3
    assert told["anchor"]["fingerprint"] == str(publisher.state().fingerprint)
    assert [each["role"] for each in told["roles"]] == [
        "root",
        "timestamp",
        "snapshot",
        "targets",
        "bundle",
        LIBRARY,
        ACME,
    ]
    library = signed(told, LIBRARY)
    assert library["parent"] == "targets"
    assert library["signedBy"] == [publisher.keys[LIBRARY][0].public_key.keyid]
    assert library["paths"] == ["models/library/*/*/manifest.json"]
    (model,) = told["models"]
    assert (model["name"], model["role"]) == ("library/tiny:1", LIBRARY)
    assert digest(Forgery().weights) in [blob["digest"] for blob in model["blobs"]]
    assert "The payload was not read" in words(site, stick(good))


def test_full_reads_all(site: Site, good: bytes, stick: Stick) -> None:
    told = explain(site, stick(good), "--full")
    assert told["payloadRead"]
    assert states(told) == ["holds"] * 9


def test_changed_weights_are_found_by_full_only(site: Site, good: bytes, stick: Stick) -> None:
    *rest, weights = members(good)
    changed = bytearray(weights.data)
    changed[-1] ^= 1
    path = stick(tar([*rest, weights.with_data(bytes(changed))]))
    assert explain(site, path)["believed"]
    told = explain(site, path, "--full")
    assert (told["believed"], told["error"]["code"]) == (False, "content-mismatch")
    assert states(told) == ["holds"] * 6 + ["failed"] + ["not run"] * 2
    assert "NOT believed" in words(site, path, "--full")


@pytest.mark.parametrize(("threshold", "keys"), [(1, 2), (2, 3), (3, 5)])
def test_lies_follow_from_the_thresholds(
    tmp_path: Path, stick: Stick, threshold: int, keys: int
) -> None:
    other = simulator()
    site = new_site(tmp_path / "home", other)
    other.set_threshold("root", threshold, keys)
    other.set_threshold("targets", threshold, keys)
    other.set_threshold("timestamp", 2, 2)
    path = stick(forge(twin(other)))
    many = f"{threshold} of the {keys}"
    (model, instead, root, *_) = explain(site, path)["lies"]
    assert f"the {LIBRARY} key" in model
    assert "2 of the 2 timestamp keys" in model
    assert f"{many} targets keys" in instead
    # What this site knew before is the root that it pinned: it still had one key.
    assert "the root key as root v1 names them" in root
    assert site.bundle("import", path).code == 0
    assert f"{many} root keys as root v4" in explain(site, path)["lies"][2]


def test_one_key_for_two_roles_is_named(tmp_path: Path, stick: Stick) -> None:
    other = simulator()
    shared = other.keys["timestamp"][0]
    other.root.revoke_key(other.keys["snapshot"][0].public_key.keyid, "snapshot")
    other.root.add_key(shared.public_key, "snapshot")
    other.keys["snapshot"] = [shared]
    other.roots.clear()
    other.sign_root()
    site = new_site(tmp_path / "home", other)
    last = explain(site, stick(forge(other)))["lies"][-1]
    assert f"one key, {shared.public_key.keyid[:12]}, stands for timestamp, snapshot" in last


def test_a_stranger_is_told_as_it_says_itself(site: Site, stick: Stick) -> None:
    told = explain(site, stick(forge(simulator())))
    assert (told["believed"], told["anchor"]) == (False, None)
    assert told["error"]["code"] == "trust-missing"
    assert states(told) == ["holds", "failed"] + ["not run"] * 7
    assert [model["role"] for model in told["models"]] == [None]
    assert told["lies"] == ["nothing has to happen: what is not believed may say anything"]
    assert "as it says itself" in words(site, stick(forge(simulator())))


def test_a_wrong_key_is_told(site: Site, publisher: Simulator, stick: Stick) -> None:
    thief = twin(publisher)
    thief.keys[LIBRARY] = [CryptoSigner.generate_ecdsa()]
    told = explain(site, stick(forge(thief)))
    assert told["error"]["code"] == "bad-signature"
    assert states(told)[1] == "failed"


def test_another_description_is_told(
    site: Site, publisher: Simulator, good: bytes, stick: Stick
) -> None:
    other = forge(twin(publisher), Forgery("library/other:1"))
    description = next(m for m in members(other) if m.name == "sealift/bundle.json")
    mixed = [description if m.name == description.name else m for m in members(good)]
    told = explain(site, stick(tar(mixed)))
    assert told["error"]["code"] == "outside-closure"
    assert states(told)[:3] == ["holds", "holds", "failed"]


def test_what_the_policy_keeps_out_is_told(
    tmp_path: Path, publisher: Simulator, good: bytes, stick: Stick
) -> None:
    site = new_site(tmp_path / "home", publisher)
    rule = '[[publisher]]\nanchor = "simulated"\nnames = ["acme/*"]\n'
    (site.home / "policy.toml").write_text(f"schema_version = 1\n{rule}")
    told = explain(site, stick(good))
    assert told["believed"]
    assert told["policy"]["refused"]["code"] == "policy-refused"
    assert "That policy keeps it out" in words(site, stick(good))


def test_no_bundle_ends_with_an_error(site: Site, stick: Stick) -> None:
    assert site.bundle("trust", "explain", stick(b"no bundle" * 200)).code == 12


def listing(reason: str, *digests: str) -> bytes:
    entry = {
        "number": 1,
        "at": "2026-11-20T00:00:00Z",
        "action": "block",
        "digests": list(digests),
        "subject": "library/tiny:1",
        "reason": reason,
    }
    return dump({"schemaVersion": 1, "entries": [entry]})


def test_withdrawn_models_are_told(
    tmp_path: Path, publisher: Simulator, good: bytes, stick: Stick
) -> None:
    site = new_site(tmp_path / "home", publisher)
    other = twin(publisher)
    other.withdraw(listing("it lies", digest(Forgery().weights)))
    told = explain(site, stick(forge(other)))
    assert told["believed"]
    assert told["withdrawn"] == ["tiny:1 is withdrawn by simulated (advisory 1): it lies"]
    assert site.bundle("import", stick(forge(other))).code == ModelWithdrawn.exit_code
    other.bump()
    other.withdraw(listing("another history", digest(Forgery().weights)))
    told = explain(site, stick(forge(other, sequence=2)))
    assert told["error"]["code"] == "rollback-detected"
    assert states(told)[:2] == ["holds", "failed"]


def test_volumes_that_are_missing_are_no_doubt(tmp_path: Path) -> None:
    trip = Trip(tmp_path)
    site = trip.site("far")
    head = trip.create(trip.base, "-n", "library/base:1", "--volume-size", "1Mi")
    volumes = sorted(tmp_path.glob("out.v*.tar"))
    assert explain(site, head, *map(str, volumes), "--full")["payloadRead"]
    told = explain(site, head)
    assert (told["believed"], told["payloadRead"]) == (True, False)
    lacking = site.bundle("trust", "explain", head, "--full")
    assert lacking.code == IncompleteBundle.exit_code
    assert "missing" in lacking.err
