"""Templates that act differently on some texts, on some days, or late in a conversation.

A usual template looks at roles, at kinds of content, and at the markup that its own model writes.
One that looks for a word in what a person wrote, or compares the date, hides a behaviour from
whoever tries the model out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from jinja2 import nodes

from bundler.scanning.findings import Finding, Severity
from bundler.scanning.jinja import attribute, constant_text, descend

_TEXTS: Final = frozenset({"content", "text", "reasoning_content", "thinking", "reasoning"})
_KINDS: Final = frozenset({"role", "type", "name", "id", "tool_call_id", "recipient", "channel"})
_LOOKS: Final = frozenset(
    {"startswith", "endswith", "find", "rfind", "index", "count", "partition", "rpartition"}
)
_DATES: Final = frozenset({"date_string", "current_date", "todays_date", "today", "now"})
_ROUNDS: Final = 4  # of following assignments; templates pass texts on once or twice
_MARKUP: Final = re.compile(r"\s*(?:[<\[{|(`#*]|\W*$|/(?:no_?)?think\b)", re.DOTALL)
# Keys of content items, and kinds of them: looked for in the same way as words in a text.
_ITEM_WORDS: Final = frozenset(
    """
    audio content document file image image_url input_audio input_text text thinking tool tool_call
    tool_calls tool_result tool_use video video_url reasoning refusal output input_image model
    image_base64 audio_url placeholder parts blocks value
    """.split()  # noqa: SIM905
)
_WORD: Final = re.compile(r"[^\W\d_]{2,}")
_TAG: Final = re.compile(r"<[^<>]{0,80}>")
_PROSE_WORDS: Final = 4
LATE: Final = 3  # turns; templates tell the first and the second apart


def trigger_findings(tree: nodes.Template, where: str) -> Iterator[Finding]:
    """Conditions on texts, dates and numbers of turns.

    Args:
        tree: Of the template.
        where: What it is, for the findings.
    """
    flow = _Flow.of(tree)
    conditions: dict[int, str] = {}
    for node in descend(tree):
        at = f"{where}, line {node.lineno}"
        if words := flow.texts_looked_for(node):
            conditions[id(node)] = "text"
            yield Finding(
                Severity.WARN, "template-text-trigger", at, f"looks for {words} in messages"
            )
        elif flow.compares_date(node):
            conditions[id(node)] = "date"
            yield Finding(Severity.DANGER, "template-date-trigger", at, "acts by the date")
        elif flow.compares_turns(node):
            conditions[id(node)] = "turn"
            yield Finding(Severity.WARN, "template-turn-trigger", at, "acts by the number of turns")
    if conditions:
        yield from _hidden_branches(tree, where, set(conditions))


def _hidden_branches(tree: nodes.Template, where: str, conditions: set[int]) -> Iterator[Finding]:
    """Prose that is said only if such a condition holds."""
    flags = {
        key
        for node in descend(tree)
        if isinstance(node, nodes.Assign)
        and any(id(each) in conditions for each in descend(node.node))
        for key in _keys(node.target)
    }
    for node in descend(tree):
        if not isinstance(node, nodes.If | nodes.CondExpr):
            continue
        if not any(id(x) in conditions or _key(x) in flags for x in descend(node.test)):
            continue
        branch: Sequence[nodes.Node | None] = (
            [*node.body, *node.else_] if isinstance(node, nodes.If) else [node.expr1, node.expr2]
        )
        yield from hidden_instruction(prose(branch), f"{where}, line {node.lineno}")


def hidden_instruction(text: str, at: str) -> Iterator[Finding]:
    """What is said under a condition on a text, a date or a number of turns, if it is prose."""
    said = _TAG.sub(" ", text)
    if len(_WORD.findall(said)) >= _PROSE_WORDS:
        yield Finding(
            Severity.DANGER,
            "template-hidden-instruction",
            at,
            f"says only then: {said.strip()!r}",
        )


def prose(parts: Sequence[nodes.Node | None]) -> str:
    """The texts that nodes hold, without those of errors that they raise."""
    found: list[str] = []
    stack = [part for part in reversed(parts) if part is not None]
    while stack:
        node = stack.pop()
        if isinstance(node, nodes.Call) and _name(node.node) == "raise_exception":
            continue
        if isinstance(node, nodes.TemplateData):
            found.append(node.data)
        elif (text := constant_text(node)) is not None:
            found.append(text)
        if isinstance(node, nodes.Getitem | nodes.Compare | nodes.Test):
            continue  # names of fields, and what is compared with, are not said
        stack.extend(reversed(list(node.iter_child_nodes())))
    return " ".join(found)


@dataclass(slots=True)
class _Flow:
    """Which variables hold what people wrote, and which the date."""

    texts: set[str] = field(default_factory=set)
    dates: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, tree: nodes.Template) -> _Flow:
        flow = cls(set(_TEXTS), set(_DATES))
        pairs = [pair for node in descend(tree) for pair in _flows(node)]
        for _ in range(_ROUNDS):
            before = len(flow.texts) + len(flow.dates)
            for keys, value in pairs:
                if flow.is_text(value):
                    flow.texts.update(keys)
                if any(_is_date(each, flow.dates) for each in descend(value)):
                    flow.dates.update(keys)
            if len(flow.texts) + len(flow.dates) == before:
                break
        return flow

    def is_text(self, node: nodes.Node | None) -> bool:
        """Whether an expression is what somebody wrote, or a part of it."""
        stack = [node]
        while stack:
            part = stack.pop()
            if part is None:
                continue
            name = attribute(part)
            if _key(part) in self.texts or name in _TEXTS:
                return True
            if name not in _KINDS:
                stack.extend(_parts(part))
        return False

    def texts_looked_for(self, node: nodes.Node) -> str:
        """The words that a node looks for in what somebody wrote; empty if it does not."""
        wanted: list[str] = []
        if isinstance(node, nodes.Compare):
            sides = [node.expr, *(operand.expr for operand in node.ops)]
            if any(self.is_text(side) for side in sides):
                wanted = [text for side in sides for text in _literals(side)]
        elif isinstance(node, nodes.Call) and attribute(node.node) in _LOOKS:
            base = node.node
            if isinstance(base, nodes.Getattr | nodes.Getitem) and self.is_text(base.node):
                wanted = [text for argument in node.args for text in _literals(argument)]
        elif isinstance(node, nodes.Test) and self.is_text(node.node):
            wanted = [text for argument in node.args for text in _literals(argument)]
        strange = [text for text in wanted if is_strange(text)]
        return ", ".join(repr(text[:40]) for text in strange[:5])

    def compares_date(self, node: nodes.Node) -> bool:
        """Whether a node compares the date with anything."""
        if isinstance(node, nodes.Compare):
            return any(_is_date(each, self.dates) for each in descend(node))
        if isinstance(node, nodes.Call) and attribute(node.node) in _LOOKS:
            return any(_is_date(each, self.dates) for each in descend(node.node))
        if isinstance(node, nodes.Test) and node.args:
            return any(_is_date(each, self.dates) for each in descend(node.node))
        return False

    def compares_turns(self, node: nodes.Node) -> bool:
        """Whether a node compares how long the conversation is with a number of some size."""
        if not isinstance(node, nodes.Compare):
            return False
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        late = any(
            isinstance(side, nodes.Const) and type(side.value) is int and side.value >= LATE
            for side in sides
        )
        return late and any(_is_turns(side) for side in sides)


def _parts(node: nodes.Node) -> Sequence[nodes.Node | None]:
    """What an expression's text comes from."""
    if isinstance(node, nodes.Call):
        given = constant_text(node.args[0]) if node.args else None
        if attribute(node.node) == "get" and given in _KINDS | _TEXTS:
            return [nodes.Name(given, "load")] if given in _TEXTS else []
        return [node.node]
    if isinstance(node, nodes.Filter):
        return [] if node.name in {"length", "count"} else [node.node]
    if isinstance(node, nodes.Getattr | nodes.Getitem):
        return [node.node]
    if isinstance(node, nodes.Add):
        return [node.left, node.right]
    if isinstance(node, nodes.Concat):
        return node.nodes
    if isinstance(node, nodes.CondExpr):
        return [node.expr1, node.expr2]
    return []


def _flows(node: nodes.Node) -> Iterator[tuple[set[str], nodes.Node]]:
    if isinstance(node, nodes.Assign):
        yield _keys(node.target), node.node
    elif isinstance(node, nodes.For):
        yield _keys(node.target), node.iter


def _keys(target: nodes.Node) -> set[str]:
    parts = target.items if isinstance(target, nodes.Tuple) else [target]
    return {key for part in parts if (key := _key(part))}


def _key(node: nodes.Node) -> str:
    """A variable's name, or ``space.name`` of one in a namespace; empty for anything else."""
    if isinstance(node, nodes.Name):
        return str(node.name)
    if isinstance(node, nodes.NSRef):
        return f"{node.name}.{node.attr}"
    if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
        return f"{node.node.name}.{node.attr}"
    return ""


def _name(node: nodes.Node) -> str:
    return str(node.name) if isinstance(node, nodes.Name) else ""


def _is_date(node: nodes.Node, dates: set[str]) -> bool:
    return (isinstance(node, nodes.Call) and _name(node.node) == "strftime_now") or (
        _key(node) in dates
    )


def _is_turns(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Filter) and node.name in {"length", "count"}:
        return "messages" in _name(node.node) if node.node is not None else False
    return _key(node) in {"loop.index", "loop.index0", "loop.length", "loop.revindex"}


def _literals(node: nodes.Node) -> Iterator[str]:
    items = node.items if isinstance(node, nodes.List | nodes.Tuple) else [node]
    yield from (text for item in items if (text := constant_text(item)) is not None)


def is_strange(text: str) -> bool:
    """Whether usual templates do not look for this in messages."""
    return text.strip().lower() not in _ITEM_WORDS and _MARKUP.match(text) is None
