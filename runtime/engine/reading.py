"""From the text of an answer to its parts: content, thinking, tool calls. Fed piece by piece.

What could be the beginning of a mark is held back until it is clear that it is none. What comes out
depends on the text only, not on how it was split.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from runtime.engine.dialect import Arguments, Calls, Dialect

_PYTHON: Final = "<|python_tag|>"  # Llama's, before some of its calls
_BEHIND_BARE: Final = " \t\r\n};"  # the call's own brace, and what stands between calls
_NAME: Final = re.compile(
    r'\s*\{\s*"name"\s*:\s*"((?:[^"\\]|\\.)*)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
_FUNCTION: Final = re.compile(r"\s*<function=([^>\n]+)>(.*?)</function>\s*", re.DOTALL)
_PARAMETER: Final = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of an answer.

    Attributes:
        text: Content, thinking, or some of a call's arguments (JSON).
        thinking: Whether it is thinking.
        call: Number of the call, from 0; -1 for text.
        name: Of the tool, with a call's first part.
        last: Whether the call is complete with it.
    """

    text: str
    thinking: bool = False
    call: int = -1
    name: str = ""
    last: bool = False


class _State(Enum):
    BEGINNING = auto()  # nothing but white space so far
    THINKING = auto()
    CONTENT = auto()
    CALL = auto()


class Reader:
    """Takes one answer apart.

    Args:
        dialect: The model's.
        tools: Names of the tools that may be called; empty if none may.
        thinking: Whether the prompt ends inside of the thinking.
    """

    def __init__(
        self, dialect: Dialect, tools: Collection[str] = (), *, thinking: bool = False
    ) -> None:
        self._thinking = dialect.thinking
        self._calls = dialect.calls if tools else None
        self._tools = frozenset(tools)
        self._state = _State.THINKING if thinking else _State.BEGINNING
        self._held = ""
        self._spaces = ""  # at the end of content: not shown if a call follows
        self._started = False  # whether anything of the present stretch was shown
        self._number = 0
        self._braces: _Braces | None = None  # of the call whose arguments are coming

    @property
    def thinking(self) -> bool:
        """Whether the answer is in its thinking now."""
        return self._state is _State.THINKING

    @property
    def called(self) -> bool:
        """Whether a call was made."""
        return self._number > 0

    def feed(self, text: str) -> list[Part]:
        """Take more text; return the parts that are clear now."""
        self._held += text
        parts: list[Part] = []
        while True:
            before = (self._state, len(self._held), self._number)
            parts += self._step()
            if (self._state, len(self._held), self._number) == before:
                return _merged(parts)

    def finish(self) -> list[Part]:
        """The answer ended here: what was held back is what it looks like."""
        parts: list[Part] = []
        if self._state is _State.CALL and self._calls is not None:
            parts += self._end_call(self._held)
        elif self._held:
            parts += self._show(self._held, thinking=self.thinking)
        if self._spaces and self._state is _State.CONTENT:
            parts.append(Part(self._spaces))
        self._held = ""
        return _merged(parts)

    # -- states -----------------------------------------------------------------------------------

    def _step(self) -> Iterator[Part]:
        match self._state:
            case _State.THINKING:
                yield from self._think()
            case _State.CALL:
                yield from self._call()
            case _:
                yield from self._content()

    def _think(self) -> Iterator[Part]:
        closing = self._thinking[1] if self._thinking else ""
        at = self._held.find(closing)
        if at < 0:
            yield from self._show_all_but(_could_begin(self._held, [closing]), thinking=True)
            return
        yield from self._show(self._held[:at], thinking=True)
        self._held = self._held[at + len(closing) :]
        self._enter(_State.BEGINNING)

    def _content(self) -> Iterator[Part]:
        begins = self._state is _State.BEGINNING
        if begins:
            bare = self.called and self._calls is not None and not self._calls.opening
            self._held = self._held.lstrip(_BEHIND_BARE if bare else None)
            if not self._held:
                return
        marks: list[str] = []
        if self._calls is not None and self._calls.opening:
            marks.append(self._calls.opening)
        if begins and self._thinking is not None:
            if self._held.startswith(self._thinking[0]):
                self._held = self._held[len(self._thinking[0]) :]
                self._enter(_State.THINKING)
                return
            if self._thinking[0].startswith(self._held):
                return
        if begins and self._calls is not None and not self._calls.opening:
            if _PYTHON.startswith(self._held):
                return
            if self._held.removeprefix(_PYTHON).lstrip()[:1] == "{":
                self._held = self._held.removeprefix(_PYTHON).lstrip()
                self._enter(_State.CALL)
                return
        found = [(at, mark) for mark in marks if (at := self._held.find(mark)) >= 0]
        if found:
            at, mark = min(found)
            yield from self._show(self._held[:at])
            self._held = self._held[at + len(mark) :]
            self._enter(_State.CALL)
            return
        keep = _could_begin(self._held, marks)
        if len(self._held) > keep:
            self._state = _State.CONTENT
        yield from self._show_all_but(keep)

    def _call(self) -> Iterator[Part]:
        calls = self._calls
        if calls is None:
            return
        if calls.form is Arguments.OBJECT:
            yield from self._stream(calls)
            if self._state is not _State.CALL or (self._braces and not self._braces.closed):
                return
        if calls.closing and (at := self._held.find(calls.closing)) >= 0:
            text, self._held = self._held[:at], self._held[at + len(calls.closing) :]
            yield from self._end_call(text)
            self._enter(_State.BEGINNING)

    def _stream(self, calls: Calls) -> Iterator[Part]:
        """Show the arguments of a call as they come, once its name is known."""
        name = ""
        if self._braces is None:
            head = _NAME.match(self._held)
            if head is None or (name := _unescaped(head[1])) not in self._tools:
                if not calls.opening and _is_no_call(self._held, self._tools):
                    self._state = _State.CONTENT  # it happens to begin with a brace
                return
            self._held = self._held[head.end() :]
            self._braces = _Braces()
        if self._braces.closed:
            return  # only the closing mark is waited for
        end, closed = self._braces.feed(self._held)
        text, self._held = self._held[:end], self._held[end:]
        if text:
            yield Part(text, call=self._number, name=name, last=closed)
        if closed and not calls.closing:
            self._next_call()
            self._enter(_State.BEGINNING)

    def _end_call(self, text: str) -> Iterator[Part]:
        """What lies between the marks is all there."""
        calls = self._calls
        if calls is None:
            return
        if self._braces is not None:  # shown already, or cut off in the middle of its arguments
            if not self._braces.closed:
                yield Part(text, call=self._number, last=True)
            self._next_call()
            return
        found = [call for call in _parse(text, calls) if call[0] in self._tools]
        for name, arguments in found:
            shown = json.dumps(arguments, ensure_ascii=False)
            yield Part(shown, call=self._number, name=name, last=True)
            self._next_call()
        if not found and text.strip():
            yield Part(f"{calls.opening}{text}{calls.closing}".strip())

    # -- helpers ----------------------------------------------------------------------------------

    def _enter(self, state: _State) -> None:
        self._state = state
        self._started = False
        self._spaces = ""

    def _next_call(self) -> None:
        self._number += 1
        self._braces = None

    def _show_all_but(self, keep: int, *, thinking: bool = False) -> Iterator[Part]:
        cut = len(self._held) - keep
        text, self._held = self._held[:cut], self._held[cut:]
        yield from self._show(text, thinking=thinking)

    def _show(self, text: str, *, thinking: bool = False) -> Iterator[Part]:
        """Show text without the white space around thinking, and that before a call."""
        if not self._started:
            text = text.lstrip()
        text = self._spaces + text
        self._spaces = ""
        if thinking or self._calls is not None:
            core = text.rstrip()
            self._spaces = text[len(core) :]
            text = core
        if text:
            self._started = True
            yield Part(text, thinking=thinking)


def _merged(parts: list[Part]) -> list[Part]:
    """Neighbours of one kind as one part."""
    result: list[Part] = []
    for part in parts:
        last = result[-1] if result else None
        if last and last.call == part.call == -1 and last.thinking == part.thinking:
            result[-1] = Part(last.text + part.text, thinking=part.thinking)
        elif last and last.call == part.call >= 0 and not last.last and not part.name:
            result[-1] = Part(last.text + part.text, False, part.call, last.name, part.last)
        else:
            result.append(part)
    return result


def _could_begin(text: str, marks: list[str]) -> int:
    """Length of the longest end of a text with which a mark begins."""
    longest = 0
    for mark in marks:
        for length in range(min(len(mark) - 1, len(text)), longest, -1):
            if text.endswith(mark[:length]):
                longest = length
                break
    return longest


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return ""


def _is_no_call(text: str, tools: Collection[str]) -> bool:
    """Whether an answer that begins with a brace has shown that it is no call."""
    plain = re.sub(r"\s", "", text)
    sign = '{"name":"'
    if not (sign.startswith(plain) or plain.startswith(sign)):
        return True
    name, quote, rest = plain[len(sign) :].partition('"')
    if quote and name not in {re.sub(r"\s", "", tool) for tool in tools}:
        return True
    return bool(quote) and not any(
        key.startswith(rest) or rest.startswith(key)
        for key in (',"arguments":{', ',"parameters":{')
    )


class _Braces:
    """Finds where a JSON object ends that comes piece by piece."""

    def __init__(self) -> None:
        self._depth = 0
        self._inside = False
        self._escaped = False
        self.closed = False

    def feed(self, text: str) -> tuple[int, bool]:
        """Take more text; return how much of it belongs to the object, and whether that is all."""
        for at, char in enumerate(text):
            if self._inside:
                if self._escaped:
                    self._escaped = False
                elif char == "\\":
                    self._escaped = True
                elif char == '"':
                    self._inside = False
            elif char == '"':
                self._inside = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self.closed = True
                    return at + 1, True
        return len(text), False


# -- whole calls ----------------------------------------------------------------------------------


def _parse(text: str, calls: Calls) -> list[tuple[str, dict[str, Any]]]:
    match calls.form:
        case Arguments.TAGS:
            return _tags(text) or _objects(text)
        case Arguments.NAMED:
            return _named(text, calls.mark)
        case Arguments.PYTHON:
            return _python(text)
        case _:
            return _objects(text)


def _objects(text: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return []
    found = []
    for entry in value if isinstance(value, list) else [value]:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            return []
        arguments = entry.get("arguments", entry.get("parameters", {}))
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except (ValueError, RecursionError):
                return []
        if not isinstance(arguments, dict):
            return []
        found.append((entry["name"], arguments))
    return found


def _named(text: str, mark: str) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    for call in text.split("[TOOL_CALLS]"):
        name, _, arguments = call.partition(mark)
        try:
            value = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            return []
        if not isinstance(value, dict):
            return []
        found.append((name.strip(), value))
    return found


def _tags(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for function in _FUNCTION.finditer(text):
        arguments = {m[1].strip(): _value(m[2]) for m in _PARAMETER.finditer(function[2])}
        found.append((function[1].strip(), arguments))
    return found


def _value(text: str) -> Any:
    """A parameter's value: JSON where it is such, else text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _python(text: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        body = ast.parse(text.strip(), mode="eval").body
        calls = body.elts if isinstance(body, ast.List) else [body]
        found = []
        for call in calls:
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)) or call.args:
                return []
            arguments = {k.arg or "": ast.literal_eval(k.value) for k in call.keywords}
            json.dumps(arguments)
            found.append((call.func.id, arguments))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return []
    return found
