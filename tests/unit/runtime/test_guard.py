"""Template bombs: each ends as one error, in time, with the process as it was."""

from __future__ import annotations

import resource
import signal
import time

import pytest

from runtime.engine.guard import Guard
from runtime.engine.prompt import SpecialSpellings
from runtime.engine.template import ChatTemplate
from runtime.messages import Message
from schemas.errors import MalformedModel

MIB = 2**20
BOMBS = {
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "doubling": "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubling by addition": "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "repetition": "{{ 'a' * 1000000000000 }}",
    "repetition of lists": "{{ ([1] * 1000000000) | length }}",
    "power": "{{ 10 ** (10 ** 10) }}",
    "product": "{% set n = namespace(x=3) %}{% for i in range(99999) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "centring": "{{ 'a' | center(1000000000000) }}",
    "formatting": "{{ '%1000000000d' | format(1) }}",
    "formatting by method": "{{ '{:>1000000000}'.format(1) }}",
    "indenting": "{{ ('a\n' * 10000) | indent(100000) }}",
    "replacing": "{{ ('a' * 1000000) | replace('a', 'b' * 1000) }}",
    "macro recursion": "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}",
    "endless output": "{% for i in range(99999) %}{{ 'a' * 100000 }}{% endfor %}",
    "deep nesting": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "a long block": "{% set x %}{% for i in range(99999) %}{{ 'a' * 10000 }}{% endfor %}{% endset %}",
}


@pytest.mark.parametrize("source", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_is_one_error(source: str) -> None:
    guard = Guard(seconds=0.5, memory=64 * MIB)
    before = resource.getrlimit(resource.RLIMIT_DATA)

    def render() -> object:
        return ChatTemplate(source).render([Message("user", "x")], [], SpecialSpellings([]))

    started = time.process_time()
    with pytest.raises(MalformedModel):
        guard.run(render)
    assert time.process_time() - started < 2
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert guard.run(lambda: "still works") == "still works"


def test_other_errors_pass_through() -> None:
    with pytest.raises(ValueError, match="mine"):
        Guard().run(lambda: (_ for _ in ()).throw(ValueError("mine")).__next__())
    assert signal.getsignal(signal.SIGVTALRM) == signal.SIG_DFL
