"""The error tree: what scripts and clients rely on."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import errors
from schemas.errors import SealiftError


def tree(root: type[SealiftError] = SealiftError) -> Iterator[type[SealiftError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


CLASSES = list(tree())


def drawn() -> dict[str, str]:
    """Child to parent, as drawn at the top of the module."""
    assert errors.__doc__ is not None
    parents: dict[str, str] = {}
    branch = ""
    for line in errors.__doc__.splitlines():
        found = re.match(r"    ((?:│   |    )?)[├└]── (\w+)", line)
        if found and not found[1]:
            branch = found[2]
            parents[branch] = "SealiftError"
        elif found:
            parents[found[2]] = branch
    return parents


def test_the_tree_is_as_drawn() -> None:
    real = {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES if cls is not SealiftError}
    assert drawn() == real


def test_codes_and_exit_codes_are_unique() -> None:
    assert len({cls.code for cls in CLASSES}) == len(CLASSES)
    assert len({cls.exit_code for cls in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("cls", CLASSES)
def test_each_class_says_its_own(cls: type[SealiftError]) -> None:
    assert {"code", "exit_code", "http_status"} <= vars(cls).keys()
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", cls.code)
    assert 400 <= cls.http_status <= 599
    if cls is SealiftError:
        assert cls.exit_code == 1  # a defect of ours
    else:
        assert 2 <= cls.exit_code < 126  # the shell keeps 126 and above


@pytest.mark.parametrize("cls", CLASSES)
def test_one_line_of_what_why_what_next(cls: type[SealiftError]) -> None:
    assert cls("it broke").line() == "it broke"
    assert cls("it broke", why="a cause").line() == "it broke: a cause"
    assert cls("it broke", hint="Do this").line() == "it broke. Do this"
    error = cls("it broke", why="a cause", hint="Do this")
    assert str(error) == error.line() == "it broke: a cause. Do this"
    assert error.document() == {
        "code": cls.code,
        "exitCode": cls.exit_code,
        "what": "it broke",
        "why": "a cause",
        "hint": "Do this",
    }


@given(st.text(), st.text(), st.text(max_size=2000))
def test_hostile_text_stays_one_bounded_line(what: str, why: str, hint: str) -> None:
    line = SealiftError(what, why=why, hint=hint).line()
    assert line.isprintable()
    assert len(line) <= 3 * 600 + 4


def test_control_sequences_do_not_reach_the_terminal() -> None:
    line = SealiftError("a\x1b[31mred\x07\r\n\u202egnp.exe").line()
    assert line == "a?[31mred?? ?gnp.exe"
