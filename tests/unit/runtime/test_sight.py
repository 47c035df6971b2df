"""Pictures in prompts: where they stand, what they are called, what a PNG may hold."""

from __future__ import annotations

import base64
import contextlib
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine.guard import Guard
from runtime.engine.prompt import PromptBuilder
from runtime.engine.sight import Picture, Seen, check_png, names_of, untouched
from runtime.engine.template import CHATML
from runtime.messages import Chat, Image, Job, Message
from schemas.errors import MalformedModel, PromptTooLong, UnsupportedRequest, UsageError
from tests.support.pictures import jpeg, png
from tests.support.vision import RED

SMOLVLM = (
    "{% for m in messages %}{{ m['role'] | capitalize }}:"
    "{% for line in m['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}{% endif %}"
    "{% endfor %}<end>{% endfor %}Assistant:"
)


class Letters:
    """A token per character, and one for the template's own mark."""

    size = 2000
    special_texts = ("<end>",)
    longest_text = 5
    bos = -1
    add_bos = False
    infill = (-1, -1, -1)

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        if special:
            text = text.replace("<end>", "\x01")
        return [ord(letter) for letter in text]

    def piece(self, token: int) -> bytes:
        return chr(token).encode()

    def spelling(self, token: int) -> str:
        return chr(token)


class Eyes:
    """Every picture is two positions and three cells, between brackets."""

    def __init__(self) -> None:
        self.looks = 0

    def look(self, image: Image) -> list[list[int] | Seen]:
        self.looks += 1
        return [[ord("[")], Seen(names_of(image.data.encode(), 0, 2), 3, image.data), [ord("]")]]


def built(
    *messages: Message, template: str = SMOLVLM, n_context: int = 200
) -> tuple[str, tuple[Picture, ...], int]:
    eyes = Eyes()
    builder = PromptBuilder(Letters(), template, Guard(), n_context, eyes=eyes)
    prompt = builder.build(Job(1, Chat(messages)))
    shown = "".join(chr(token) if token >= 0 else "#" for token in prompt.tokens)
    assert prompt.words == [token for token in prompt.tokens if token >= 0]
    return shown, prompt.pictures, eyes.looks


def test_a_picture_stands_where_the_client_put_it() -> None:
    message = Message("user", "left right", images=(Image("x", 5), Image("y", 10)))
    shown, pictures, looks = built(message)
    assert shown == "User:left [##]right[##]\x01Assistant:"
    assert [(p.start, p.end, p.extra, p.data) for p in pictures] == [
        (11, 13, 1, "x"),
        (20, 22, 1, "y"),
    ]
    assert looks == 2


def test_text_reaches_a_template_that_wants_parts() -> None:
    shown, pictures, _ = built(Message("user", "hello <end> \ufdd3"))
    assert shown == "User:hello <end> \ufffd\x01Assistant:"
    assert pictures == ()


def test_a_template_that_wants_text_gets_text() -> None:
    shown, _, _ = built(Message("user", "hi", images=(Image("x", 0),)), template=CHATML)
    assert shown == "<|im_start|>user\n[##]hi<|im_end|>\n<|im_start|>assistant\n"


def test_pictures_go_with_the_messages_that_are_dropped_and_are_decoded_once() -> None:
    old = [Message("user", "o" * 20, images=(Image(f"old{n}"),)) for n in range(6)]
    shown, pictures, looks = built(*old, Message("user", "new", images=(Image("x"),)), n_context=80)
    assert len(pictures) == shown.count("[##]") < 7
    assert pictures[-1].data == "x"
    assert looks <= 7


def test_a_picture_stays_where_it_was_when_a_message_loses_its_beginning() -> None:
    text = "".join(chr(97 + n % 26) for n in range(400))
    shown, _, _ = built(Message("user", text, images=(Image("x", 390),)), n_context=120)
    assert text[380:390] + "[##]" + text[390:] in shown


def test_cells_count_and_not_positions() -> None:
    one = Message("user", "", images=(Image("x"),))
    length = len(built(one)[0])
    built(one, n_context=length + 2)
    with pytest.raises(PromptTooLong, match="longer than the model's context"):
        built(one, n_context=length + 1)


@pytest.mark.parametrize(
    "template",
    ["{{ 'no content' }}", "{{ messages[0].content }}{{ messages[0].content }}x"],
    ids=["none", "twice"],
)
def test_a_template_must_show_every_picture_once(template: str) -> None:
    with pytest.raises(MalformedModel, match="does not show every image once"):
        built(Message("user", "hi", images=(Image("x"),)), template=template)


def test_a_prompt_cannot_end_with_a_picture() -> None:
    class Bare(Eyes):
        def look(self, image: Image) -> list[list[int] | Seen]:
            return [Seen(names_of(b"", 0, 2), 2, None)]

    builder = PromptBuilder(Letters(), "{{ messages[0].content }}", Guard(), 200, eyes=Bare())
    with pytest.raises(UnsupportedRequest, match="cannot end with an image"):
        builder.build(Job(1, Chat((Message("user", "", images=(Image("x"),)),))))


def test_names_tell_pictures_and_their_parts_apart() -> None:
    names = [*names_of(b"a", 0, 5), *names_of(b"a", 1, 5), *names_of(b"b", 0, 5)]
    assert len(set(names)) == 15
    assert max(names) < 0
    assert names[:5] == list(names_of(b"a", 0, 5))


def test_no_picture_is_cut_in_two() -> None:
    pictures = [Picture(2, 5, 0, None), Picture(5, 9, 0, None)]
    assert [untouched(pictures, n) for n in range(11)] == [0, 1, 2, 2, 2, 5, 5, 5, 5, 9, 10]


def raw_png(width: int, height: int, pixels: bytes, interlaced: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + bytes(4)
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    )


def test_a_png_holds_what_its_header_says() -> None:
    check_png(base64.b64decode(RED))
    check_png(png())
    check_png(jpeg())
    check_png(raw_png(3, 2, bytes(20)))
    check_png(raw_png(3, 2, bytes(25), interlaced=1))


@given(st.binary(max_size=80), st.integers(0, 80), st.binary(max_size=80))
def test_any_bytes(front: bytes, cut: int, behind: bytes) -> None:
    for data in (front, b"\x89PNG\r\n\x1a\n" + front, png()[:cut] + behind):
        with contextlib.suppress(UsageError):
            check_png(data)


@pytest.mark.parametrize(
    "data",
    [
        raw_png(3, 2, bytes(19)),
        raw_png(3, 2, bytes(21)),
        raw_png(3, 2, bytes(50_000_000)),
        raw_png(3, 2, bytes(50_000_000), interlaced=1),
        raw_png(3, 2, bytes(20))[:-30],
        raw_png(3, 2, bytes(20)).replace(b"IDAT", b"IDAX"),
        png()[:33],
    ],
    ids=["short", "long", "bomb", "interlaced-bomb", "cut", "no-data", "header-only"],
)
def test_a_png_that_does_not_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError, match="invalid image input"):
        check_png(data)
