"""Pictures in requests of all dialects: taken, placed, bounded, refused."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.messages import Chat, Image, task_document, task_from_document
from runtime.server import anthropic, ollama, openai
from runtime.server.images import Content, from_base64, from_url
from runtime.server.requests import Generation, make_job
from schemas import limits
from schemas.errors import SealiftError, UnsupportedRequest, UsageError
from tests.support.models import model
from tests.support.pictures import JPEG, PNG, URL, jpeg, png


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("text", [PNG, JPEG])
def test_pictures_are_taken(text: str) -> None:
    assert from_base64(text, 3) == Image(text, 3)
    assert from_url(text) == Image(text)
    for kind in ("", "image/png", "image/jpeg", "IMAGE/JPG"):
        assert from_url(f"data:{kind};base64,{text}") == Image(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "neither PNG nor JPEG"),
        ("ÿ", "not base64"),
        ("a b=", "not base64"),
        (b64(b"%PDF-1.7"), "neither PNG nor JPEG"),
        (b64(png()[:20]), "no header"),
        (b64(png(0, 5)), "no width"),
        (b64(png(2**31, 2**31)), "too large"),
        (b64(jpeg(65535, 65535)), "too large"),
        (b64(jpeg()[:24]), "no frame"),
        (b64(b"\xff\xd8" + b"\xff" * 100_000), "no frame"),
        (b64(b"\xff\xd8" + b"\xff\xe0\0\0" * 100_000), "no frame"),
        (b64(b"GIF89a"), "type GIF"),
        (b64(b"RIFF0000WEBP"), "type WebP"),
        ("A" * (limits.IMAGE_BYTES * 2), "too large"),
    ],
)
def test_what_is_no_picture_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        from_base64(text)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://example.org/a.png", "image URLs are not currently supported"),
        ("HTTP://example.org/a.png", "image URLs are not currently supported"),
        ("file:///etc/passwd", "not base64"),
        ("data:image/png,abc", "not in base64"),
        ("data:image/png;base64", "not in base64"),
        (f"data:text/html;base64,{PNG}", "not of an image"),
    ],
)
def test_urls_that_are_refused(url: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        from_url(url)


@given(st.binary(max_size=64))
def test_any_bytes(data: bytes) -> None:
    for head in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"):
        try:
            from_base64(b64(head + data))
        except SealiftError as error:
            status = error.http_status
            assert status == 400


def test_pictures_keep_their_place() -> None:
    content = Content()
    assert content.empty
    content.add_base64(PNG)
    content.add_text("ab")
    content.add_url(URL)
    content.add_text("c")
    content.add_base64(JPEG)
    assert content.text == "ab\nc"
    assert content.images == (Image(PNG, 0), Image(PNG, 2), Image(JPEG, 4))


OPENAI_PART = {"type": "image_url", "image_url": {"url": URL}}
ANTHROPIC_BLOCK = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": PNG},
}


def requests() -> list[Generation]:
    """The same in every dialect."""
    text = {"type": "text", "text": "What is it?"}

    def say(content: Any) -> dict[str, Any]:
        return {
            "model": "tiny",
            "max_tokens": 5,
            "messages": [{"role": "user", "content": content}],
        }

    native: dict[str, Any] = say("What is it?")
    native["messages"][0]["images"] = [PNG]
    return [
        ollama.parse_chat(native),
        ollama.parse_generate({"model": "tiny", "prompt": "What is it?", "images": [PNG]}),
        openai.parse_chat(say([OPENAI_PART, text])),
        openai.parse_chat(say([{"type": "image_url", "image_url": URL}, text])),
        anthropic.parse_messages(say([ANTHROPIC_BLOCK, text])),
    ]


def test_every_dialect_says_the_same() -> None:
    for request in requests():
        assert isinstance(request.prompt, Chat)
        assert request.prompt.messages[-1].images == (Image(PNG, 0),)
        assert request.prompt.messages[-1].content == "What is it?"
        assert request.needs == {"vision"}


def test_a_model_that_cannot_see_says_so_in_ollamas_words() -> None:
    for request in requests():
        with pytest.raises(UnsupportedRequest) as caught:
            make_job(request, model(), 1)
        assert caught.value.line() == "this model is missing data required for image input"


def test_pictures_travel_to_the_worker() -> None:
    seeing = model(facts={"capabilities": ["completion", "vision"]})
    for request in requests():
        job = make_job(request, seeing, 1)
        assert task_from_document(task_document(job)) == job


def test_a_tools_result_may_be_a_picture() -> None:
    block = {"type": "tool_result", "tool_use_id": "t", "content": [ANTHROPIC_BLOCK]}
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [block]}]}
    prompt = anthropic.parse_messages(body).prompt
    assert isinstance(prompt, Chat)
    assert prompt.messages[0].images == (Image(PNG, 0),)


def test_the_number_of_pictures_is_bounded() -> None:
    with pytest.raises(UsageError, match=f"more than {limits.IMAGES} images"):
        ollama.parse_chat(
            {
                "model": "m",
                "messages": [
                    {"role": "user", "content": "", "images": [PNG] * (limits.IMAGES + 1)}
                ],
            }
        )


def test_their_pixels_together_are_bounded() -> None:
    large = base64.b64encode(png(8000, 8000)).decode()
    for count in (2, 3):
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": "", "images": [large] * count}],
        }
        if count == 2:
            assert ollama.parse_chat(body).needs == {"vision"}
            continue
        with pytest.raises(UsageError, match="too large together"):
            ollama.parse_chat(body)


def test_a_jpeg_has_few_scans() -> None:
    progressive = base64.b64decode(JPEG) + b"\xff\xda" * limits.IMAGE_SCANS
    from_base64(base64.b64encode(progressive).decode())
    with pytest.raises(UsageError, match="invalid image input"):
        from_base64(base64.b64encode(progressive + b"\xff\xda").decode())
