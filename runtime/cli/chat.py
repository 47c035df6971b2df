"""The interactive session of ``sealift run``: lines from a terminal, answers from the server."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping
from shutil import get_terminal_size
from typing import Any, Final

from runtime.cli import render
from runtime.cli.conversation import Composer, Conversation, attached
from runtime.cli.wrapping import Wrapping
from runtime.client import Client
from schemas.errors import NotFound, SealiftError, UsageError
from schemas.render import Output, report

__all__ = ["Composer", "Conversation", "Shell", "pieces"]

PROMPT: Final = ">>> "
CONTINUED: Final = "... "

COMMANDS: Final = """\
Commands:
  /set parameter NAME VALUE        a sampling option, such as temperature 0.2
  /set system TEXT                 the system message
  /set format json, noformat       answers in JSON, or in any form
  /set think, nothink              have the model think first, or not
  /set verbose, quiet              show timings after each answer, or not
  /set history, nohistory          remember the lines typed, or not
  /set wordwrap, nowordwrap        break lines between words, or anywhere
  /show info, license, modelfile, parameters, system, template
  /load MODEL                      another model, from the beginning
  /save MODEL                      keep system, parameters and turns as a model
  /clear                           forget the conversation so far
  /bye                             leave
  /?, /help                        this text; /? shortcuts for the keys

Use \"\"\" to begin and to end a message of several lines. Ctrl-C stops an answer,
Ctrl-D leaves. Paths of .jpg, .png or .webp files in a message are shown to a
model that sees.
"""
SHORTCUTS: Final = """\
Keys:
  Ctrl-A, Ctrl-E   to the beginning of the line, to its end
  Alt-B, Alt-F     one word back, one word on
  Ctrl-K, Ctrl-U   delete what follows, what comes before
  Ctrl-W           delete the word before
  Ctrl-R           search the lines typed
  Ctrl-L           clear the screen
  Ctrl-C           stop an answer
  Ctrl-D           leave
"""
SHOWABLE: Final = ("info", "license", "modelfile", "parameters", "system", "template")


class Shell:
    """The session itself.

    Args:
        client: To the server.
        conversation: Where to begin.
        output: Where words go.
        read: Reads one line after a prompt: ``input``. EOFError ends the session.
        remember: Switches the history of lines typed on and off.
        verbose: Whether timings follow each answer.
        thoughts: Whether thinking is shown.
        wraps: Whether lines are broken between words.
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
        thoughts: bool = True,
        wraps: bool = True,
    ) -> None:
        self._client = client
        self._conversation = conversation
        self._output = output
        self._read = read
        self._remember = remember
        self._verbose = verbose
        self._thoughts = thoughts
        self._wraps = wraps
        self._composer = Composer()
        self._verbs: Mapping[str, Callable[[str], None]] = {
            "/?": self._help,
            "/help": self._help,
            "/clear": self._clear,
            "/set": self._set,
            "/show": self._show,
            "/load": self._load,
            "/save": self._save,
        }

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
        if verb in self._verbs:
            self._verbs[verb](rest.strip())
        elif text.startswith("/") and "/" not in verb[1:]:
            raise UsageError(f"unknown command {verb!r}", hint="Type /? for help")
        else:
            self._ask(text)

    def _help(self, rest: str) -> None:
        self._output.text(SHORTCUTS if rest.startswith("shortcut") else COMMANDS, end="")

    def _clear(self, _: str) -> None:
        self._conversation.messages.clear()
        self._output.line("Forgot the conversation so far.")

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
            case "format" | "noformat":
                if what == "format" and value.strip() != "json":
                    raise UsageError(f"cannot answer in {value!r}", hint="/set format json")
                self._conversation.format = "json" if what == "format" else None
                self._output.line(f"Answers are in {'JSON' if what == 'format' else 'any form'}.")
            case "think" | "nothink":
                self._conversation.think = what == "think"
                self._output.line(
                    f"The model {'thinks' if what == 'think' else 'does not think'} first."
                )
            case "verbose" | "quiet":
                self._verbose = what == "verbose"
                self._output.line(f"Timings are {'shown' if self._verbose else 'not shown'}.")
            case "history" | "nohistory":
                self._remember(what == "history")
                self._output.line(f"Lines typed are {'' if what == 'history' else 'not '}kept.")
            case "wordwrap" | "nowordwrap":
                self._wraps = what == "wordwrap"
                self._output.line(f"Lines break {'between words' if self._wraps else 'anywhere'}.")
            case "":
                self._help("")
            case _:
                raise UsageError(f"cannot set {what!r}", hint="Type /? for help")

    def _show(self, what: str) -> None:
        if not what:
            self._help("")
            return
        if what not in SHOWABLE:
            raise UsageError(f"cannot show {what!r}", hint=f"One of: {', '.join(SHOWABLE)}")
        document = self._described()
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

    def _described(self) -> dict[str, Any]:
        return self._client.post("/api/show", {"model": self._conversation.model})

    def _load(self, name: str) -> None:
        if not name or " " in name:
            raise UsageError("which model?", hint="/load MODEL")
        before, self._conversation.model = self._conversation.model, name
        try:
            self._client.post("/api/generate", {**self._conversation.base(), "stream": False})
        except NotFound:
            self._conversation.model = before
            raise NotFound(f"couldn't find model '{name}'") from None
        except SealiftError:
            self._conversation.model = before
            raise
        self._conversation.messages.clear()
        self._output.line(f"Loaded model '{name}'.")

    def _save(self, name: str) -> None:
        if not name or " " in name:
            raise UsageError("under which name?", hint="/save MODEL")
        self._client.post("/api/create", self._conversation.saved(name))
        self._output.line(f"Created new model '{name}'.")

    def _sees(self) -> bool:
        return "vision" in (self._described().get("capabilities") or ())

    def _ask(self, text: str) -> None:
        text, images, paths = attached(text, self._sees, self._conversation.model)
        for path in paths:
            self._output.note(f"Added image '{path}'")
        stream = self._client.stream("/api/chat", self._conversation.request(text, images))
        answer, last = pieces(
            stream, self._output, stoppable=True, thoughts=self._thoughts, wraps=self._wraps
        )
        if answer or last:
            self._output.text("")
            self._conversation.remember(text, answer, images)
        if self._verbose:
            render.timings(self._output, last)


def pieces(
    stream: Generator[dict[str, Any]],
    output: Output,
    *,
    stoppable: bool = False,
    thoughts: bool = True,
    wraps: bool = False,
) -> tuple[str, Mapping[str, Any]]:
    """Show an answer as it comes.

    Args:
        stream: The lines of ``/api/chat`` or ``/api/generate``.
        output: Where it is shown.
        stoppable: Whether Ctrl-C ends the answer alone, not the program.
        thoughts: Whether thinking is shown.
        wraps: Whether a terminal's lines are broken between words.

    Returns:
        The whole text without the thinking, and the last line with the figures.
    """
    text: list[str] = []
    last: Mapping[str, Any] = {}
    thinking = shown = False
    wrapping = Wrapping(get_terminal_size().columns if wraps and sys.stdout.isatty() else 0)
    try:
        for last in stream:
            thought, content = _parts(last)
            if thought and thoughts:
                output.text(
                    wrapping.feed(thought if thinking else f"Thinking...\n{thought}"), end=""
                )
                thinking = shown = True
            if content and thinking:
                output.text(wrapping.feed("\n...done thinking.\n\n"), end="")
                thinking = False
            text.append(content)
            output.text(wrapping.feed(content), end="")
    except KeyboardInterrupt:
        if not stoppable:
            raise
    finally:
        stream.close()  # and with it the connection, so that the server stops too
        output.text(wrapping.end(), end="")
        if shown or any(text):  # what follows stands on a line of its own
            output.text("")
    return "".join(text), last


def _parts(piece: Mapping[str, Any]) -> tuple[str, str]:
    """Thinking and content of one line."""
    message = piece.get("message")
    fields = message if isinstance(message, dict) else piece
    thought = fields.get("thinking")
    content = fields.get("content" if isinstance(message, dict) else "response")
    return (
        thought if isinstance(thought, str) else "",
        content if isinstance(content, str) else "",
    )
