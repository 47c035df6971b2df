"""The ``bundle`` command with a real model, as people and scripts use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from registry.gguf import model_facts, read_header_file
from tests.support.site import Site, check_line, check_sound

pytestmark = pytest.mark.model

COMMAND = Path(sys.executable).with_name("bundle")
PASSPHRASE = "correct horse battery staple"
MODEL = "library/smollm2:135m"


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.err)["error"]
        return found


@dataclass(frozen=True)
class Journey:
    """Both sides and the stick between them."""

    folder: Path
    model: Path

    @property
    def connected(self) -> Path:
        return self.folder / "connected"

    @property
    def site(self) -> Site:
        return Site(self.folder / "isolated")

    @property
    def stick(self) -> Path:
        return self.folder / "stick" / "models.bundle.tar"

    @property
    def passphrase(self) -> Path:
        return self.folder / "passphrase"

    def run(self, home: Path, *argv: object, **environment: str) -> Ran:
        """The installed command; its passphrase must never come out again."""
        done = subprocess.run(
            [COMMAND, *map(str, argv)],
            env={**os.environ, "SEALIFT_HOME": str(home), **environment},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=250,
        )
        assert PASSPHRASE not in done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def far(self, *argv: object) -> Ran:
        return self.run(self.site.home, *argv)

    def near(self, *argv: object, **environment: str) -> Ran:
        return self.run(self.connected, *argv, **environment)


@pytest.fixture(scope="module")
def journey(model_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Journey:
    """From the model to an isolated site that has imported it."""
    trip = Journey(tmp_path_factory.mktemp("journey"), model_gguf)
    trip.passphrase.write_text(f"{PASSPHRASE}\n")
    trip.stick.parent.mkdir()
    made = trip.near("keys", "init", "--passphrase-file", trip.passphrase, "--json")
    assert made.code == 0, made
    root = trip.folder / "root.json"
    assert trip.near("keys", "root", "-o", root).code == 0
    created = trip.near(
        "create",
        trip.model,
        "--name",
        MODEL,
        "-o",
        trip.stick,
        "--json",
        SEALIFT_PASSPHRASE_FILE=str(trip.passphrase),
    )
    assert created.code == 0, created
    assert created.document["rootFingerprint"] == made.document["rootFingerprint"]
    fingerprint = made.document["rootFingerprint"]
    pinned = trip.far("trust", "init", "--root", root, "--fingerprint", fingerprint, "--json")
    assert pinned.code == 0, pinned
    return trip


@pytest.fixture(scope="module")
def imported(journey: Journey) -> dict[str, Any]:
    """What ``import --json`` said."""
    done = journey.far("import", journey.stick, "--json")
    assert (done.code, done.err) == (0, "")
    document: dict[str, Any] = done.document
    return document


def test_verify_says_whom_it_rests_on_and_installs_nothing(journey: Journey) -> None:
    before = journey.site.snapshot()
    plain = journey.far("verify", journey.stick)
    assert plain.code == 0, plain
    assert MODEL in plain.out
    assert "publisher-library" in plain.out
    assert "nothing was installed" in plain.out
    scripted = journey.far("verify", journey.stick, "--json")
    (found,) = scripted.document["models"]
    assert (found["name"], found["signer"]) == (MODEL, "publisher-library")
    assert journey.site.snapshot() == before


def test_import_brings_the_very_bytes(journey: Journey, imported: dict[str, Any]) -> None:
    assert check_sound(journey.site.home) == [MODEL]
    blobs = list((journey.site.home / "blobs" / "sha256").iterdir())
    (weights,) = [path for path in blobs if path.stat().st_size == journey.model.stat().st_size]
    assert weights.read_bytes() == journey.model.read_bytes()
    assert {oct(path.stat().st_mode & 0o777) for path in blobs} == {"0o444"}
    assert model_facts(read_header_file(weights)).architecture == "llama"
    # Weights, configuration and manifest, and what other tools check about them.
    assert imported["receipt"]["blobs"]["added"] == len(blobs)
    again = journey.far("import", journey.stick)
    assert again.code == 0
    assert f"{len(blobs)} were there" in again.out


def test_bundle_is_a_tar_that_tar_lists(journey: Journey) -> None:
    listed = subprocess.run(
        ["tar", "tvf", journey.stick], capture_output=True, text=True, check=True
    )
    assert listed.stderr == ""
    names = [line.split()[-1] for line in listed.stdout.splitlines()]
    with tarfile.open(journey.stick) as archive:
        assert archive.getnames() == names
    assert names[0] == "oci-layout"
    assert names.index("sealift/bundle.json") < names.index("index.json")
    checked = subprocess.run(
        ["tar", "xf", journey.stick, "--to-command=true"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert checked.stderr == ""


def test_skopeo_copies_the_model_out_of_the_bundle(journey: Journey, tmp_path: Path) -> None:
    """A bundle is an oci-archive; the digests stay what they are."""
    target = tmp_path / "out"
    subprocess.run(
        ["skopeo", "copy", "--quiet", f"oci-archive:{journey.stick}:{MODEL}", f"oci:{target}:copy"],
        capture_output=True,
        text=True,
        check=True,
        timeout=250,
    )
    index = json.loads((target / "index.json").read_bytes())
    (copied,) = index["manifests"]
    bundled = journey.far("verify", journey.stick, "--json").document["models"][0]
    assert copied["digest"] == bundled["manifest"]
    manifest = json.loads((target / "blobs" / copied["digest"].replace(":", "/")).read_bytes())
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    (layer,) = manifest["layers"]
    weights = target / "blobs" / layer["digest"].replace(":", "/")
    assert weights.stat().st_size == layer["size"] == journey.model.stat().st_size
    with weights.open("rb") as one, journey.model.open("rb") as other:
        while piece := one.read(1 << 20):
            assert piece == other.read(len(piece))


def test_skopeo_inspects_the_bundle(journey: Journey) -> None:
    done = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci-archive:{journey.stick}"],
        capture_output=True,
        check=True,
        timeout=250,
    )
    assert (
        json.loads(done.stdout)["config"]["mediaType"]
        == "application/vnd.cncf.model.config.v1+json"
    )


def test_every_json_output_parses(
    journey: Journey, imported: dict[str, Any], tmp_path: Path
) -> None:
    near = [
        ("keys", "show"),
        ("keys", "root", "-o", tmp_path / "root.json"),
        ("keys", "add-namespace", "acme", "--passphrase-file", journey.passphrase),
    ]
    far = [
        ("trust", "show"),
        ("trust", "show", "publisher"),
        ("trust", "list"),
        ("verify", journey.stick),
    ]
    far += [("trust", "remove", "publisher", "--dry-run")]
    for argv in near:
        done = journey.near(*argv, "--json")
        assert (done.code, done.err) == (0, ""), done
        assert done.document["rootFingerprint"]
    for words in far:
        shown = journey.site.bundle(*words, "--json")
        assert (shown.code, shown.err) == (0, ""), shown
        assert shown.document
        assert shown.out.isascii()
    assert imported["receipt"]["verdict"] == {"outcome": "accepted"}


def test_quiet_says_results_only(journey: Journey, tmp_path: Path) -> None:
    output = tmp_path / "q.tar"
    options = ("--passphrase-file", journey.passphrase, "-q")
    created = journey.near("create", journey.model, "-n", MODEL, "-o", output, *options)
    assert (created.code, created.err) == (0, "")


EXITS: list[tuple[int, list[str]]] = [
    (0, ["--help"]),
    (0, ["create", "--help"]),
    (2, []),
    (2, ["no-such-verb"]),
    (2, ["import"]),
    (2, ["import", "{stick}", "--no-such-option"]),
    (3, ["trust", "init", "--root", "root.json", "--fingerprint", "00"]),
    (
        3,
        [
            "create",
            "{model}",
            "-n",
            "Not A Name",
            "-o",
            "new.tar",
            "--passphrase-file",
            "passphrase",
        ],
    ),
    (4, ["import", "no-such-file"]),
    (4, ["import", "."]),
    (4, ["create", "no.gguf", "-o", "new.tar", "--passphrase-file", "passphrase"]),
    (4, ["create", "{model}", "-o", "no/such/folder.tar", "--passphrase-file", "passphrase"]),
    (5, ["create", "{model}", "-o", "{stick}", "--passphrase-file", "passphrase"]),
    (5, ["keys", "init", "--passphrase-file", "passphrase"]),
    (6, ["create", "hf://org/model", "-o", "new.tar", "--passphrase-file", "passphrase"]),
    (12, ["import", "{model}"]),
    (16, ["create", "passphrase", "-o", "new.tar", "--passphrase-file", "passphrase"]),
    (21, ["import", "{stick}", "--publisher", "nobody"]),
    (21, ["trust", "show", "nobody"]),
    (22, ["trust", "init", "--root", "root.json", "--fingerprint", "0" * 64]),
    (27, ["create", "{model}", "-o", "new.tar"]),
    (27, ["create", "{model}", "-o", "new.tar", "--passphrase-file", "no-such-file"]),
    (27, ["create", "{model}", "-o", "new.tar", "--passphrase-file", "empty"]),
    (27, ["create", "{model}", "-n", "library/x:1", "-o", "new.tar", "--passphrase-file", "wrong"]),
    (27, ["keys", "add-namespace", "other", "--passphrase-file", "wrong"]),
]


@pytest.mark.parametrize(
    ("code", "words"),
    EXITS,
    ids=lambda value: "-".join(value) if isinstance(value, list) else str(value),
)
def test_exit_codes(
    code: int, words: list[str], journey: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    (journey.folder / "empty").write_bytes(b"")
    (journey.folder / "wrong").write_text("wrong horse battery staple\n")
    argv = [w.format(stick=journey.stick, model=journey.model) for w in words]
    home = journey.site.home if words[:1] in (["import"], ["trust"]) else journey.connected
    done = journey.run(home, *argv)
    assert done.code == code, done
    assert not (journey.folder / "new.tar").exists()
    if code in (0, 2) and not done.err.startswith("error["):
        return
    (line,) = done.err.splitlines()
    assert line.startswith("error[")
    monkeypatch.chdir(journey.folder)
    scripted = Site(home).bundle(*argv, "--json")
    assert (scripted.code, scripted.out) == (code, "")
    assert scripted.error["exitCode"] == code
    check_line(scripted.error)


def test_passphrase_lies_nowhere(journey: Journey, imported: dict[str, Any]) -> None:
    """Neither in what was made nor in what was written down."""
    secret = PASSPHRASE.encode()
    for base in (journey.connected, journey.site.home):
        for path in base.rglob("*"):
            if path.is_file() and path.stat().st_size < 10**7:
                assert secret not in path.read_bytes(), path
    keys = list((journey.connected / "publisher" / "keys").iterdir())
    assert keys
    for key in keys:
        assert key.stat().st_mode & 0o777 == 0o600
        assert b"ENCRYPTED" in key.read_bytes()


def test_one_bit_of_the_real_bundle(journey: Journey, tmp_path: Path) -> None:
    """At a site that has none of its blobs: those that are there are not read from the stick."""
    fresh = Site(tmp_path / "fresh")
    shown = journey.near("keys", "show", "--json").document
    pin = ("trust", "init", "--root", journey.folder / "root.json")
    assert fresh.bundle(*pin, "--fingerprint", shown["rootFingerprint"]).code == 0
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(journey.stick.read_bytes())
    middle = damaged.stat().st_size // 2
    with damaged.open("r+b") as file:
        file.seek(middle)
        byte = file.read(1)[0]
        file.seek(middle)
        file.write(bytes([byte ^ 1]))
    before = fresh.snapshot()
    done = journey.run(fresh.home, "import", damaged, "--json")
    assert done.code == 11, done
    check_line(done.error)
    assert fresh.snapshot().installed == before.installed
    with damaged.open("r+b") as file:
        file.truncate(middle)
    assert journey.run(fresh.home, "import", damaged).code == 13
    assert fresh.snapshot().installed == before.installed
