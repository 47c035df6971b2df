"""Vectors and tokens in the dialects of Ollama and OpenAI: requests in, answers out."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from runtime.messages import Chat, Embed, Embedded, Text, Tokenize, Tokenized
from runtime.server.embedding import (
    embed_document,
    embedding_document,
    openai_document,
    parse_detokenize,
    parse_embed,
    parse_openai,
    parse_tokenize,
    tokens_document,
)
from runtime.server.requests import Timing
from schemas.errors import SealiftError


def packed(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


EVENT = Embedded(1, (packed(0.6, 0.8), packed(1.0, 0.0)), 7)


def test_ollama() -> None:
    wanted = parse_embed({"model": "m", "input": ["a", "b"], "truncate": False}, "input")
    assert wanted.task == Embed(0, ("a", "b"), truncate=False)
    document = embed_document(wanted, EVENT, Timing(5, 0))
    assert document == {
        "model": "m",
        "embeddings": [[0.600000024, 0.800000012], [1.0, 0.0]],
        "total_duration": 5,
        "prompt_eval_count": 7,
    }
    older = parse_embed({"model": "m", "prompt": "a"}, "prompt")
    assert embedding_document(older, Embedded(1, (packed(0.5),), 1)) == {"embedding": [0.5]}
    nothing = parse_embed({"model": "m"}, "input")
    assert embed_document(nothing, Embedded(0, (), 0), Timing(1, 0))["embeddings"] == []


def test_openai() -> None:
    wanted = parse_openai({"model": "m", "input": "a", "encoding_format": "base64"})
    assert wanted.task == Embed(0, ("a",), truncate=False)
    document = openai_document(wanted, Embedded(1, (packed(0.6, 0.8),), 3))
    (entry,) = document["data"]
    assert struct.unpack("<2f", base64.b64decode(entry["embedding"])) == pytest.approx((0.6, 0.8))
    assert document["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_fewer_dimensions_have_length_one_again() -> None:
    wanted = parse_embed({"model": "m", "input": "a", "dimensions": 1}, "input")
    document = embed_document(wanted, EVENT, Timing(1, 0))
    assert document["embeddings"] == [[1.0], [1.0]]
    more = parse_embed({"model": "m", "input": "a", "dimensions": 9}, "input")
    assert len(embed_document(more, EVENT, Timing(1, 0))["embeddings"][0]) == 2


def test_tokens() -> None:
    wanted = parse_tokenize({"model": "m", "text": "Hi"})
    assert wanted.task == Tokenize(0, Text("Hi"))
    assert tokens_document(wanted, Tokenized(1, (4, 5)))["tokens"] == [4, 5]
    chat = parse_tokenize({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
    assert isinstance(chat.task, Tokenize)
    assert isinstance(chat.task.prompt, Chat)
    back = parse_detokenize({"model": "m", "tokens": [4, 5]})
    assert tokens_document(back, Tokenized(1, (4, 5), "Hi"))["text"] == "Hi"


@pytest.mark.parametrize(
    ("parse", "body", "text"),
    [
        (parse_openai, {}, "model is required"),
        (parse_openai, {"model": "m"}, '"input" is required'),
        (parse_openai, {"model": "m", "input": [[1, 2]]}, "token ids are not embedded here"),
        (parse_openai, {"model": "m", "input": [1, 2]}, "token ids are not embedded here"),
        (parse_openai, {"model": "m", "input": [{}]}, "array of strings"),
        (parse_openai, {"model": "m", "input": "x", "encoding_format": "hex"}, "float or base64"),
        (parse_openai, {"model": "m", "input": ["x"] * 3000}, "more than 2048"),
        (parse_tokenize, {"model": "m"}, 'either "text" or "messages"'),
        (parse_detokenize, {"model": "m", "tokens": ["x"]}, "token ids"),
        (parse_detokenize, {"model": "m", "tokens": [-1]}, "token ids"),
    ],
)
def test_refusals(parse: Any, body: dict[str, Any], text: str) -> None:
    with pytest.raises(SealiftError, match=text):
        parse(body)
