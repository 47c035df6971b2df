"""What a plan says of a bundle that is to be made, against the bundle that is made then."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from bundler import connected as verbs
from bundler.archive import layout
from bundler.archive.codec import Compression
from bundler.costs import STARTING_SECONDS, Plan
from bundler.create import Created, Form
from bundler.extents import volume_size as volume_bytes
from bundler.files import free_space
from bundler.importer import Wishes
from bundler.measuring import existing_folder, read_speed, write_speed
from bundler.planning import plan
from registry.digest import Digest
from schemas import limits
from schemas.errors import NotFound, UsageError
from schemas.render import Meter
from tests.support.deltas import noise
from tests.support.site import Site
from tests.support.sticks import weights

PASSPHRASE = b"correct horse"
NOISE_FLOATS = 700_000


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 2.8 MB that nothing compresses."""
    whole = weights(1, NOISE_FLOATS)
    path = tmp_path_factory.mktemp("noisy") / "noisy.gguf"
    path.write_bytes(whole[: -4 * NOISE_FLOATS] + noise(4 * NOISE_FLOATS, 1))
    return path


@pytest.fixture(scope="module")
def smooth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that compresses as real weights do: one byte in four tells little."""
    whole = weights(1, NOISE_FLOATS)
    floats = bytearray(noise(4 * NOISE_FLOATS, 2))
    floats[3::4] = b"\x3f" * NOISE_FLOATS
    path = tmp_path_factory.mktemp("smooth") / "smooth.gguf"
    path.write_bytes(whole[: -4 * NOISE_FLOATS] + floats)
    return path


def planned(home: Path, sources: list[str], form: Form, output: Path, meter: Meter) -> Plan:
    return plan(home, sources, [], output, form, Wishes(), meter)


def made(home: Path, sources: list[str], form: Form, output: Path, meter: Meter) -> Created:
    return verbs.create(
        home, sources, [], output, form=form, passphrase=lambda: PASSPHRASE, progress=meter
    )


def volume_size_of(created: Created, number: int) -> int:
    """Of a volume's file, by what the descriptor says of it."""
    size = volume_bytes(created.descriptor, number)
    assert created.volumes[number - 1].stat().st_size == size
    return size


def carried_by(created: Created) -> Counter[str]:
    """What a bundle's files have of the models' own, by encoding."""
    found: Counter[str] = Counter()
    models = {m.manifest.digest for m in created.descriptor.models}
    weights = [e for e in created.descriptor.contents if e.digest not in models]
    for entry in weights:
        if entry.size > limits.MIB:
            found[entry.encoding] += entry.stored_size
    return found


@pytest.mark.parametrize(("volume_size", "parity"), [(None, 0), (1 << 20, 0), (1 << 20, 2)])
@pytest.mark.parametrize("compression", [Compression.NONE, Compression.AUTO])
def test_plan_of_what_is_not_encoded_is_exact(
    compression: Compression,
    volume_size: int | None,
    parity: int,
    noisy: Path,
    connected: Path,
    tmp_path: Path,
    meter: Meter,
) -> None:
    form = Form(compression, volume_size, parity=parity)
    found = planned(connected, [str(noisy)], form, tmp_path / "b.tar", meter)
    assert list(tmp_path.iterdir()) == []
    assert found.carried == {"identity": noisy.stat().st_size}
    assert found.exact
    created = made(connected, [str(noisy)], form, tmp_path / "b.tar", meter)
    assert carried_by(created) == found.carried
    assert found.volumes == len(created.descriptor.volumes)
    assert found.volumes + len(found.parity) == len(created.volumes)
    sizes = [path.stat().st_size for path in created.volumes]
    assert found.volume_size == max(sizes[: found.volumes], default=0)
    assert list(found.parity) == sizes[found.volumes :]
    assert found.connected is not None
    assert found.connected.peak == found.connected.write
    members = 0 if volume_size else layout.member_size(found.carry)
    volumes = [volume_size_of(created, n) for n in range(1, found.volumes + 1)]
    assert found.connected.write == sum(volumes) + sum(found.parity) + members
    assert created.size - found.connected.write == pytest.approx(found.head, abs=64 * limits.KIB)
    assert found.connected.free is not None
    assert (found.connected.seconds or 0) > STARTING_SECONDS
    assert found.isolated.write == noisy.stat().st_size
    assert (found.isolated.free, found.isolated.seconds, found.isolated.fits) == (None, None, None)


def test_plan_with_compression_is_near(
    smooth: Path, connected: Path, tmp_path: Path, meter: Meter
) -> None:
    form = Form(Compression.AUTO)
    found = planned(connected, [str(smooth)], form, tmp_path, meter)
    created = made(connected, [str(smooth)], form, tmp_path / "b.tar", meter)
    (encoding,) = found.carried
    entry = created.descriptor.contents[-1]
    assert encoding == entry.encoding != "identity"
    assert found.carry == pytest.approx(entry.stored_size, rel=0.1)
    assert found.speed.encode
    assert found.connected is not None
    assert 0 <= found.connected.write - 2 * found.carry <= 2 * layout.BLOCK, "spooled, then written"
    assert not found.exact


def test_plan_against_what_a_site_holds(
    noisy: Path, connected: Path, tmp_path: Path, meter: Meter
) -> None:
    made(connected, [str(noisy)], Form(), tmp_path / "first.tar", meter)
    shelf = sorted((connected / "publisher" / "chunks").iterdir())
    held = {Digest.of(noisy.read_bytes()): noisy.stat().st_size}
    form = Form(Compression.AUTO, held=held)
    same = planned(connected, [str(noisy)], form, tmp_path, meter)
    assert (same.carry, same.held) == (0, (1, noisy.stat().st_size))
    edited = tmp_path / "edited.gguf"
    data = bytearray(noisy.read_bytes())
    data[-100_000:] = os.urandom(100_000)
    edited.write_bytes(data)
    found = planned(connected, [str(edited)], form, tmp_path, meter)
    assert sorted((connected / "publisher" / "chunks").iterdir()) == shelf
    created = made(connected, [str(edited)], form, tmp_path / "second.tar", meter)
    entry = created.descriptor.contents[-1]
    assert list(found.carried) == [entry.encoding] == ["delta"]
    assert found.carry == pytest.approx(entry.stored_size, rel=0.05)
    assert found.carry < len(data) / 2


def test_plan_needs_no_publisher(noisy: Path, tmp_path: Path) -> None:
    nowhere = Site(tmp_path / "nowhere")
    shown = nowhere.bundle("plan", noisy, "--volume-size", "1Mi", "-o", tmp_path)
    assert shown.code == 0, shown
    assert "CONNECTED SIDE" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    document = nowhere.bundle("plan", noisy, "--json").document
    assert document["estimate"] is True
    assert json.dumps(document).isascii()
    assert not nowhere.home.exists()


def test_plan_of_nothing(connected: Path, noisy: Path, tmp_path: Path, meter: Meter) -> None:
    for sources, kind in (([str(tmp_path / "no.gguf")], NotFound), ([str(tmp_path)], NotFound)):
        with pytest.raises(kind):
            planned(connected, sources, Form(), tmp_path, meter)
    with pytest.raises(UsageError):
        plan(connected, [str(noisy)], ["a", "b"], tmp_path, Form(), Wishes(), meter)


def test_speed_and_space(tmp_path: Path) -> None:
    empty, small = tmp_path / "empty", tmp_path / "small"
    empty.touch()
    small.write_bytes(b"x" * 100)
    assert read_speed(empty) is None
    assert read_speed(small)
    assert write_speed(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "small"}
    assert free_space(tmp_path) > limits.MIB
    assert existing_folder(tmp_path / "a" / "b" / "c") == tmp_path


def test_speed_of_a_folder_that_takes_nothing() -> None:
    assert write_speed(Path("/proc")) is None
