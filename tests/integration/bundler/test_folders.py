"""Folders as model hubs lay them out: what travels, what does not, and what a site does with it."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from registry import oci
from registry.oci import Manifest
from registry.store import Store
from runtime.models import Models
from schemas.errors import UnsupportedRequest
from tests.support.deltas import noise
from tests.support.site import Site, check_sound
from tests.support.trip import Trip

NAME = "library/encoder:1"
CARD = "---\nlanguage: en\nlicense: apache-2.0\n---\n# An encoder\n"
LARGE = 300_000


def safetensors(path: Path, tensors: Mapping[str, bytes]) -> Path:
    """A file of half-precision tensors."""
    header: dict[str, object] = {}
    end = 0
    for name, data in tensors.items():
        header[name] = {
            "dtype": "BF16",
            "shape": [len(data) // 2],
            "data_offsets": [end, end + len(data)],
        }
        end += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(tensors.values()))
    return path


def encoder(folder: Path, *, seed: int = 0) -> Path:
    """Two shards of weights and what belongs to them; the first shard is the same for all seeds."""
    (folder / "1_Pooling").mkdir(parents=True)
    for number, start in ((1, 100), (2, 200 + seed)):
        layers = {f"layer.{n}": noise(LARGE, start + n) for n in range(2)}
        safetensors(folder / f"model-0000{number}-of-00002.safetensors", layers)
    (folder / "config.json").write_text('{"model_type": "bert", "layer_norm_eps": 1e-12}')
    (folder / "tokenizer.json").write_text(json.dumps({str(n): n for n in range(20_000)}))
    (folder / "1_Pooling" / "config.json").write_text('{"pooling": "mean"}')
    (folder / "README.md").write_text(CARD)
    (folder / "tool.py").write_text("print('hello')\n")
    (folder / ".gitattributes").write_text("* text\n")
    return folder


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory) -> Trip:
    return Trip(tmp_path_factory.mktemp("folders"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder(tmp_path_factory.mktemp("encoder") / "encoder")


@pytest.fixture(scope="module")
def holding(trip: Trip, folder: Path) -> Site:
    """A site that has the folder."""
    site = trip.site("holding")
    done = site.bundle("import", trip.create(folder, "-n", NAME, name="encoder.tar"))
    assert done.code == 0, done
    return site


def test_a_folder_becomes_a_modelpack(holding: Site, folder: Path) -> None:
    assert check_sound(holding.home) == [NAME]
    with Store.open(holding.home) as store:
        (record,) = store.catalogue.models()
        layers = record.manifest.layers
        for layer in layers:
            data = store.blobs.path(layer.digest).read_bytes()
            assert data == (folder / layer.annotations[oci.FILEPATH]).read_bytes()
        config = json.loads(store.blobs.path(record.manifest.config.digest).read_bytes())
    kinds = {layer.annotations[oci.FILEPATH]: layer.media_type for layer in layers}
    assert kinds == {
        "model-00001-of-00002.safetensors": oci.WEIGHT_RAW,
        "model-00002-of-00002.safetensors": oci.WEIGHT_RAW,
        "1_Pooling/config.json": oci.WEIGHT_CONFIG_RAW,
        "config.json": oci.WEIGHT_CONFIG_RAW,
        "tokenizer.json": oci.WEIGHT_CONFIG_RAW,
        "README.md": oci.DOC_RAW,
        "tool.py": oci.CODE_RAW,
    }
    assert config["config"] == {
        "architecture": "bert",
        "format": "safetensors",
        "paramSize": "600K",
        "precision": "BF16",
    }
    assert config["descriptor"]["licenses"] == ["Apache-2.0"]
    assert config["modelfs"]["diffIds"] == [str(layer.digest) for layer in layers]
    assert record.facts["format"] == "safetensors"
    assert record.facts["parameters"] == 2 * LARGE


def test_the_same_folder_gives_the_same_manifest(trip: Trip, folder: Path, tmp_path: Path) -> None:
    def manifest(output: Path) -> str:
        done = trip.near.bundle("create", folder, "-n", NAME, "-o", output, "--json", *trip.secret)
        assert done.code == 0, done
        return str(done.document["models"][0]["manifest"])

    assert manifest(tmp_path / "a.tar") == manifest(tmp_path / "b.tar")


def test_what_the_engine_cannot_run_is_listed_and_refused(holding: Site) -> None:
    with Store.open(holding.home) as store:
        (record,) = store.catalogue.models()
        assert Models(store).all() == []
        with pytest.raises(UnsupportedRequest, match="cannot be served"):
            Models(store).get(record.reference)


def test_a_folder_in_volumes_and_in_every_way_to_look(
    trip: Trip, folder: Path, tmp_path: Path
) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    form = ("--volume-size", "1Mi", "--compression", "none", "--parity", "1")
    planned = trip.near.bundle("plan", folder, "-n", NAME, "-o", stick, *form, "--json").document
    done = trip.near.bundle(
        "create", folder, "-n", NAME, *form, "-o", stick / "m.tar", "--json", *trip.secret
    )
    assert done.code == 0, done
    sizes = [Path(path).stat().st_size for path in done.document["volumes"]]
    assert planned["volumes"] == len(sizes) - 1
    assert planned["volumeBytes"] == max(sizes[:-1])
    assert planned["parityVolumes"] == sizes[-1:]
    assert planned["carryBytes"] == sum(
        path.stat().st_size for path in folder.rglob("[!.]*") if path.is_file()
    )
    site = trip.site("in-volumes")
    for verb in (("inspect", stick), ("verify", stick), ("plan", stick), ("import", stick)):
        assert site.bundle(*verb).code == 0, verb
    out = tmp_path / "oci"
    assert site.bundle("export", stick, "--oci-layout", out).code == 0
    assert check_sound(site.home) == [NAME]


def test_a_fine_tune_that_shares_tensors(
    trip: Trip, holding: Site, folder: Path, tmp_path: Path
) -> None:
    path, site = trip.inventory(holding)
    tuned = encoder(tmp_path / "tuned", seed=7)
    output = tmp_path / "tuned.tar"
    done = trip.near.bundle(
        *("create", tuned, "-n", "library/tuned:1", "--against", path, "--site", site),
        *("-o", output, "--json", *trip.secret),
    )
    assert done.code == 0, done
    # Of seed 7 the second shard shares nothing; the second layer of seed 0 is the first of seed 1.
    assert 2 * LARGE < output.stat().st_size < 2.6 * LARGE
    target = holding.copy(tmp_path / "home")
    assert target.bundle("import", output).code == 0
    assert check_sound(target.home) == [NAME, "library/tuned:1"]
    near = encoder(tmp_path / "near", seed=1)
    smaller = tmp_path / "near.tar"
    done = trip.near.bundle(
        *("create", near, "-n", "library/near:1", "--against", path, "-o", smaller, *trip.secret)
    )
    assert done.code == 0, done
    assert smaller.stat().st_size < 1.6 * LARGE


Spoil = Callable[[Path], object]
SPOILT: dict[str, tuple[Spoil, str]] = {
    "pickle-by-name": (lambda f: (f / "pytorch_model.bin").write_bytes(b"x"), "pickle"),
    "pickle-by-content": (lambda f: (f / "optimizer").write_bytes(b"\x80\x04K\x01."), "pickle"),
    "zipped-pickle": (lambda f: (f / "state").write_bytes(b"PK\x03\x04rest"), "pickle"),
    "format-that-nobody-checks": (lambda f: (f / "model.onnx").write_bytes(b"x"), "checked"),
    "broken-weights": (lambda f: (f / "more.safetensors").write_bytes(b"x" * 100), "refused"),
    "pickle-named-as-weights": (
        lambda f: (f / "more.safetensors").write_bytes(b"\x80\x04K\x01." + bytes(200)),
        "refused",
    ),
    "empty-file": (lambda f: (f / "empty.json").touch(), "empty"),
    "link-out": (lambda f: (f / "passwd.json").symlink_to("/etc/passwd"), "leads out"),
    "fifo": (lambda f: os.mkfifo(f / "pipe.json"), "regular"),
    "backslash": (lambda f: (f / "a\\b.json").write_text("{}"), "cannot travel"),
    "two-by-case": (lambda f: (f / "Config.json").write_text("{}"), "one name"),
}


@pytest.mark.parametrize("flaw", SPOILT)
def test_a_folder_that_may_not_travel(flaw: str, trip: Trip, tmp_path: Path) -> None:
    spoil, words = SPOILT[flaw]
    folder = encoder(tmp_path / "spoilt")
    spoil(folder)
    output = tmp_path / "x.tar"
    done = trip.near.bundle("create", folder, "-n", NAME, "-o", output, "--json", *trip.secret)
    assert done.code != 0
    assert words in f"{done.error['what']} {done.error['why']}"
    assert done.error["hint"]
    assert names(tmp_path) == ["spoilt"]


def test_a_folder_without_weights_and_an_output_inside(trip: Trip, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = trip.near.bundle("create", empty, "-o", tmp_path / "x.tar", "--json", *trip.secret)
    assert done.error["code"] == "not-found"
    folder = encoder(tmp_path / "inside")
    done = trip.near.bundle("create", folder, "-o", folder / "x.tar", "--json", *trip.secret)
    assert done.error["code"] == "usage"


def test_snapshot_of_a_download_cache(trip: Trip, tmp_path: Path) -> None:
    """Its files are links to blobs two folders up."""
    blobs = tmp_path / "models--acme--m" / "blobs"
    snapshot = tmp_path / "models--acme--m" / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    safetensors(blobs / "abcd", {"w": noise(1000, 1)})
    (snapshot / "model.safetensors").symlink_to(Path("../../blobs/abcd"))
    output = tmp_path / "x.tar"
    done = trip.near.bundle("create", snapshot, "-n", NAME, "-o", output, *trip.secret)
    assert done.code == 0, done


def test_a_single_safetensors_file(trip: Trip, tmp_path: Path) -> None:
    path = safetensors(tmp_path / "Tiny.BF16.safetensors", {"w": noise(1000, 1)})
    output = tmp_path / "x.tar"
    done = trip.near.bundle("create", path, "-o", output, "--json", *trip.secret)
    assert done.code == 0, done
    assert done.document["models"][0]["name"] == "library/tiny:bf16"
    site = trip.site("single")
    assert site.bundle("import", output).code == 0
    with Store.open(site.home) as store:
        (record,) = store.catalogue.models()
        assert isinstance(record.manifest, Manifest)
        assert Models(store).all() == []


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
