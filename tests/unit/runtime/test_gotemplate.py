"""Go templates of the plain forms become Jinja that says the same; others are refused."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.gotemplate import is_go, settled, to_jinja
from schemas.errors import UnsupportedRequest

CHATML = """{{ if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{ if .Prompt }}<|im_start|>user
{{ .Prompt }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ .Response }}<|im_end|>
"""
TRIMMED = """
{{- if .System }}<|system|>
{{ .System }}</s>
{{- end }}
{{- if .Prompt }}<|user|>
{{ .Prompt }}</s>
{{- end }}<|assistant|>
"""
RANGE = """{{- range .Messages }}<|{{ .Role }}|>
{{ .Content }}<|end|>
{{ end }}<|assistant|>
"""
TURNS = [
    {"role": "system", "content": "Be brief {{ 1 }}"},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yo"},
    {"role": "user", "content": "Bye"},
]


def rendered(template: str, turns: list[dict[str, str]], **more: Any) -> str:
    jinja = to_jinja(template)
    assert jinja is not None
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701 - a prompt
    compiled = environment.from_string(jinja)
    return compiled.render(messages=turns, add_generation_prompt=True, **more)


def test_turns() -> None:
    assert rendered(CHATML, TURNS) == (
        "<|im_start|>system\nBe brief {{ 1 }}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nYo<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_white_space_is_trimmed_as_in_go() -> None:
    assert rendered(TRIMMED, TURNS[:2]) == (
        "<|system|>\nBe brief {{ 1 }}</s><|user|>\nHi</s><|assistant|>\n"
    )


def test_messages() -> None:
    assert (
        rendered(RANGE, TURNS[1:3])
        == "<|user|>\nHi<|end|>\n<|assistant|>\nYo<|end|>\n<|assistant|>\n"
    )


def test_the_plainest() -> None:
    assert rendered("{{ .Prompt }}", TURNS) == "HiYoBye"
    assert rendered("[INST] {{ .Prompt }} [/INST]", TURNS[1:]) == (
        "[INST] Hi [/INST]Yo[INST] Bye [/INST]"
    )


@pytest.mark.parametrize(
    "template",
    [
        "{{ range $i, $m := .Messages }}{{ .Content }}{{ end }}",
        "{{ if .Tools }}x{{ end }}{{ .Prompt }}",
        "{{ .System }} {{ .Prompt }}",
        "{{- $last := 1 }}{{ .Prompt }}",
        "{{ .Unknown }}",
    ],
)
def test_other_forms_are_refused(template: str) -> None:
    assert is_go(template)
    assert to_jinja(template) is None
    with pytest.raises(UnsupportedRequest, match="Go template"):
        settled(template)


@pytest.mark.parametrize(
    "template", ["{{ messages[0].content }}", "{% if x %}{% endif %}", "", "x"]
)
def test_jinja_stays_as_it_is(template: str) -> None:
    assert not is_go(template)
    assert settled(template) == template


MARK = st.text(st.characters(codec="utf-8")).filter(lambda text: "{{" not in text)


@given(st.lists(MARK, min_size=6, max_size=6))
def test_any_marks_come_out_as_they_went_in(marks: list[str]) -> None:
    marks = [mark.replace("\r", "").rstrip("{").lstrip("}") for mark in marks]
    a, b, c, d, e, f = marks
    template = (
        f"{{{{ if .System }}}}{a}{{{{ .System }}}}{b}{{{{ end }}}}{{{{ if .Prompt }}}}{c}"
        f"{{{{ .Prompt }}}}{d}{{{{ end }}}}{e}{{{{ .Response }}}}{f}"
    )
    turns = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    assert rendered(template, turns) == f"{a}S{b}{c}U{d}{e}"


@given(st.text(st.sampled_from('{} \n-.PromptifendSystem"\\%#')))
def test_nothing_is_raised(text: str) -> None:
    to_jinja(text)
