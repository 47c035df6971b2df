"""Licence expressions (SPDX specification 2.3, annex D) against lists of ids.

``A OR B`` is as good as the better of the two: whoever uses the model may choose. ``A AND B`` is as
bad as the worse. ``A WITH X`` is looked up whole, then as ``A``. What is no expression is looked up
as the one name that it then is, ``LicenseRef-…``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bundler.modelpack import spdx
from bundler.policy.model import LicenceRules, Verdict

_MAX_CHARS = 2000  # the longest in real packages have a few hundred
_MAX_PARENTHESES = 32  # bounds the recursion, ours and packaging's


def judge(expression: str, rules: LicenceRules) -> tuple[Verdict, tuple[str, ...]]:
    """What the rules say about a licence.

    Args:
        expression: As signed; empty where none is named.
        rules: Of the site.

    Returns:
        The verdict, and the ids that it hangs on: those that a person would confirm.
    """
    if not expression.strip():
        return rules.unknown, ("unknown",)
    if len(expression) > _MAX_CHARS or expression.count("(") > _MAX_PARENTHESES:
        return Verdict.REFUSE, (expression[:40] + "…",)
    tokens = spdx(expression).replace("(", " ( ").replace(")", " ) ").split()
    return _Reader(iter([*tokens, ""]), lambda name: _look_up(name, rules)).read()


def normal(name: str) -> str:
    """A licence's id as it is compared: as SPDX writes it."""
    return spdx(name.strip())


def _look_up(name: str, rules: LicenceRules) -> Verdict:
    plain = name.partition(" WITH ")[0]
    return rules.listed.get(name, rules.listed.get(plain, rules.others))


_Judged = tuple[Verdict, tuple[str, ...]]


class _Reader:
    """Recursive descent over checked tokens: OR binds weakest, WITH strongest."""

    def __init__(self, tokens: Iterator[str], look_up: Callable[[str], Verdict]) -> None:
        self._tokens = tokens
        self._look_up = look_up
        self._next = next(tokens)

    def read(self) -> _Judged:
        verdict, ids = self._both()
        while self._next == "OR":
            self._move()
            other, more = self._both()
            if other < verdict:
                verdict, ids = other, more
        return verdict, ids

    def _both(self) -> _Judged:
        verdict, ids = self._one()
        while self._next == "AND":
            self._move()
            other, more = self._one()
            if other == verdict:
                ids += more
            elif other > verdict:
                verdict, ids = other, more
        return verdict, ids

    def _one(self) -> _Judged:
        if self._next == "(":
            self._move()
            found = self.read()
            self._move()
            return found
        name = self._move()
        if self._next == "WITH":
            self._move()
            name = f"{name} WITH {self._move()}"
        return self._look_up(name), (name,)

    def _move(self) -> str:
        token, self._next = self._next, next(self._tokens, "")
        return token
