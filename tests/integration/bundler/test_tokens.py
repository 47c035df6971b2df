"""Signing keys in hardware, played by SoftHSM2: through the commands, with real PKCS#11."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pkcs11
import pytest
from pkcs11.util.ec import encode_named_curve_parameters

from bundler.trust.tokens import TokenUri, token_signer
from schemas.errors import KeyUnavailable, UsageError
from tests.gguf_files import tiny_gguf
from tests.support.site import Site

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "1234"
LABEL = "Sealift root"
URI = f"pkcs11:token=Sealift%20root;id=%02?module-path={MODULE}"
URI_384 = URI.replace("%02", "%03")


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token with a P-256 key under id 02 and a P-384 key under id 03; returns its PIN's file.

    One for all tests: SoftHSM reads its configuration once in a process.
    """
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    config = folder / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(config)
    command = ["softhsm2-util", "--init-token", "--free", "--label", LABEL]
    subprocess.run(
        [*command, "--so-pin", "5678", "--pin", PIN], check=True, capture_output=True, timeout=30
    )
    opened = pkcs11.lib(str(MODULE)).get_token(token_label=LABEL)
    with opened.open(user_pin=PIN, rw=True) as session:
        for number, curve in ((2, "secp256r1"), (3, "secp384r1")):
            parameters = session.create_domain_parameters(
                pkcs11.KeyType.EC,
                {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(curve)},
                local=True,
            )
            parameters.generate_keypair(id=bytes([number]), store=True)
    pin = folder / "pin"
    pin.write_text(PIN + "\n")
    return pin


@pytest.fixture
def connected(tmp_path: Path) -> Site:
    site = Site(tmp_path / "home")
    (tmp_path / "pw").write_text("correct horse battery\n")
    assert ran(site, "keys", "init") == ""
    return site


def ran(site: Site, *argv: object) -> str:
    """Run a command that must succeed; what it warned of is not looked at."""
    words = [*argv, "--json"]
    if argv[0] in ("keys", "create", "publisher") and argv[1] not in ("list", "status", "root"):
        words += ["--passphrase-file", site.home.parent / "pw"]
    outcome = site.bundle(*words)
    assert outcome.code == 0, outcome.err
    return outcome.err


@pytest.mark.parametrize("uri", [URI, URI_384])
def test_root_and_online_keys_in_hardware(
    uri: str, connected: Site, token: Path, tmp_path: Path
) -> None:
    pin = ("--pin-file", token)
    ran(connected, "keys", "root", "-o", tmp_path / "root.json")
    for role in ("root", "timestamp"):
        ran(connected, "keys", "rotate", role, "--key", uri, *pin)
    listed = connected.bundle("keys", "list", "--json").document
    places = {role["role"]: [key["place"] for key in role["keys"]] for role in listed}
    assert places["root"] == places["timestamp"] == [uri]
    assert not list((connected.home / "publisher" / "keys").glob("root*.pem"))
    ran(connected, "keys", "rotate", "snapshot", *pin)  # signed by the root key in the token
    model = tiny_gguf(tmp_path / "m.gguf")
    ran(connected, "create", model, "-n", "library/m:1", "-o", tmp_path / "b.tar", *pin)
    isolated = Site(tmp_path / "site")
    shown = connected.bundle("keys", "show", "--json").document
    root = tmp_path / "root.json"
    from registry.digest import Digest

    fingerprint = Digest.of(root.read_bytes())
    assert str(fingerprint) != shown["rootFingerprint"]  # the pin is older than the rotation
    assert isolated.bundle("trust", "init", "--root", root, "--fingerprint", fingerprint).code == 0
    outcome = isolated.bundle("import", tmp_path / "b.tar")
    assert outcome.code == 0, outcome.err
    assert isolated.models() == ["library/m:1"]


def test_cosigner_with_a_token(connected: Site, token: Path, tmp_path: Path) -> None:
    pin = ("--pin-file", token)
    ran(connected, "keys", "add", "root", "--key", URI, "--name", "token", *pin)
    for path in (connected.home / "publisher" / "keys").glob("root@*.p11"):
        path.unlink()  # the token belongs to somebody else
    request = tmp_path / "r.json"
    words = ("keys", "threshold", "root", "2", "--request", request)
    ran(connected, *words)
    finish = ("sign", "finish", request)
    assert connected.bundle(*finish).code == KeyUnavailable.exit_code
    added = connected.bundle("sign", "add", request, "--key", URI, *pin, "--json")
    assert added.code == 0, added.err
    assert connected.bundle(*finish).code == 0


def test_wrong_pin_and_unplugged_token(connected: Site, token: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("0000\n")
    passphrase = ("--passphrase-file", tmp_path / "pw")
    rotate = ("keys", "rotate", "root", *passphrase)
    ran(connected, "keys", "rotate", "root", "--key", URI, "--pin-file", token)
    for pin in (wrong, tmp_path / "none"):
        outcome = connected.bundle(*rotate, "--pin-file", pin)
        assert outcome.code == KeyUnavailable.exit_code
        assert PIN not in outcome.err + outcome.out
        assert "0000" not in outcome.err + outcome.out
    for uri in (URI.replace("root", "other"), URI.replace("%02", "%07"), URI + "x"):
        outcome = connected.bundle(*rotate, "--key", uri, "--pin-file", token)
        assert outcome.code == KeyUnavailable.exit_code, outcome.err


def test_pin_is_asked_for_once(token: Path) -> None:
    asked = []

    def pin(name: str) -> bytes:
        asked.append(name)
        return token.read_bytes().strip()

    signer = token_signer(URI, pin)
    for payload in (b"one", b"two"):
        signer.public_key.verify_signature(signer.sign(payload), payload)
    assert asked == ["token Sealift root"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pkcs12:token=x",
        "pkcs11:token",
        "pkcs11:token=a;token=b",
        "pkcs11:id=%00%01",
        "pkcs11:id=%01%02%03%04%05%06%07%08%09",
        "pkcs11:id=",
        "pkcs11:pin-value=1234",
        "pkcs11:?pin-value=1234",
        "pkcs11:?module-path=lib.so",
        "pkcs11:token=\N{LATIN SMALL LETTER E WITH ACUTE}",
        "pkcs11:token=" + "x" * 1000,
    ],
)
def test_uri_that_is_none(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        TokenUri.parse(text)
    assert "1234" not in str(caught.value)


def test_uri_parts() -> None:
    assert TokenUri.parse("pkcs11:") == TokenUri(None, None, None)
    assert TokenUri.parse(URI) == TokenUri(LABEL, 2, str(MODULE))
