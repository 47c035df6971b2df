"""The interactive session of ``sealift run``: what a person types, line by line, and what it means.

:class:`Composer` and :class:`Conversation` are pure; :class:`Shell` joins them to a terminal and to
the server.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from runtime.cli import render
from runtime.client import Client
from runtime.options import Options, parse_options
from schemas.errors import SealiftError, UsageError
from schemas.render import Output, report

QUOTES: Final = '"""'
PROMPT: Final = ">>> "
CONTINUED: Final = "... "

COMMANDS: Final = """\
Commands:
  /set parameter NAME VALUE   a sampling option, such as temperature 0.2
  /set system TEXT            the system message
  /set verbose, /set quiet    show timings after each answer, or not
  /set history, /set nohistory  remember the lines typed, or not
  /show info|license|modelfile|parameters|system|template
  /clear                      forget the conversation so far
  /bye                        leave
  /?, /help                   this text

Use \"\"\" to begin and to end a message of several lines. Ctrl-C stops an answer, Ctrl-D leaves.
"""
SHOWABLE: Final = ("info", "license", "modelfile", "parameters", "system", "template")


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
        system: The system message; None for the model's own.
        options: Sampling options set by hand.
        messages: The turns so far.
    """

    model: str
    keep_alive: str | None = None
    format: str | None = None
    system: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, str]] = field(default_factory=list)

    def request(self, text: str) -> dict[str, Any]:
        """The body of ``/api/chat`` for the next turn."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        turn = {"role": "user", "content": text}
        return {**self.base(), "messages": [*system, *self.messages, turn], "stream": True}

    def base(self) -> dict[str, Any]:
        """What every request says, whatever it asks."""
        fields: dict[str, Any] = {"model": self.model, "options": self.options or None}
        fields |= {"keep_alive": self.keep_alive, "format": self.format}
        return {key: value for key, value in fields.items() if value is not None}

    def remember(self, question: str, answer: str) -> None:
        """Add a turn that was answered, be it in part."""
        self.messages.append({"role": "user", "content": question})
        self.messages.append({"role": "assistant", "content": answer})

    def set_parameter(self, name: str, words: list[str]) -> None:
        """``/set parameter NAME VALUE…``.

        Raises:
            UsageError: An unknown name, or a value that it cannot have.
        """
        if not words:
            raise UsageError(f"parameter {name!r} needs a value", hint="/set parameter NAME VALUE")
        value = words if name == "stop" else _literal(words[0])
        if parse_options({name: value}) == Options():
            raise UsageError(f"parameter {name!r} is unknown, or has no effect here")
        self.options[name] = value


def _literal(text: str) -> object:
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


class Shell:
    """The session itself.

    Args:
        client: To the server.
        conversation: Where to begin.
        output: Where words go.
        read: Reads one line after a prompt: ``input``. EOFError ends the session.
        remember: Switches the history of lines typed on and off.
        verbose: Whether timings follow each answer.
    """

    def __init__(
        self,
        client: Client,
        conversation: Conversation,
        output: Output,
        read: Callable[[str], str],
        *,
        remember: Callable[[bool], None],
        verbose: bool,
    ) -> None:
        self._client = client
        self._conversation = conversation
        self._output = output
        self._read = read
        self._remember = remember
        self._verbose = verbose
        self._composer = Composer()

    def loop(self) -> None:
        """Read and answer until the person leaves."""
        while True:
            try:
                line = self._read(CONTINUED if self._composer.open else PROMPT)
            except EOFError:
                self._output.text("")
                return
            except KeyboardInterrupt:
                self._composer.abandon()
                self._output.text("\nUse Ctrl-D or /bye to leave.")
                continue
            text = self._composer.feed(line)
            if not text:
                continue
            if text in ("/bye", "/exit"):
                return
            try:
                self._handle(text)
            except SealiftError as error:
                report(error, as_json=False)

    def _handle(self, text: str) -> None:
        verb, _, rest = text.partition(" ")
        match verb:
            case "/?" | "/help":
                self._output.text(COMMANDS, end="")
            case "/clear":
                self._conversation.messages.clear()
                self._output.line("Forgot the conversation so far.")
            case "/set":
                self._set(rest.strip())
            case "/show":
                self._show(rest.strip())
            case _ if text.startswith("/") and "/" not in verb[1:]:
                raise UsageError(f"unknown command {verb!r}", hint="Type /? for help")
            case _:
                self._ask(text)

    def _set(self, rest: str) -> None:
        what, _, value = rest.partition(" ")
        match what:
            case "parameter":
                name, *words = value.split() or [""]
                self._conversation.set_parameter(name, words)
                self._output.line(f"Set parameter {name} to {' '.join(words)}.")
            case "system":
                self._conversation.system = value.strip().strip('"') or None
                self._output.line("Set the system message.")
            case "verbose" | "quiet":
                self._verbose = what == "verbose"
                self._output.line(f"Timings are {'shown' if self._verbose else 'not shown'}.")
            case "history" | "nohistory":
                self._remember(what == "history")
                self._output.line(f"Lines typed are {'' if what == 'history' else 'not '}kept.")
            case _:
                raise UsageError(f"cannot set {what!r}", hint="Type /? for help")

    def _show(self, what: str) -> None:
        if what not in SHOWABLE:
            raise UsageError(f"cannot show {what!r}", hint=f"One of: {', '.join(SHOWABLE)}")
        document = self._client.post("/api/show", {"model": self._conversation.model})
        if what == "info":
            render.model_page(self._output, document)
            return
        text = str(document.get(what) or "")
        if what == "system" and self._conversation.system:
            text = self._conversation.system
        self._output.text(text or f"The model has no {what}.")
        if what == "parameters" and self._conversation.options:
            self._output.line("Set in this session:")
            self._output.fields(self._conversation.options.items(), indent=2)

    def _ask(self, text: str) -> None:
        stream = self._client.stream("/api/chat", self._conversation.request(text))
        answer, last = pieces(stream, self._output, stoppable=True)
        if answer or last:
            self._output.text("")
            self._conversation.remember(text, answer)
        if self._verbose:
            render.timings(self._output, last)


def pieces(
    stream: Generator[dict[str, Any]], output: Output, *, stoppable: bool = False
) -> tuple[str, Mapping[str, Any]]:
    """Show an answer as it comes.

    Args:
        stream: The lines of ``/api/chat`` or ``/api/generate``.
        output: Where it is shown.
        stoppable: Whether Ctrl-C ends the answer alone, not the program.

    Returns:
        The whole text, and the last line with the figures.
    """
    text: list[str] = []
    last: Mapping[str, Any] = {}
    try:
        for last in stream:
            text.append(_content(last))
            output.text(text[-1], end="")
    except KeyboardInterrupt:
        if not stoppable:
            raise
    finally:
        stream.close()  # and with it the connection, so that the server stops too
        if any(text):  # what follows stands on a line of its own
            output.text("")
    return "".join(text), last


def _content(piece: Mapping[str, Any]) -> str:
    message = piece.get("message")
    found = message.get("content") if isinstance(message, dict) else piece.get("response")
    return found if isinstance(found, str) else ""
