"""Commands that ask the running server: run, ps, stop."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from schemas.cli import JsonFlag, Output
from schemas.errors import NotFound, RemoteError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.cli.chat import Conversation
    from runtime.client import Client

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="As in library/smollm2:135m.")]


def connect() -> Client:
    """The client of the server that the settings name."""
    from runtime.client import Client
    from schemas.settings import load

    return Client.of(load().serve)


def run_model(  # noqa: PLR0913 - Ollama's options, typed out of habit
    model: ModelName,
    prompt: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PROMPT]...", help="One question; without it, a conversation."),
    ] = None,
    *,
    keepalive: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Keep the model loaded for, as in 5m; -1 for ever."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show timings.")] = False,
    output_format: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="Such as json.")
    ] = None,
    think: Annotated[
        str | None,
        typer.Option(metavar="true|false|LEVEL", help="Have the model think first, or not."),
    ] = None,
    hide_thinking: Annotated[
        bool, typer.Option("--hidethinking", help="Do not show what it thinks.")
    ] = False,
    no_wrap: Annotated[
        bool, typer.Option("--nowordwrap", help="Break lines anywhere, not between words.")
    ] = False,
    insecure: Annotated[bool, typer.Option("--insecure", hidden=True)] = False,  # noqa: ARG001
    json: JsonFlag = False,
) -> None:
    """Talk with a model, or ask it one question. What is piped in comes before the question."""
    from runtime.cli.chat import Conversation
    from schemas.settings import parse_duration_ms

    if keepalive is not None:
        parse_duration_ms(keepalive)  # a wrong one is told before anything is loaded
    conversation = Conversation(
        model, keep_alive=keepalive, format=output_format, think=_thinking(think)
    )
    question = " ".join([*_piped(), *(prompt or ())])
    output = Output(json=json)
    client = connect()
    show = _Shown(verbose, not hide_thinking, not no_wrap)
    if question:
        _present(
            client, model, output, lambda: _ask_once(client, conversation, question, output, show)
        )
    elif sys.stdin.isatty() and sys.stdout.isatty() and not json:
        _present(client, model, output, lambda: _load(client, conversation))
        _converse(client, conversation, output, show)
    else:
        raise UsageError("nothing to ask", hint="Give a prompt, or pipe one in")


def _thinking(text: str | None) -> bool | str | None:
    if text is None or text in ("high", "medium", "low"):
        return text
    if text not in ("true", "false"):
        raise UsageError(f"cannot think {text[:20]!r}", hint="true, false, high, medium or low")
    return text == "true"


def _piped() -> list[str]:
    if sys.stdin.isatty():
        return []
    from schemas import limits

    data = sys.stdin.buffer.read(limits.PIPED_PROMPT_BYTES + 1)
    if len(data) > limits.PIPED_PROMPT_BYTES:
        raise UsageError("the piped prompt is too large", why=f"over {limits.PIPED_PROMPT_BYTES} B")
    text = data.decode("utf-8", "replace")
    return [text] if text.strip() else []


class _Shown(NamedTuple):
    """What is shown beside the answer."""

    verbose: bool
    thoughts: bool
    wraps: bool


def _present(client: Client, model: str, output: Output, ask: Callable[[], None]) -> None:
    """Ask; if the model is not here, pull it first, where the server has a mirror to pull from."""
    from runtime.cli.manage import transfer

    try:
        ask()
    except NotFound as missing:
        try:
            transfer(client, "/api/pull", model, output)
        except (UsageError, RemoteError):  # no mirror, or no such model there either
            raise missing from None
        ask()


def _ask_once(
    client: Client, conversation: Conversation, question: str, output: Output, show: _Shown
) -> None:
    from runtime.cli import render
    from runtime.cli.chat import pieces
    from runtime.cli.conversation import attached

    def sees() -> bool:
        document = client.post("/api/show", {"model": conversation.model})
        return "vision" in (document.get("capabilities") or ())

    text, images, _ = attached(question, sees, conversation.model)
    body = {**conversation.base(), "prompt": text, "stream": True}
    if images:
        body["images"] = images
    stream = client.stream("/api/generate", body)
    answer, last = pieces(stream, output, thoughts=show.thoughts, wraps=show.wraps)
    if show.verbose:
        render.timings(output, last)
    figures = {key: value for key, value in last.items() if key not in ("response", "context")}
    output.result({**figures, "response": answer})


def _load(client: Client, conversation: Conversation) -> None:
    client.post("/api/generate", {**conversation.base(), "stream": False})


def _converse(client: Client, conversation: Conversation, output: Output, show: _Shown) -> None:
    from runtime.cli.chat import Shell
    from runtime.cli.history import History

    with History() as history:
        shell = Shell(
            client,
            conversation,
            output,
            input,
            remember=history.switch,
            verbose=show.verbose,
            thoughts=show.thoughts,
            wraps=show.wraps,
        )
        output.note("Type a message, or /? for help.")
        shell.loop()


def running(*, json: JsonFlag = False) -> None:
    """List the models that are loaded."""
    from runtime.cli import render

    output = Output(json=json)
    document = connect().get("/api/ps")
    models: Any = document.get("models")
    entries = [m for m in models if isinstance(m, dict)] if isinstance(models, list) else []
    render.running_table(output, entries)
    output.result({"models": entries})


def stop(model: ModelName, *, json: JsonFlag = False) -> None:
    """Unload a model now."""
    output = Output(json=json)
    connect().post("/api/generate", {"model": model, "keep_alive": 0, "stream": False})
    output.line(f"{model} is unloaded.")
    output.result({"model": model, "unloaded": True})
