"""Chat templates in Go's language: the same questions as of those in Jinja."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Final

from bundler.scanning.findings import Finding, Severity
from bundler.scanning.hidden import hidden_characters
from bundler.scanning.prose import said_findings
from bundler.scanning.triggers import LATE, hidden_instruction, is_strange
from registry.gotemplate import parse
from registry.gotemplate.nodes import (
    Arm,
    Branch,
    Call,
    Chain,
    Dot,
    Field,
    Function,
    Literal,
    Pipe,
    Range,
    Template,
    Text,
    Variable,
)
from schemas import limits
from schemas.errors import UsageError

_TEXTS: Final = frozenset({"Content", "Thinking", "Prompt", "System", "Response"})
_DATES: Final = frozenset({"currentDate", "yesterdayDate"})
_COMPARE: Final = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
_TOO_MUCH: Final = ("nested too deeply", "over ")
_ROUNDS: Final = 4  # of following assignments


def scan_go(source: str, where: str) -> Iterator[Finding]:
    """Say what is unusual about a Go template.

    Args:
        source: By whoever made the model.
        where: What it is, for the findings.
    """
    yield from hidden_characters(source, where)
    try:
        tree = parse(source)
    except UsageError as error:
        why = error.why or error.what
        much = any(words in why for words in _TOO_MUCH)
        severity = Severity.DANGER if much else Severity.WARN
        yield Finding(severity, "template-too-much" if much else "template-syntax", where, why)
        return
    parts = [*tree.body, *tree.defined.values()]
    yield from _loops(tree, where)
    yield from _literals(parts, where)
    yield from _triggers(parts, where)
    yield from said_findings(_said(parts), where)


def _descend(root: Any) -> Iterator[Any]:
    """All nodes of a tree, in order."""
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, tuple | list):
            stack.extend(reversed(node))
        elif is_dataclass(node):
            yield node
            stack.extend(getattr(node, each.name) for each in reversed(fields(node)))


def _said(root: Any) -> str:
    """The texts of a tree, and strings that are not compared with anything."""
    found: list[str] = []
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, tuple | list):
            stack.extend(reversed(node))
        elif isinstance(node, Text):
            found.append(node.text)
        elif isinstance(node, Literal):
            found.append(node.value if isinstance(node.value, str) else "")
        elif is_dataclass(node) and not (isinstance(node, Pipe) and _compares(node)):
            stack.extend(getattr(node, each.name) for each in reversed(fields(node)))
    return " ".join(found)


def _compares(pipe: Pipe) -> bool:
    words = (command.words[0] for command in pipe.commands)
    return any(isinstance(word, Function) and word.name in _COMPARE for word in words)


# -- loops ----------------------------------------------------------------------------------------


def _loops(tree: Template, where: str) -> Iterator[Finding]:
    bodies = {"": tree.body, **tree.defined}
    deepest = max(map(_depth, bodies.values()))
    if deepest > limits.TEMPLATE_SCAN_LOOPS:
        yield Finding(Severity.WARN, "template-loops", where, f"has {deepest} loops in one another")
    calls = {
        name: {node.name for node in _descend(body) if isinstance(node, Call)}
        for name, body in bodies.items()
    }
    for name in tree.defined:
        reached = set(calls[name])
        while more := {each for known in reached for each in calls[known]} - reached:
            reached |= more
        if name in reached:
            yield Finding(Severity.WARN, "template-loops", where, f"{name!r} calls itself")
    for node in _descend(list(bodies.values())):
        if isinstance(node, Range) and (size := _counts_to(node.pipe)):
            at = f"{where}, line {node.pipe.line}"
            yield Finding(Severity.DANGER, "template-bomb", at, f"counts to {size}")


def _depth(body: Any) -> int:
    """Loops in one another; without recursion, for blocks may be many."""
    deepest = 0
    stack = [(node, 0) for node in body]
    while stack:
        node, depth = stack.pop()
        if isinstance(node, tuple):
            stack += [(each, depth) for each in node]
        elif isinstance(node, Range):
            deepest = max(deepest, depth + 1)
            stack += [(node.body, depth + 1), (node.otherwise, depth)]
        elif isinstance(node, Branch):
            stack += [(node.arms, depth), (node.otherwise, depth)]
        elif isinstance(node, Arm):
            stack.append((node.body, depth))
    return deepest


def _counts_to(pipe: Pipe) -> int:
    numbers = (n.value for n in _descend(pipe) if isinstance(n, Literal) and type(n.value) is int)
    size = max(numbers, default=0)
    return size if size > limits.TEMPLATE_SCAN_REPEAT else 0


def _literals(parts: Any, where: str) -> Iterator[Finding]:
    strings: list[str] = []
    for node in _descend(parts):
        if not isinstance(node, Literal):
            continue
        if isinstance(node.value, str):
            strings.append(node.value)
            if len(node.value) > limits.TEMPLATE_SCAN_LITERAL and " " not in node.value:
                size = len(node.value)
                yield Finding(
                    Severity.WARN, "template-blob", where, f"has a string of {size} characters"
                )
        elif abs(node.value) > limits.TEMPLATE_SCAN_NUMBER:
            yield Finding(Severity.WARN, "template-number", where, "has a very large number")
    yield from hidden_characters("\n".join(strings), f"{where}, written as an escape")


# -- triggers --------------------------------------------------------------------------------------


def _triggers(parts: Any, where: str) -> Iterator[Finding]:
    """Conditions on texts, dates and numbers of turns, and what is said under them."""
    flow = _Flow.of(parts)
    flags: set[str] = set()
    conditions: set[int] = set()
    for pipe in _descend(parts):
        if not isinstance(pipe, Pipe) or (found := flow.trigger(pipe)) is None:
            continue
        severity, code, detail = found
        yield Finding(severity, code, f"{where}, line {pipe.line}", detail)
        conditions.add(id(pipe))
    for pipe in _descend(parts):
        if isinstance(pipe, Pipe) and any(id(each) in conditions for each in _descend(pipe)):
            flags.update(pipe.names)
    for node in _descend(parts):
        if not isinstance(node, Branch):
            continue
        for each in _descend([arm.pipe for arm in node.arms]):
            if id(each) in conditions or (isinstance(each, Variable) and each.name in flags):
                branch = [*(arm.body for arm in node.arms), node.otherwise]
                at = f"{where}, line {node.arms[0].pipe.line}"
                yield from hidden_instruction(_said(branch), at)
                break


@dataclass(slots=True)
class _Flow:
    """Which variables hold what people wrote, which the date, and which number a loop's rounds."""

    texts: set[str] = field(default_factory=set)
    dates: set[str] = field(default_factory=set)
    rounds: set[str] = field(default_factory=set)
    dot: bool = False  # whether the dot may be a text

    @classmethod
    def of(cls, parts: Any) -> _Flow:
        flow = cls()
        nodes = list(_descend(parts))
        loops = [node.pipe for node in nodes if isinstance(node, Range)]
        flow.rounds = {pipe.names[0] for pipe in loops if len(pipe.names) > 1}
        moves = [node.pipe for node in nodes if isinstance(node, Arm) and node.moves]
        pipes = [node for node in nodes if isinstance(node, Pipe)]
        for _ in range(_ROUNDS):
            flow.dot = flow.dot or any(map(flow.is_text, moves))
            for pipe in pipes:
                if pipe.names and flow.is_text(pipe):
                    flow.texts.update(pipe.names)
                if pipe.names and flow.is_date(pipe):
                    flow.dates.update(pipe.names)
        return flow

    def is_text(self, root: Any) -> bool:
        """Whether an expression has to do with what somebody wrote."""
        for node in _descend(root):
            if isinstance(node, Field | Variable | Chain) and not _TEXTS.isdisjoint(node.names):
                return True
            if isinstance(node, Variable) and node.name in self.texts:
                return True
            if isinstance(node, Dot) and self.dot:
                return True
        return False

    def is_date(self, root: Any) -> bool:
        """Whether it has to do with the date."""
        return any(
            (isinstance(node, Function) and node.name in _DATES)
            or (isinstance(node, Variable) and node.name in self.dates)
            for node in _descend(root)
        )

    def trigger(self, pipe: Pipe) -> tuple[Severity, str, str] | None:
        """What a pipeline compares that usual templates do not."""
        if not _compares(pipe):
            return None
        if self.is_date(pipe):
            return Severity.DANGER, "template-date-trigger", "acts by the date"
        nodes = list(_descend(pipe))
        names = {node.name for node in nodes if isinstance(node, Function)}
        if self.is_text(pipe):
            wanted = [n.value for n in nodes if isinstance(n, Literal) and type(n.value) is str]
            strange = [repr(text[:40]) for text in wanted if is_strange(text)]
            if strange or "index" in names:
                words = ", ".join(strange[:5]) or "single letters"
                return Severity.WARN, "template-text-trigger", f"looks for {words} in messages"
        late = any(
            isinstance(n, Literal) and type(n.value) is int and n.value >= LATE for n in nodes
        )
        if late and self._counts_turns(nodes, names):
            return Severity.WARN, "template-turn-trigger", "acts by the number of turns"
        return None

    def _counts_turns(self, nodes: list[Any], functions: set[str]) -> bool:
        if any(isinstance(node, Variable) and node.name in self.rounds for node in nodes):
            return True
        named = [node for node in nodes if isinstance(node, Field | Variable)]
        return "len" in functions and any("Messages" in node.names for node in named)
