"""A store with one small model in it, and the command called as a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from registry.reference import Reference
from runtime.cli.main import main
from tests.gguf_files import tiny_gguf
from tests.serving import install

TEMPLATE = "{{ messages[0].content }}\x1b]0;owned\x07"


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Sealift = Callable[..., Ended]


@pytest.fixture
def sealift(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Sealift:
    """Call the command in this process, on the test's own home."""
    monkeypatch.setenv("SEALIFT_HOME", str(home))

    def call(*arguments: str) -> Ended:
        capsys.readouterr()
        return Ended(main(arguments), *capsys.readouterr())

    return call


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the store would be."""
    return tmp_path / "home"


@pytest.fixture
def model(home: Path, tmp_path: Path) -> Reference:
    """A model in the store, whose chat template would drive a terminal."""
    weights = tiny_gguf(tmp_path / "tiny.gguf", chat_template=TEMPLATE)
    install(home, weights, "library/tiny:1k")
    return Reference.parse("library/tiny:1k")
