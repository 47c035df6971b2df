"""The strict parser: whole, cut, with trailing bytes, and each way in which parsers differ."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import limits, strictjson
from schemas.errors import MalformedDocument

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-limits.JSON_INTEGER, limits.JSON_INTEGER) | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=20,
)


def parse(data: bytes, max_bytes: int = 10**6, depth: int = limits.JSON_DEPTH) -> object:
    return strictjson.parse(data, what="document", max_bytes=max_bytes, depth=depth)


@given(VALUES)
def test_round_trip(value: object) -> None:
    data = strictjson.dumps(value)
    assert data.isascii()
    assert parse(data) == value
    assert strictjson.dumps(parse(data)) == data


@given(VALUES)
def test_what_the_standard_parser_reads_is_the_same(value: object) -> None:
    for text in (json.dumps(value, ensure_ascii=False), json.dumps(value, indent=1)):
        assert parse(text.encode()) == json.loads(text)


@given(st.dictionaries(TEXT, VALUES, max_size=4), st.data())
def test_cut_anywhere_is_refused(value: dict[str, object], data: st.DataObject) -> None:
    whole = strictjson.dumps(value)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(MalformedDocument):
        parse(whole[:cut])


@given(VALUES, st.sampled_from([b"x", b"{}", b"\x00", b",", b"]", b"//"]))
def test_trailing_bytes_are_refused(value: object, extra: bytes) -> None:
    with pytest.raises(MalformedDocument):
        parse(strictjson.dumps(value) + b" " + extra)


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        value = parse(data)
    except MalformedDocument:
        return
    assert parse(strictjson.dumps(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}',
        '{"a":{"b":1,"b":1}}',
        '[{"\\u0061":1,"a":2}]',  # the same key, once escaped
        "1.0",
        "[1e2]",
        "-0.0",
        "1E400",
        "NaN",
        "[Infinity]",
        "-Infinity",
        str(limits.JSON_INTEGER + 1),
        str(-limits.JSON_INTEGER - 1),
        "9" * 5000,  # slow to convert in other parsers
        '"\\ud800"',
        '{"\\udfff":1}',
        '["\\ud800x"]',
        "'a'",
        "{a:1}",
        "[1,]",
        '{"a":1,}',
        "[1 2]",
        "// x\n1",
        "\ufeff{}",
        "",
        " ",
        "01",
        "+1",
        ".5",
        "0x10",
        '"\t"',
        '"\x00"',
        "truefalse",
        "nul",
    ],
)
def test_where_parsers_differ_we_refuse(text: str) -> None:
    with pytest.raises(MalformedDocument):
        parse(text.encode())


@pytest.mark.parametrize(
    "data", [b"\xff", b'"\xc3"', b'"\xed\xa0\x80"', b'"\xc0\xaf"', '{"a":1}'.encode("utf-16")]
)
def test_only_utf8(data: bytes) -> None:
    with pytest.raises(MalformedDocument):
        parse(data)


def test_a_surrogate_pair_is_one_character() -> None:
    assert parse(b'"\\ud83d\\ude00"') == "\U0001f600"


def test_size_comes_before_parsing() -> None:
    assert parse(b"[1]", max_bytes=3) == [1]
    with pytest.raises(MalformedDocument, match="too large"):
        parse(b"not json at all", max_bytes=3)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", [1, 2, 32])
def test_depth_is_bounded(opening: bytes, depth: int) -> None:
    closing = b"]" if opening == b"[" else b"}"
    inner = b"" if opening == b"[" else b"1"

    def nested(levels: int) -> bytes:
        return opening * levels + inner + closing * levels

    parse(nested(depth), depth=depth)
    with pytest.raises(MalformedDocument, match="nested too deeply"):
        parse(nested(depth + 1), depth=depth)


def test_a_bomb_of_brackets_is_refused() -> None:
    with pytest.raises(MalformedDocument):
        parse(b"[" * 500_000)
    with pytest.raises(MalformedDocument):
        parse(b"[" * 300_000 + b"]" * 300_000)


@pytest.mark.parametrize("data", [b"[]", b"1", b"null", b'"x"'])
def test_some_documents_must_be_objects(data: bytes) -> None:
    parse(data)
    with pytest.raises(MalformedDocument, match="not a JSON object"):
        strictjson.parse_object(data, what="document", max_bytes=100)


def test_equal_values_give_equal_bytes() -> None:
    assert strictjson.dumps({"b": 1, "a": "é"}) == b'{"a":"\\u00e9","b":1}'
    assert strictjson.dumps({"a": "é", "b": 1}) == strictjson.dumps({"b": 1, "a": "é"})


def test_nan_is_never_written() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        strictjson.dumps([float("nan")])
