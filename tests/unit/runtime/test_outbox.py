"""What a worker sends when: pieces of answers wait for the next decoding, all else does not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from runtime.messages import Event, Finished, Piece, Started, event_from_document
from runtime.worker.__main__ import Channel, Outbox

START = Started(1, 3, 0, 1)
END = Finished(1, "stop", 3, 2, 1, 1)


@pytest.fixture
def ends() -> Iterator[tuple[Outbox, Channel]]:
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        yield Outbox(Channel(ours)), Channel(theirs)


def arrived(channel: Channel) -> list[Event]:
    frames = channel.receive(wait=False)
    return [event_from_document(event) for frame in frames for event in frame["events"]]


def test_a_piece_waits_until_the_next_tokens_are_decoded(ends: tuple[Outbox, Channel]) -> None:
    outbox, other = ends
    outbox.put([Piece(1, "a"), Piece(2, "b")], busy=True)
    assert arrived(other) == []
    outbox.flush()
    assert arrived(other) == [Piece(1, "a"), Piece(2, "b")]
    outbox.flush()
    assert arrived(other) == []


@pytest.mark.parametrize("urgent", [START, END])
def test_first_and_last_words_take_all_along(ends: tuple[Outbox, Channel], urgent: Event) -> None:
    outbox, other = ends
    outbox.put([Piece(2, "b")], busy=True)
    outbox.put([urgent, Piece(1, "a")], busy=True)
    assert arrived(other) == [Piece(2, "b"), urgent, Piece(1, "a")]


def test_nothing_waits_for_a_decoding_that_does_not_come(ends: tuple[Outbox, Channel]) -> None:
    outbox, other = ends
    outbox.put([Piece(1, "a")], busy=False)
    assert arrived(other) == [Piece(1, "a")]
