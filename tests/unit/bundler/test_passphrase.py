"""Where a passphrase comes from, and where it never goes."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from bundler.passphrase import MIN_CHARS, new_passphrase, read_passphrase
from schemas.errors import KeyUnavailable


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"correct horse\n", b"correct horse"),
        (b"correct horse", b"correct horse"),
        (b"correct horse\r\nsecond line\n", b"correct horse"),
        (b" blanks stay \n", b" blanks stay "),
        ("Größe und Länge".encode(), "Größe und Länge".encode()),
        (b"x" * 4096, b"x" * 4096),
        (b"with\0nul and \xff\n", b"with\0nul and \xff"),
    ],
)
def test_first_line_of_a_file(content: bytes, wanted: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pass"
    path.write_bytes(content)
    assert read_passphrase(path) == wanted
    assert new_passphrase(path) == wanted


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n", b"\nsecond line\n", b"x" * 4097])
def test_file_without_one(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pass"
    path.write_bytes(content)
    with pytest.raises(KeyUnavailable) as caught:
        read_passphrase(path)
    assert caught.value.hint


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "no", tmp_path, tmp_path / "no" / "such", tmp_path / ("n" * 300)):
        with pytest.raises(KeyUnavailable) as caught:
            read_passphrase(path)
        assert caught.value.why
        assert caught.value.hint


def test_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(KeyUnavailable, match="too long"):
        read_passphrase(Path("/dev/zero"))


def test_pipe_will_do() -> None:
    """As shells make them: <(secret-tool lookup …)."""
    receiver, sender = os.pipe()
    os.write(sender, b"correct horse\n")
    os.close(sender)
    try:
        assert read_passphrase(Path(f"/dev/fd/{receiver}")) == b"correct horse"
    finally:
        os.close(receiver)


@pytest.mark.parametrize("count", [1, MIN_CHARS - 1])
def test_new_one_is_not_too_short(count: int, tmp_path: Path) -> None:
    path = tmp_path / "pass"
    path.write_bytes(b"x" * count)
    with pytest.raises(KeyUnavailable, match="too short"):
        new_passphrase(path)
    assert read_passphrase(path) == b"x" * count


def test_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse\n"))
    for ask in (read_passphrase, new_passphrase):
        with pytest.raises(KeyUnavailable, match="no passphrase"):
            ask(None)
