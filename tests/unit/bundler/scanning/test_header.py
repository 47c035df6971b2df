"""GGUF headers that are well-formed and odd."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bundler.scanning import Severity, scan_header, worst
from registry.gguf import GGUFHeader, read_header, read_header_file
from tests.gguf_files import Pieces, string, tiny_gguf
from tests.support.chat_templates import CHATML, POISONED


def header(*more: tuple[str, bytes]) -> GGUFHeader:
    pieces = Pieces()
    data = replace(pieces, metadata=(*pieces.metadata, *more)).build()
    return read_header(data, len(data))


def test_a_plain_model_has_nothing_unusual(tmp_path: Path) -> None:
    found = scan_header(read_header_file(tiny_gguf(tmp_path / "m.gguf", chat_template=CHATML)))
    assert worst(found) in (None, Severity.INFO), found


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("general.description", string("a\u202eb"), "text-bidi"),
        ("general.notes", string("x" * 70_000), "gguf-text"),
        ("hf.auto_map", string("x"), "gguf-code"),
    ],
)
def test_odd_metadata_is_named(key: str, value: bytes, code: str) -> None:
    assert code in {finding.code for finding in scan_header(header((key, value)))}


def test_every_template_is_scanned() -> None:
    source, code = POISONED["tells to ignore"]
    found = scan_header(header(("tokenizer.chat_template.rag", string(source))))
    assert [f.where for f in found if f.code == code] == ["chat template rag"]
    many = [(f"tokenizer.chat_template.t{number}", string("x")) for number in range(20)]
    assert worst(scan_header(header(*many))) is Severity.DANGER


def test_types_that_no_model_uses_are_named(tmp_path: Path) -> None:
    tensors = {"odd name": np.ones((2, 32), dtype=np.int64)}
    found = scan_header(read_header_file(tiny_gguf(tmp_path / "m.gguf", tensors=tensors)))
    assert {"gguf-tensor-type", "gguf-tensor-name"} <= {finding.code for finding in found}
