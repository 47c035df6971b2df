"""The log of requests: bounded, private, whole lines, and without what must not be in it."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.server.audit import REDACTED, AuditLog, Entry, Redactor
from schemas import limits
from schemas.errors import UsageError


@contextmanager
def log(
    home: Path, size: int = 1_000_000, files: int = 3, *patterns: str
) -> Iterator[tuple[AuditLog, list[int]]]:
    home.mkdir(exist_ok=True)
    lost: list[int] = []
    found = AuditLog(home, size=size, files=files, redact=Redactor(patterns), lost=lost.append)
    found.start()
    yield found, lost
    found.close()


def kept(home: Path) -> list[dict[str, object]]:
    path = home / "requests" / "requests.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_are_written_in_order_for_nobody_else_to_read(tmp_path: Path) -> None:
    with log(tmp_path / "home") as (audit, lost):
        for number in range(100):
            audit.add(Entry({"number": number}))
    assert [line["number"] for line in kept(tmp_path / "home")] == list(range(100))
    folder = tmp_path / "home" / "requests"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "requests.jsonl").stat().st_mode) == 0o600
    assert not lost


def test_its_size_is_bounded(tmp_path: Path) -> None:
    with log(tmp_path / "home", 2000, 3) as (audit, lost):
        for number in range(500):
            audit.add(Entry({"number": number, "pad": "x" * 80}))
    files = sorted((tmp_path / "home" / "requests").iterdir())
    assert [path.name for path in files] == [f"requests.jsonl{e}" for e in ("", ".1", ".2")]
    assert all(path.stat().st_size <= 2000 for path in files)
    assert kept(tmp_path / "home")[-1]["number"] == 499
    assert not lost


def test_it_goes_on_after_a_power_cut(tmp_path: Path) -> None:
    with log(tmp_path / "home") as (audit, _):
        audit.add(Entry({"number": 1}))
    path = tmp_path / "home" / "requests" / "requests.jsonl"
    with path.open("a") as file:
        file.write('{"number":')
    with log(tmp_path / "home") as (audit, _):
        audit.add(Entry({"number": 2}))
    texts = path.read_text().splitlines()
    assert texts == ['{"number":1}', '{"number":', '{"number":2}']


def test_what_is_redacted_is_not_kept(tmp_path: Path) -> None:
    patterns = (r"\b\d{4}(?: \d{4}){3}\b", r"(?i)password\s*[:=]\s*\S+")
    with log(tmp_path / "home", 1_000_000, 2, *patterns) as (audit, _):
        texts = {"prompt": "card 1234 5678 9012 3456,\npassword: hunter2 end", "answer": "ok"}
        audit.add(Entry({}, texts))
    (line,) = kept(tmp_path / "home")
    assert line == {"prompt": f"card {REDACTED},\n{REDACTED} end", "answer": "ok"}


def test_texts_are_cut_but_never_through_a_secret(tmp_path: Path) -> None:
    most = limits.AUDIT_TEXT_CHARS
    secret = "secret-" + "s" * 100
    redact = Redactor([r"secret-s+"])
    text, cut = redact("x" * (most - 20) + secret + "y" * 10_000)
    assert cut
    assert len(text) == most
    assert "secret" not in text
    assert redact("short") == ("short", False)


@pytest.mark.parametrize("pattern", ["(", "[a", "(?P<x>", "*"])
def test_a_pattern_that_is_none_is_told_at_once(pattern: str) -> None:
    with pytest.raises(UsageError, match="no regular expression"):
        Redactor([pattern])


def test_any_text_can_be_kept(tmp_path: Path) -> None:
    with log(tmp_path / "home") as (audit, lost):
        audit.add(Entry({"model": "half a pair \ud800"}, {"prompt": "\x00\x1b\u2028 é \udfff"}))
    (line,) = (tmp_path / "home" / "requests" / "requests.jsonl").read_text().split("\n")[:-1]
    assert "é" in line
    assert not lost


def test_a_full_disk_is_counted_and_does_not_stop_anything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with log(tmp_path / "home") as (audit, lost):
        path = tmp_path / "home" / "requests" / "requests.jsonl"
        path.unlink()
        path.symlink_to("/dev/full")
        assert audit._files.stream is not None
        audit._files.stream.close()
        audit._files.stream = None
        for _ in range(3):
            audit.add(Entry({"x": 1}))
    assert lost == [1, 1, 1]
    assert caplog.text.count("the log of requests cannot be written") == 1


def test_more_than_can_wait_is_lost_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "AUDIT_LINES", 2)
    (tmp_path / "home").mkdir()
    lost: list[int] = []
    audit = AuditLog(tmp_path / "home", size=10_000, files=2, redact=Redactor(), lost=lost.append)
    for number in range(5):  # nobody writes yet
        audit.add(Entry({"number": number}))
    assert lost == [1, 1, 1]
    audit.start()
    audit.close()
    assert [line["number"] for line in kept(tmp_path / "home")] == [0, 1]
