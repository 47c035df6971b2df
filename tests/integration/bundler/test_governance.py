"""Policy, two persons and pins through the commands, as people use them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schemas.errors import InvalidName, KeyUnavailable, PolicyRefused, UsageError
from tests.support.bundle_simulator import Forgery, forge, twin
from tests.support.publisher_simulator import Simulator
from tests.support.site import Site, check_line

WORDS = "correct horse battery"


@pytest.fixture
def desk(site: Site, tmp_path: Path) -> Site:
    return site.copy(tmp_path / "home")


@pytest.fixture
def stick(publisher: Simulator, tmp_path: Path) -> Path:
    path = tmp_path / "b.tar"
    model = Forgery(custom=lambda custom: custom.__setitem__("licence", "llama3"))
    path.write_bytes(forge(twin(publisher), model))
    return path


def operator(desk: Site, name: str, tmp_path: Path) -> tuple[Path, str]:
    """A key file, and the lines that the policy needs of it."""
    secret = tmp_path / "passphrase"
    secret.write_text(WORDS)
    key = tmp_path / f"{name}.pem"
    made = desk.bundle(
        "operator", "keygen", "--name", name, "-o", key, "--passphrase-file", secret, "--json"
    )
    assert made.code == 0, made.err
    assert key.stat().st_mode & 0o777 == 0o600
    return key, made.document["policy"]


def test_two_persons_from_keys_to_models(desk: Site, stick: Path, tmp_path: Path) -> None:
    anna, first = operator(desk, "anna", tmp_path)
    bert, second = operator(desk, "bert", tmp_path)
    policy = desk.home / "policy.toml"
    policy.write_text(
        'schema_version = 1\n[licences]\nconfirm = ["LicenseRef-llama3"]\n'
        f"[approval]\nrequired = 1\n{first}\n{second}\n"
    )
    shown = desk.bundle("policy", "show", "--json").document
    assert shown["source"] == str(policy)
    assert "Operators are anna, bert. Requests count for 7 days." in shown["words"]

    secret = ("--passphrase-file", tmp_path / "passphrase")
    ask = tmp_path / "ask.json"
    yes = ("--accept-licence", "llama3")
    alone = desk.bundle("import", stick, *yes, "--json")
    assert alone.code == PolicyRefused.exit_code
    check_line(alone.error)
    unsigned = desk.bundle("import", stick, *yes, "--request", ask)
    assert unsigned.code == UsageError.exit_code
    asked = desk.bundle("import", stick, *yes, "--request", ask, "--key", anna, *secret)
    assert asked.code == 0, asked.err
    assert "You approve the import of bundle 1" in asked.out
    assert desk.models() == []

    nobody = desk.bundle("approve", ask, "--key", bert, *secret)
    assert nobody.code == UsageError.exit_code
    own = desk.bundle("approve", ask, "--key", anna, "--yes", *secret)
    assert own.code == PolicyRefused.exit_code
    (tmp_path / "wrong").write_text("another passphrase")
    wrong = desk.bundle(
        "approve", ask, "--key", bert, "--yes", "--passphrase-file", tmp_path / "wrong"
    )
    assert wrong.code == KeyUnavailable.exit_code
    approved = desk.bundle("approve", ask, "--key", bert, "--yes", "--json", *secret)
    assert approved.code == 0, approved.err
    answer = approved.document["approval"]
    assert Path(answer).parent == tmp_path

    done = desk.bundle("import", stick, *yes, "--approval", answer, "--json")
    assert done.code == 0, done.err
    assert desk.models() == ["library/tiny:1"]
    receipt = json.dumps(done.document["receipt"])
    assert '"anna"' in receipt
    assert '"bert"' in receipt
    assert shown["digest"] in receipt


def test_request_is_shown_whole(desk: Site, stick: Path, tmp_path: Path) -> None:
    anna, first = operator(desk, "anna", tmp_path)
    _, second = operator(desk, "bert", tmp_path)
    (desk.home / "policy.toml").write_text(
        f"schema_version = 1\n[approval]\nrequired = 1\n{first}\n{second}\n"
    )
    secret = ("--passphrase-file", tmp_path / "passphrase")
    out = desk.bundle("import", stick, "--request", tmp_path / "ask", "--key", anna, *secret).out
    for part in ("asked by  anna", "trusted as simulated", "installs library/tiny:1", "llama3"):
        assert part in out


@pytest.mark.parametrize("name", ["Anna", "", "a b", "ä"])
def test_operator_without_a_usable_name(name: str, desk: Site, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text(WORDS)
    path = tmp_path / "key.pem"
    made = desk.bundle(
        "operator",
        "keygen",
        "--name",
        name,
        "-o",
        path,
        "--passphrase-file",
        tmp_path / "passphrase",
    )
    assert made.code == InvalidName.exit_code
    assert not path.exists()


def test_pin_from_the_card(desk: Site, tmp_path: Path) -> None:
    other = Simulator()
    root = tmp_path / "root.json"
    root.write_bytes(other.root_bytes)
    hexadecimal = other.state().fingerprint.hex.upper()
    grouped = " ".join(hexadecimal[i : i + 4] for i in range(0, 64, 4))
    pin = ("trust", "init", "--root", root, "--name", "other")
    missing = desk.bundle(*pin, "--json")
    assert missing.code == UsageError.exit_code
    check_line(missing.error)
    done = desk.bundle(*pin, "--fingerprint", grouped, "--minimum-version", 12, "--json")
    assert done.document["leastTimestamp"] == 12
    listed = desk.bundle("trust", "list")
    assert [line.split()[0] for line in listed.out.splitlines()] == ["NAME", "other", "simulated"]
    assert "timestamp v12 or newer" in desk.bundle("trust", "show", "other").out
    assert desk.bundle("trust", "remove", "other", "--release").code == 0


def test_policy_of_the_umbrella(desk: Site, repository: Path) -> None:
    example = repository / "examples/airgap/policy.toml"
    checked = desk.bundle("policy", "check", example)
    assert checked.code == 0
    assert "does not contradict itself" in checked.out
