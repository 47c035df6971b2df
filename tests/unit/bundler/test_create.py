"""From a model file to a bundle: what is refused, what is written, what it depends on."""

from __future__ import annotations

import json
import os
import secrets
import tarfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bundler import connected as verbs
from bundler.chunking import Chunking
from bundler.create import Form, create_bundle
from bundler.files import check_output, new_file, write_file
from bundler.modelpack import pack
from bundler.sources import LocalModel, resolve
from bundler.trust.publisher import Publisher
from registry import oci
from registry.digest import Digest
from registry.oci import Manifest
from schemas import strictjson
from schemas.documents import Kind, validate
from schemas.errors import (
    AlreadyExists,
    ContentMismatch,
    InvalidName,
    KeyUnavailable,
    MalformedModel,
    NotFound,
    SealiftError,
    StorageFailure,
    UnsupportedRequest,
    UsageError,
)
from schemas.render import Meter
from tests.gguf_files import Pieces, broken_variants, tiny_gguf
from tests.support.bundle_simulator import members, tar

PASSPHRASE = b"correct horse"
BROKEN = dict(broken_variants())


# -- sources --------------------------------------------------------------------------------------


def test_source_is_described(gguf: Path, chunking: Chunking, meter: Meter) -> None:
    model = resolve(str(gguf), "Library/Tiny:V1", chunking, meter)
    assert str(model.reference) == "library/tiny:v1"
    assert (model.digest, model.size) == (Digest.of(gguf.read_bytes()), gguf.stat().st_size)
    assert model.facts.architecture == "llama"
    with model.blobs[0].open() as file:
        assert file.read(4) == b"GGUF"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("SmolLM2-135M-Instruct.F32.gguf", "library/smollm2-135m-instruct:f32"),
        ("tiny.gguf", "library/tiny:f32"),
        ("F32.gguf", "library/f32:f32"),
        ("---.gguf", "library/model:f32"),
        ("Ünï cöde!.GGUF", "library/n-c-de:f32"),
        ("no-suffix", "library/no-suffix:f32"),
    ],
)
def test_name_follows_from_the_file(
    file: str, name: str, tmp_path: Path, chunking: Chunking, meter: Meter
) -> None:
    path = tiny_gguf(tmp_path / file)
    assert str(resolve(str(path), None, chunking, meter).reference) == name


@pytest.mark.parametrize("flaw", BROKEN)
def test_broken_header_is_refused(
    flaw: str, tmp_path: Path, chunking: Chunking, meter: Meter
) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(BROKEN[flaw])
    with pytest.raises(MalformedModel) as caught:
        resolve(str(path), "library/broken:1", chunking, meter)
    assert caught.value.hint
    assert caught.value.line().isprintable()


@pytest.mark.parametrize(
    "source", ["hf://org/model", "https://example.org/x.gguf", "oci://x/y", "ollama://smollm2"]
)
def test_source_of_another_kind(source: str, chunking: Chunking, meter: Meter) -> None:
    with pytest.raises(UnsupportedRequest):
        resolve(source, None, chunking, meter)


@pytest.mark.parametrize(
    "name",
    ["", "a/b/c/d", "../x", "x:", "library/x:y:z", "UPPER/\N{LATIN SMALL LETTER A WITH DIAERESIS}"],
)
def test_name_that_is_none(name: str, gguf: Path, chunking: Chunking, meter: Meter) -> None:
    with pytest.raises(InvalidName):
        resolve(str(gguf), name, chunking, meter)


@pytest.mark.parametrize("name", ["example.org/library/x:1", "library/x@sha256:" + "0" * 64])
def test_name_of_another_place(name: str, gguf: Path, chunking: Chunking, meter: Meter) -> None:
    with pytest.raises(UsageError):
        resolve(str(gguf), name, chunking, meter)


def test_source_that_is_no_file(tmp_path: Path, chunking: Chunking, meter: Meter) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, kind in (
        (tmp_path / "no", NotFound),
        (tmp_path, UsageError),
        (tmp_path / "fifo", UsageError),
        (Path("/dev/zero"), UsageError),
        (tmp_path / ("n" * 300), StorageFailure),
    ):
        with pytest.raises(kind):
            resolve(str(path), None, chunking, meter)


# -- ModelPack ------------------------------------------------------------------------------------


def test_manifest_depends_on_bytes_file_name_and_tag_alone(
    gguf: Path, tmp_path: Path, chunking: Chunking, meter: Meter
) -> None:
    first = pack(resolve(str(gguf), "library/a:1", chunking, meter))
    copy = tmp_path / gguf.name
    copy.write_bytes(gguf.read_bytes())
    copy.chmod(0o600)
    os.utime(copy, (0, 0))
    again = pack(resolve(str(copy), "other/b:1", chunking, meter))
    assert (again.manifest_bytes, again.config_bytes) == (first.manifest_bytes, first.config_bytes)
    other = pack(resolve(str(gguf), "library/a:2", chunking, meter))
    assert other.manifest_bytes != first.manifest_bytes


def test_manifest_is_a_modelpack(model: LocalModel) -> None:
    packed = pack(model)
    manifest = Manifest.parse(packed.manifest_bytes)
    assert manifest == packed.manifest
    assert manifest.artifact_type == oci.MODEL_ARTIFACT
    assert packed.descriptor.digest == Digest.of(packed.manifest_bytes)
    assert packed.closure_bytes == len(packed.manifest_bytes + packed.config_bytes) + model.size
    (layer,) = manifest.layers
    assert (layer.media_type, layer.digest, layer.size) == (
        oci.WEIGHT_RAW,
        model.digest,
        model.size,
    )
    assert layer.annotations[oci.FILEPATH] == layer.annotations[oci.TITLE] == model.path.name
    assert json.loads(layer.annotations[oci.FILE_METADATA])["size"] == model.size


def test_config_follows_its_schema_and_guesses_nothing(
    model: LocalModel, tmp_path: Path, chunking: Chunking, meter: Meter
) -> None:
    document = json.loads(pack(model).config_bytes)
    validate(Kind.MODEL_CONFIG, document)
    assert document["descriptor"] == {
        "name": "Tiny Test",
        "title": "Tiny Test",
        "family": "llama",
        "version": "f32",
        "licenses": ["Apache-2.0"],
    }
    assert document["modelfs"] == {"type": "layers", "diffIds": [str(model.digest)]}
    bare = tmp_path / "bare.gguf"
    bare.write_bytes(Pieces().without("general.name").without("tokenizer.chat_template").build())
    document = json.loads(pack(resolve(str(bare), "library/bare:1", chunking, meter)).config_bytes)
    validate(Kind.MODEL_CONFIG, document)
    assert document["descriptor"] == {"family": "llama", "version": "1"}
    assert document["config"]["capabilities"]["toolUsage"] is False


# -- bundles --------------------------------------------------------------------------------------


def bundle(home: Path, models: list[LocalModel], output: Path, meter: Meter) -> bytes:
    created = create_bundle(
        Publisher.open(home / "publisher"),
        models,
        output,
        passphrase=PASSPHRASE,
        form=Form(),
        now=datetime.now(UTC),
        progress=meter,
    )
    data = output.read_bytes()
    assert (created.path, created.size) == (output, len(data))
    assert created.fingerprint == Digest.of(Publisher.open(home / "publisher").root_bytes)
    return data


def test_bundle_is_the_tar_that_the_simulator_would_write(
    connected: Path, model: LocalModel, tmp_path: Path, meter: Meter
) -> None:
    data = bundle(connected, [model], tmp_path / "one.tar", meter)
    found = members(data)
    assert tar(found) == data
    names = [member.name for member in found]
    assert names[0] == "oci-layout"
    assert [n for n in names if n.startswith("sealift/trust/")] == names[
        1 : names.index("sealift/bundle.json")
    ]
    assert names[names.index("sealift/bundle.json") + 1] == "index.json"
    with tarfile.open(tmp_path / "one.tar") as archive:
        assert archive.getnames() == names
        assert all(item.isreg() and item.mtime == 0 for item in archive)
    for member in found:
        if member.name.startswith("blobs/"):
            assert member.name == f"blobs/sha256/{Digest.of(member.data).hex}"


def test_models_share_blobs(
    connected: Path, gguf: Path, tmp_path: Path, chunking: Chunking, meter: Meter
) -> None:
    models = [resolve(str(gguf), f"library/{name}:1", chunking, meter) for name in ("a", "b")]
    names = [m.name for m in members(bundle(connected, models, tmp_path / "x.tar", meter))]
    assert len(names) == len(set(names))
    assert names.count(f"blobs/sha256/{models[0].digest.hex}") == 1


def test_sequences_rise_and_are_never_given_twice(
    connected: Path, model: LocalModel, tmp_path: Path, meter: Meter
) -> None:
    def sequence(data: bytes) -> int:
        table = next(m.data for m in members(data) if m.name == "sealift/bundle.json")
        number: int = strictjson.parse_object(table, what="x", max_bytes=10**6)["sequence"]
        return number

    first = sequence(bundle(connected, [model], tmp_path / "1.tar", meter))
    with pytest.raises(AlreadyExists):
        bundle(connected, [model], tmp_path / "1.tar", meter)
    gone = replace(model, blobs=(replace(model.blobs[0], digest=Digest.of(b"something else")),))
    with pytest.raises(ContentMismatch):
        bundle(connected, [gone], tmp_path / "2.tar", meter)
    assert sequence(bundle(connected, [model], tmp_path / "3.tar", meter)) == first + 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.tar", "3.tar"]


@pytest.mark.parametrize("change", ["grown", "shorter", "other", "gone"])
def test_source_that_changes_after_it_was_hashed(
    change: str, connected: Path, tmp_path: Path, chunking: Chunking, meter: Meter
) -> None:
    path = tmp_path / "m.gguf"
    data = Pieces().build()
    path.write_bytes(data)
    model = resolve(str(path), "library/m:1", chunking, meter)
    if change == "grown":
        path.write_bytes(data + b"more")
        bundle(connected, [model], tmp_path / "out.tar", meter)  # what was signed is what it has
        return
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if change == "shorter" else data[:-1] + b"\1")
    with pytest.raises(NotFound if change == "gone" else ContentMismatch):
        bundle(connected, [model], tmp_path / "out.tar", meter)
    assert not (tmp_path / "out.tar").exists()
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def create(
    home: Path,
    *sources: Path,
    names: tuple[str, ...] = (),
    output: Path,
    meter: Meter,
) -> None:
    verbs.create(
        home,
        [str(source) for source in sources],
        names,
        output,
        passphrase=lambda: PASSPHRASE,
        form=Form(overwrite=True),
        progress=meter,
    )


def test_numbers_of_models_and_names(
    connected: Path, gguf: Path, tmp_path: Path, meter: Meter
) -> None:
    output = tmp_path / "x.tar"
    for names in (("library/a:1",), ("a", "b", "c")):
        with pytest.raises(UsageError):
            create(connected, gguf, gguf, names=names, output=output, meter=meter)
    with pytest.raises(UsageError, match="two models are called"):
        create(connected, gguf, gguf, output=output, meter=meter)
    with pytest.raises(UsageError, match="no model"):
        create(connected, output=output, meter=meter)
    assert not output.exists()


def test_namespace_without_a_key(connected: Path, gguf: Path, tmp_path: Path, meter: Meter) -> None:
    with pytest.raises(NotFound, match="no key here may sign"):
        create(connected, gguf, names=("acme/x:1",), output=tmp_path / "x.tar", meter=meter)
    assert list(tmp_path.glob("[!.]*")) == []


def test_wrong_passphrase_writes_nothing(
    connected: Path, gguf: Path, tmp_path: Path, meter: Meter
) -> None:
    with pytest.raises(KeyUnavailable):
        verbs.create(
            connected,
            [str(gguf)],
            [],
            tmp_path / "x.tar",
            passphrase=lambda: b"wrong horse",
            form=Form(),
            progress=meter,
        )
    assert list(tmp_path.glob("[!.]*")) == []  # what was prepared waits in a hidden folder


def test_model_is_never_overwritten_by_its_bundle(
    connected: Path, tmp_path: Path, meter: Meter
) -> None:
    path = tiny_gguf(tmp_path / "m.gguf")
    link = tmp_path / "link.gguf"
    link.symlink_to(path)
    before = path.read_bytes()
    for output in (path, link, tmp_path / "." / "m.gguf"):
        with pytest.raises(UsageError, match="to be bundled"):
            create(connected, path, output=output, meter=meter)
    assert path.read_bytes() == before


def test_namespace_that_no_bundle_could_carry(tmp_path: Path) -> None:
    fits = "n" * 60
    for namespace in (fits + "n", "n" * 200):
        with pytest.raises(InvalidName, match="too long"):
            verbs.init(tmp_path, "us", [namespace], "ecdsa-p256", lambda: PASSPHRASE)
    assert list(tmp_path.iterdir()) == []
    assert len(f"sealift/trust/9999999999.publisher-{fits}.json") == 100


# -- output files ---------------------------------------------------------------------------------


def test_output_that_may_not_be_written(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_bytes(b"")
    os.mkfifo(tmp_path / "fifo")
    cases: list[tuple[Path, bool, type[SealiftError]]] = [
        (there, False, AlreadyExists),
        (tmp_path, True, UsageError),
        (tmp_path / "fifo", True, UsageError),
        (Path("/dev/null"), True, UsageError),
        (tmp_path / "no" / "x", True, NotFound),
        (there / "x", True, NotFound),
    ]
    for path, overwrite, kind in cases:
        with pytest.raises(kind):
            check_output(path, overwrite=overwrite)
    check_output(there, overwrite=True)
    check_output(tmp_path / "new", overwrite=False)


def test_name_too_long_for_the_disk(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 300)
    with pytest.raises(StorageFailure):
        write_file(path, b"x")
    longest = tmp_path / ("n" * 255)
    write_file(longest, b"x")
    assert longest.read_bytes() == b"x"
    assert list(tmp_path.iterdir()) == [longest]


def test_new_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with new_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    with pytest.raises(ZeroDivisionError), new_file(path) as file:
        file.write(bytes(1 // len(b"")))
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
    large = secrets.token_bytes(300_000)
    write_file(path, large)
    assert path.read_bytes() == large
