"""Modelfiles: what is read, what is refused and where, and the way back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.modelfile import Instruction, last, parameters, parse, render
from schemas.errors import MalformedDocument

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\n\t\" '#"))


def said(text: str) -> list[tuple[str, str, str]]:
    return [(each.name, each.key, each.value) for each in parse(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM llama3", [("from", "", "llama3")]),
        ("from llama3\n", [("from", "", "llama3")]),
        ("\ufeffFROM a\r\nSYSTEM b\r\n", [("from", "", "a"), ("system", "", "b")]),
        ("# one\n\n  # two\n\tFrom\t a b \n", [("from", "", "a b")]),
        ("FROM a # no comment", [("from", "", "a # no comment")]),
        ('FROM a\nSYSTEM ""', [("from", "", "a"), ("system", "", "")]),
        ('FROM a\nSYSTEM """\nx\n  y\n"""', [("from", "", "a"), ("system", "", "\nx\n  y\n")]),
        ('FROM a\nSYSTEM "x\n# y"', [("from", "", "a"), ("system", "", "x\n# y")]),
        ('FROM a\nSYSTEM "a" and "b"', [("from", "", "a"), ("system", "", 'a" and "b')]),
        ('FROM a\nSYSTEM """say "hi""""', [("from", "", "a"), ("system", "", 'say "hi"')]),
        ("FROM a\nSYSTEM 'x'", [("from", "", "a"), ("system", "", "'x'")]),
        ('FROM a\nPARAMETER  stop " x "', [("from", "", "a"), ("parameter", "stop", " x ")]),
        (
            'FROM a\nMESSAGE user Hi there\nmessage assistant """Hello\nyou"""',
            [("from", "", "a"), ("message", "user", "Hi there"), ("message", "assistant", "Hello\nyou")],
        ),
        ("LICENSE a\nLICENSE b\nFROM x", [("license", "", "a"), ("license", "", "b"), ("from", "", "x")]),
    ],
)  # fmt: skip
def test_what_is_read(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert said(text) == expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "no FROM line"),
        ("SYSTEM x", "no FROM line"),
        ("FROM a\nNONSENSE b", '(line 2): command must be one of "from", "license", "template",'),
        ("FROM", "(line 1): command must be one of"),
        ("FROM  ", "(line 1): FROM needs a model or a file"),
        ("FROM a\n\nMESSAGE tool x", '(line 3): message role must be one of "system", "user", or'),
        ("FROM a\nMESSAGE user", "(line 2): MESSAGE needs a name and a value"),
        ("FROM a\nPARAMETER temperature", "(line 2): PARAMETER needs a name and a value"),
        ('FROM a\nSYSTEM """x\ny', "(line 2): unexpected EOF"),
        ('FROM a\nSYSTEM "x', "(line 2): unexpected EOF"),
        ("FROM a\x1b[2J", "(line 1): a control character"),
        ("FROM a\nFROM: b", "(line 2): command must be one of"),
    ],
)
def test_errors_name_the_line(text: str, error: str) -> None:
    with pytest.raises(MalformedDocument) as caught:
        parse(text)
    assert caught.value.what.startswith(error)


def test_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.limits.MODELFILE_CHARS", 10)
    with pytest.raises(MalformedDocument, match="too large"):
        parse("FROM a" + "\n" * 10)


@given(st.text())
def test_nothing_else_is_raised(text: str) -> None:
    for source in (text, f"FROM a\n{text}", f'FROM a\nSYSTEM """{text}'):
        try:
            parse(source)
        except MalformedDocument:
            continue


def expressible(text: str) -> bool:
    """Three quotes at the end of a line, with more lines behind it, have no form."""
    return not (
        "\n" in text and any(x.rstrip().endswith('"""') for x in f'"{text}'.split("\n")[:-1])
    )


@given(st.lists(st.tuples(st.sampled_from(["system", "template", "license"]), TEXT)), TEXT)
def test_what_is_written_is_read_again(pairs: list[tuple[str, str]], spoken: str) -> None:
    wanted = [
        Instruction("from", "a model"),
        *(Instruction(name, text) for name, text in pairs if expressible(text)),
        *([Instruction("message", spoken, "user")] if expressible(spoken) else []),
        Instruction("parameter", "</s>", "stop"),
    ]
    found = [(each.name, each.key, each.value) for each in parse(render(wanted))]
    assert found == [(each.name, each.key, each.value) for each in wanted]


def test_values_are_quoted_only_where_they_must_be() -> None:
    lines = [
        Instruction("from", "x"),
        Instruction("system", "plain words"),
        Instruction("template", "two\nlines"),
        Instruction("parameter", " edge ", "stop"),
        Instruction("license", 'a "b"\nc'),
    ]
    assert render(lines) == (
        'FROM x\nSYSTEM plain words\nTEMPLATE "two\nlines"\nPARAMETER stop " edge "\n'
        'LICENSE """a "b"\nc"""\n'
    )


def test_parameters_have_their_types() -> None:
    text = (
        "FROM a\nPARAMETER temperature 0.5\nPARAMETER num_ctx 4096\nPARAMETER stop a\n"
        "PARAMETER stop b\nPARAMETER use_mmap true\nPARAMETER mirostat 2\nPARAMETER seed 1\n"
        "PARAMETER seed 2"
    )
    values, dropped = parameters(parse(text))
    assert values == {
        "temperature": 0.5, "num_ctx": 4096, "stop": ["a", "b"], "use_mmap": True, "seed": 2,
    }  # fmt: skip
    assert dropped == ["mirostat"]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("heat 1", "(line 2): unknown parameter 'heat'"),
        ("temperature hot", "(line 2): invalid float value [hot]"),
        ("top_k 1.5", "(line 2): invalid int value [1.5]"),
        ("use_mmap maybe", "(line 2): invalid bool value [maybe]"),
    ],
)
def test_wrong_parameters_are_told_in_ollamas_words(line: str, error: str) -> None:
    with pytest.raises(MalformedDocument) as caught:
        parameters(parse(f"FROM a\nPARAMETER {line}"))
    assert caught.value.what == error


def test_the_last_one_counts() -> None:
    found = parse("FROM a\nSYSTEM x\nSYSTEM y")
    assert last(found, "system") == "y"
    assert last(found, "template") is None
