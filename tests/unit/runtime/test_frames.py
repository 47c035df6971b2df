"""The frame codec: whole, byte by byte, with trailing bytes, and from a peer gone wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.worker.frames import NEED_DATA, FrameDecoder, NeedData, encode
from schemas.errors import WorkerFailed

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | ANY_TEXT,
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(ANY_TEXT, children, max_size=3)
    ),
    max_leaves=8,
)
DOCUMENTS = st.lists(st.dictionaries(ANY_TEXT, JSON, max_size=4), max_size=5)


def drain(decoder: FrameDecoder) -> list[dict[str, object]]:
    documents = []
    while not isinstance(document := decoder.next_document(), NeedData):
        documents.append(document)
    return documents


@given(DOCUMENTS, st.integers(1, 64))
def test_round_trip_whatever_the_chunks(documents: list[dict[str, object]], size: int) -> None:
    data = b"".join(encode(document) for document in documents)
    whole, chunked, bytewise = FrameDecoder(), FrameDecoder(), FrameDecoder()
    whole.feed(data)
    assert drain(whole) == documents
    for chunks, decoder in ((size, chunked), (1, bytewise)):
        found = []
        for start in range(0, len(data), chunks):
            decoder.feed(data[start : start + chunks])
            found += drain(decoder)
        assert found == documents
        assert decoder.pending == 0


@given(st.integers(0, 20))
def test_trailing_bytes_wait_for_the_rest(cut: int) -> None:
    first, second = encode({"a": 1}), encode({"b": "text that is longer"})
    decoder = FrameDecoder()
    decoder.feed(first + second[:cut])
    assert decoder.next_document() == {"a": 1}
    assert decoder.next_document() is NEED_DATA
    assert decoder.pending == cut
    decoder.feed(second[cut:])
    assert decoder.next_document() == {"b": "text that is longer"}


def test_half_a_surrogate_pair_passes() -> None:
    decoder = FrameDecoder()
    decoder.feed(encode({"text": "\ud83d"}))
    assert decoder.next_document() == {"text": "\ud83d"}


def test_too_large_is_refused_before_it_arrives() -> None:
    decoder = FrameDecoder(max_bytes=10)
    decoder.feed((11).to_bytes(4, "big"))
    with pytest.raises(WorkerFailed, match="too large"):
        decoder.next_document()
    with pytest.raises(WorkerFailed, match="too large"):
        encode({"a": "0123456789"}, max_bytes=10)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b"1", b"[" * 100_000])
def test_a_broken_body_is_one_typed_error(body: bytes) -> None:
    decoder = FrameDecoder()
    decoder.feed(len(body).to_bytes(4, "big") + body)
    with pytest.raises(WorkerFailed):
        decoder.next_document()


@given(st.binary(max_size=64))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    decoder = FrameDecoder(max_bytes=1024)
    decoder.feed(data)
    try:
        drain(decoder)
    except WorkerFailed:
        return


def test_the_wire_format() -> None:
    assert (
        encode({"é": 1})
        == b"\x00\x00\x00\x08" + json.dumps({"é": 1}, ensure_ascii=False).replace(" ", "").encode()
    )
