"""Conversations through Go templates, as Ollama does it (``template/template.go``).

A template that names ``.Messages`` is run once, with all of them. Any other is of the older kind:
it is run for every turn, with ``.System``, ``.Prompt`` and ``.Response``, and the last time only up
to where the response begins. (Ollama forgets a question whose answer was empty.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import Any, Final

from registry.gotemplate import Template, parse
from registry.gotemplate.nodes import (
    Action,
    Arm,
    Body,
    Branch,
    Command,
    Field,
    Node,
    Pipe,
    Range,
    Variable,
)
from runtime.gotemplate.data import message_of, tools_of
from runtime.gotemplate.evaluating import execute
from runtime.gotemplate.values import NotShown

_RESPONSE: Final = Action(Pipe(1, (Command((Field(("Response",)),)),)))
_THINKING: Final = frozenset({"Think", "Thinking"})
_JOIN: Final = "\n\n"
_Dict = dict[str, Any]


@dataclass(frozen=True, slots=True)
class GoChat:
    """A chat template in Go's language.

    Args:
        template: Parsed.
    """

    template: Template

    @classmethod
    def parse(cls, source: str) -> GoChat:
        """Read a template.

        Raises:
            UsageError: It does not parse.
        """
        return cls(whole(source))

    def render(
        self, messages: Sequence[_Dict], tools: Sequence[_Dict], *, think: bool | None
    ) -> str:
        """A conversation, up to where the assistant speaks.

        Args:
            messages: With the keys that Jinja templates know.
            tools: As clients describe them.
            think: Whether the model shall think; None leaves it to the template: one that speaks
                of thinking thinks, as in Ollama.

        Raises:
            GoError: The template fails.
            NotShown: It has no place for some of these messages.
        """
        if think is None and self.template.fields & _THINKING:
            think = True
        common = {"Think": bool(think), "ThinkLevel": "", "IsThinkSet": think is not None}
        merged = _merged(messages)
        if "Messages" not in self.template.fields:
            return self._by_turns(merged, common)
        system = [message["content"] for message in messages if message["role"] == "system"]
        return execute(
            self.template,
            {
                "System": _JOIN.join(system),
                "Messages": [message_of(message) for message in merged],
                "Tools": tools_of(tools),
                "Response": "",
                **common,
            },
        )

    def _by_turns(self, messages: Sequence[_Dict], common: _Dict) -> str:
        parts: list[str] = []
        turn: _Dict = {}
        for message in messages:
            name = _TURNS.get(message["role"])
            if name is None or message.get("tool_calls"):
                raise NotShown("it shows neither calls of tools nor what came of them")
            if any(later in turn for later in _BEHIND[name]):
                parts.append(execute(self.template, _NOTHING | turn | common))
                turn = {}
            turn[name] = message["content"]
        if "Response" in turn:
            parts.append(execute(self.template, _NOTHING | turn | common))
            turn = {}
        opening = _up_to_response(self.template.body)[0]
        return "".join([*parts, execute(self.template, _NOTHING | turn | common, opening)])


_NOTHING: Final[_Dict] = {"System": "", "Prompt": "", "Response": ""}
_TURNS: Final = {"system": "System", "user": "Prompt", "assistant": "Response"}
_BEHIND: Final = {"System": ("Prompt", "Response"), "Prompt": ("Response",), "Response": ()}


def whole(source: str) -> Template:
    """A template, parsed; one that shows no answers has them at its end.

    Raises:
        UsageError: It does not parse.
    """
    template = parse(source.replace("\r\n", "\n"))
    if template.fields & {"Messages", "Response"}:
        return template
    return replace(
        template, body=(*template.body, _RESPONSE), fields=template.fields | {"Response"}
    )


@lru_cache(maxsize=512)  # asked for every model whenever models are listed
def capabilities(source: str) -> tuple[str, ...]:
    """Of ``tools`` and ``thinking``, what a template speaks of.

    Raises:
        UsageError: It does not parse.
    """
    fields = whole(source).fields
    said = (("tools", fields & {"Tools"}), ("thinking", fields & _THINKING))
    return tuple(name for name, found in said if found)


def _merged(messages: Sequence[_Dict]) -> list[_Dict]:
    """Neighbours of one role as one message, but for the results of tools."""
    found: list[_Dict] = []
    for role, group in groupby(messages, key=lambda message: message["role"]):
        several = list(group)
        if role == "tool":
            found += several
            continue
        first = dict(several[0])
        first["content"] = _JOIN.join(message["content"] for message in several)
        found.append(first)
    return found


def _up_to_response(body: Body) -> tuple[Body, bool]:
    """What stands up to the first action that shows the response, and whether there is one."""
    kept: list[Node] = []
    for node in body:
        part, found = _part_to_response(node)
        kept.append(part)
        if found:
            return tuple(kept), True
    return body, False


def _part_to_response(node: Node) -> tuple[Node, bool]:
    match node:
        case Action():
            return node, _shows_response(node.pipe)
        case Range():
            body, found = _up_to_response(node.body)
            if found:
                return replace(node, body=body, otherwise=()), True
            otherwise, found = _up_to_response(node.otherwise)
            return replace(node, otherwise=otherwise), found
        case Branch():
            return _branch_to_response(node)
    return node, False


def _branch_to_response(node: Branch) -> tuple[Node, bool]:
    arms: list[Arm] = []
    for number, arm in enumerate(node.arms):
        body, found = _up_to_response(arm.body)
        arms.append(replace(arm, body=body))
        if found:
            # The conditions behind stay, so that nothing that they keep away is run.
            later = [replace(each, body=()) for each in node.arms[number + 1 :]]
            return Branch((*arms, *later)), True
    otherwise, found = _up_to_response(node.otherwise)
    return Branch(node.arms, otherwise), found


def _shows_response(pipe: Pipe) -> bool:
    for command in pipe.commands:
        for word in command.words:
            if isinstance(word, Field | Variable) and "Response" in word.names:
                return True
            if isinstance(word, Pipe) and _shows_response(word):
                return True
    return False
