"""Who may be computed together."""

from __future__ import annotations

from runtime.engine.answer import Answer
from runtime.engine.company import Company
from runtime.engine.slots import Slot
from runtime.engine.stream import Stream
from runtime.messages import Job, Text


def stream(number: int, *, exact: bool, length: int = 10) -> Stream:
    return Stream(
        job=Job(number, Text("a")),
        slot=Slot(number, [0] * length),
        prompt=[0],
        marks={},
        reused=0,
        answer=Answer(number, ()),
        sampler=None,
        limit=1,
        began=0,
        exact=exact,
        following=1,
    )


def test_everybody_may_be_together_until_it_is_seen_to_matter() -> None:
    company = Company(tries=True)
    streams = [stream(2, exact=True), stream(0, exact=False), stream(1, exact=True)]
    together, alone = company.split(streams)
    assert [s.slot.id for s in together] == [0, 1, 2]
    assert alone == []
    kinds = company.kinds(together)
    assert set(kinds.values()) == {(3, 0, 0)}
    company.learn((3, 0, 0), same=True)
    assert company.split(streams)[1] == []
    company.learn((3, 0, 0), same=False)
    together, alone = company.split(streams)
    assert together == [streams[1]]
    assert set(alone) == {streams[0], streams[2]}


def test_who_names_no_seed_is_always_together() -> None:
    company = Company(tries=False)
    streams = [stream(number, exact=False) for number in range(4)]
    assert company.split(streams) == (streams, [])
    assert company.kinds(streams) == {}


def test_where_nothing_can_be_tried_seeds_are_alone() -> None:
    company = Company(tries=False)
    streams = [stream(0, exact=True), stream(1, exact=True), stream(2, exact=False)]
    together, alone = company.split(streams)
    assert together == [streams[2]]
    assert len(alone) == 2


def test_only_neighbours_and_their_lengths_count() -> None:
    company = Company(tries=True)
    streams = [stream(0, exact=True), stream(2, exact=True, length=300), stream(3, exact=False)]
    assert company.kinds(streams) == {streams[1]: (2, 1, 1)}
    long = [stream(0, exact=True, length=9999), stream(1, exact=True)]
    assert set(company.kinds(long).values()) == {(2, 2, 2), (2, 0, 2)}


def test_trials_become_seldom() -> None:
    company = Company(tries=True)
    tried = [n for n in range(1, 100) if company.doubtful((2, 0, 0))]
    assert tried == [1, 2, 4, 8, 16, 32, 64]
