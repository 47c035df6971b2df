"""There and back: an inventory, a bundle of what is new, a want-list, a top-up; and mended volumes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.reference import Reference
from registry.store import Store
from schemas.errors import BlobsMissing
from tests.support.site import Site, check_sound
from tests.support.trip import BASE, Trip, model


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory) -> Trip:
    return Trip(tmp_path_factory.mktemp("trip"))


@pytest.fixture(scope="module")
def far(trip: Trip) -> Site:
    """It holds the base."""
    site = trip.site("far")
    bundle = trip.create(trip.base, "-n", BASE, name="base.tar")
    assert site.bundle("import", bundle).code == 0
    return site


@pytest.mark.parametrize(
    ("change", "most"), [({"name": "Renamed " * 40}, 0.05), ({"changed": 3}, 0.15)]
)
def test_delta_against_an_inventory(
    change: dict[str, object], most: float, trip: Trip, far: Site, tmp_path: Path
) -> None:
    path, site = trip.inventory(far)
    new = model(tmp_path / "new.gguf", **change)  # type: ignore[arg-type]
    output = tmp_path / "delta.tar"
    argv = (new, "-n", "library/new:1", "--against", path, "--site", site, "-o", output)
    assert trip.near.bundle("create", *argv, *trip.secret).code == 0
    assert output.stat().st_size < most * new.stat().st_size
    target = far.copy(tmp_path / "home")
    assert target.bundle("import", output).code == 0
    assert check_sound(target.home) == [BASE, "library/new:1"]


def test_delta_again_after_its_base_is_gone(trip: Trip, far: Site, tmp_path: Path) -> None:
    """What the delta makes is there, so nobody asks for what it was made from."""
    path, site = trip.inventory(far)
    new = model(tmp_path / "new.gguf", changed=4)
    output = tmp_path / "delta.tar"
    argv = (new, "-n", "library/new:2", "--against", path, "--site", site, "-o", output)
    assert trip.near.bundle("create", *argv, *trip.secret).code == 0
    target = far.copy(tmp_path / "home")
    assert target.bundle("import", output).code == 0
    with Store.open(target.home) as store:
        assert store.remove_model(Reference.parse(BASE)).removed
    assert target.bundle("plan", output).code == 0
    assert target.bundle("import", output).code == 0
    assert check_sound(target.home) == ["library/new:2"]
    assert target.bundle("verify", output).code == BlobsMissing.exit_code  # it reads the delta


def test_what_is_there_is_left_out(trip: Trip, far: Site, tmp_path: Path) -> None:
    path, _ = trip.inventory(far)
    output = tmp_path / "same.tar"
    done = trip.near.bundle(
        "create", trip.base, "-n", "library/same:1", "--against", path, "-o", output, *trip.secret
    )
    assert done.code == 0, done
    assert output.stat().st_size < 80_000
    target = far.copy(tmp_path / "home")
    assert target.bundle("import", output).code == 0
    assert check_sound(target.home) == [BASE, "library/same:1"]


def test_inventory_of_another_site_is_not_believed(trip: Trip, far: Site, tmp_path: Path) -> None:
    path, site = trip.inventory(far)
    output = tmp_path / "x.tar"
    argv = ("create", trip.base, "-n", BASE, "-o", output, *trip.secret)
    done = trip.near.bundle(*argv, "--against", path, "--site", "0" * 64)
    assert done.code == 22
    changed = tmp_path / "changed"
    changed.write_bytes(path.read_bytes().replace(b'"sig": "M', b'"sig": "N'))
    assert trip.near.bundle(*argv, "--against", changed, "--site", site).code != 0
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(17 << 20)
    assert trip.near.bundle(*argv, "--against", huge).code == 2
    assert not output.exists()


def test_site_that_lacks_the_base_gets_it_by_a_top_up(
    trip: Trip, far: Site, tmp_path: Path
) -> None:
    path, _ = trip.inventory(far)
    new = model(tmp_path / "new.gguf", changed=5)
    delta = tmp_path / "delta.tar"
    argv = ("create", new, "-n", "library/other:1", "--against", path, "-o", delta)
    assert trip.near.bundle(*argv, *trip.secret).code == 0
    other = trip.site("other")
    before = other.snapshot()
    want = tmp_path / "list.want"
    refused = other.bundle("import", delta, "--want-list", want, "--json")
    assert refused.code == 18
    assert str(want) in refused.error["hint"]
    after = other.snapshot()
    assert after.catalogue == before.catalogue
    assert after.blobs == before.blobs
    shown = other.bundle("inventory", "show", want, "--json").document
    assert [blob["size"] for blob in shown["blobs"]] == [trip.base.stat().st_size]

    output = tmp_path / "topup.tar"
    lacking = ("create", new, "-n", "library/other:1", "--want", want, "-o", output)
    assert trip.near.bundle(*lacking, *trip.secret).code == 4
    done = trip.near.bundle(
        *("create", new, trip.base, "-n", "library/other:1", "-n", BASE),
        *("--want", want, "-o", output, "--json", *trip.secret),
    )
    assert done.code == 0, done
    assert [entry["name"] for entry in done.document["models"]] == [BASE]
    assert other.bundle("import", output).code == 0
    assert other.bundle("import", delta).code == 0
    assert check_sound(other.home) == [BASE, "library/other:1"]


def test_want_list_goes_where_the_command_runs_and_replaces_only_its_like(
    trip: Trip, far: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = trip.inventory(far)
    output = tmp_path / "same.tar"
    argv = ("create", trip.base, "-n", "library/same:1", "--against", path, "-o", output)
    assert trip.near.bundle(*argv, *trip.secret).code == 0
    empty = trip.site("empty")
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for _ in range(2):
        assert empty.bundle("import", output).code == 18
        assert names(folder) == ["same.want"]
    (folder / "same.want").write_text("mine")
    assert empty.bundle("import", output).code == 18
    assert (folder / "same.want").read_text() == "mine"


def test_inventory_as_codes(far: Site, trip: Trip, tmp_path: Path) -> None:
    from bundler.inventory import qr

    path, site = trip.inventory(far)
    pictures = tmp_path / "codes"
    done = far.bundle("inventory", "export", "--qr-png", pictures, "--json")
    assert done.code == 0, done
    assert [Path(p).name for p in done.document["pictures"]] == names(pictures)
    texts = tmp_path / "scanned.txt"
    texts.write_text("\n".join(reversed(qr.frames(path.read_bytes()))))
    joined = tmp_path / "joined"
    done = trip.near.bundle("inventory", "join", texts, "-o", joined, "--json")
    assert done.code == 0, done
    assert joined.read_bytes() == path.read_bytes()
    assert done.document["site"] == site


def test_volumes_are_mended_from_parity(trip: Trip, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    argv = (trip.base, "-n", BASE, "--compression", "none", "--volume-size", "1Mi")
    done = trip.near.bundle(
        *("create", *argv, "--parity", "2", "--check-media", "--json"),
        *("-o", stick / "m.tar", *trip.secret),
    )
    assert done.code == 0, done
    assert done.document["media"]["verdict"] == "ok"
    assert len(list(stick.glob("m.v*.tar"))) == 3
    whole = {path.name: path.read_bytes() for path in stick.iterdir()}
    (stick / "m.v002.tar").unlink()
    damage(stick / "m.v003.tar", 700)
    damage(stick / "m.v001.tar", 300_000)

    for named in (stick, stick / "m.tar"):  # of a head alone, what lies beside it
        checked = trip.near.bundle("check-media", named, "--json")
        assert checked.code == 11
        verdicts = {file["name"]: file["ok"] for file in json.loads(checked.out)["files"]}
        assert [name for name, ok in verdicts.items() if not ok] == ["m.v001.tar", "m.v003.tar"]

    site = trip.site("mended")
    assert site.bundle("verify", stick).code == 0
    assert site.bundle("import", stick).code == 0
    assert check_sound(site.home) == [BASE]
    assert list((site.home / "staging").iterdir()) == []
    for named in (stick, stick / "m.tar"):
        assert trip.near.bundle("repair", named, "--dry-run").code == 0
    assert not (stick / "m.v002.tar").exists()
    assert trip.near.bundle("repair", stick).code == 0
    assert {path.name: path.read_bytes() for path in stick.iterdir()} == whole


def test_more_damage_than_parity_is_refused_and_changes_nothing(trip: Trip, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    argv = (trip.base, "-n", BASE, "--compression", "none", "--volume-size", "1Mi")
    done = trip.near.bundle("create", *argv, "--parity", "1", "-o", stick / "m.tar", *trip.secret)
    assert done.code == 0, done
    damage(stick / "m.v002.tar", 100_000)
    damage(stick / "m.v001.tar", 100_000)
    before = {path.name: path.read_bytes() for path in stick.iterdir()}
    assert trip.near.bundle("repair", stick).code == 11
    assert {path.name: path.read_bytes() for path in stick.iterdir()} == before
    site = trip.site("beyond")
    empty = site.snapshot()
    assert site.bundle("import", stick).code == 11
    assert site.snapshot().catalogue == empty.catalogue


def test_plan_of_an_import_that_goes_on(trip: Trip, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    form = ("--compression", "none", "--volume-size", "1Mi", "--parity", "1")
    argv = ("create", trip.base, "-n", BASE, *form, "-o", stick / "m.tar", *trip.secret)
    assert trip.near.bundle(*argv).code == 0
    site = trip.site("goes-on")
    fresh = site.bundle("plan", stick, "--json").document
    full = trip.base.stat().st_size
    small = 20_000  # manifest, config and what other tools check
    assert full < fresh["isolated"]["writtenBytes"] < full + small
    assert (fresh["missingVolumes"], len(fresh["parityVolumes"])) == ([], 1)

    lacking = site.bundle("import", stick / "m.tar", stick / "m.v001.tar", "--json")
    assert lacking.error["code"] == "incomplete-bundle"
    came = (stick / "m.v001.tar").stat().st_size
    rest = site.bundle("plan", stick / "m.tar", stick / "m.v003.tar", "--json").document
    assert rest["missingVolumes"] == [2]
    left = rest["isolated"]["writtenBytes"]
    assert full - came < left < full - came + small
    assert rest["isolated"]["readBytes"] == left + full, "the rest, and once more the whole"
    assert site.bundle("import", stick).code == 0
    assert site.bundle("plan", stick, "--json").document["isolated"]["writtenBytes"] == 0


def damage(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"damaged")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
