"""What both commands share: how an app is made, and the one ``except`` around it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from inspect import unwrap
from io import TextIOWrapper
from typing import Annotated, Any, Final

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from schemas.errors import SealiftError, UsageError
from schemas.render import Meter, Output, complain, report

__all__ = ["Deferred", "Deferring", "JsonFlag", "Meter", "Output", "QuietFlag", "new_app", "run"]

INTERRUPTED: Final = 130  # 128 + SIGINT, as shells report it
PIPE_CLOSED: Final = 141  # 128 + SIGPIPE: the reader of our output went away

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")]


def new_app(help_text: str, **options: Any) -> typer.Typer:
    """A Typer app of ours: plain help (Rich would cost 80 ms per start), our own error lines.

    Args:
        help_text: What ``--help`` says first.
        options: Passed on to :class:`typer.Typer`.
    """
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **options,
    )


class Deferred(TyperCommand):
    """Stands for a group, so that help need not import it: its function returns the group's app.

    Its function's description is that of the group. Add it without a help option of its own.
    """

    def group(self) -> TyperGroup:
        """What it stands for."""
        return typer.main.get_group(unwrap(self.callback)())  # type: ignore[arg-type]


class Deferring(TyperGroup):
    """Imports a group when it is called, and not before."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command that the first argument names."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.group() if isinstance(command, Deferred) else command, rest


def run(app: typer.Typer, argv: Sequence[str] | None = None, *, name: str) -> int:
    """Run a command line. Every failure ends here, as one line and an exit code.

    Args:
        app: The Typer app; its commands return nothing, raise :class:`SealiftError`, or
            ``typer.Exit(code)`` where a result is no error but not 0 either.
        argv: Arguments without the program's name; by default the process's own.
        name: The program's name for help, as in ``sealift``.

    Returns:
        The exit code: 0, the error's own, 1 for a defect of ours, 2 for wrong usage, 130 after an
        interrupt, 141 where the reader of our output went away.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names that the locale cannot encode still print
            stream.reconfigure(errors="backslashreplace")
    try:
        return _guarded(app, arguments, name)
    except BrokenPipeError:
        # Python flushes once more on its way out; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def _guarded(app: typer.Typer, arguments: list[str], name: str) -> int:
    as_json = "--json" in arguments[: arguments.index("--") if "--" in arguments else None]
    try:
        result = typer.main.get_command(app)(arguments, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except SealiftError as error:
        return _failed(error, as_json=as_json)
    except typer.TyperException as error:
        return _misused(error, name, as_json=as_json)
    except SystemExit as stop:
        # In this mode Typer itself exits for two reasons: shell completion (0), a closed pipe (1).
        return PIPE_CLOSED if stop.code == 1 else 0
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the last line of defence; a defect of ours
        why = f"{type(error).__name__}: {error}"
        hint = "Set SEALIFT_DEBUG=1 to see where, and please report it"
        return _failed(SealiftError("internal error", why=why, hint=hint), as_json=as_json)


def _failed(error: SealiftError, *, as_json: bool) -> int:
    if os.environ.get("SEALIFT_DEBUG"):
        complain(traceback.format_exc())
    report(error, as_json=as_json)
    return error.exit_code


def _misused(error: typer.TyperException, name: str, *, as_json: bool) -> int:
    message = error.format_message()
    if "\n" in message:  # a group called without a command: the message is its help
        complain(message)
        return UsageError.exit_code
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else name
    what = message.rstrip(".")
    usage = UsageError(what[:1].lower() + what[1:], hint=f"See {path} --help")
    report(usage, as_json=as_json)
    return usage.exit_code
