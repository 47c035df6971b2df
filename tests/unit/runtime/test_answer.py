"""Bytes of tokens become whole characters, with their log-probabilities."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from runtime.engine.answer import Answer
from runtime.engine.dialect import dialect_of
from runtime.engine.reading import Reader
from runtime.messages import Call, Piece


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def collect(answer: Answer, tokens: list[bytes]) -> list[Piece]:
    found = [answer.feed(t, {"token": i}) for i, t in enumerate(tokens)] + [answer.finish()]
    return [event for events in found for event in events if isinstance(event, Piece)]


@given(st.text(max_size=30), st.lists(st.integers(0, 200), max_size=20))
def test_any_split_gives_the_text_in_whole_characters(text: str, cuts: list[int]) -> None:
    tokens = split(text.encode(), cuts)
    pieces = collect(Answer(1, ()), tokens)
    assert "".join(piece.text for piece in pieces) == text
    assert [p["token"] for piece in pieces for p in piece.logprobs] == list(range(len(tokens)))


def test_an_emoji_in_four_tokens_comes_out_once() -> None:
    answer = Answer(7, ())
    parts = [bytes([byte]) for byte in "🦭".encode()]
    assert [answer.feed(part) for part in parts] == [[], [], [], [Piece(7, "🦭")]]


def test_half_a_character_at_the_end_is_dropped() -> None:
    answer = Answer(1, ())
    assert answer.feed(b"a\xf0\x9f") == [Piece(1, "a")]
    assert answer.finish() == []


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    answer = Answer(1, ())
    assert answer.feed(b"a\xffb") == [Piece(1, "a\ufffdb")]


def test_tokens_of_a_stop_string_are_not_reported() -> None:
    pieces = collect(Answer(1, ["END"]), [b"one", b" E", b"N", b"D", b"x"])
    assert "".join(piece.text for piece in pieces) == "one "
    # The token " E" gave its space to the answer, so it is told; "N" and "D" gave nothing.
    assert [p["token"] for piece in pieces for p in piece.logprobs] == [0, 1]


def test_what_was_held_back_comes_at_the_end() -> None:
    pieces = collect(Answer(1, ["END"]), [b"one", b" E", b"N"])
    assert [piece.text for piece in pieces] == ["one", " ", "EN"]
    assert [p["token"] for piece in pieces for p in piece.logprobs] == [0, 1, 2]


def test_thinking_and_calls_are_parts_of_their_own() -> None:
    dialect = dialect_of("<tool_call></think>")
    answer = Answer(1, ["STOP"], Reader(dialect, ["f"]))
    text = '<think>Hm</think>Yes <tool_call>{"name": "f", "arguments": {}}</tool_call>STOP never'
    events = [event for char in text for event in answer.feed(char.encode())] + answer.finish()
    assert "".join(e.text for e in events if isinstance(e, Piece) and e.thinking) == "Hm"
    assert "".join(e.text for e in events if isinstance(e, Piece) and not e.thinking) == "Yes"
    calls = [event for event in events if isinstance(event, Call)]
    assert calls[0].name == "f"
    assert "".join(call.text for call in calls) == "{}"
    assert calls[-1].last
    assert answer.stopped
