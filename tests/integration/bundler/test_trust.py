"""Whom a site believes, through the installed command: one exit code for each reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from bundler.trust.clock import BUILD_DATE
from bundler.trusting import anchors
from schemas.errors import (
    BadSignature,
    ContentMismatch,
    ExpiredMetadata,
    InvalidName,
    RollbackDetected,
    SealiftError,
    TrustMissing,
    UsageError,
)
from tests.support.bundle_simulator import Forgery, Member, forge, members, tar, twin
from tests.support.publisher_simulator import LIBRARY, Simulator
from tests.support.site import Site, check_line, check_refused, new_site, simulator
from tests.support.terminal import Terminal

BUNDLE = Path(sys.executable).with_name("bundle")
LONG_AGO = BUILD_DATE - timedelta(days=1)
Stick = Callable[[bytes], Path]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


def bundle(home: Path, *argv: object) -> Ran:
    """The installed command in a process of its own."""
    done = subprocess.run(
        [BUNDLE, *map(str, argv)],
        env={**os.environ, "SEALIFT_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
        stdin=subprocess.DEVNULL,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def check_exit(site: Site, path: Path, wanted: type[SealiftError]) -> dict[str, Any]:
    """The command fails with the class's own code, says one line, changes nothing."""
    before = site.snapshot()
    plain = bundle(site.home, "import", path)
    assert plain.code == wanted.exit_code, plain
    assert plain.out == ""
    (line,) = plain.err.splitlines()
    assert line.startswith(f"error[{wanted.code}]: ")
    assert site.snapshot().installed == before.installed
    return check_refused(site, path, wanted)


def test_nobody_is_trusted_yet(tmp_path: Path, good: bytes, stick: Stick) -> None:
    site = new_site(tmp_path / "home")
    assert bundle(site.home, "trust", "show").code == 0  # makes the store
    error = check_exit(site, stick(good), TrustMissing)
    assert "trusts no publisher yet" in error["what"]
    assert "bundle trust init" in error["hint"]


def test_unknown_root(site: Site, stick: Stick) -> None:
    check_exit(site, stick(forge(simulator())), TrustMissing)


def test_unknown_root_among_several(publisher: Simulator, stick: Stick, tmp_path: Path) -> None:
    site = new_site(tmp_path / "home", publisher, simulator())
    check_exit(site, stick(forge(simulator())), TrustMissing)


def test_forged_root_in_place_of_the_pinned_one(
    site: Site, publisher: Simulator, stick: Stick
) -> None:
    """All metadata by foreign keys, under the pinned publisher's file names."""
    check_exit(site, stick(forge(simulator(), sequence=7)), TrustMissing)
    thief = twin(publisher)
    thief.keys = dict(simulator().keys)
    thief.root.version += 1
    for role in ("root", "timestamp", "snapshot", "targets"):
        thief.root.add_key(thief.keys[role][0].public_key, role)
    thief.sign_root()
    check_exit(site, stick(forge(thief)), BadSignature)


def test_expired_root(tmp_path: Path, stick: Stick) -> None:
    late = simulator()
    late.root.expires = LONG_AGO
    late.roots.clear()
    late.sign_root()
    site = new_site(tmp_path / "home", late)
    error = check_exit(site, stick(forge(late)), ExpiredMetadata)
    assert "root" in error["what"]


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", LIBRARY])
def test_expired_role(role: str, site: Site, publisher: Simulator, stick: Stick) -> None:
    late = twin(publisher)
    late.signed[role].expires = LONG_AGO
    error = check_refused(site, stick(forge(late)), ExpiredMetadata)
    assert role in error["what"]


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "bundle", LIBRARY])
def test_signature_by_the_wrong_key(
    role: str, site: Site, publisher: Simulator, stick: Stick
) -> None:
    thief = twin(publisher)
    thief.keys[role] = [CryptoSigner.generate_ecdsa()]
    check = check_exit if role == "timestamp" else check_refused
    check(site, stick(forge(thief)), BadSignature)


def test_signature_of_another_bundle(site: Site, publisher: Simulator, stick: Stick) -> None:
    """Each signature is good, and stands under another document."""
    one, two = twin(publisher), twin(publisher)
    two.bump()
    first, second = members(forge(one)), members(forge(two, sequence=2))
    signature = json.loads(first[7].data)["signatures"]
    document = {"signatures": signature, "signed": json.loads(second[7].data)["signed"]}
    data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    mixed = tar([*second[:7], Member.of(second[7].name, data), *second[8:]])
    check_exit(site, stick(mixed), BadSignature)


def test_metadata_mixed_from_two_bundles(site: Site, publisher: Simulator, stick: Stick) -> None:
    one, two = twin(publisher), twin(publisher)
    two.bump("bundle")
    two.signed["bundle"].version = 1
    two.add_target("bundle", "bundle/other.json", b"other")
    first, second = members(forge(one)), members(forge(two, sequence=2))
    mixed = tar([*first[:3], second[3], *first[4:]])
    assert mixed != tar(first)
    check_exit(site, stick(mixed), ContentMismatch)


def test_older_stick_after_a_newer_one(
    site: Site, publisher: Simulator, stick: Stick, tmp_path: Path
) -> None:
    updated = site.copy(tmp_path / "home")
    older = forge(twin(publisher))
    newer = twin(publisher)
    newer.bump()
    path = stick(forge(newer, Forgery(name="library/tiny:2"), sequence=2))
    assert bundle(updated.home, "import", path).code == 0
    error = check_exit(updated, stick(older), RollbackDetected)
    assert "v2" in error["why"]
    assert updated.models() == ["library/tiny:2"]


def test_one_role_rolled_back_under_newer_ones(
    site: Site, publisher: Simulator, stick: Stick, tmp_path: Path
) -> None:
    updated = site.copy(tmp_path / "home")
    newer = twin(publisher)
    newer.bump()
    assert updated.bundle("import", stick(forge(newer))).code == 0
    for role in ("timestamp", "snapshot", "targets", LIBRARY):
        mixed = twin(newer)
        mixed.bump()
        mixed.signed[role].version = 1
        check_refused(updated, stick(forge(mixed, sequence=3)), RollbackDetected)


def test_refused_bundle_does_not_spoil_the_next(
    site: Site, publisher: Simulator, stick: Stick, tmp_path: Path
) -> None:
    """A good timestamp over a broken rest: python-tuf alone would have kept its version."""
    updated = site.copy(tmp_path / "home")
    future = twin(publisher)
    future.bump("timestamp")
    whole = members(forge(future))
    broken = tar([*whole[:-1], Member.of(whole[-1].name, bytes(len(whole[-1].data)))])
    check_exit(updated, stick(broken), ContentMismatch)
    assert updated.bundle("import", stick(forge(twin(publisher)))).code == 0


def test_other_publisher_is_asked_for(
    publisher: Simulator, good: bytes, stick: Stick, tmp_path: Path
) -> None:
    site = new_site(tmp_path / "home", publisher, simulator())
    path = stick(good)
    for name in ("simulated-1", "nobody"):
        outcome = site.bundle("import", path, "--publisher", name, "--json")
        assert outcome.code == TrustMissing.exit_code
        check_line(outcome.error)
    assert site.bundle("import", path, "--publisher", "simulated").code == 0


def test_clock_that_was_set_back_does_not_revive_what_expired(
    site: Site, publisher: Simulator, stick: Stick, tmp_path: Path
) -> None:
    """The floor of the first import judges the second."""
    from datetime import UTC, datetime

    from bundler.importer import Wishes, import_bundle
    from registry.store import Store
    from schemas.render import Output

    updated = site.copy(tmp_path / "home")
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    brief = twin(publisher)
    brief.signed["timestamp"].expires = soon
    path = stick(forge(twin(publisher)))
    with (
        Store.open(updated.home) as store,
        Output(quiet=True).progress() as meter,
        path.open("rb", buffering=0) as source,
    ):
        now = soon + timedelta(days=1)
        import_bundle(store, source, {}, wishes=Wishes(), now=now, progress=meter)
    brief.bump("timestamp")
    check_exit(updated, stick(forge(brief, sequence=2)), ExpiredMetadata)


def test_same_bundle_twice(site: Site, good: bytes, stick: Stick, tmp_path: Path) -> None:
    updated = site.copy(tmp_path / "home")
    path = stick(good)
    first = updated.bundle("import", path, "--json").document["receipt"]
    blobs = updated.snapshot().blobs
    second = updated.bundle("import", path, "--json").document["receipt"]
    assert (first["blobs"]["added"], first["blobs"]["reused"]) == (3, 0)
    assert (second["blobs"]["added"], second["blobs"]["reused"]) == (0, 3)
    assert second["blobs"]["bytesAdded"] == 0
    assert updated.snapshot().blobs == blobs
    assert (updated.models(), updated.imports()) == (["library/tiny:1"], 2)


def test_pinning_again_does_not_forget_what_was_seen(
    site: Site, publisher: Simulator, stick: Stick, tmp_path: Path
) -> None:
    updated = site.copy(tmp_path / "home")
    newer = twin(publisher)
    newer.bump()
    assert updated.bundle("import", stick(forge(newer))).code == 0
    root = tmp_path / "root.json"
    root.write_bytes(publisher.root_bytes)
    pin = ("trust", "init", "--root", root, "--name", "simulated", "--fingerprint")
    before = updated.snapshot()
    assert updated.bundle(*pin, publisher.state().fingerprint).code == 0
    assert updated.snapshot() == before
    check_exit(updated, stick(forge(twin(publisher))), RollbackDetected)


def test_what_is_taken_late_is_said(stick: Stick, tmp_path: Path) -> None:
    publisher = simulator()
    target = new_site(tmp_path / "home", publisher)
    for role in ("timestamp", "snapshot"):
        publisher.signed[role].expires -= timedelta(days=3650)
    path = stick(forge(publisher))
    assert target.bundle("import", path).code == ExpiredMetadata.exit_code
    done = target.bundle("import", path, "--accept-stale", "--reason", "the courier was ill")
    assert done.code == 0, done.err
    late = [line.split() for line in done.out.splitlines() if line.startswith("late")]
    assert [(role, how) for _, role, *_, how in late] == [
        ("timestamp", "(accepted)"),
        ("snapshot", "(accepted)"),
    ]
    assert "because     the courier was ill\n" in done.out


def test_the_paper_is_asked_for_on_a_terminal(publisher: Simulator, tmp_path: Path) -> None:
    """Fingerprint first, then the least version; a slip is told where it was made."""
    root, fingerprint = tmp_path / "root.json", publisher.state().fingerprint.hex
    root.write_bytes(publisher.root_bytes)
    environment = {**os.environ, "SEALIFT_HOME": str(tmp_path / "home")}

    def init(*answers: tuple[str, str]) -> tuple[int, str]:
        command = ("bundle", "trust", "init", "--root", str(root), "--name", "them")
        terminal = Terminal(environment, *command, size=(24, 80))
        for question, answer in answers:
            terminal.expect(question)
            terminal.type(f"{answer}\n")
        last = terminal.expect("error[" if answers[-1][1] != "7" else "or newer")
        return terminal.end(), last

    assert init(("Fingerprint", fingerprint[:-1]))[0] == InvalidName.exit_code
    assert init(("Fingerprint", fingerprint), ("version", "seven"))[0] == UsageError.exit_code
    assert anchors(tmp_path / "home", None) == []
    grouped = " ".join(fingerprint.upper()[i : i + 8] for i in range(0, 64, 8))
    code, shown = init(("Fingerprint", grouped), ("version", "7"))
    assert code == 0
    assert "timestamp v7" in shown
    (known,) = anchors(tmp_path / "home", None)
    assert (known.anchor.fingerprint.hex, known.least_timestamp) == (fingerprint, 7)
