"""Real edits of a real model through the commands: how few bytes have to be carried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from registry.digest import Digest
from tests.support.site import Site, check_sound
from tests.support.trip import Trip
from tools.benchmarks.versions import layer, rename

BASE = "library/smollm2:base"
EDITED = "library/smollm2:edited"


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory) -> Trip:
    return Trip(tmp_path_factory.mktemp("edits"))


@pytest.fixture(scope="module")
def holding(trip: Trip, model_gguf: Path) -> Site:
    """A site that has the model."""
    site = trip.site("holding")
    assert site.bundle("import", trip.create(model_gguf, "-n", BASE, name="base.tar")).code == 0
    return site


@pytest.mark.parametrize(
    ("edit", "most"),
    [
        pytest.param(rename, 0.005, id="all-data-moved"),
        pytest.param(layer, 0.05, id="one-of-30-layers"),
    ],
)
def test_edit_travels_small(
    edit: Callable[[Path, Path], None],
    most: float,
    trip: Trip,
    holding: Site,
    model_gguf: Path,
    tmp_path: Path,
) -> None:
    edited = tmp_path / "edited.gguf"
    edit(model_gguf, edited)
    inventory, site = trip.inventory(holding)
    output = tmp_path / "edit.tar"
    argv = (edited, "-n", EDITED, "--against", inventory, "--site", site)
    planned = trip.near.bundle("plan", *argv, "-o", output, "--json")
    assert planned.code == 0, planned
    done = trip.near.bundle("create", *argv, "-o", output, "--json", *trip.secret)
    assert done.code == 0, done
    full = edited.stat().st_size
    assert output.stat().st_size == done.document["bytes"] <= most * full
    assert planned.document["carryBytes"] == pytest.approx(output.stat().st_size, abs=0.002 * full)

    target = holding.copy(tmp_path / "home")
    assert target.bundle("import", output).code == 0
    assert check_sound(target.home) == [BASE, EDITED]
    digest = Digest.of(edited.read_bytes())
    assert (target.home / "blobs" / "sha256" / digest.hex).stat().st_size == full
