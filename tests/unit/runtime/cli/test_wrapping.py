"""Lines broken between words, in whatever pieces an answer comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.cli.wrapping import Wrapping, columns


def wrapped(width: int, *pieces: str) -> str:
    wrapping = Wrapping(width)
    return "".join([*map(wrapping.feed, pieces), wrapping.end()])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one two three", "one two\nthree"),
        ("one  two\n  three", "one  two\n  three"),
        ("a verylongword b", "a\nverylongword\nb"),
        ("日本語日本語", "日本語日\n本語"),
        ("one two ", "one two"),
        ("\n\none", "\n\none"),
    ],
)
def test_lines_of_eight_columns(text: str, shown: str) -> None:
    assert wrapped(8, text) == shown
    assert wrapped(8, *text) == shown
    assert wrapped(0, *text) == text


@given(st.lists(st.text("ab \n語é", max_size=8)), st.integers(4, 12))
def test_nothing_is_lost_and_no_line_is_longer_than_it_must_be(
    pieces: list[str], width: int
) -> None:
    text = "".join(pieces)
    shown = wrapped(width, *pieces)
    assert shown.split() == text.split() or "語" in text
    assert "".join(shown.split()) == "".join(text.split())
    assert all(columns(line) <= width or " " not in line.strip() for line in shown.split("\n"))
