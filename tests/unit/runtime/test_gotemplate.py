"""Go's template language: what its documentation says, on small cases of our own."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.gotemplate import is_go, parse
from runtime.gotemplate import GoError, TooMuch
from runtime.gotemplate.evaluating import execute
from runtime.gotemplate.values import Record
from schemas import limits
from schemas.errors import UsageError

DATA: dict[str, Any] = {
    "Name": "Ann",
    "Empty": "",
    "Zero": 0,
    "Yes": True,
    "None": None,
    "List": ["a", "b", "c"],
    "Nothing": [],
    "Map": {"z": 26, "a": 1},
    "Deep": {"er": {"est": "bottom"}},
    "Record": Record("T", {"Field": "f"}, {"field": "f"}),
    "Float": 1.5,
}


def run(template: str, data: Any = DATA) -> str:
    return execute(parse(template), data)


CASES = [
    ("text and actions", "Hi {{ .Name }}, {{.Name}}!", "Hi Ann, Ann!"),
    ("no text is trimmed unasked", "a \n {{ .Name }} \n b", "a \n Ann \n b"),
    ("trimmed before", "a \n {{- .Name }} b", "aAnn b"),
    ("trimmed behind", "a {{ .Name -}} \n\t b", "a Annb"),
    ("trimmed on both sides", "a {{- .Name -}} b", "aAnnb"),
    ("a minus without a space is a number's", "a {{-3}} b", "a -3 b"),
    ("a comment", "a{{/* {{ .Name }} */}}b", "ab"),
    ("a trimming comment, over lines", "a {{- /* x\ny */ -}} b", "ab"),
    ("braces in a string", '{{ "}}" }}{{ `{{` }}', "}}{{"),
    ("escapes", r'{{ "\t\"\x41\u00e9\\" }}', '\t"Aé\\'),
    ("a raw string keeps them", r"{{ `\t` }}", r"\t"),
    ("characters are numbers", "{{ 'a' }} {{ '\\n' }}", "97 10"),
    ("numbers", "{{ 1_000 }} {{ 0x1F }} {{ -7 }} {{ 1.50 }} {{ 1e3 }} {{ 010 }}", "1000 31 -7 1.5 1000 8"),
    ("true, false", "{{ true }} {{ false }}", "true false"),
    ("an action over lines", "{{ .Name\n}}", "Ann"),
    ("nested fields", "{{ .Deep.er.est }}", "bottom"),
    ("a missing key", "{{ .Missing }}", "<no value>"),
    ("dollar is the data", "{{ with .Deep }}{{ $.Name }}{{ end }}", "Ann"),
    ("parentheses and a field of them", "{{ (index .Deep `er`).est }}", "bottom"),
    ("if, else", "{{ if .Empty }}a{{ else }}b{{ end }}", "b"),
    ("else if", "{{ if .Zero }}a{{ else if .Yes }}b{{ else }}c{{ end }}", "b"),
    ("empty things are false", "{{ range $x := .Nothing }}x{{ else }}none{{ end }}", "none"),
    ("a struct is true", "{{ if .Record }}yes{{ end }}", "yes"),
    ("with moves the dot", "{{ with .Deep.er }}{{ .est }}{{ end }}", "bottom"),
    ("with, else with", "{{ with .Empty }}a{{ else with .Name }}{{ . }}{{ end }}", "Ann"),
    ("range", "{{ range .List }}{{ . }},{{ end }}", "a,b,c,"),
    ("range with an index", "{{ range $i, $e := .List }}{{ $i }}{{ $e }} {{ end }}", "0a 1b 2c "),
    ("a map in the order of its keys", "{{ range $k, $v := .Map }}{{ $k }}{{ $v }}{{ end }}", "a1z26"),
    ("range over a number", "{{ range $i := 3 }}{{ $i }}{{ end }}", "012"),
    ("range over nil", "{{ range .None }}x{{ else }}-{{ end }}", "-"),
    ("break", "{{ range .List }}{{ if eq . `b` }}{{ break }}{{ end }}{{ . }}{{ end }}!", "a!"),
    ("continue", "{{ range .List }}{{ if eq . `b` }}{{ continue }}{{ end }}{{ . }}{{ end }}", "ac"),
    ("a variable", "{{ $x := .Name }}{{ $x }}", "Ann"),
    ("set from inside", "{{ $x := 1 }}{{ if .Yes }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
    ("a new one inside does not reach out", "{{ $x := 1 }}{{ if .Yes }}{{ $x := 2 }}{{ end }}{{ $x }}", "1"),
    ("set over rounds", "{{ $x := `-` }}{{ range .List }}{{ $x = . }}{{ end }}{{ $x }}", "c"),
    ("existing variables in a range", "{{ $e := `` }}{{ range $e = .List }}{{ end }}{{ $e }}", "c"),
    ("a variable of an if", "{{ if $n := .Name }}{{ $n }}{{ end }}", "Ann"),
    ("a pipeline", '{{ .Name | printf "%s-%s" "x" }}', "x-Ann"),
    ("a longer one", '{{ "x" | print "a" | len }}', "2"),
    ("define, template", '{{ define "t" }}<{{ . }}>{{ end }}{{ template "t" .Name }}', "<Ann>"),
    ("without data", '{{ define "t" }}<{{ . }}>{{ end }}{{ template "t" }}', "<<no value>>"),
    ("block", '{{ block "b" .Name }}[{{ . }}]{{ end }}', "[Ann]"),
    ("recursion that ends", '{{ define "t" }}{{ if . }}{{ len . }}{{ template "t" (slice . 1) }}{{ end }}{{ end }}{{ template "t" .List }}', "321"),
    ("and, or give values", "{{ and 1 `x` }} {{ and 0 1 }} {{ or 0 `y` }} {{ or 0 `` }}.", "x 0 y ."),
    ("they stop where it is decided", "{{ or .Yes (index .List 9) }}{{ and .Zero (index .List 9) }}", "true0"),
    ("not", "{{ not .Empty }} {{ not 1 }}", "true false"),
    ("eq of several", "{{ eq .Name `Bob` `Ann` }} {{ eq 1 1.0 }}", "true true"),
    ("eq of nil", "{{ eq .None nil }} {{ eq .Name nil }}", "true false"),
    ("order", "{{ lt 1 2 }}{{ le 2 2 }}{{ gt `b` `a` }}{{ ge 1 2 }}{{ ne 1 2 }}", "truetruetruefalsetrue"),
    ("len counts bytes", '{{ len "é" }} {{ len .List }} {{ len .Map }}', "2 3 2"),
    ("index", "{{ index .List 1 }} {{ index .Map `z` }} {{ index .Deep `er` `est` }} {{ index `A` 0 }}", "b 26 bottom 65"),
    ("slice", '{{ slice "hello" 1 3 }} {{ slice .List 1 }} {{ slice .List }}', "el [b c] [a b c]"),
    ("how lists and maps print", "{{ .List }} {{ .Map }} {{ .Record }}", '[a b c] map[a:1 z:26] {"field":"f"}'),
    ("print", "{{ print 1 2 `a` 3 }} {{ println `x` 1 }}", "1 2a3 x 1\n"),
    ("printf", '{{ printf "%5d|%-5s|%05.1f|%q|%v|%t|%x|%%" 42 "ab" 3.14159 "q" nil true 255 }}', '   42|ab   |003.1|"q"|<nil>|true|ff|%'),
    ("printf with a width from the values", '{{ printf "%*d" 4 7 }}{{ printf "%+d %.2s" 1 "abc" }}', "   7+1 ab"),
    ("json", '{{ json .Map }} {{ json "<é>" }} {{ json 2.0 }}', '{"a":1,"z":26} "\\u003cé\\u003e" 2'),
    ("html, urlquery", '{{ html "<&\'>" }} {{ urlquery "a b&" }}', "&lt;&amp;&#39;&gt; a+b%26"),
    ("TypeScript of what is no parameter", "{{ toTypeScriptType 1 }}", "any"),
    ("another word after a keyword's letters", "{{ $iffy := 1 }}{{ $iffy }}", "1"),
]  # fmt: skip


@pytest.mark.parametrize(("template", "text"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_the_language(template: str, text: str) -> None:
    assert run(template) == text


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("a\nb{{", "line 2: unclosed action"),
        ("{{ .A\n\n.B", "line 3: unclosed action started at line 1"),
        ("{{ end }}", "line 1: unexpected {{end}}"),
        ("\n{{ if .X }}", "line 2: unexpected EOF"),
        ("{{ if }}x{{ end }}", "missing value for if"),
        ("{{ if .A }}{{ else }}{{ else }}{{ end }}", "expected end; found {{else}}"),
        ("{{ shout .A }}", 'function "shout" not defined'),
        ("{{ call .A }}", 'function "call" not defined'),
        ("{{ $x }}", 'undefined variable "$x"'),
        ("{{ $x = 1 }}", 'undefined variable "$x"'),
        ("{{ if .A }}{{ $x := 1 }}{{ end }}{{ $x }}", 'undefined variable "$x"'),
        ('{{ define "t" }}{{ $y }}{{ end }}{{ $y := 1 }}', 'undefined variable "$y"'),
        ('{{ "a"b }}', "in operand"),
        ('{{ "a }}', "unterminated string"),
        (r'{{ "\q" }}', "invalid syntax"),
        ("{{ 08 }}", "bad number syntax"),
        ("{{ 3-}}", "bad character '-'"),
        ("{{ (1 }}", "parenthesized pipeline"),
        ("{{ 1 | 2 }}", "non executable command"),
        ("{{ nil.A }}", "unexpected . after term"),
        ("{{ break }}", "outside {{range}}"),
        ('{{ range .A }}{{ define "x" }}{{ end }}{{ end }}', "unexpected {{define}}"),
        ('{{ template "x" }}', 'template "x" not defined'),
        ('{{ define "x" }}{{ end }}{{ define "x" }}{{ end }}', "defined twice"),
        ("{{/* a", "unclosed comment"),
        ("{{/* a */ x}}", "comment ends before"),
        ("{{ if 1 }}" * 100, "nested too deeply"),
        ("{{ " + "(" * 100 + "1 }}", "nested too deeply"),
        ("{{.}}" * 20_000, "over 30000 words"),
        (" " * (limits.GO_TEMPLATE_CHARS + 1), "over 262144 characters"),
    ],
)
def test_what_does_not_parse(template: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(template)
    assert why in (caught.value.why or "")


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("a\n{{ .Name.First }}", "line 2: can't evaluate field First in type string"),
        ("{{ .Record.Other }}", "can't evaluate field Other in type T"),
        ("{{ .Missing.X }}", "nil pointer evaluating .X"),
        ("{{ index .List 3 }}", "index out of range: 3"),
        ("{{ index .Map 1 }}", "should be string"),
        ("{{ slice .List 2 1 }}", "invalid slice index"),
        ("{{ slice nil 1 }}", "untyped nil"),
        ("{{ len 3 }}", "len of type int"),
        ("{{ eq 1 `a` }}", "incompatible types"),
        ("{{ eq .List .List }}", "non-comparable type slice"),
        ("{{ eq 1 }}", "missing argument"),
        ("{{ lt true false }}", "invalid type"),
        ("{{ not }}", "wrong number of args for not"),
        ("{{ and }}", "wrong number of args"),
        ("{{ range .Name }}{{ end }}", "can't iterate over string"),
        ("{{ .Name 1 }}", "argument to non-function"),
        ("{{ 1 | .Name }}", "argument to non-function"),
        ("{{ nil }}", "nil is not a command"),
        ('{{ printf "%d" "x" }}', "cannot write string as %d"),
        ('{{ printf "%d" }}', "no value for %d"),
        ('{{ printf "x" 1 }}', "more values than verbs"),
        ('{{ printf "%" }}', "middle of a verb"),
        ('{{ printf "%y" 1 }}', "%y"),
    ],
)
def test_what_fails_when_it_runs(template: str, why: str) -> None:
    with pytest.raises(GoError) as caught:
        run(template)
    assert why in str(caught.value)
    assert str(caught.value).startswith("line ")


DOUBLING = '{{ $x := "xxxxxxxx" }}{{ range 60 }}{{ $x = print $x $x }}{{ end }}'
BOMBS = {
    "loops in loops": "{{ range 9999 }}{{ range 9999 }}{{ range 9999 }}{{ end }}{{ end }}{{ end }}",
    "a loop of text": f"{{{{ range 9999999999 }}}}{'x' * 50_000}{{{{ end }}}}",
    "it calls itself": '{{ define "t" }}{{ template "t" . }}{{ end }}{{ template "t" . }}',
    "two call each other": '{{ define "a" }}{{ template "b" }}{{ end }}{{ define "b" }}{{ template "a" }}{{ end }}{{ template "a" }}',
    "doubling": DOUBLING,
    "doubling by JSON": DOUBLING.replace("print $x $x", "json (print $x $x)"),
    "doubling by printf": DOUBLING.replace("print $x $x", 'printf "%s%s" $x $x'),
    "a wide number": '{{ printf "%999999d" 1 }}',
    "a wide number from the values": '{{ printf "%*d" 999999999 1 }}',
    "many digits": '{{ printf "%.999999f" 1.5 }}',
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_bombs(bomb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GO_TEMPLATE_STEPS", 20_000)
    monkeypatch.setattr(limits, "RENDERED_PROMPT_BYTES", 1_000_000)
    with pytest.raises((TooMuch, GoError), match=r"too much|too many|too deeply|a width over"):
        run(bomb)


@given(st.text().filter(lambda text: "{{" not in text and not text.endswith("{")))
def test_text_stays_as_it_is(text: str) -> None:
    assert run(f"{text}{{{{ .Name }}}}{text}") == f"{text}Ann{text}"


@given(st.text())
def test_any_string_can_be_written_down(text: str) -> None:
    quoted = "".join(f"\\U{ord(char):08x}" for char in text)
    assert run(f'{{{{ "{quoted}" }}}}') == text
    assert json.loads(run("{{ json . }}", text)) == text


@given(st.integers(-(10**18), 10**18), st.integers(0, 30))
def test_numbers_are_padded_as_in_c(number: int, width: int) -> None:
    for verb in (f"%{width}d", f"%-{width}d", f"%0{width}d", f"%+{width}d"):
        assert run(f'{{{{ printf "{verb}" . }}}}', number) == verb % number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back(number: float) -> None:
    assert math.isclose(float(run("{{ . }}", number)), number, rel_tol=0, abs_tol=0)


WORDS = (
    "{{|}}|{{- | -}}|if |range |end|else |with |.Name|.List|$x|:= |1|-1|eq |printf |'%d'|/*|*/|define |"
    "é|{{ end }}|{{ if .Yes }}|{{ range .List }}|{{ else }}|template |break|nil |and |(|)|.|,| "
)
PIECES = st.sampled_from([*"{}().|$=\"'`/*-,: \n\\", *WORDS.split("|")])


@given(st.lists(PIECES, max_size=30).map("".join))
def test_whatever_is_written_ends_in_text_or_an_error_of_ours(template: str) -> None:
    try:
        assert isinstance(run(template), str)
    except UsageError as error:
        told = error.why or ""
    except GoError as error:
        told = str(error)
    else:
        return
    assert told.startswith("line ")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ .Prompt }}", True),
        ("{{- range $i, $m := .Messages }}", True),
        ("{{ json .Messages }}", True),
        ("{{/* x */}}", True),
        ("{{ messages[0].content }}", False),
        ("{% if x %}{{ not (x) }}{% endif %}", False),
        ("{{ ' .x' }}", False),
        ("", False),
    ],
)
def test_it_is_told_from_jinja(template: str, *, expected: bool) -> None:
    assert is_go(template) is expected
