"""Request bodies: any bytes give an object or one of our errors."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.server.body import Fields, parse_body
from schemas.errors import MalformedDocument, SealiftError, UsageError


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    try:
        assert isinstance(parse_body(data), dict)
    except SealiftError as error:
        status = error.http_status
        assert status == 400


@pytest.mark.parametrize("data", [b"", b"  \n"])
def test_an_empty_body_has_ollamas_words(data: bytes) -> None:
    with pytest.raises(UsageError, match=r"^missing request body$"):
        parse_body(data)


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"null",
        b'{"a":',
        b'{"a":1}x',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":"\xff"}',
        rb'{"a":"\ud800"}',
        rb'{"\udc00":1}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda data: repr(data[:16]),
)
def test_refused(data: bytes) -> None:
    with pytest.raises(MalformedDocument):
        parse_body(data)


def test_what_is_taken() -> None:
    assert parse_body(b'{"a":1.5,"b":"\\ud83d\\ude00","a":2}') == {"a": 2, "b": "😀"}
    assert parse_body(json.dumps({"deep": [[[[{}]]]]}).encode()) == {"deep": [[[[{}]]]]}


def test_fields_name_what_is_wrong() -> None:
    fields = Fields({"t": 1, "f": 1, "i": True, "n": "x", "l": {}, "o": [1], "null": None})
    cases = {
        "t": fields.text,
        "l": fields.items,
        "o": fields.objects,
    }
    for key, read in cases.items():
        with pytest.raises(UsageError, match=rf'^"{key}'):
            read(key)
    with pytest.raises(UsageError, match=r'^"f" must be true or false$'):
        fields.flag("f", default=False)
    with pytest.raises(UsageError, match=r'^"i" must be an integer$'):
        fields.integer("i", 0, 1)
    with pytest.raises(UsageError, match=r'^"n" must be a number$'):
        fields.number("n", 0, 1)
    assert fields.text("null") is None
    assert fields.items("absent") == []
    assert Fields({"x": 3}, "a.b").name("x") == "a.b.x"
