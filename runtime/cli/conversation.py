"""What a person types in ``sealift run``, line by line, and what the server is told. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from runtime.options import Options, parse_options, read_parameter
from schemas import limits
from schemas.errors import StorageFailure, UsageError

QUOTES: Final = '"""'
# A path as Ollama finds it in a prompt: from a slash, or a dot and a slash, to a picture's suffix.
_PICTURE: Final = re.compile(r"(?<!\S)(?:\./|\.\./|~/|/)(?:\\ |\S)+\.(?i:jpe?g|png|webp)\b")


class Composer:
    r'''Lines in, messages out: a message that begins with three quotes ends with three quotes.

    >>> composer = Composer()
    >>> composer.feed('"""one'), composer.feed('two"""')
    (None, 'one\ntwo')
    '''

    def __init__(self) -> None:
        self._lines: list[str] | None = None
        self._prefix = ""

    @property
    def open(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._lines is not None

    def feed(self, line: str) -> str | None:
        """The message that this line completes, or None."""
        if self._lines is None:
            head = "/set system " if line.startswith(f"/set system {QUOTES}") else ""
            if not line.startswith(head + QUOTES):
                return line.strip()
            self._lines, self._prefix = [], head
            line = line[len(head) + len(QUOTES) :]
        ended = line.rstrip().endswith(QUOTES)
        self._lines.append(line.rstrip()[: -len(QUOTES)] if ended else line)
        if not ended:
            return None
        text = self._prefix + "\n".join(self._lines)
        self._lines = None
        return text

    def abandon(self) -> None:
        """Forget a message that has begun."""
        self._lines = None


@dataclass(slots=True)
class Conversation:
    """What the server is told with every turn; it keeps nothing itself.

    Attributes:
        model: Its name.
        keep_alive: How long the model stays loaded, as typed; None leaves it to the server.
        format: ``json`` or None.
        think: Whether the model shall think first, or how much; None leaves it to the model.
        system: The system message; None for the model's own.
        options: Sampling options set by hand.
        messages: The turns so far.
    """

    model: str
    keep_alive: str | None = None
    format: str | None = None
    think: bool | str | None = None
    system: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)

    def request(self, text: str, images: list[str] | None = None) -> dict[str, Any]:
        """The body of ``/api/chat`` for the next turn."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        turn = _turn(text, images)
        return {**self.base(), "messages": [*system, *self.messages, turn], "stream": True}

    def base(self) -> dict[str, Any]:
        """What every request says, whatever it asks."""
        fields: dict[str, Any] = {"model": self.model, "options": self.options or None}
        fields |= {"keep_alive": self.keep_alive, "format": self.format, "think": self.think}
        return {key: value for key, value in fields.items() if value is not None}

    def saved(self, name: str) -> dict[str, Any]:
        """The body of ``/api/create`` that makes a model of this conversation."""
        turns = [{"role": m["role"], "content": m["content"]} for m in self.messages]
        fields = {"system": self.system, "parameters": self.options, "messages": turns}
        kept = {key: value for key, value in fields.items() if value}
        return {"model": name, "from": self.model, **kept, "stream": False}

    def remember(self, question: str, answer: str, images: list[str] | None = None) -> None:
        """Add a turn that was answered, be it in part."""
        self.messages.append(_turn(question, images))
        self.messages.append({"role": "assistant", "content": answer})

    def set_parameter(self, name: str, words: list[str]) -> None:
        """``/set parameter NAME VALUE…``.

        Raises:
            UsageError: An unknown name, or a value that it cannot have.
        """
        if not words:
            raise UsageError(f"parameter {name!r} needs a value", hint="/set parameter NAME VALUE")
        value = read_parameter(name, words)
        if parse_options({name: value}) == Options():
            raise UsageError(f"parameter {name!r} is unknown, or has no effect here")
        self.options[name] = value


def _turn(text: str, images: list[str] | None) -> dict[str, Any]:
    return {"role": "user", "content": text, **({"images": images} if images else {})}


def pictures(text: str) -> tuple[str, list[Path]]:
    """Paths of pictures that are there, and the text without them.

    A path that leads nowhere is text like any other.
    """
    found: list[Path] = []

    def take(match: re.Match[str]) -> str:
        path = Path(match[0].replace("\\ ", " ")).expanduser()
        if not path.is_file():
            return match[0]
        found.append(path)
        return ""

    rest = _PICTURE.sub(take, text)
    return (rest.strip() if found else text), found


def attached(text: str, sees: Callable[[], bool], name: str) -> tuple[str, list[str], list[Path]]:
    """A prompt's text, its pictures in base64, and their paths.

    Args:
        text: As it was typed.
        sees: Whether the model takes pictures; asked only if there is one.
        name: Of the model.

    Raises:
        UsageError: The model takes none, or one is too large.
        StorageFailure: One cannot be read.
    """
    rest, paths = pictures(text)
    if not paths:
        return text, [], []
    if not sees():
        raise UsageError(
            f"model {name!r} does not take images", why=f"there is one at {paths[0]}",
            hint="Leave the path out, or ask a model that sees",
        )  # fmt: skip
    return rest, [_encoded(path) for path in paths], paths


def _encoded(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(limits.HTTP_BODY_BYTES // 2)
    except OSError as error:
        raise StorageFailure(f"cannot read {path}", why=str(error.strerror)) from None
    if len(data) >= limits.HTTP_BODY_BYTES // 2:
        raise UsageError(f"{path} is too large for a request")
    return base64.b64encode(data).decode("ascii")
