"""Runs Go templates: pure, and bounded in steps, depth and text.

(Go's ``text/template/exec.go``.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from registry.gotemplate.nodes import (
    Action,
    Body,
    Branch,
    Call,
    Chain,
    Command,
    Dot,
    Field,
    Function,
    Leave,
    Literal,
    Nil,
    Operand,
    Pipe,
    Range,
    Template,
    Text,
    Variable,
)
from runtime.gotemplate.functions import FUNCTIONS
from runtime.gotemplate.values import (
    GoError,
    TooMuch,
    Value,
    field_of,
    is_true,
    items_of,
    kind_of,
    shown,
)
from schemas import limits


class _Absent:
    """No value is passed on by the command before."""


_ABSENT: Final = _Absent()


def execute(template: Template, data: Value, body: Body | None = None) -> str:
    """Run a template.

    Args:
        template: Parsed.
        data: What ``.`` and ``$`` are.
        body: What to run of it instead of all.

    Raises:
        GoError: It does what cannot be done; names the line.
        TooMuch: It passes a limit.
    """
    run = _Run(template)
    run.call(template.body if body is None else body, data)
    return "".join(run.output)


class _Run:
    def __init__(self, template: Template) -> None:
        self._template = template
        self.output: list[str] = []
        self._size = 0
        self._steps = 0
        self._depth = 0
        self._line = 1
        self._variables: list[tuple[str, Value]] = []

    def call(self, body: Body, dot: Value) -> None:
        outer, self._variables = self._variables, [("$", dot)]
        try:
            self._body(body, dot)
        except GoError as error:
            error.line = error.line or self._line
            raise
        self._variables = outer

    # -- bodies ---------------------------------------------------------------------------------

    def _body(self, body: Body, dot: Value) -> str:
        """Run nodes; the word that leaves a loop, if one does."""
        self._depth += 1
        if self._depth > limits.GO_TEMPLATE_DEPTH:
            raise TooMuch("it calls itself too deeply")
        mark = len(self._variables)
        leave = ""
        for node in body:
            self._step()
            leave = self._node(node, dot)
            if leave:
                break
        del self._variables[mark:]
        self._depth -= 1
        return leave

    def _node(self, node: Any, dot: Value) -> str:
        match node:
            case Text():
                self._write(node.text)
            case Action():
                value = self._pipe(node.pipe, dot)
                if not node.pipe.names:
                    self._write(shown(value))
            case Branch():
                return self._scoped(lambda: self._branch(node, dot))
            case Range():
                return self._scoped(lambda: self._range(node, dot))
            case Leave():
                return node.word
            case Call():
                value = None if node.pipe is None else self._pipe(node.pipe, dot)
                self._line = node.line
                self.call(self._template.defined[node.name], value)
        return ""

    def _scoped(self, work: Callable[[], str]) -> str:
        mark = len(self._variables)
        leave = work()
        del self._variables[mark:]
        return leave

    def _branch(self, node: Branch, dot: Value) -> str:
        for arm in node.arms:
            value = self._pipe(arm.pipe, dot)
            if is_true(value):
                return self._body(arm.body, value if arm.moves else dot)
        return self._body(node.otherwise, dot)

    def _range(self, node: Range, dot: Value) -> str:
        names, declares = node.pipe.names, node.pipe.declares
        value = self._value(node.pipe, dot)
        mark = len(self._variables)
        empty = True
        for key, item in self._entries(value):
            empty = False
            self._step()
            del self._variables[mark:]
            wanted = (key, item) if len(names) > 1 else (item,)
            for name, each in zip(names, wanted, strict=False):
                self._set(name, each, declares=declares)
            if self._body(node.body, item) == "break":
                break
        return self._body(node.otherwise, dot) if empty else ""

    def _entries(self, value: Value) -> Iterator[tuple[Value, Value]]:
        if isinstance(value, dict):
            yield from items_of(value)
        elif isinstance(value, list | tuple):
            yield from enumerate(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield from ((number, number) for number in range(value))
        elif value is not None:
            raise GoError(f"range can't iterate over {kind_of(value)}")

    # -- pipelines ------------------------------------------------------------------------------

    def _pipe(self, pipe: Pipe, dot: Value) -> Value:
        value = self._value(pipe, dot)
        for name in pipe.names:
            self._set(name, value, declares=pipe.declares)
        return value

    def _value(self, pipe: Pipe, dot: Value) -> Value:
        """What a pipeline makes; nothing is set."""
        value: Value = _ABSENT
        self._line = pipe.line
        for command in pipe.commands:
            value = self._command(command, dot, value)
            self._line = pipe.line
        return value

    def _command(self, command: Command, dot: Value, passed: Value) -> Value:
        first, *rest = command.words
        if isinstance(first, Function):
            return self._function(first.name, rest, dot, passed)
        if rest or passed is not _ABSENT:
            raise GoError("can't give argument to non-function")
        if isinstance(first, Nil):
            raise GoError("nil is not a command")
        return self._operand(first, dot)

    def _function(self, name: str, words: Sequence[Operand], dot: Value, passed: Value) -> Value:
        values = self._arguments(words, dot, passed)
        if name in ("and", "or"):
            return _decided(values, until=name == "or")
        work, least, most = FUNCTIONS[name]
        given = list(values)
        if len(given) < least or (most is not None and len(given) > most):
            raise GoError(f"wrong number of args for {name}: got {len(given)}")
        return work(*given)

    def _arguments(self, words: Sequence[Operand], dot: Value, passed: Value) -> Iterator[Value]:
        for word in words:
            yield self._operand(word, dot)
        if passed is not _ABSENT:
            yield passed

    def _operand(self, operand: Operand, dot: Value) -> Value:
        self._step()
        match operand:
            case Dot():
                return dot
            case Nil():
                return None
            case Literal():
                return operand.value
            case Field():
                return _fields(dot, operand.names)
            case Variable():
                return _fields(self._get(operand.name), operand.names)
            case Chain():
                return _fields(self._operand(operand.of, dot), operand.names)
            case Function():
                return self._function(operand.name, (), dot, _ABSENT)
            case Pipe():
                return self._pipe(operand, dot)

    # -- variables and limits -------------------------------------------------------------------

    def _get(self, name: str) -> Value:
        for known, value in reversed(self._variables):
            if known == name:
                return value
        raise GoError(f"undefined variable: {name}")

    def _set(self, name: str, value: Value, *, declares: bool) -> None:
        if declares:
            self._variables.append((name, value))
            return
        for number in range(len(self._variables) - 1, -1, -1):
            if self._variables[number][0] == name:
                self._variables[number] = (name, value)
                return

    def _write(self, text: str) -> None:
        self._size += len(text)
        if self._size > limits.RENDERED_PROMPT_BYTES:
            raise TooMuch("it makes too much text")
        self.output.append(text)

    def _step(self) -> None:
        self._steps += 1
        if self._steps > limits.GO_TEMPLATE_STEPS:
            raise TooMuch("it takes too many steps")


def _fields(value: Value, names: Sequence[str]) -> Value:
    for name in names:
        value = field_of(value, name)
    return value


def _decided(values: Iterator[Value], *, until: bool) -> Value:
    """``and``, ``or``: the first value that decides, or the last; the others are not evaluated."""
    value: Value = _ABSENT
    for value in values:
        if is_true(value) is until:
            break
    if value is _ABSENT:
        raise GoError("wrong number of args for and, or: got 0")
    return value
