"""Bundles through real pipes: one pass each way, and nothing but the bundle on standard output."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sysconfig
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bundler.trust.publisher import Publisher
from bundler.trusting import pin
from tests.support.bundle_simulator import twin
from tests.support.publisher_simulator import Simulator
from tests.support.site import Site, check_line, check_sound
from tests.support.sticks import by_segments, carry, weights

BUNDLE = str(Path(sysconfig.get_path("scripts")) / "bundle")
PASSPHRASE = b"correct horse"
NAME = "library/tiny:1"


class Sides:
    """A publisher's home, a site that trusts it, and a model file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.connected = folder / "connected"
        self.isolated = folder / "isolated"
        publisher = Publisher.init(
            self.connected / "publisher",
            name="piped",
            namespaces=["library"],
            passphrase=PASSPHRASE,
            now=datetime.now(UTC),
            kdf_rounds=1000,
        )
        (folder / "passphrase").write_bytes(PASSPHRASE + b"\n")
        root = folder / "root.json"
        root.write_bytes(publisher.root_bytes)
        pin(self.isolated, root, str(publisher.fingerprint), "piped")
        self.model = folder / "tiny.gguf"
        self.model.write_bytes(weights(3, 300_000))

    def start(self, home: Path, *argv: object, **streams: object) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "SEALIFT_HOME": str(home)}
        environment["SEALIFT_PASSPHRASE_FILE"] = str(self.folder / "passphrase")
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [BUNDLE, *map(str, argv)],
            env=environment,
            cwd=self.folder,
            **{  # type: ignore[call-overload]
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                **streams,
            },
        )
        return process

    def create(self, *argv: object) -> subprocess.Popen[bytes]:
        return self.start(self.connected, "create", self.model, "-n", NAME, "-o", "-", *argv)

    def read(self, data: bytes, *argv: object) -> tuple[int, bytes, bytes]:
        """Run a command of the isolated side on a pipe."""
        process = self.start(self.isolated, *argv, stdin=subprocess.PIPE)
        out, err = process.communicate(data, timeout=250)
        assert b"Traceback" not in err
        return process.returncode, out, err


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    return Sides(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Sides:
    """Its isolated side is empty and must stay so."""
    return Sides(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def data(shared: Sides) -> bytes:
    """What came out of a pipe."""
    data, err = shared.create("--compression", "none").communicate(timeout=250)
    assert NAME.encode() in err
    return data


@pytest.mark.parametrize("compression", ["none", "max"])
def test_from_pipe_to_pipe(compression: str, sides: Sides) -> None:
    """`bundle create -o - | bundle import -`, with no file between."""
    creating = sides.create("--compression", compression, "--json")
    importing = sides.start(sides.isolated, "import", "-", "--json", stdin=creating.stdout)
    assert creating.stdout is not None
    creating.stdout.close()
    out, err = importing.communicate(timeout=250)
    assert importing.returncode == 0, err
    assert creating.stderr is not None
    told = json.loads(creating.stderr.read())
    creating.stderr.close()
    assert creating.wait(timeout=250) == 0
    assert told["path"] == "-"
    assert json.loads(out)["bundle"]["id"] == told["id"]
    assert check_sound(sides.isolated) == [NAME]
    left = {path.name for path in sides.folder.iterdir()}
    assert left == {"connected", "isolated", "passphrase", "root.json", "tiny.gguf"}


def test_what_comes_out_is_a_bundle(data: bytes, shared: Sides) -> None:
    path = shared.folder / "b.tar"
    path.write_bytes(data)
    site = Site(shared.isolated)
    assert site.bundle("verify", path).code == 0
    assert shared.read(data, "verify", "-")[0] == 0
    code, out, _ = shared.read(data, "inspect", "-", "--json")
    assert (code, json.loads(out)["verified"]) == (0, False)
    layout = shared.folder / "layout"
    assert shared.read(data, "export", "--oci-layout", layout, "-")[0] == 0
    assert (layout / "index.json").is_file()
    assert check_sound(shared.isolated) == []


@pytest.mark.parametrize("end", [0, 1, 700, 60_000, 900_000, -1])
def test_pipe_that_ends_early(end: int, data: bytes, shared: Sides) -> None:
    code, out, err = shared.read(data[:end], "import", "-", "--json")
    assert code in {12, 13}
    assert out == b""
    check_line(json.loads(err)["error"])
    assert check_sound(shared.isolated) == []


def test_pipe_that_goes_on(data: bytes, shared: Sides) -> None:
    assert shared.read(data + b"x", "import", "-")[0] == 14
    assert check_sound(shared.isolated) == []


def test_reader_that_goes_away(shared: Sides) -> None:
    process = shared.create("--json", "--compression", "none")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1000)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=250) == 42
    check_line(json.loads(err)["error"])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--volume-size", "2M"), "volumes cannot go"),
        (("--volume-size", "2M", "--parity", "1"), "volumes cannot go"),
        (("--parity", "1"), "--parity needs volumes"),
        (("--check-media",), "cannot be read back"),
    ],
)
def test_what_no_pipe_can_have(argv: tuple[str, ...], words: str, shared: Sides) -> None:
    process = shared.create(*argv, "--json")
    out, err = process.communicate(timeout=250)
    assert (process.returncode, out) == (2, b"")
    error = json.loads(err)["error"]
    check_line(error)
    assert words in error["what"]


def test_terminal_gets_no_bundle(shared: Sides) -> None:
    master, slave = pty.openpty()
    try:
        process = shared.start(
            shared.connected, "create", shared.model, "-n", NAME, "-o", "-", stdout=slave
        )
        _, err = process.communicate(timeout=250)
        assert (process.returncode, b"terminal" in err or b"text" in err) == (2, True)
        process = shared.start(shared.isolated, "verify", "-", stdin=slave)
        process.communicate(timeout=250)
        assert process.returncode == 2
    finally:
        os.close(master)
        os.close(slave)


def test_head_from_a_pipe_needs_its_volumes(
    publisher: Simulator, site: Site, tmp_path: Path
) -> None:
    """A pipe has no place for volumes; the error says what is missing."""
    carried = carry(twin(publisher), layout=by_segments(1))
    process = subprocess.Popen(
        [BUNDLE, "verify", "-", "--json"],
        env={**os.environ, "SEALIFT_HOME": str(site.home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = process.communicate(carried.head, timeout=250)
    assert (process.returncode, out) == (17, b"")
    check_line(json.loads(err)["error"])


def test_files_beside_a_pipe(site: Site, tmp_path: Path) -> None:
    for command in ("import", "verify", "inspect"):
        assert site.bundle(command, "-", tmp_path / "b.tar").code == 2
