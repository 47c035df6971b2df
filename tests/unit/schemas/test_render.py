"""What reaches the terminal: words, figures, and nothing that drives it."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import UsageError
from schemas.render import (
    Output,
    age_text,
    bytes_text,
    duration_text,
    harmless,
    one_line,
    report,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@given(st.text())
def test_no_control_character_survives(text: str) -> None:
    kept = set(harmless(text))
    assert not any(ord(c) < 32 and c not in "\n\t" for c in kept)
    assert not any(0x7F <= ord(c) < 0xA0 for c in kept)
    assert not kept & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")
    assert len(one_line(text).splitlines()) <= 1


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Zl", "Zp"))))
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert harmless(text) == one_line(text) == text


def test_escape_sequences_become_visible() -> None:
    assert harmless("\x1b[31mred\x07\r\nnext\ttab") == "␛[31mred␇\nnext\ttab"
    assert one_line("a\nb\x9b2J") == "a␊b?2J"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (1234, "1.2 KB"),
        (93_456_789, "93 MB"),
        (1_200_000_000, "1.2 GB"),
        (5_000_000_000_000_000, "5000 TB"),
    ],
)
def test_sizes_as_ollama_prints_them(count: int, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123, "12ms"), (1.25, "1.2s"), (59.94, "59.9s"), (192, "3m12s"), (7500, "2h5m")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "Less than a second ago"),
        (1, "1 second ago"),
        (45, "45 seconds ago"),
        (90, "About a minute ago"),
        (240, "4 minutes ago"),
        (4000, "About an hour ago"),
        (7200, "2 hours ago"),
        (3 * 86400, "3 days ago"),
        (21 * 86400, "3 weeks ago"),
        (200 * 86400, "6 months ago"),
        (1000 * 86400, "2 years ago"),
        (-240, "4 minutes from now"),
    ],
)
def test_ages_as_ollama_words_them(seconds: float, text: str) -> None:
    assert age_text(NOW - timedelta(seconds=seconds), NOW) == text


def test_a_table_is_aligned_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(("NAME", "SIZE"), [("a", 1), ("\x1b[2Jlong", 200)], right=("SIZE",))
    assert capsys.readouterr().out == ("NAME      SIZE\na            1\n␛[2Jlong   200\n")


def test_json_prints_the_result_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(json=True)
    output.line("for people")
    output.text("for people")
    output.note("for people")
    output.table(("A",), [("for people",)])
    with output.progress(10, "working") as meter:
        meter.advance(10)
    output.result({"name": "\x1b\u202e"})
    seen = capsys.readouterr()
    assert json.loads(seen.out) == {"name": "\x1b\u202e"}
    assert seen.out.isascii()
    assert "\x1b" not in seen.out
    assert seen.err == ""


def test_quiet_keeps_results_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(quiet=True)
    output.line("result")
    output.note("remark")
    output.warn("careful")
    assert capsys.readouterr() == ("result\n", "warning: careful\n")


def test_progress_without_a_terminal_is_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schemas.render._PLAIN_SECONDS", 0.0)
    with Output().progress() as meter:
        meter.begin("writing x.gguf", 2_000_000)
        meter.advance(1_000_000)
        meter.begin("writing y", 0)
        meter.advance(5)
    assert capsys.readouterr() == ("", "writing x.gguf: 50% of 2 MB\nwriting y: 5 B\n")


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_heads_warnings_and_errors_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr("sys.stdout", shown)
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    output = Output()
    output.table(("A", "B"), [("\x1b[2J", 1)])
    output.warn("careful")
    report(UsageError("no"), as_json=False)
    text = shown.getvalue()
    assert text.startswith("\x1b[1mA     B\x1b[0m\n␛[2J  1\n")
    assert "\x1b[33mwarning:\x1b[0m careful\n\x1b[1;31merror[usage]:\x1b[0m no\n" in text
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        shown.truncate(0)
        monkeypatch.setenv(name, value)
        output.warn("careful")
        assert "\x1b" not in shown.getvalue()
        monkeypatch.delenv(name)
