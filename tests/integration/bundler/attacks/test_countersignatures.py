"""Checkpoints go out, are countersigned, and come back: what that fixes, and who tries to bend it.

A witness on the connected side, a site, and a bundle between them; each attack is one test.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bundler.evidence import checkpoints
from bundler.evidence.coding import encode
from bundler.evidence.witness import Countersigned
from bundler.trust import dsse, keys
from bundler.trust.site import site_key
from schemas import strictjson
from schemas.errors import (
    AuditBroken,
    BadSignature,
    FingerprintMismatch,
    MalformedDocument,
    SealiftError,
)
from tests.integration.bundler.attacks.test_audit_log import findings, forger, rewrite
from tests.support.bundle_simulator import forge, twin
from tests.support.publisher_simulator import Simulator
from tests.support.site import Outcome, Site, check_line, new_site

PASSPHRASE = b"correct horse"


@dataclass(frozen=True)
class Witness:
    """The connected side.

    Attributes:
        home: Remembers what was countersigned.
        key: File of the witness's private key.
        secret: File with its passphrase.
    """

    home: Site
    key: Path
    secret: Path

    def countersign(self, checkpoint: Path, output: Path, *more: object) -> Outcome:
        argv = ("--key", self.key, "--passphrase-file", self.secret, "--force", "--json", *more)
        return self.home.bundle("audit", "countersign", checkpoint, "-o", output, *argv)


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    folder = tmp_path / "connected"
    folder.mkdir()
    keys.save(folder / "w.pem", dsse.make_key(keys.ECDSA_P256).signer, PASSPHRASE, rounds=1000)
    (folder / "secret").write_bytes(PASSPHRASE)
    return Witness(Site(folder / "home"), folder / "w.pem", folder / "secret")


@pytest.fixture
def target(publisher: Simulator, tmp_path: Path) -> Site:
    """A site that has refused three files: a log of four entries."""
    home = new_site(tmp_path / "isolated", publisher)
    for _ in range(3):
        happen(home)
    return home


def happen(site: Site) -> None:
    """One more entry."""
    junk = site.home.with_name("junk.tar")
    junk.write_bytes(b"no bundle" * 1000)
    assert site.bundle("import", junk).code == 12


def checkpoint(site: Site, *more: object) -> Path:
    path = site.home.with_name("checkpoint.json")
    outcome = site.bundle("audit", "checkpoint", "-o", path, "--force", *more)
    assert outcome.code == 0, outcome
    return path


def countersigned(witness: Witness, site: Site) -> Path:
    path = site.home.with_name("countersigned.json")
    outcome = witness.countersign(checkpoint(site), path)
    assert outcome.code == 0, outcome
    return path


def carrying(publisher: Simulator, *files: Path, **changes: Any) -> bytes:
    """A bundle that brings countersignatures along."""
    documents = [{**json.loads(path.read_bytes()), **changes} for path in files]
    return forge(twin(publisher), descriptor=lambda d: d.update(countersigned=documents))


def verified(site: Site, *argv: object) -> dict[str, Any]:
    outcome = site.bundle("audit", "verify", "--json", *argv)
    assert outcome.code == 0, outcome
    document: dict[str, Any] = outcome.document
    return document


def check_fails(outcome: Outcome, wanted: type[SealiftError]) -> dict[str, Any]:
    assert outcome.code == wanted.exit_code, outcome
    check_line(outcome.error)
    return outcome.error


# -- the way it should go -------------------------------------------------------------------------


def test_it_comes_back_in_the_next_bundle(
    witness: Witness, target: Site, publisher: Simulator, stick: Callable[[bytes], Path]
) -> None:
    note = countersigned(witness, target)
    assert verified(target)["countersigned"] == 0
    outcome = target.bundle("import", stick(carrying(publisher, note)), "--json")
    assert outcome.code == 0, outcome
    assert "warnings" not in outcome.document["receipt"]
    assert verified(target)["countersigned"] == 4
    entries = target.bundle("audit", "show", "--json").document["entries"]
    assert [entry["action"] for entry in entries[-2:]] == ["audit.countersigned", "import"]


def test_the_same_one_comes_with_every_bundle(
    witness: Witness, target: Site, publisher: Simulator, stick: Callable[[bytes], Path]
) -> None:
    bundle = stick(carrying(publisher, countersigned(witness, target)))
    for _ in range(2):
        assert target.bundle("import", bundle).code == 0
    entries = target.bundle("audit", "show", "--json").document["entries"]
    assert [entry["action"] for entry in entries].count("audit.countersigned") == 1


def test_it_comes_by_itself(witness: Witness, target: Site) -> None:
    note = countersigned(witness, target)
    assert target.bundle("audit", "import-countersignature", note).code == 0
    assert verified(target)["countersigned"] == 4


def test_the_next_checkpoint_proves_that_it_continues(witness: Witness, target: Site) -> None:
    note = countersigned(witness, target)
    assert target.bundle("audit", "import-countersignature", note).code == 0
    happen(target)
    assert json.loads(countersigned(witness, target).read_bytes())["note"].splitlines()[1] == "6"


def test_other_sites_are_passed_over(
    witness: Witness,
    target: Site,
    site: Site,
    publisher: Simulator,
    stick: Callable[[bytes], Path],
    tmp_path: Path,
) -> None:
    other = site.copy(tmp_path / "other" / "home")
    shutil.rmtree(other.home / "site", ignore_errors=True)
    happen(other)
    bundle = stick(carrying(publisher, countersigned(witness, other)))
    assert target.bundle("import", bundle).code == 0
    assert verified(target)["countersigned"] == 0


# -- the site is not honest -----------------------------------------------------------------------


def test_a_rewritten_log_with_everything_signed_anew(witness: Witness, target: Site) -> None:
    """The site's key does not help against somebody else's signature."""
    happen(target)
    note = countersigned(witness, target)
    assert target.bundle("audit", "import-countersignature", note).code == 0
    with forger(target) as bad:
        rewrite(bad)
    (kind, first, last), *_ = findings(target)
    assert (kind, first <= 3 <= last) == ("rewritten", True)


def test_a_rewritten_log_from_which_the_countersignature_was_removed(
    witness: Witness, target: Site, publisher: Simulator, stick: Callable[[bytes], Path]
) -> None:
    """Gone from the site, it comes back with the next bundle; the import is not held up by it."""
    note = countersigned(witness, target)
    with forger(target) as bad:
        rewrite(bad)
    assert verified(target)["countersigned"] == 0
    outcome = target.bundle("import", stick(carrying(publisher, note)), "--json")
    assert outcome.code == 0
    (warning,) = outcome.document["receipt"]["warnings"]
    assert "first 4 entries are not what they were" in warning
    assert ("rewritten", 0, 3) in findings(target)


def test_a_log_that_was_set_back(
    witness: Witness,
    target: Site,
    publisher: Simulator,
    stick: Callable[[bytes], Path],
    tmp_path: Path,
) -> None:
    """A backup put in place of the store: shorter than what was countersigned."""
    backup = target.copy(tmp_path / "backup")
    happen(target)
    note = countersigned(witness, target)
    outcome = backup.bundle("import", stick(carrying(publisher, note)), "--json")
    assert outcome.code == 0
    assert "it had 5 entries then, and has 4 now" in outcome.document["receipt"]["warnings"][0]
    assert findings(backup)


def test_the_witness_signs_no_second_history(witness: Witness, target: Site) -> None:
    countersigned(witness, target)
    with forger(target) as bad:
        rewrite(bad)
    happen(target)
    path = checkpoint(target, "--since", "4")
    error = check_fails(witness.countersign(path, path.with_name("c.json")), AuditBroken)
    assert "the first 4 entries are not what they were" in error["why"]


def test_the_witness_signs_no_other_root_of_the_same_size(witness: Witness, target: Site) -> None:
    countersigned(witness, target)
    with forger(target) as bad:
        rewrite(bad)
    path = checkpoint(target)
    error = check_fails(witness.countersign(path, path.with_name("c.json")), AuditBroken)
    assert "another root" in error["why"]


def test_the_witness_signs_no_shorter_log(witness: Witness, target: Site, tmp_path: Path) -> None:
    backup = target.copy(tmp_path / "backup")
    happen(target)
    countersigned(witness, target)
    path = checkpoint(backup)
    check_fails(witness.countersign(path, path.with_name("c.json")), AuditBroken)


def test_the_witness_wants_a_proof(witness: Witness, target: Site) -> None:
    countersigned(witness, target)
    happen(target)
    path = checkpoint(target)
    error = check_fails(witness.countersign(path, path.with_name("c.json")), AuditBroken)
    assert "--since 4" in error["hint"]
    path = checkpoint(target, "--since", "4")
    assert witness.countersign(path, path.with_name("c.json")).code == 0


def test_the_same_checkpoint_may_be_countersigned_again(witness: Witness, target: Site) -> None:
    assert countersigned(witness, target) == countersigned(witness, target)


# -- the way is not honest ------------------------------------------------------------------------


def test_a_checkpoint_changed_on_the_way(witness: Witness, target: Site) -> None:
    path = checkpoint(target)
    envelope = json.loads(path.read_bytes())
    document = json.loads(base64.b64decode(envelope["payload"]))
    document["checkpoint"] = document["checkpoint"].replace("\n4\n", "\n5\n")
    envelope["payload"] = base64.b64encode(strictjson.dumps(document)).decode()
    envelope["about"][3] = "Entries: 5"
    path.write_text(json.dumps(envelope, indent=1) + "\n")
    check_fails(witness.countersign(path, path.with_name("c.json")), BadSignature)


def test_a_checkpoint_with_another_text_around_it(witness: Witness, target: Site) -> None:
    path = checkpoint(target)
    path.write_bytes(path.read_bytes().replace(b"Entries: 4", b"Entries: 9"))
    check_fails(witness.countersign(path, path.with_name("c.json")), MalformedDocument)


def test_a_checkpoint_of_a_site_that_is_not_meant(witness: Witness, target: Site) -> None:
    path = checkpoint(target)
    outcome = witness.countersign(path, path.with_name("c.json"), "--site", "0" * 64)
    check_fails(outcome, FingerprintMismatch)
    own = site_key(target.home).fingerprint.hex
    assert witness.countersign(path, path.with_name("c.json"), "--site", own).code == 0


def test_a_checkpoint_that_is_something_else(witness: Witness, tmp_path: Path) -> None:
    for number, data in enumerate((b"", b"{}", b"[]", b"\xff" * 100, b"{" * 10_000)):
        path = tmp_path / f"{number}.json"
        path.write_bytes(data)
        check_fails(witness.countersign(path, tmp_path / "c.json"), MalformedDocument)


def brought(site: Site, path: Path, **changes: Any) -> Outcome:
    """A countersignature with some fields changed, in the form that it has on disk."""
    document = {**json.loads(path.read_bytes()), **changes}
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    return site.bundle("audit", "import-countersignature", path, "--json")


def test_a_countersignature_by_another_key(witness: Witness, target: Site) -> None:
    path = countersigned(witness, target)
    stranger = encode(dsse.make_key(keys.ECDSA_P256).public)
    check_fails(brought(target, path, publicKey=stranger), BadSignature)


def test_a_countersignature_with_another_size(witness: Witness, target: Site) -> None:
    path = countersigned(witness, target)
    note = json.loads(path.read_bytes())["note"].replace("\n4\n", "\n3\n")
    check_fails(brought(target, path, note=note), BadSignature)


def test_a_countersignature_of_what_the_site_never_signed(target: Site, tmp_path: Path) -> None:
    """A witness alone cannot accuse a site."""
    head = checkpoints.read(json.loads(countersign_alone(target, tmp_path))["note"].encode())
    path = tmp_path / "c.json"
    path.write_bytes(countersign_alone(target, tmp_path))
    check_fails(target.bundle("audit", "import-countersignature", path, "--json"), BadSignature)
    assert head.size == 4
    assert verified(target)["countersigned"] == 0


def countersign_alone(site: Site, folder: Path) -> bytes:
    """A note about the site's log with another root, and the witness's line below it only."""
    stranger = site_key(folder / "stranger") if (folder / "stranger").exists() else None
    if stranger is None:
        (folder / "stranger").mkdir()
        stranger = site_key(folder / "stranger")
    own = site_key(site.home).fingerprint.hex
    made = checkpoints.make(stranger, 4, b"\0" * 32)
    note = made.note.decode().replace(stranger.fingerprint.hex, own)
    signed = checkpoints.countersign(checkpoints.read(note.encode()), _person())
    return Countersigned(signed, _person().public).to_bytes()


_KEY = dsse.make_key(keys.ED25519)


def _person() -> dsse.PersonKey:
    return _KEY


def test_a_countersignature_for_another_site(
    witness: Witness, target: Site, site: Site, tmp_path: Path
) -> None:
    other = site.copy(tmp_path / "other" / "home")
    shutil.rmtree(other.home / "site", ignore_errors=True)
    happen(other)
    path = countersigned(witness, other)
    outcome = target.bundle("audit", "import-countersignature", path, "--json")
    check_fails(outcome, FingerprintMismatch)


@pytest.mark.parametrize(
    "note", ["no note\n", "\n\n\n", "sealift/site/00\n4\nAAAA\n\n\u2014 a b\n"]
)
def test_a_bundle_that_brings_nonsense(
    note: str,
    witness: Witness,
    target: Site,
    publisher: Simulator,
    stick: Callable[[bytes], Path],
) -> None:
    """Signed by a publisher, and still no note: refused whole, like any malformed descriptor."""
    path = countersigned(witness, target)
    before = target.snapshot()
    outcome = target.bundle("import", stick(carrying(publisher, path, note=note)), "--json")
    check_fails(outcome, MalformedDocument)
    assert target.snapshot().installed == before.installed
    assert target.bundle("import", stick(forge(twin(publisher)))).code == 0


def test_a_bundle_that_brings_a_forged_one(
    witness: Witness, target: Site, publisher: Simulator, stick: Callable[[bytes], Path]
) -> None:
    path = countersigned(witness, target)
    note = json.loads(path.read_bytes())["note"].replace("\n4\n", "\n3\n")
    before = target.snapshot()
    outcome = target.bundle("import", stick(carrying(publisher, path, note=note)), "--json")
    check_fails(outcome, BadSignature)
    assert target.snapshot().installed == before.installed


def test_ed25519_witnesses_count_too(target: Site, tmp_path: Path) -> None:
    folder = tmp_path / "connected"
    folder.mkdir()
    keys.save(folder / "w.pem", _KEY.signer, PASSPHRASE, rounds=1000)
    (folder / "secret").write_bytes(PASSPHRASE)
    witness = Witness(Site(folder / "home"), folder / "w.pem", folder / "secret")
    note = countersigned(witness, target)
    assert target.bundle("audit", "import-countersignature", note).code == 0
    assert verified(target)["countersigned"] == 4
