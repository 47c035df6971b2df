"""The list of withdrawals: one form, and it only grows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.advisories.lists import REASON_CHARS, WithdrawnList, appended
from registry.digest import Digest
from registry.withdrawals import Action
from schemas import limits
from schemas.errors import MalformedDocument, NotFound, UsageError

NOW = datetime(2026, 12, 1, tzinfo=UTC)
DIGESTS = [Digest.of(bytes([number])) for number in range(4)]
_STEPS = st.lists(
    st.tuples(
        st.sampled_from([Action.WARN, Action.QUARANTINE, Action.BLOCK, Action.NONE]),
        st.lists(st.sampled_from(DIGESTS), min_size=1, max_size=4),
        st.text(
            st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=9
        ),
    ),
    max_size=8,
)


def add(data: bytes | None, action: Action, *digests: Digest, reason: str = "why") -> bytes:
    return appended(
        data, at=NOW, action=action, digests=digests, subject="acme/x:1", reason=reason
    ).data


@given(_STEPS)
def test_every_list_continues_all_before_it_and_the_last_word_counts(
    steps: list[tuple[Action, list[Digest], str]],
) -> None:
    data: bytes | None = None
    lists: list[WithdrawnList] = []
    last: dict[Digest, Action] = {}
    for number, (action, digests, reason) in enumerate(steps):
        if action is Action.NONE and not last.keys() >= set(digests):
            with pytest.raises(NotFound):
                add(data, action, *digests, reason=reason)
            continue
        at = NOW + timedelta(days=number)
        new = appended(data, at=at, action=action, digests=digests, subject="", reason=reason)
        last |= dict.fromkeys(digests, action)
        assert WithdrawnList.parse(new.data) == new
        assert all(new.continues(old) for old in lists)
        assert not any(old.continues(new) for old in lists)
        lists.append(new)
        data = new.data
        assert {d: each.action for d, each in new.last().items()} == last


@given(st.binary(max_size=200))
def test_anything_else_is_no_list(data: bytes) -> None:
    with pytest.raises(MalformedDocument):
        WithdrawnList.parse(data)


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_changed_byte_is_another_list_or_none(at: int, change: int) -> None:
    data = add(add(None, Action.BLOCK, DIGESTS[0]), Action.WARN, DIGESTS[1])
    at %= len(data)
    other = data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]
    try:
        found = WithdrawnList.parse(other)
    except MalformedDocument:
        return
    assert found.entries != WithdrawnList.parse(data).entries


@pytest.mark.parametrize("reason", ["", " ", "a\nb", "\u202ex", "x" * (REASON_CHARS + 1)])
def test_a_reason_is_one_printable_line(reason: str) -> None:
    with pytest.raises(UsageError):
        add(None, Action.BLOCK, DIGESTS[0], reason=reason)


def test_a_full_list_takes_no_more() -> None:
    line = add(None, Action.BLOCK, DIGESTS[0])
    entry = WithdrawnList.parse(line).entries[0]
    shown = line.partition(b"[")[2].rpartition(b"]")[0]
    many = b",".join(
        shown.replace(b'"number":1', f'"number":{number}'.encode())
        for number in range(1, limits.WITHDRAWN_ENTRIES + 1)
    )
    full = line.replace(shown, many)
    assert len(full) <= limits.WITHDRAWN_BYTES
    assert WithdrawnList.parse(full).entries[0] == entry
    with pytest.raises(UsageError, match="full"):
        add(full, Action.BLOCK, DIGESTS[0])
