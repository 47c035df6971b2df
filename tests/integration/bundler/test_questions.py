"""inspect, plan, diff: what they say of bundles in every encoding, and that they change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundler.costs import STARTING_SECONDS
from bundler.importer import Wishes
from bundler.inspecting import inspect_paths
from bundler.isolated import import_paths
from schemas.errors import ContentError, MalformedDocument, SealiftError, TruncatedBundle
from schemas.render import Output
from tests.support.bundle_simulator import (
    Forgery,
    Member,
    boundaries,
    digest,
    forge,
    members,
    tar,
    twin,
)
from tests.support.publisher_simulator import Simulator
from tests.support.site import Site, check_line, simulator
from tests.support.sticks import ENCODINGS, by_segments, carry, stored, weights

BASE, MODEL, OTHER = weights(1), weights(2), weights(3)


def licensed(config: dict[str, Any]) -> None:
    config["descriptor"]["licenses"] = ["apache-2.0"]
    config["config"]["quantization"] = "F32"


def tiny(data: bytes, name: str = "library/tiny:1") -> Forgery:
    return Forgery(name, data, config=licensed)


@pytest.fixture
def holding(publisher: Simulator, site: Site, tmp_path: Path) -> Site:
    """A site that holds the base under the model's name."""
    target = site.copy(tmp_path / "home")
    path = tmp_path / "base.tar"
    path.write_bytes(forge(twin(publisher), tiny(BASE)))
    with Output(quiet=True).progress() as meter:
        import_paths(target.home, [path], Wishes(), meter)
    return target


def newer(publisher: Simulator) -> Simulator:
    other = twin(publisher)
    other.bump()
    return other


# -- inspect --------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("split", [False, True])
def test_inspect_tells_all_of_it_and_believes_nothing(
    encoding: str, split: bool, publisher: Simulator, tmp_path: Path
) -> None:
    way = stored(MODEL, encoding, BASE)
    carried = carry(
        twin(publisher),
        tiny(MODEL),
        encodings={digest(MODEL): way},
        requires={base: len(BASE) for base in way.bases},
        layout=by_segments(1) if split else None,
    )
    paths = carried.put(tmp_path / "stick")
    nowhere = Site(tmp_path / "nowhere")
    plain = nowhere.bundle("inspect", tmp_path / "stick")
    assert plain.code == 0
    assert plain.out.startswith("NOT VERIFIED")
    assert "apache-2.0" in plain.out
    assert publisher.state().fingerprint.hex in plain.out
    found = nowhere.bundle("inspect", *paths, "--json").document
    assert found["verified"] is False
    (model,) = found["models"]
    assert (model["name"], model["quantization"]) == ("library/tiny:1", "F32")
    assert model["licenses"] == ["apache-2.0"]
    entry = found["contents"][-1]
    assert entry["digest"] == digest(MODEL)
    assert entry["stored"] == sum(map(len, way.segments))
    assert entry["encoding"] == way.encoding
    assert [volume["bytes"] for volume in found["volumes"]] == [
        path.stat().st_size for path in paths[1:]
    ]
    assert all(volume["found"] == volume["bytes"] for volume in found["volumes"])
    assert {"timestamp", "snapshot", "targets", "bundle"} <= found["trust"]["roles"].keys()
    assert found["trust"]["roots"][0]["fingerprint"] == str(publisher.state().fingerprint)
    assert len(found["requires"]) == len(way.bases)
    assert not nowhere.home.exists()


def test_inspect_says_which_volumes_are_not_here(publisher: Simulator, tmp_path: Path) -> None:
    way = stored(MODEL, "zstd")
    carried = carry(
        twin(publisher), tiny(MODEL), encodings={digest(MODEL): way}, layout=by_segments(3)
    )
    head, first, *_ = carried.put(tmp_path / "stick")
    found = Site(tmp_path / "nowhere").bundle("inspect", head, first)
    assert found.out.count("not here") == len(carried.volumes) - 1
    cut = first.read_bytes()[:-512]
    first.write_bytes(cut)
    assert "but it has" in Site(tmp_path / "nowhere").bundle("inspect", head, first).out


def test_inspect_needs_no_trusted_publisher(publisher: Simulator, tmp_path: Path) -> None:
    """Signatures that import would refuse are not looked at; that is why it is so loud."""
    path = tmp_path / "stranger.tar"
    path.write_bytes(forge(simulator()))
    assert inspect_paths([path]).contents.models


def test_inspect_is_as_strict_as_the_reader(good: bytes, tmp_path: Path) -> None:
    """Cut off anywhere before the large blob's last byte, or with other members: refused."""
    path = tmp_path / "b.tar"
    for end in boundaries(good)[:-4]:
        path.write_bytes(good[:end])
        with pytest.raises(ContentError) as caught:
            inspect_paths([path])
        check_line(caught.value.document())
    parts = members(good)
    for number in range(1, len(parts) - 1):
        path.write_bytes(tar([*parts[:number], *parts[number + 1 :]]))
        with pytest.raises(SealiftError):
            inspect_paths([path])
    doubled = [part for part in parts for _ in range(1 + part.name.startswith("sealift/trust/"))]
    path.write_bytes(tar(doubled))
    with pytest.raises(ContentError):
        inspect_paths([path])


def test_inspect_refuses_metadata_that_is_none(good: bytes, tmp_path: Path) -> None:
    parts = members(good)
    path = tmp_path / "b.tar"
    for data in (b"", b"{}", b"[" * 100_000, b'{"signed":{},"signatures":[]}'):
        edited = [
            Member.of(part.name, data) if part.name.endswith("timestamp.json") else part
            for part in parts
        ]
        path.write_bytes(tar(edited))
        with pytest.raises(MalformedDocument):
            inspect_paths([path])


def test_inspect_shows_hostile_text_harmlessly(publisher: Simulator, tmp_path: Path) -> None:
    def escape(config: dict[str, Any]) -> None:
        config["config"]["architecture"] = "\x1b[2J\u202e" + "x" * 60_000

    path = tmp_path / "b.tar"
    path.write_bytes(forge(twin(publisher), Forgery(config=escape)))
    shown = Site(tmp_path / "nowhere").bundle("inspect", path)
    assert shown.code == 0
    assert "\x1b" not in shown.out
    assert "\u202e" not in shown.out
    assert len(shown.out) < 10_000


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"GGUF" * 300, bytes(20_000)])
def test_inspect_of_something_else(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    path.write_bytes(content)
    shown = Site(tmp_path / "nowhere").bundle("inspect", path, "--json")
    assert shown.code in {12, 13}
    check_line(shown.error)


# -- diff -----------------------------------------------------------------------------------------


def test_diff_of_bundle_and_store(holding: Site, publisher: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "new.tar"
    path.write_bytes(
        forge(newer(publisher), tiny(MODEL), tiny(OTHER, "library/other:1"), sequence=2)
    )
    before = holding.snapshot()
    found = holding.bundle("diff", "store", path, "--json").document
    assert holding.snapshot() == before
    assert (found["before"]["verified"], found["after"]["verified"]) == (True, True)
    assert [model["name"] for model in found["added"]] == ["library/other:1"]
    assert [model["name"] for model in found["changed"]] == ["library/tiny:1"]
    assert (found["same"], found["removed"], found["unchanged"]) == (False, [], [])
    assert found["new"]["bytes"] >= len(MODEL) + len(OTHER)
    assert found["transferBytes"] == found["new"]["bytes"]
    back = holding.bundle("diff", path, "store", "--json").document
    assert [model["name"] for model in back["removed"]] == ["library/other:1"]


def test_diff_counts_what_is_shared(publisher: Simulator, tmp_path: Path) -> None:
    one, two = tmp_path / "one.tar", tmp_path / "two.tar"
    one.write_bytes(forge(twin(publisher), tiny(MODEL)))
    two.write_bytes(forge(newer(publisher), tiny(MODEL), tiny(MODEL, "library/copy:1")))
    nowhere = Site(tmp_path / "nowhere")
    shown = nowhere.bundle("diff", one, two)
    assert shown.code == 0
    assert shown.out.count("NOT VERIFIED") == 2
    assert "+ library/copy:1" in shown.out
    found = nowhere.bundle("diff", one, two, "--json").document
    assert found["shared"]["bytes"] >= len(MODEL)
    assert found["transferBytes"] < len(MODEL)
    assert found["unchanged"] == ["library/tiny:1"]
    same = nowhere.bundle("diff", one, one, "--json").document
    assert (same["same"], same["transferBytes"], same["new"]["blobs"]) == (True, 0, 0)
    assert not nowhere.home.exists()


def test_diff_of_a_delta_carries_less(holding: Site, publisher: Simulator, tmp_path: Path) -> None:
    carried = carry(
        newer(publisher),
        tiny(MODEL),
        encodings={digest(MODEL): stored(MODEL, "delta", BASE)},
        requires={digest(BASE): len(BASE)},
        sequence=2,
    )
    path, *_ = carried.put(tmp_path / "stick")
    found = holding.bundle("diff", "store", path, "--json").document
    assert found["transferBytes"] < found["new"]["bytes"]


def test_diff_without_a_store(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    path.write_bytes(good)
    shown = Site(tmp_path / "nowhere").bundle("diff", "store", path, "--json")
    assert shown.code == 4
    check_line(shown.error)


# -- plan -----------------------------------------------------------------------------------------


def test_plan_of_an_import(holding: Site, publisher: Simulator, tmp_path: Path) -> None:
    way = stored(MODEL, "zstd")
    carried = carry(
        newer(publisher),
        tiny(MODEL),
        tiny(BASE, "library/base:1"),
        encodings={digest(MODEL): way},
        layout=by_segments(2),
        sequence=2,
    )
    head, first, second, *_ = carried.put(tmp_path / "stick")
    before = holding.snapshot()
    found = holding.bundle("plan", head, second, "--json").document
    assert holding.snapshot() == before
    assert (found["verified"], found["anchor"]) == (True, "simulated")
    assert found["volumes"] == len(carried.volumes)
    assert 1 in found["missingVolumes"]
    assert 2 not in found["missingVolumes"]
    assert found["held"]["bytes"] >= len(BASE)
    cost = found["isolated"]
    assert cost["writtenBytes"] >= len(MODEL)
    assert cost["writtenBytes"] < len(MODEL) + len(BASE)
    assert cost["fits"] is True
    assert cost["seconds"] > STARTING_SECONDS
    assert found["connected"] is None
    only = holding.bundle("plan", head, "--only", "library/base", "--json").document
    assert only["isolated"]["writtenBytes"] < 10_000
    assert holding.bundle("plan", head, "--only", "none/*").code == 4
    assert first.exists()


def test_plan_of_a_stranger_says_so(publisher: Simulator, site: Site, tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    path.write_bytes(forge(simulator()))
    shown = site.bundle("plan", path)
    assert shown.code == 0
    assert shown.out.startswith("NOT VERIFIED")
    asked = site.bundle("plan", path, "--publisher", "simulated", "--json")
    assert asked.code == 21
    nowhere = Site(tmp_path / "nowhere")
    assert "NOT VERIFIED" in nowhere.bundle("plan", path).out
    assert not nowhere.home.exists()


def test_plan_of_a_differential_bundle_for_another_site(
    publisher: Simulator, site: Site, tmp_path: Path
) -> None:
    carried = carry(
        twin(publisher),
        tiny(MODEL),
        encodings={digest(MODEL): stored(MODEL, "delta", BASE)},
        requires={digest(BASE): len(BASE)},
    )
    carried.put(tmp_path / "stick")
    found = site.bundle("plan", tmp_path / "stick", "--json").document
    assert found["lacking"] == {"blobs": 1, "bytes": len(BASE)}


def test_plan_refuses_both_kinds_at_once(good: bytes, site: Site, tmp_path: Path) -> None:
    bundle, model = tmp_path / "b.tar", tmp_path / "m.gguf"
    bundle.write_bytes(good)
    model.write_bytes(MODEL)
    assert site.bundle("plan", bundle, model).code == 2
    assert site.bundle("plan", model, "-n", "a", "-n", "b").code == 2
    assert site.bundle("plan", tmp_path / "none.tar").code == 4
    assert site.bundle("plan", model, "--volume-size", "1K").code == 2


@pytest.mark.parametrize("command", ["inspect", "plan"])
def test_truncated_bundle_has_no_answer(
    command: str, good: bytes, site: Site, stick: Callable[[bytes], Path]
) -> None:
    shown = site.bundle(command, stick(good[:-2048]), "--json")
    assert shown.code == TruncatedBundle.exit_code
    check_line(shown.error)
