"""Stop strings give the naive answer, however the text arrives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine.stopping import StopStrings

ALPHABET = "ab\n<é"
TEXTS = st.text(ALPHABET, max_size=40)
STOPS = st.lists(st.text(ALPHABET, min_size=1, max_size=5), max_size=4)


def naive(text: str, stops: list[str]) -> tuple[str, bool]:
    """Character by character: cut before the longest stop string that is complete first."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


def streamed(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    filter_ = StopStrings(stops)
    shown = "".join(filter_.feed(piece) for piece in pieces)
    return shown + filter_.flush(), filter_.stopped


@given(st.lists(TEXTS, max_size=12), STOPS)
def test_the_split_does_not_matter(pieces: list[str], stops: list[str]) -> None:
    text = "".join(pieces)
    expected = naive(text, stops)
    assert streamed(pieces, stops) == expected
    assert streamed([text], stops) == expected
    assert streamed(list(text), stops) == expected


@given(st.lists(TEXTS, max_size=8), STOPS)
def test_nothing_shown_is_ever_part_of_a_stop_string(pieces: list[str], stops: list[str]) -> None:
    filter_ = StopStrings(stops)
    shown = ""
    for piece in pieces:
        shown += filter_.feed(piece)
        assert not any(stop in shown for stop in stops)


def test_only_what_may_begin_a_stop_string_is_held_back() -> None:
    filter_ = StopStrings(["\n\nUser:"])
    assert filter_.feed("Hello.\n") == "Hello."
    assert filter_.feed("\nUse") == ""
    assert filter_.feed("ful.") == "\n\nUseful."
    assert filter_.flush() == ""


@pytest.mark.parametrize("stops", [[], [""]])
def test_without_stop_strings_everything_passes_at_once(stops: list[str]) -> None:
    filter_ = StopStrings(stops)
    assert filter_.feed("abc") == "abc"
    assert not filter_.stopped


def test_nothing_comes_after_a_stop_string() -> None:
    filter_ = StopStrings(["."])
    assert filter_.feed("One. Two") == "One"
    assert filter_.feed("three") == ""
    assert filter_.flush() == ""
