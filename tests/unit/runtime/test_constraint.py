"""Answers held to a JSON Schema: whatever the model prefers, what comes out is valid."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine.constraint import Constraints
from runtime.engine.form import Form, closed
from schemas.errors import UsageError, WorkerFailed

END = 256
WORDS = [b'{"', b'":', b'", "', b"true", b"null", b'"}', b"  ", b"12"]
SPECIAL = END + 1 + len(WORDS)


class Letters:
    """A token per byte, one that ends the answer, some words, and one that is no text."""

    size = SPECIAL + 1
    bos = -1
    eos = END

    def piece(self, token: int) -> bytes:
        if token < END:
            return bytes([token])
        return WORDS[token - END - 1] if END < token < SPECIAL else b""

    def spelling(self, token: int) -> str:
        return {END: "<end>", SPECIAL: "<special>"}.get(token, "")

    def ends(self, token: int) -> bool:
        return token == END

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        return list(text.encode())


CONSTRAINTS = Constraints(Letters())
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def generate(schema: dict[str, Any], seed: int, most: int = 400) -> tuple[str, bool]:
    """What a model says that prefers tokens at random, and whether it came to an end."""
    random = np.random.default_rng(seed)
    constraint = CONSTRAINTS.make(Form(json.dumps(schema)))
    text = b""
    for _ in range(most):
        logits = random.normal(size=Letters.size).astype(np.float32)
        favourite = int(logits.argmax())
        allowed = constraint.allows(favourite)
        constraint.mask(logits)
        token = int(logits.argmax())
        assert (token == favourite) == allowed
        if token == END:
            return text.decode(), True
        assert token != SPECIAL
        constraint.accept(token)
        text += Letters().piece(token)
        if constraint.complete:
            return text.decode(), True
    return text.decode("utf-8", "replace"), False


@pytest.mark.parametrize(
    "schema",
    [
        PERSON,
        {"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"]},
        {"enum": ["red", "green", 3, None]},
        {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": -5, "maximum": 5}]},
        {"type": "array", "items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"const": 1}}},
    ],
)
@given(seed=st.integers(0, 2**32))
def test_what_comes_out_is_valid(schema: dict[str, Any], seed: int) -> None:
    text, ended = generate(schema, seed)
    if ended:
        jsonschema_rs.validate(schema, json.loads(text))


def test_it_comes_to_an_end() -> None:
    text, ended = generate({"enum": ["red", "green"]}, 1)
    assert ended
    assert json.loads(text) in ("red", "green")


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("nonsense", ""),
        ("[]", ""),
        ("12", ""),
        ('{"type":"nonsense"}', "nonsense"),
        ('{"type":"object","not":{}}', "not"),
        ('{"$ref":"https://example.com/schema"}', ""),
        ('{"$ref":"#/nowhere"}', ""),
        ('{"type":"string","pattern":"("}', ""),
        ('{"type":"string","minLength":5,"maxLength":2}', ""),
    ],
)
def test_what_cannot_be_enforced_is_refused(schema: str, why: str) -> None:
    with pytest.raises(UsageError, match="cannot be enforced") as caught:
        CONSTRAINTS.make(Form(schema))
    assert why in caught.value.why


def test_a_deep_schema_does_not_break_the_process() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(60):  # as deep as a request's body may be
        schema = {"type": "array", "items": schema, "maxItems": 1}
    text, _ = generate(schema, 3)
    assert text.startswith("[")


@pytest.mark.parametrize("pattern", ["(a{1,1000}){1,1000}b{9999}", "(a|b|ab)*c(.{1,500}x){1,500}"])
def test_a_pattern_of_many_states_stays_within_its_bounds(pattern: str) -> None:
    with suppress(UsageError, WorkerFailed):  # refused, or not: but soon, and by one of these
        generate({"type": "string", "pattern": pattern}, 1, most=20)


def test_objects_have_no_members_but_those_they_name() -> None:
    inner = {"type": "object", "properties": {"x": {"type": "integer"}}}
    shut = {**inner, "additionalProperties": False}
    assert closed(inner) == shut
    assert closed({"type": "array", "items": inner}) == {"type": "array", "items": shut}
    assert closed({"anyOf": [inner, {"type": "null"}]}) == {"anyOf": [shut, {"type": "null"}]}
    assert closed({"$defs": {"n": inner}})["$defs"]["n"] == shut
    said: dict[str, Any]
    for said in ({"additionalProperties": True}, {"patternProperties": {"^y": {}}}):
        assert closed({**inner, **said}) == {**inner, **said}
    assert closed({"type": "object"}) == {"type": "object"}
    assert closed({"enum": [inner]}) == {"enum": [inner]}, "a value is no schema"
