"""What can fail early fails before a model is read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundler import connected as verbs
from bundler.archive.codec import Compression
from bundler.create import Form
from bundler.workbench import folder_of
from schemas import limits
from schemas.errors import (
    AlreadyExists,
    KeyUnavailable,
    MalformedModel,
    NotFound,
    SealiftError,
    StorageFull,
    UsageError,
)
from tools.benchmarks.models import hole, write_model

PASSPHRASE = b"correct horse"
VOLUMES = Form(Compression.NONE, limits.VOLUME_BYTES_MIN, parity=1)


class Watching:
    """Notes which work is begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def begin(self, name: str, size: int) -> None:
        self.begun.append(name)

    def advance(self, count: int) -> None:
        """Nothing to note."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four volumes' worth."""
    path = tmp_path_factory.mktemp("large") / "large.gguf"
    write_model(path, 3 * limits.VOLUME_BYTES_MIN, name="large")
    return path


def never() -> bytes:
    raise AssertionError("the passphrase was asked for")


def taken(name: str) -> Callable[[Path], Path]:
    """Something lies there already."""

    def prepare(folder: Path) -> Path:
        (folder / name).write_bytes(b"mine")
        return folder / "x.tar"

    return prepare


def free(folder: Path) -> Path:
    return folder / "x.tar"


CASES: dict[str, tuple[Callable[[Path], Path], dict[str, Any], type[SealiftError]]] = {
    "output-is-there": (taken("x.tar"), {}, AlreadyExists),
    "volume-is-there": (taken("x.v002.tar"), {"form": VOLUMES}, AlreadyExists),
    "parity-is-there": (taken("x.p001.tar"), {"form": VOLUMES}, AlreadyExists),
    "two-of-one-name": (free, {"sources": 2, "names": ["a", "a"]}, UsageError),
    "no-folder": (lambda folder: folder / "no" / "x.tar", {}, NotFound),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_told_before_anything_is_asked_or_read(
    case: str, connected: Path, large: Path, tmp_path: Path
) -> None:
    prepare, changes, kind = CASES[case]
    meter = Watching()
    with pytest.raises(kind):
        verbs.create(
            connected,
            [str(large)] * changes.get("sources", 1),
            changes.get("names", []),
            prepare(tmp_path),
            form=changes.get("form", Form(Compression.NONE)),
            passphrase=never,
            progress=meter,
        )
    assert meter.begun == []
    assert not folder_of(tmp_path / "x.tar").exists()


@pytest.mark.parametrize(
    ("name", "secret", "kind"),
    [("acme/x:1", PASSPHRASE, NotFound), ("library/x:1", b"wrong", KeyUnavailable)],
)
def test_who_cannot_sign_reads_nothing(
    name: str,
    secret: bytes,
    kind: type[SealiftError],
    connected: Path,
    large: Path,
    tmp_path: Path,
) -> None:
    meter = Watching()
    with pytest.raises(kind):
        verbs.create(
            connected,
            [str(large)],
            [name],
            tmp_path / "x.tar",
            form=Form(),
            passphrase=lambda: secret,
            progress=meter,
        )
    assert meter.begun == []
    assert list(tmp_path.iterdir()) == []


def test_disk_that_is_too_small(connected: Path, tmp_path: Path) -> None:
    path = tmp_path / "sparse.gguf"
    room = shutil.disk_usage(tmp_path).free
    write_model(path, 2 * room, name="sparse", fill=hole)  # others free some meanwhile
    meter = Watching()
    for form in (Form(Compression.NONE), Form(Compression.NONE, 1 << 36, parity=1)):
        with pytest.raises(StorageFull, match="not enough space"):
            verbs.create(
                connected,
                [str(path)],
                [],
                tmp_path / "x.tar",
                form=form,
                passphrase=never,
                progress=meter,
            )
    assert meter.begun == []
    assert list(tmp_path.iterdir()) == [path]


def test_second_model_that_is_none(connected: Path, large: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    meter = Watching()
    with pytest.raises(MalformedModel):
        verbs.create(
            connected,
            [str(large), str(broken)],
            [],
            tmp_path / "x.tar",
            form=Form(),
            passphrase=never,
            progress=meter,
        )
    assert meter.begun == []
