"""What a Go template is made of, once it is parsed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Dot:
    """``.``: what the surrounding action is about."""


@dataclass(frozen=True, slots=True)
class Nil:
    """``nil``."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A string, number or boolean."""

    value: str | int | float | bool


@dataclass(frozen=True, slots=True)
class Field:
    """``.A.B``: fields of the dot."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """``$name.A.B``: a variable, with its ``$``, and fields of it."""

    name: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chain:
    """``(…).A.B``: fields of something in parentheses."""

    of: Operand
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Function:
    """The name of a function."""

    name: str


@dataclass(frozen=True, slots=True)
class Command:
    """A function with its arguments, or one operand."""

    words: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pipe:
    """Commands, each of which is given what the one before made.

    Attributes:
        line: Where it begins.
        commands: Not empty.
        names: Variables that are set to the result, with their ``$``.
        declares: Whether they are new.
    """

    line: int
    commands: tuple[Command, ...]
    names: tuple[str, ...] = ()
    declares: bool = False


Operand = Dot | Nil | Literal | Field | Variable | Chain | Function | Pipe


@dataclass(frozen=True, slots=True)
class Text:
    """Text between actions."""

    text: str


@dataclass(frozen=True, slots=True)
class Action:
    """``{{ pipe }}``."""

    pipe: Pipe


@dataclass(frozen=True, slots=True)
class Arm:
    """One ``if`` or ``with`` of a chain of them; ``moves`` the dot if it is a ``with``."""

    pipe: Pipe
    body: Body
    moves: bool


@dataclass(frozen=True, slots=True)
class Branch:
    """``{{ if }} … {{ else if }} … {{ else }} … {{ end }}``, and the same of ``with``."""

    arms: tuple[Arm, ...]
    otherwise: Body = ()


@dataclass(frozen=True, slots=True)
class Range:
    """``{{ range }} … {{ else }} … {{ end }}``."""

    pipe: Pipe
    body: Body
    otherwise: Body = ()


@dataclass(frozen=True, slots=True)
class Leave:
    """``{{ break }}`` or ``{{ continue }}``, by the name of the word."""

    word: str


@dataclass(frozen=True, slots=True)
class Call:
    """``{{ template "name" pipe }}``; a ``block`` is one too."""

    line: int
    name: str
    pipe: Pipe | None


Node = Text | Action | Branch | Range | Leave | Call
Body = tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Template:
    """A whole template.

    Attributes:
        body: What is executed.
        defined: Bodies by the names that ``define`` and ``block`` gave them.
        fields: Every name of a field that stands anywhere in it.
    """

    body: Body
    defined: Mapping[str, Body] = field(default_factory=dict, hash=False)
    fields: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "defined", MappingProxyType(dict(self.defined)))
