"""Bytes of tokens become whole characters, with their log-probabilities."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from runtime.engine.answer import Answer
from runtime.messages import Piece


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def collect(answer: Answer, tokens: list[bytes]) -> list[Piece]:
    pieces = [answer.feed(t, {"token": i}) for i, t in enumerate(tokens)] + [answer.finish()]
    return [piece for piece in pieces if piece is not None]


@given(st.text(max_size=30), st.lists(st.integers(0, 200), max_size=20))
def test_any_split_gives_the_text_in_whole_characters(text: str, cuts: list[int]) -> None:
    tokens = split(text.encode(), cuts)
    pieces = collect(Answer(1, ()), tokens)
    assert "".join(piece.text for piece in pieces) == text
    assert [p["token"] for piece in pieces for p in piece.logprobs] == list(range(len(tokens)))


def test_an_emoji_in_four_tokens_comes_out_once() -> None:
    answer = Answer(7, ())
    parts = [bytes([byte]) for byte in "🦭".encode()]
    assert [answer.feed(part) for part in parts] == [None, None, None, Piece(7, "🦭")]


def test_half_a_character_at_the_end_is_dropped() -> None:
    answer = Answer(1, ())
    assert answer.feed(b"a\xf0\x9f") == Piece(1, "a")
    assert answer.finish() is None


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    answer = Answer(1, ())
    assert answer.feed(b"a\xffb") == Piece(1, "a\ufffdb")


def test_tokens_of_a_stop_string_are_not_reported() -> None:
    pieces = collect(Answer(1, ["END"]), [b"one", b" E", b"N", b"D", b"x"])
    assert "".join(piece.text for piece in pieces) == "one "
    # The token " E" gave its space to the answer, so it is told; "N" and "D" gave nothing.
    assert [p["token"] for piece in pieces for p in piece.logprobs] == [0, 1]


def test_what_was_held_back_comes_at_the_end() -> None:
    pieces = collect(Answer(1, ["END"]), [b"one", b" E", b"N"])
    assert [piece.text for piece in pieces] == ["one", " ", "EN"]
    assert [p["token"] for piece in pieces for p in piece.logprobs] == [0, 1, 2]
