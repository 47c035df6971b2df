"""How model families write their thinking and their tool calls: one table.

A family is known by what its chat template says: the template is what the model was trained on. The
signs are those by which llama.cpp (``common/chat.cpp``) and Ollama tell the families apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from runtime.engine.form import WHITE_SPACE, closed


class Arguments(Enum):
    """How a call stands between its marks."""

    OBJECT = auto()  # {"name": …, "arguments": {…}}
    LIST = auto()  # [{"name": …, "arguments": {…}}, …]
    NAMED = auto()  # name, a mark, {…}
    TAGS = auto()  # <function=name><parameter=key>value</parameter>…</function>
    PYTHON = auto()  # [name(key=value), …]


@dataclass(frozen=True, slots=True)
class Calls:
    """A family's way to call tools.

    Attributes:
        opening: Before a call; empty if an answer that begins with ``{`` is one.
        closing: Behind it; empty if only the end of the answer is.
        form: What lies between.
        key: What an object calls its arguments.
        mark: Of :attr:`Arguments.NAMED`: between name and arguments.
    """

    opening: str
    closing: str
    form: Arguments = Arguments.OBJECT
    key: str = "arguments"
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What of an answer is not its content.

    Attributes:
        thinking: Marks before and behind it; None for a model that does not.
        calls: How it calls tools.
    """

    thinking: tuple[str, str] | None
    calls: Calls

    @property
    def marks(self) -> tuple[str, ...]:
        """All marks; some vocabularies have special tokens for them."""
        pair = self.thinking or ()
        return tuple(
            mark
            for mark in (*pair, self.calls.opening, self.calls.closing, self.calls.mark)
            if mark
        )


# Keywords that cannot be enforced are passed over here: a tool checks its arguments itself.
_GUIDANCE: Final = {"whitespace_pattern": WHITE_SPACE, "lenient": True}
_HERMES: Final = Calls("<tool_call>", "</tool_call>")
# The first sign that a template has decides; so those that say more come first.
_CALLS: Final[Sequence[tuple[tuple[str, ...], Calls]]] = (
    (("<tool_call>", "<function="), Calls("<tool_call>", "</tool_call>", Arguments.TAGS)),
    (("[TOOL_CALLS]", "[ARGS]"), Calls("[TOOL_CALLS]", "", Arguments.NAMED, mark="[ARGS]")),
    (("[TOOL_CALLS]",), Calls("[TOOL_CALLS]", "", Arguments.LIST)),
    (
        ("<|tool_call_start|>",),
        Calls("<|tool_call_start|>", "<|tool_call_end|>", Arguments.PYTHON),
    ),
    (("<|tool_call|>",), Calls("<|tool_call|>", "<|/tool_call|>", Arguments.LIST)),
    (("<tool_call>",), _HERMES),
    (("<|python_tag|>",), Calls("", "", key="parameters")),
    (('"parameters"',), Calls("", "", key="parameters")),
)
_THINKING: Final = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("[THINK]", "[/THINK]"),
)


def dialect_of(template: str) -> Dialect:
    """The dialect of a model, by its chat template."""
    thinking = next((pair for pair in _THINKING if pair[1] in template), None)
    calls = next(
        (calls for signs, calls in _CALLS if all(sign in template for sign in signs)), _HERMES
    )
    return Dialect(thinking, calls)


def tool_name(tool: Mapping[str, Any]) -> str:
    """The name of a tool as clients describe it; empty if it has none."""
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else ""


def call_grammar(
    calls: Calls, tools: Sequence[Mapping[str, Any]], token_of: Mapping[str, int], *, many: bool
) -> str:
    """A Lark grammar of answers that call one of some tools, or several in a row.

    Args:
        calls: The family's way.
        tools: As clients describe them: ``{"function": {"name", "parameters"}}``; not empty.
        token_of: Marks that are special tokens of the vocabulary, and which.
        many: Whether more than one call may be made.
    """

    def mark(text: str) -> str:
        if not text:
            return ""
        return f"<[{token_of[text]}]>" if text in token_of else json.dumps(text)

    def schema(tool: Mapping[str, Any]) -> str:
        function = tool["function"]
        parameters = closed(function.get("parameters") or {"type": "object"})
        if calls.form is Arguments.NAMED:
            return json.dumps({**parameters, "x-guidance": _GUIDANCE})
        return json.dumps(
            {
                "x-guidance": _GUIDANCE,
                "type": "object",
                "properties": {"name": {"const": function["name"]}, calls.key: parameters},
                "required": ["name", calls.key],
                "additionalProperties": False,
            }
        )

    rules: list[str] = []
    for number, tool in enumerate(tools):
        name = json.dumps(tool["function"]["name"])
        front = f"{name} {mark(calls.mark)} " if calls.form is Arguments.NAMED else ""
        rules.append(f"tool_{number}: {front}%json {schema(tool)}")
    either = " | ".join(f"tool_{number}" for number in range(len(tools)))
    if calls.form is Arguments.LIST:
        rest = '("," SPACE? one)*' if many else ""
        body = f'{mark(calls.opening)} "[" one {rest} "]" {mark(calls.closing)}'
        start = f"start: {body}"
    else:
        call = f"{mark(calls.opening)} SPACE? one SPACE? {mark(calls.closing)}"
        start = f"start: {call}" + (f" (SPACE? {call})*" if many and calls.opening else "")
    return "\n".join((start, f"one: {either}", *rules, r"SPACE: /[ \n]/"))
