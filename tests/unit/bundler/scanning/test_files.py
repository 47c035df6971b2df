"""Files beside the weights: what they are is in their bytes, not in their names."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.scanning import Severity, scan_file
from bundler.scanning.findings import MOST, Finding
from bundler.scanning.pickles import find_pickle
from tests.support.chat_templates import CHATML, POISONED


class Evil:
    """Runs a command when it is unpickled; nobody here does."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("true",)


def scan(data: bytes, name: str = "file.bin") -> dict[str, Finding]:
    return {finding.code: finding for finding in scan_file(io.BytesIO(data), len(data), name)}


def zipped(**members: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            # A fixed date, so that a parameter made of it is the same in every process.
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return sink.getvalue()


EVIL = [pickle.dumps(Evil(), protocol) for protocol in range(6)]
PLAIN = pickle.dumps({"weights": [1, 2, 3]}, 4)


@pytest.mark.parametrize("data", EVIL)
def test_evil_pickles_of_every_protocol_are_named(data: bytes) -> None:
    finding = scan(data)["file-pickle"]
    assert finding.severity is Severity.DANGER
    assert f"{os.name}.system" in finding.detail


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        zipped(**{"archive/data.pkl": PLAIN}),
        zipped(weights=EVIL[2]),
        b"#not" + zipped(**{"data.pkl": EVIL[2]}),
        gzip.compress(EVIL[0]),
        zlib.compress(EVIL[4]),
        bz2.compress(EVIL[3]),
        lzma.compress(EVIL[5]),
    ],
    ids=["plain", "torch", "renamed", "polyglot", "gzip", "joblib", "bz2", "xz"],
)
def test_pickles_are_found_wherever_they_hide(data: bytes) -> None:
    assert scan(data, "model.safetensors.txt")["file-pickle"].severity is Severity.DANGER


def test_a_numpy_array_of_objects_is_a_pickle() -> None:
    sink = io.BytesIO()
    np.save(sink, np.array([Evil()], dtype=object), allow_pickle=True)
    assert "file-pickle" in scan(sink.getvalue())
    sink = io.BytesIO()
    np.save(sink, np.arange(3))
    assert not scan(sink.getvalue())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x7fELF\x02", "file-program"),
        (b"MZ\x90", "file-program"),
        (b"#!/bin/sh\n", "file-program"),
        (b"\x89HDF\r\n\x1a\n", "file-hdf5"),
        (b"7z\xbc\xaf\x27\x1c", "file-archive"),
        (zipped(**{"inner.zip": zipped(a=b"x")}), "file-archive"),
        (zipped(a=b"x")[:-10], "file-archive"),
        (b"PK\x03\x04" + b"x" * 100, "file-archive"),
    ],
)
def test_programs_and_closed_archives_are_a_danger(data: bytes, code: str) -> None:
    assert scan(data)[code].severity is Severity.DANGER


def test_a_tar_archive_is_a_danger() -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    assert "file-archive" in scan(sink.getvalue())


def test_a_zip_of_many_members_is_not_looked_through() -> None:
    many = zipped(**{f"{number:05}": b"" for number in range(5000)})
    assert "file-archive" in scan(many)


def test_a_zip_bomb_is_read_in_bounds() -> None:
    assert not scan(zipped(zeros=bytes(200 * 2**20)))


def test_safetensors_headers_are_bounded() -> None:
    good = json.dumps({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}).encode()
    assert not scan(struct.pack("<Q", len(good)) + good + b"xx", "m.safetensors")
    assert "file-safetensors" in scan(struct.pack("<Q", 2**60) + b"{", "m.safetensors")
    gap = good.replace(b"[0, 2]", b"[5, 7]")
    assert "file-safetensors" in scan(struct.pack("<Q", len(gap)) + gap + b"x" * 7)


@pytest.mark.parametrize("key", ["auto_map", "trust_remote_code", "custom_pipelines"])
def test_configs_that_name_code_are_a_warning(key: str) -> None:
    config = json.dumps({"model_type": "x", "rope": 1.5, key: {"AutoModel": "evil.Model"}})
    assert scan(config.encode(), "config.json")["file-remote-code"].severity is Severity.WARN


def test_the_template_in_a_tokenizer_config_is_scanned() -> None:
    usual = json.dumps({"chat_template": CHATML, "model_max_length": 1e30})
    assert "template-overrides" not in scan(usual.encode(), "tokenizer_config.json")
    source, code = POISONED["tells to ignore"]
    found = scan(json.dumps({"chat_template": source}).encode(), "tokenizer_config.json")
    assert "chat_template" in found[code].where


def test_python_files_are_a_warning() -> None:
    assert scan(b"import os\n", "modeling_evil.py")["file-code"].severity is Severity.WARN
    packed = zipped(**{"code/run.py": b"import os\n"})
    assert "run.py" in scan(packed, "x.zip")["file-code"].where


def test_odd_escapes_are_no_trouble() -> None:
    assert "file-pickle" in scan(b"cos\nsystem\n(S'\\>'\ntR.")


@pytest.mark.parametrize(
    "data", [b"", b"Apache License\nVersion 2.0", b"# Model card\n", b"{}", b"N.", b"(a text)."]
)
def test_texts_are_nothing(data: bytes) -> None:
    assert not scan(data, "LICENSE")


@given(
    st.binary(max_size=300) | st.sampled_from(EVIL).flatmap(lambda d: st.binary().map(d.__add__))
)
def test_any_bytes_are_scanned_in_bounds(data: bytes) -> None:
    assert len(scan(data)) <= MOST


@given(st.sampled_from(EVIL[2:]), st.integers(0, 400), st.binary(max_size=40))
def test_damaged_pickles_stay_pickles(data: bytes, at: int, junk: bytes) -> None:
    at = max(4, at % len(data))
    assert find_pickle(data[:at] + junk) is not None


def test_a_template_of_its_own_is_scanned_as_one() -> None:
    plain = scan(CHATML.encode(), "modelfile/template.jinja")
    assert all(finding.severity is Severity.INFO for finding in plain.values())
    for template, code in POISONED.values():
        assert code in scan(template.encode(), "modelfile/template.jinja")
    assert "template-too-much" in scan(b"{" * (2 * 1024 * 1024), "chat_template.jinja")
