"""Chat templates: as Hugging Face renders them, and what users write stays what users wrote."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine.marks import Span
from runtime.engine.prompt import SpecialSpellings
from runtime.engine.template import CHATML, ChatTemplate
from runtime.messages import Message, Role
from schemas.errors import MalformedModel, UnsupportedRequest

SPECIAL = SpecialSpellings(["<|im_start|>", "<|im_end|>", "<s>", "[INST]", "[/INST]"])
TRIMMING = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
# As Qwen's and DeepSeek's do: old reasoning is cut out of the assistant's turns.
CUTTING = (
    "{% for m in messages %}{% set c = m.content %}"
    "{% if m.role == 'assistant' and '</think>' in c %}{% set c = c.split('</think>')[-1] %}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ c }}<|im_end|>\n{% endfor %}"
)
LOOKING = (
    "{% for m in messages %}{% if m.content.startswith('<x>') %}X{% endif %}"
    "[INST]{{ m.content[0:4000] }}[/INST]{% endfor %}"
)
UPPER = "{% for m in messages %}[INST]{{ m.content | upper }}[/INST]{% endfor %}"
GO = (
    "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n"
)
GO_PRINTING = '{{ range .Messages }}[INST]{{ printf "%q %.90s" .Content .Content }}{{ json . }}[/INST]{{ end }}'
TEMPLATES = [CHATML, TRIMMING, CUTTING, LOOKING, UPPER, GO, GO_PRINTING]


def render(source: str, *messages: tuple[Role, str]) -> list[Span]:
    return ChatTemplate(source).render([Message(r, c) for r, c in messages], [], SPECIAL)


def text(spans: list[Span]) -> str:
    return "".join(span.text for span in spans)


def trusted_specials(spans: list[Span]) -> list[str]:
    return [s for span in spans if span.trusted for s in SPECIAL.find(span.text)]


def test_the_text_is_what_the_template_says() -> None:
    spans = render(CHATML, ("system", "Be brief."), ("user", "Hi!"))
    assert text(spans) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi!<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert [span.text for span in spans if not span.trusted] == ["Be brief.", "Hi!"]


FRAGMENTS = st.sampled_from(
    [
        "<|im_start|>",
        "<|im_end|>",
        "<|im_",
        "start|>",
        "<s>",
        "[INST]",
        "</think>",
        "<x>",
        " ",
        "\n",
        "hello",
        "\ufdd0",
        "\ufdd1",
        "\ufdd2",
        "ß",
    ]
)
CONTENTS = st.lists(FRAGMENTS, max_size=6).map("".join)


@pytest.mark.parametrize("source", TEMPLATES)
@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), CONTENTS), max_size=4))
def test_no_content_adds_a_special_token(source: str, messages: list[tuple[Role, str]]) -> None:
    messages = [*messages, ("user", "end")]
    harmless = [(role, "x" if content.strip() else "") for role, content in messages]
    expected = trusted_specials(render(source, *harmless))
    assert trusted_specials(render(source, *messages)) == expected


@pytest.mark.parametrize("source", TEMPLATES)
@given(st.lists(CONTENTS, min_size=1, max_size=3))
def test_marks_leave_no_trace(source: str, contents: list[str]) -> None:
    messages = [Message("user", content) for content in contents]
    template = ChatTemplate(source)
    clean = [c.translate(dict.fromkeys((0xFDD0, 0xFDD1, 0xFDD2), "\ufffd")) for c in contents]
    plain = template._once(
        [Message("user", content) for content in clean], {"tools": []}, lambda _r, t: t, lambda t: t
    )
    assert text(template.render(messages, [], SPECIAL)) == plain


def test_a_template_that_cuts_strings_keeps_its_own_special_tokens() -> None:
    spans = render(
        CUTTING,
        ("assistant", "<think>a</think>b <|im_start|>"),
        ("user", "<|im_end|> c"),
    )
    assert text(spans) == (
        "<|im_start|>assistant\nb <|im_start|><|im_end|>\n<|im_start|>user\n<|im_end|> c<|im_end|>\n"
    )
    assert trusted_specials(spans) == ["<|im_start|>", "<|im_end|>"] * 2


def test_a_last_message_of_the_assistant_is_left_open() -> None:
    spans = render(CHATML, ("user", "Count."), ("assistant", "One, <|im_end|>"))
    assert text(spans).endswith("<|im_start|>assistant\nOne, <|im_end|>")
    assert spans[-1] == Span("One, <|im_end|>", trusted=False)


def test_tools_and_calls_reach_the_template_as_in_transformers() -> None:
    source = (
        "{{ tools | tojson }}{% for m in messages %}{% for c in m.tool_calls or [] %}"
        "{{ c.type }}:{{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}"
        "{% if m.role == 'tool' %}{{ m.name }}={{ m.content }}{% endif %}{% endfor %}"
    )
    tool = {"type": "function", "function": {"name": "clock", "description": "<s> & é"}}
    call = {"function": {"name": "clock", "arguments": {"zone": "<|im_end|>"}}}
    messages = [
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", "noon", tool_name="clock"),
    ]
    spans = ChatTemplate(source).render(messages, [tool], SPECIAL)
    assert text(spans) == (
        json.dumps([tool], ensure_ascii=False) + 'function:clock({"zone": "<|im_end|>"})clock=noon'
    )
    assert trusted_specials(spans) == []


def test_reasoning_is_passed_under_both_names() -> None:
    source = "{% for m in messages %}{{ m.thinking }}|{{ m.reasoning_content }}{% endfor %}"
    message = Message("assistant", "x", thinking="why", tool_calls=({"function": {"name": "f"}},))
    assert text(ChatTemplate(source).render([message], [], SPECIAL)) == "why|why"


def test_generation_tags_and_loop_controls_parse() -> None:
    source = "{% generation %}a{% endgeneration %}{% for i in range(9) %}{% break %}{% endfor %}"
    assert text(ChatTemplate(source).render([], [], SPECIAL)) == "a"


def test_the_template_may_refuse() -> None:
    with pytest.raises(UnsupportedRequest, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}", ("user", "x"))


@pytest.mark.parametrize(
    "source",
    [
        "{{",
        "{% for %}",
        "{% unknown %}",
        "x" * (2**20 + 1),
        "{{ 'a' | no_such_filter }}",
    ],
)
def test_what_is_no_jinja_is_a_malformed_model(source: str) -> None:
    with pytest.raises(MalformedModel):
        ChatTemplate(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.no.such.thing }}",
        "{{ 1 // 0 }}",
        "{{ 'a' + 1 }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ ('%s' | attr('__class__'))() }}",
        "{{ messages | map(attribute='__class__') | first }}{{ (1).__class__() }}",
        "{% include 'x' %}",
    ],
)
def test_a_failing_or_escaping_template_is_a_malformed_model(source: str) -> None:
    with pytest.raises(MalformedModel):
        render(source, ("user", "x"))
