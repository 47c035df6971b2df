"""Commands that ask the running server: run, ps, stop."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.cli import JsonFlag, Output
from schemas.errors import UsageError

if TYPE_CHECKING:
    from runtime.cli.chat import Conversation
    from runtime.client import Client

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="As in library/smollm2:135m.")]


def connect() -> Client:
    """The client of the server that the settings name."""
    from runtime.client import Address, Client
    from schemas.settings import load

    return Client(Address.parse(load().serve.host))


def run_model(
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
    json: JsonFlag = False,
) -> None:
    """Talk with a model, or ask it one question. What is piped in comes before the question."""
    from runtime.cli.chat import Conversation
    from schemas.settings import parse_duration_ms

    if keepalive is not None:
        parse_duration_ms(keepalive)  # a wrong one is told before anything is loaded
    conversation = Conversation(model, keep_alive=keepalive, format=output_format)
    question = " ".join([*_piped(), *(prompt or ())])
    output = Output(json=json)
    client = connect()
    if question:
        _ask_once(client, conversation, question, output, verbose=verbose)
    elif sys.stdin.isatty() and sys.stdout.isatty() and not json:
        _converse(client, conversation, output, verbose=verbose)
    else:
        raise UsageError("nothing to ask", hint="Give a prompt, or pipe one in")


def _piped() -> list[str]:
    if sys.stdin.isatty():
        return []
    from schemas import limits

    data = sys.stdin.buffer.read(limits.PIPED_PROMPT_BYTES + 1)
    if len(data) > limits.PIPED_PROMPT_BYTES:
        raise UsageError("the piped prompt is too large", why=f"over {limits.PIPED_PROMPT_BYTES} B")
    text = data.decode("utf-8", "replace")
    return [text] if text.strip() else []


def _ask_once(
    client: Client, conversation: Conversation, question: str, output: Output, *, verbose: bool
) -> None:
    from runtime.cli import render
    from runtime.cli.chat import pieces

    body = {**conversation.base(), "prompt": question, "stream": True}
    text, last = pieces(client.stream("/api/generate", body), output)
    if verbose:
        render.timings(output, last)
    figures = {key: value for key, value in last.items() if key not in ("response", "context")}
    output.result({**figures, "response": text})


def _converse(client: Client, conversation: Conversation, output: Output, *, verbose: bool) -> None:
    from runtime.cli.chat import Shell
    from runtime.cli.history import History

    client.post("/api/generate", {**conversation.base(), "stream": False})  # loads the model
    with History() as history:
        shell = Shell(client, conversation, output, input, remember=history.switch, verbose=verbose)
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
