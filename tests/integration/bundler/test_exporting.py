"""Any bundle as a plain OCI layout: for skopeo, from every encoding, from volumes, from a pipe."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from bundler.importer import Wishes
from bundler.isolated import import_paths
from schemas.render import Output
from tests.support.bundle_simulator import Forgery, digest, forge, twin
from tests.support.publisher_simulator import Simulator
from tests.support.site import Site, check_line
from tests.support.sticks import ENCODINGS, Carried, by_segments, carry, stored, weights

BASE = weights(1)
MODEL = BASE[:20_000] + weights(2)[20_000:]
NAME = "library/tiny:1"


@pytest.fixture(scope="module")
def based(publisher: Simulator, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site that holds the base of the deltas."""
    folder = tmp_path_factory.mktemp("based")
    target = site.copy(folder / "home")
    path = folder / "base.tar"
    path.write_bytes(forge(twin(publisher), Forgery("library/base:1", BASE)))
    with Output(quiet=True).progress() as meter:
        import_paths(target.home, [path], Wishes(), meter)
    return target


def carried_as(publisher: Simulator, encoding: str, *, split: bool) -> Carried:
    newer = twin(publisher)
    newer.bump()
    way = stored(MODEL, encoding, BASE)
    return carry(
        newer,
        Forgery(NAME, MODEL),
        encodings={digest(MODEL): way},
        requires={base: len(BASE) for base in way.bases},
        layout=by_segments(1) if split else None,
        sequence=2,
    )


def check_layout(folder: Path) -> None:
    """Every blob is what its name says, and everything is reachable from the index."""
    assert json.loads((folder / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert {path.name for path in folder.iterdir()} == {"oci-layout", "index.json", "blobs"}
    index = json.loads((folder / "index.json").read_bytes())
    wanted = set()
    for described in index["manifests"]:
        data = (folder / "blobs" / described["digest"].replace(":", "/")).read_bytes()
        manifest = json.loads(data)
        for blob in (described, manifest["config"], *manifest["layers"]):
            content = (folder / "blobs" / blob["digest"].replace(":", "/")).read_bytes()
            assert (digest(content), len(content)) == (blob["digest"], blob["size"])
            wanted.add(blob["digest"].removeprefix("sha256:"))
    assert {path.name for path in (folder / "blobs" / "sha256").iterdir()} == wanted


def skopeo(*argv: object) -> str:
    done = subprocess.run(
        ["skopeo", *map(str, argv)], capture_output=True, text=True, check=True, timeout=250
    )
    return done.stdout


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_bundle_becomes_a_layout(
    encoding: str, split: bool, based: Site, publisher: Simulator, tmp_path: Path
) -> None:
    carried_as(publisher, encoding, split=split).put(tmp_path / "stick")
    before = based.snapshot()
    folder = tmp_path / "layout"
    done = based.bundle("export", "--oci-layout", folder, tmp_path / "stick", "--json")
    assert done.code == 0, done.err
    assert done.document["blobs"] == 3
    assert based.snapshot() == before
    check_layout(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layout", "stick"]


def test_skopeo_reads_the_layout(based: Site, publisher: Simulator, tmp_path: Path) -> None:
    carried_as(publisher, "zstd-planes4", split=True).put(tmp_path / "stick")
    folder = tmp_path / "layout"
    assert based.bundle("export", "--oci-layout", folder, tmp_path / "stick", "-q").code == 0
    raw = json.loads(skopeo("inspect", "--raw", f"oci:{folder}:{NAME}"))
    assert raw["layers"][0]["digest"] == digest(MODEL)
    skopeo("copy", "--quiet", f"oci:{folder}:{NAME}", f"oci:{tmp_path / 'copy'}:x")
    copied = tmp_path / "copy" / "blobs" / digest(MODEL).replace(":", "/")
    assert copied.read_bytes() == MODEL


def test_left_out_blobs_come_from_the_store(
    based: Site, publisher: Simulator, tmp_path: Path
) -> None:
    newer = twin(publisher)
    newer.bump()
    carried = carry(
        newer,
        Forgery(NAME, BASE),
        requires={digest(BASE): len(BASE)},
        left_out=[digest(BASE)],
        sequence=2,
    )
    carried.put(tmp_path / "stick")
    folder = tmp_path / "layout"
    assert based.bundle("export", "--oci-layout", folder, tmp_path / "stick").code == 0
    check_layout(folder)
    inside = folder / "blobs" / digest(BASE).replace(":", "/")
    assert inside.stat().st_nlink == 1, "what other tools may change is not the store's"


def test_only_some_models(based: Site, publisher: Simulator, tmp_path: Path) -> None:
    newer = twin(publisher)
    newer.bump()
    path = tmp_path / "two.tar"
    path.write_bytes(forge(newer, Forgery(NAME, MODEL), Forgery("acme/b:1", BASE), sequence=2))
    folder = tmp_path / "layout"
    done = based.bundle("export", "--oci-layout", folder, path, "--only", "acme/*")
    assert done.code == 0, done
    check_layout(folder)
    assert "acme/b:1" in (folder / "index.json").read_text()
    assert not (folder / "blobs" / digest(MODEL).replace(":", "/")).exists()


def test_what_is_there_is_not_lost(based: Site, publisher: Simulator, tmp_path: Path) -> None:
    carried_as(publisher, "zstd", split=False).put(tmp_path / "stick")
    stick, folder = tmp_path / "stick", tmp_path / "layout"
    folder.mkdir()
    assert based.bundle("export", "--oci-layout", folder, stick).code == 0, "empty is fine"
    assert based.bundle("export", "--oci-layout", folder, stick).code == 5
    (folder / "old").write_text("gone with --force")
    assert based.bundle("export", "--oci-layout", folder, stick, "--force").code == 0
    check_layout(folder)
    home = tmp_path / "precious"
    home.mkdir()
    (home / "thesis").write_text("years of work")
    refused = based.bundle("export", "--oci-layout", home, stick, "--force", "--json")
    assert refused.code == 5
    check_line(refused.error)
    assert (home / "thesis").exists()
    assert based.bundle("export", "--oci-layout", tmp_path / "no" / "where", stick).code == 4


@pytest.mark.parametrize("flaw", ["flipped", "truncated", "volume missing", "stranger"])
def test_refused_bundle_leaves_nothing(
    flaw: str, based: Site, publisher: Simulator, tmp_path: Path
) -> None:
    paths = carried_as(publisher, "zstd", split=True).put(tmp_path / "stick")
    last = paths[-1]
    if flaw == "flipped":
        data = bytearray(last.read_bytes())
        data[1600] ^= 1
        last.write_bytes(data)
    elif flaw == "truncated":
        last.write_bytes(last.read_bytes()[:2000])
    elif flaw == "volume missing":
        last.unlink()
    site = Site(tmp_path / "nobody") if flaw == "stranger" else based
    done = site.bundle("export", "--oci-layout", tmp_path / "layout", tmp_path / "stick", "--json")
    assert done.code in {"flipped": {11}, "truncated": {13}, "volume missing": {17}}.get(flaw, {21})
    check_line(done.error)
    left = {path.name for path in tmp_path.iterdir()} - {"nobody"}
    assert left == {"stick"}
