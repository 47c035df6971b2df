"""Keys over the years, through the commands: a site that pinned the first root follows all along."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bundler.trust import publisher as publisher_module
from bundler.trust.publisher import Publisher
from bundler.workbench import Workbench
from registry.digest import Digest
from schemas.errors import (
    AlreadyExists,
    BadSignature,
    ExpiredMetadata,
    InvalidName,
    KeyUnavailable,
    ModelWithdrawn,
    NotFound,
    RollbackDetected,
    TrustMissing,
    UsageError,
)
from tests.gguf_files import tiny_gguf
from tests.support.site import Outcome, Site, environment

PASSPHRASE = b"correct horse battery"
ROLES = ("root", "timestamp", "snapshot", "targets", "advisories", "bundle", "publisher-library")


class Office:
    """The connected side, a site that pinned its first root, and a stick between them."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.connected = Site(folder / "connected")
        self.site = Site(folder / "site")
        self.model = model
        self.bundles = 0
        self.root = folder / "root.json"
        (folder / "pw").write_bytes(PASSPHRASE + b"\n")

    @property
    def keys(self) -> list[str]:
        """Names of the files of private keys."""
        return sorted(p.name for p in (self.connected.home / "publisher" / "keys").iterdir())

    def pin(self) -> None:
        assert self.bundle("keys", "root", "-o", self.root).code == 0
        fingerprint = Digest.of(self.root.read_bytes())
        pinned = self.site.bundle(
            "trust", "init", "--root", self.root, "--fingerprint", fingerprint
        )
        assert pinned.code == 0, pinned.err

    def bundle(self, *argv: object) -> Outcome:
        with environment(SEALIFT_PASSPHRASE_FILE=str(self.folder / "pw")):
            return self.connected.bundle(*argv)

    def done(self, *argv: object) -> Any:
        """A command that works; what it says as JSON."""
        outcome = self.bundle(*argv, "--json")
        assert outcome.code == 0, outcome.err
        return outcome.document

    def refused(self, wanted: type[Exception], *argv: object) -> str:
        """A command that does not, and changes nothing."""
        before = tree(self.connected.home)
        outcome = self.bundle(*argv)
        assert outcome.code == getattr(wanted, "exit_code", None), (outcome.out, outcome.err)
        assert tree(self.connected.home) == before
        return outcome.err

    def create(self, name: str | None = None, *options: object) -> Path:
        self.bundles += 1
        path = self.folder / f"{self.bundles}.tar"
        wanted = name or f"library/m:{self.bundles}"
        self.done("create", self.model, "-n", wanted, "-o", path, *options)
        return path

    def travel(self, name: str | None = None, *options: object) -> None:
        """One bundle, made and imported."""
        outcome = self.site.bundle("import", self.create(name, *options))
        assert outcome.code == 0, outcome.err

    def person(self, name: str) -> Path:
        """A key that somebody keeps elsewhere."""
        path = self.folder / f"{name}.pem"
        self.done("keys", "generate", "-o", path)
        return path


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock" and "chunks" not in path.parts
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("model") / "m.gguf")


def publisher(office: Office) -> Publisher:
    return Publisher.init(
        office.connected.home / "publisher",
        name="Test",
        namespaces=("library",),
        passphrase=PASSPHRASE,
        now=datetime.now(UTC),
        kdf_rounds=1000,
    )


@pytest.fixture
def office(tmp_path: Path, model: Path) -> Office:
    made = Office(tmp_path, model)
    publisher(made)
    made.pin()
    return made


def test_from_one_of_one_to_three_of_five(office: Office, tmp_path: Path) -> None:
    office.travel()
    behind = office.site.copy(tmp_path / "behind")  # sees the next stick years later
    people = [office.person(name) for name in ("anna", "bob", "carla", "dan")]
    for person in people[:2]:  # one by one, while one signature is enough
        name = ("--name", person.stem)
        office.done("keys", "add", "root", "--key", person.with_suffix(".pub"), *name)
        office.travel()
    request = tmp_path / "request.json"
    words: list[object] = []
    for person in people[2:]:
        words += ["--add", f"root={person.with_suffix('.pub')}"]
    for person in people:
        words += ["--add", f"targets={person.with_suffix('.pub')}"]
    words += ["--threshold", "root=3", "--threshold", "targets=2"]
    asked = office.done("sign", "request", *words, "-o", request)
    lacks = {role["role"]: role["missing"] for role in asked["roles"]}
    assert lacks == {"root": 2, "targets": 1}
    office.travel()  # meanwhile, nothing has changed
    office.refused(KeyUnavailable, "sign", "finish", request)
    for person in people[:2]:
        signed = office.done("sign", "add", request, "--key", person)
        assert set(signed["signed"]) == {"root", "targets"}
    assert office.done("sign", "finish", request)["complete"]
    office.travel()
    listed = {role["role"]: role for role in office.done("keys", "list")}
    assert (listed["root"]["threshold"], len(listed["root"]["keys"])) == (3, 5)
    assert [key["name"] for key in listed["root"]["keys"][1:]] == ["anna", "bob", "carla", "dan"]
    office.refused(KeyUnavailable, "keys", "rotate", "timestamp")  # one key is too few now
    with_keys = [word for person in people[1:3] for word in ("--sign-with", person)]
    office.done("keys", "rotate", "timestamp", *with_keys)
    late = behind.bundle("import", office.create())
    assert late.code == 0, late.err
    assert behind.models() == ["library/m:1", f"library/m:{office.bundles}"]


def test_copies_of_a_request_are_signed_apart(office: Office, tmp_path: Path) -> None:
    people = [office.person(name) for name in ("anna", "bob")]
    request = tmp_path / "r.json"
    words = [word for p in people for word in ("--add", f"root={p.with_suffix('.pub')}")]
    office.done("sign", "request", *words, "--threshold", "root=3", "-o", request)
    copies = []
    pinned = Digest.of(office.root.read_bytes()).hex
    for person in people:
        copy = tmp_path / f"{person.stem}.json"
        shutil.copy(request, copy)
        elsewhere = Site(tmp_path / person.stem)  # a machine without a publisher's folder
        signing: list[object] = [
            "sign",
            "add",
            copy,
            "--key",
            person,
            "--passphrase-file",
            tmp_path / "pw",
        ]
        assert elsewhere.bundle(*signing).code == TrustMissing.exit_code
        assert elsewhere.bundle(*signing, "--fingerprint", "0" * 64).code == TrustMissing.exit_code
        signed = elsewhere.bundle(*signing, "--fingerprint", pinned)
        assert signed.code == 0, signed.err
        assert "may sign root from now on" in signed.out
        copies.append(copy)
    shown = office.bundle("sign", "show", copies[0])
    assert "root needs 3 of 3 signatures instead of 1 of 1" in shown.out
    office.refused(KeyUnavailable, "sign", "finish", copies[0])
    office.done("sign", "finish", *copies)
    office.travel()
    office.refused(UsageError, "sign", "finish", *copies)  # once is enough


def test_words_come_before_the_passphrase(office: Office, tmp_path: Path) -> None:
    person = office.person("anna")
    request = tmp_path / "r.json"
    words = ("--add", f"root={person.with_suffix('.pub')}", "--threshold", "root=2")
    office.done("sign", "request", *words, "-o", request)
    before = request.read_bytes()
    outcome = office.connected.bundle("sign", "add", request, "--key", person)  # nobody to ask
    assert outcome.code == KeyUnavailable.exit_code
    assert "root needs 2 of 2 signatures" in outcome.out
    assert request.read_bytes() == before


def test_key_that_may_sign_nothing(office: Office, tmp_path: Path) -> None:
    stranger, request = office.person("eve"), tmp_path / "r.json"
    anna = office.person("anna").with_suffix(".pub")
    office.done("keys", "add", "root", "--key", anna, "--threshold", "2", "--request", request)
    before = request.read_bytes()
    assert "may sign none" in office.refused(
        KeyUnavailable, "sign", "add", request, "--key", stranger
    )
    assert request.read_bytes() == before


def test_publisher_with_keys_of_its_own(office: Office, tmp_path: Path) -> None:
    acme, request = office.person("acme"), tmp_path / "r.json"
    key = acme.with_suffix(".pub")
    office.refused(KeyUnavailable, "publisher", "add", "acme", "--key", key)
    office.done("publisher", "add", "acme", "--key", key, "--request", request)
    office.refused(KeyUnavailable, "sign", "finish", request)
    office.done("sign", "add", request, "--key", acme)
    office.done("sign", "finish", request)
    office.refused(AlreadyExists, "publisher", "add", "acme", "--key", key)
    office.travel()
    create = ("create", office.model, "-n", "acme/m:1", "-o", tmp_path / "acme.tar")
    office.refused(KeyUnavailable, *create)
    words = ("--model", office.model, "--name", "acme/m:1", "-o", request, "--force")
    asked = office.done("sign", "request", *words)
    (role,) = asked["roles"]
    assert role["role"] == "publisher-acme"
    assert "signs for models/acme/m/1/manifest.json" in role["changes"][0]
    office.done("sign", "add", request, "--key", acme)
    office.done("sign", "finish", request)
    office.travel("acme/m:1")  # the host has no key of theirs
    assert "acme/m:1" in office.site.models()
    assert {p["role"]: p["models"] for p in office.done("publisher", "list")} == {
        "publisher-library": 1,
        "publisher-acme": 1,
    }


def test_publishers_keys_are_replaced_and_what_it_signed_stays(
    office: Office, tmp_path: Path
) -> None:
    office.travel()
    stolen = office.keys.index("publisher-library.pem")
    office.done("publisher", "rotate", "library")
    assert office.keys[stolen] != "publisher-library.pem"
    office.travel()
    signers = {p["role"]: p["keys"][0]["place"] for p in office.done("publisher", "list")}
    assert signers["publisher-library"].startswith("keys/publisher-library@")
    again = office.folder / "again.tar"
    office.done("create", office.model, "-n", "library/m:1", "-o", again)
    assert office.site.bundle("import", again).code == 0


def test_retired_publisher_and_its_return(office: Office, tmp_path: Path) -> None:
    acme = office.person("acme")
    request = tmp_path / "r.json"
    key = ("--key", acme.with_suffix(".pub"))
    office.done("publisher", "add", "acme", *key, "--request", request)
    office.done("sign", "add", request, "--key", acme)
    office.done("sign", "finish", request)
    words = ("--model", office.model, "--name", "acme/m:1", "-o", request, "--force")
    office.done("sign", "request", *words)
    office.done("sign", "add", request, "--key", acme)
    office.done("sign", "finish", request)
    office.travel("acme/m:1")
    told = office.done("publisher", "retire", "acme", "--dry-run")
    assert not told["committed"]
    assert any("is void" in word for role in told["roles"] for word in role["changes"])
    assert office.done("publisher", "list")[1]["models"] == 1
    office.done("publisher", "retire", "acme")  # its key is not needed
    acme.unlink()
    office.travel()  # the role stays in the snapshot: no rollback
    office.refused(NotFound, "create", office.model, "-n", "acme/m:2", "-o", tmp_path / "b.tar")
    assert "acme/m:1" in office.site.models()
    office.done("keys", "rotate", "targets")  # takes the retired role along
    office.travel()
    office.done("publisher", "add", "acme")  # comes back with a key that is made here
    office.travel("acme/m:3")


@pytest.mark.parametrize("role", ROLES)
def test_every_role_rotates(role: str, office: Office) -> None:
    office.travel()
    dry = office.done("keys", "rotate", role, "--dry-run")
    assert not dry["committed"]
    assert f"{role}.pem" in office.keys
    office.done("keys", "rotate", role)
    assert f"{role}.pem" not in office.keys
    assert len(office.keys) == len(ROLES)
    office.travel()
    office.done("keys", "rotate", role)
    office.travel()
    assert len(office.keys) == len(ROLES)


def test_offline_root_and_targets(tmp_path: Path, model: Path) -> None:
    office = Office(tmp_path, model)
    stick = tmp_path / "stick"
    office.refused(NotFound, "keys", "init", "--offline", stick)
    stick.mkdir()
    office.done("keys", "init", "--offline", stick)
    assert sorted(p.name for p in stick.iterdir()) == ["root.pem", "targets.pem"]
    assert {p.stat().st_mode & 0o777 for p in stick.iterdir()} == {0o600}
    assert not {"root.pem", "targets.pem"} & set(office.keys)
    office.pin()
    office.travel()
    office.refused(KeyUnavailable, "keys", "add-namespace", "acme")
    office.done("keys", "add-namespace", "acme", "--sign-with", stick)
    office.travel("acme/m:1")
    office.refused(AlreadyExists, "keys", "init", "--offline", stick)


def test_timestamp_key_was_stolen(office: Office, tmp_path: Path) -> None:
    """Whoever has it pushes a site far ahead; a new root with another key clears that."""
    from securesystemslib.signer import CryptoSigner
    from tuf.api.metadata import Metadata

    from bundler.trust import keys as key_files
    from tests.support.bundle_simulator import Member, members, tar

    office.travel()
    thief = key_files.load(
        office.connected.home / "publisher" / "keys" / "timestamp.pem", PASSPHRASE
    )
    assert isinstance(thief, CryptoSigner)
    whole = members(office.create().read_bytes())
    forged = []
    for member in whole:
        if member.name.endswith("/timestamp.json"):
            metadata: Metadata[Any] = Metadata.from_bytes(member.data)
            metadata.signed.version = 9999
            metadata.sign(thief)
            forged.append(Member.of(member.name, metadata.to_bytes()))
        else:
            forged.append(member)
    path = tmp_path / "forged.tar"
    path.write_bytes(tar(forged))
    assert office.site.bundle("import", path).code == 0  # believed: the key was right
    stuck = office.site.bundle("import", office.create())
    assert stuck.code == RollbackDetected.exit_code
    office.done("keys", "add", "timestamp")  # one more key does not help
    assert office.site.bundle("import", office.create()).code == RollbackDetected.exit_code
    old = office.done("keys", "list")[1]["keys"][0]["id"]
    office.done("keys", "revoke", "timestamp", old[:12])
    office.travel()
    assert office.site.bundle("import", path).code == RollbackDetected.exit_code


def test_folder_of_an_early_release(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bundle 1 has no role for withdrawals; a site that knows it takes bundle 2, which has."""
    office = Office(tmp_path, model)
    with monkeypatch.context() as patch:
        roles = [role for role in publisher_module._ROLES if role != "advisories"]
        patch.setattr(publisher_module, "_ROLES", roles)
        publisher(office)
    state = next((office.connected.home / "publisher").glob("metadata/*/publisher.json"))
    text = json.loads(state.read_bytes())
    state.write_text(
        json.dumps({k: v for k, v in text.items() if not k.endswith("s")} | {"schemaVersion": 1})
    )
    office.pin()
    office.travel()
    assert "advisories.pem" not in office.keys
    office.done("publisher", "add", "acme")
    assert office.done("keys", "list")[4]["role"] == "advisories"
    office.travel("acme/m:1")
    office.done("keys", "rotate", "timestamp")
    office.travel()


def test_advisories_can_be_added_by_hand(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = Office(tmp_path, model)
    with monkeypatch.context() as patch:
        roles = [role for role in publisher_module._ROLES if role != "advisories"]
        patch.setattr(publisher_module, "_ROLES", roles)
        publisher(office)
    office.pin()
    office.done("keys", "add", "advisories")
    office.travel()
    office.done("keys", "add", "advisories", "--threshold", "2")
    office.travel()


def test_withdrawal_by_two(office: Office, tmp_path: Path) -> None:
    office.travel()
    anna, request = office.person("anna"), tmp_path / "r.json"
    words = ("--add", f"advisories={anna.with_suffix('.pub')}", "--threshold", "advisories=2")
    office.done("sign", "request", *words, "-o", request)
    office.done("sign", "add", request, "--key", anna)
    office.done("sign", "finish", request)
    why = ("withdraw", "library/m:1", "--reason", "it was poisoned")
    office.refused(KeyUnavailable, *why)
    request = tmp_path / "w.json"
    office.done(*why, "--request", request)
    shown = office.bundle("sign", "add", request, "--key", anna)
    assert "withdrawal 1: block library/m:1: it was poisoned" in shown.out
    office.done("sign", "finish", request)
    assert office.done("withdraw", "--list")
    told = office.site.bundle("import", office.create("library/other:1"))  # the same weights
    assert told.code == ModelWithdrawn.exit_code, told.err


def test_status_is_for_scripts(office: Office) -> None:
    report = office.done("keys", "status")
    assert not report["soon"]
    assert {role["role"] for role in report["roles"]} == set(ROLES)
    assert report["roles"][0]["daysLeft"] >= 1458
    near = office.bundle("keys", "status", "--days", "400", "--json")
    assert near.code == ExpiredMetadata.exit_code
    assert near.document["soon"]
    assert "publisher-library expires on" in near.err
    office.done("keys", "renew", "publisher-library", "targets")
    versions = {r["role"]: r["version"] for r in office.done("keys", "list")}
    assert (versions["publisher-library"], versions["targets"]) == (2, 2)


def test_backup_that_was_restored(office: Office, tmp_path: Path) -> None:
    """It would give version numbers out a second time; the last bundle tells."""
    folder = office.connected.home / "publisher"
    shutil.copytree(folder, tmp_path / "backup")
    last = office.create()
    office.create(None, "--after", last)
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "backup", folder)
    office.refused(RollbackDetected, "keys", "status", "--after", last)
    words = ("create", office.model, "-n", "library/m:9", "-o", tmp_path / "b.tar")
    office.refused(RollbackDetected, *words, "--after", last)
    newest = office.folder / f"{office.bundles}.tar"
    assert office.site.bundle("import", newest).code == 0
    office.done("keys", "recover", newest)
    office.refused(AlreadyExists, "keys", "recover", newest)
    office.refused(AlreadyExists, "keys", "recover", last)
    office.travel(None, "--after", newest)
    (tmp_path / "other").mkdir()
    stranger = Office(tmp_path / "other", office.model)
    publisher(stranger)
    office.refused(TrustMissing, "keys", "status", "--after", stranger.create())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UsageError, ("threshold", "root", "2")),
        (NotFound, ("threshold", "nobody", "1")),
        (NotFound, ("revoke", "root", "00")),
        (UsageError, ("renew", "snapshot")),
        (InvalidName, ("rotate", "root", "--key-type", "rsa")),
        (NotFound, ("add", "root", "--key", "/nowhere.pub")),
        (InvalidName, ("add", "root", "--name", "a\nb")),
        (NotFound, ("add", "publisher-none")),
        (UsageError, ("add", "root", "--key", "pkcs11:bad")),
    ],
)
def test_what_makes_no_sense(
    office: Office, error: type[Exception], words: tuple[str, ...]
) -> None:
    before = tree(office.connected.home)
    outcome = office.bundle("keys", *words)
    assert outcome.code == getattr(error, "exit_code", None), outcome.err
    assert tree(office.connected.home) == before


def test_last_key_of_a_role_cannot_be_revoked(office: Office) -> None:
    keyid = office.done("keys", "list")[0]["keys"][0]["id"]
    office.refused(UsageError, "keys", "revoke", "root", keyid)


def test_private_key_is_not_taken_for_a_public_one(office: Office) -> None:
    person = office.person("anna")
    told = office.refused(KeyUnavailable, "keys", "add", "root", "--key", person)
    assert "private" in told


def test_request_from_another_publisher(office: Office, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Office(tmp_path / "other", office.model)
    publisher(other)
    request = tmp_path / "r.json"
    other.done("sign", "request", "--renew", "targets", "-o", request)
    office.refused(TrustMissing, "sign", "show", request)
    office.refused(TrustMissing, "sign", "finish", request)


def test_request_that_was_tampered_with(office: Office, tmp_path: Path) -> None:
    request = tmp_path / "r.json"
    office.done("sign", "request", "--renew", "targets", "-o", request)
    text = request.read_text()
    request.write_text(text.replace("2028-", "2029-"))
    office.refused(BadSignature, "sign", "show", request)
    office.refused(BadSignature, "sign", "finish", request)


@pytest.fixture(autouse=True)
def _no_passphrase_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEALIFT_PASSPHRASE_FILE", raising=False)


def test_interrupted_bundle_is_signed_anew_after_keys_changed(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its head was signed by a key that counts no more: no site would take it."""
    path = tmp_path / "b.tar"
    words = ("create", office.model, "-n", "library/m:1", "-o", path)
    with monkeypatch.context() as patch:
        patch.setattr(Workbench, "place", interrupted)
        assert office.bundle(*words).code == 130
    office.done("keys", "rotate", "timestamp")
    office.done(*words)
    outcome = office.site.bundle("import", path, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.document["receipt"]["bundle"]["sequence"] == 2


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt
