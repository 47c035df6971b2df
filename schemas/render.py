"""What the commands print, for people or for scripts. Nothing below a CLI prints at all.

Results go to standard output; progress, notes, warnings and errors to standard error. All text
passes :func:`one_line` or :func:`harmless` first, so that no escape sequence out of a name, a
template or a model's answer reaches the terminal (CWE-150).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from schemas.errors import SealiftError

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

# C0 and DEL become their visible pictures (U+2400…), C1 and the bidirectional overrides a question
# mark: the former drive the terminal, the latter reorder what a person reads (CVE-2021-42574).
_PICTURES: Final = {c: chr(0x2400 + c) for c in range(0x20)} | {0x7F: "\u2421"}
_HIDDEN: Final = (
    *range(0x80, 0xA0),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
    0x2028,
    0x2029,
)
_ONE_LINE: Final = _PICTURES | dict.fromkeys(_HIDDEN, "?")
_TEXT: Final = {k: v for k, v in _ONE_LINE.items() if chr(k) not in "\n\t"}

# Select Graphic Rendition (ECMA-48, 8.3.117): the few that every terminal has.
_BOLD: Final = "1"
_RED: Final = "1;31"
_YELLOW: Final = "33"

_UNITS: Final = ("B", "KB", "MB", "GB", "TB")
_NAME_CHARS: Final = 30
_PLAIN_SECONDS: Final = 5.0  # between two lines of progress where there is no terminal


def harmless(text: str) -> str:
    """Text of several lines, with every control character but newline and tab made visible."""
    return text.replace("\r\n", "\n").translate(_TEXT)


def one_line(text: object) -> str:
    """As :func:`harmless`, newlines and tabs made visible too."""
    return str(text).translate(_ONE_LINE)


def bytes_text(count: int) -> str:
    """Bytes for people, in powers of 1000 as Ollama counts: ``93 MB``, ``1.2 GB``."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    digits = f"{value:.1f}" if value < 10 and value != int(value) else str(int(value))
    return f"{digits} {_UNITS[unit]}"


def duration_text(seconds: float) -> str:
    """A time span for people: ``350ms``, ``4.2s``, ``3m12s``, ``2h5m``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60}m"


def age_text(moment: datetime, now: datetime | None = None) -> str:
    """A moment relative to now, in Ollama's words: ``2 hours ago``, ``4 minutes from now``."""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    span = _span(int(abs(seconds)))
    return f"{span} ago" if seconds >= 0 else f"{span} from now"


def _span(seconds: int) -> str:
    hours = round(seconds / 3600)
    steps: tuple[tuple[bool, str], ...] = (
        (seconds < 1, "Less than a second"),
        (seconds == 1, "1 second"),
        (seconds < 60, f"{seconds} seconds"),
        (seconds < 120, "About a minute"),
        (seconds < 3600, f"{seconds // 60} minutes"),
        (hours <= 1, "About an hour"),
        (hours < 48, f"{hours} hours"),
        (hours < 24 * 14, f"{hours // 24} days"),
        (hours < 24 * 60, f"{hours // 24 // 7} weeks"),
        (hours < 24 * 365 * 2, f"{hours // 24 // 30} months"),
    )
    return next((text for fits, text in steps if fits), f"{hours // 24 // 365} years")


class Meter(Protocol):
    """A running progress display."""

    def begin(self, name: str, size: int) -> None:
        """A new piece of work: its name, its size in bytes (0 where unknown)."""
        ...

    def advance(self, count: int) -> None:
        """So many more bytes of it are done."""
        ...


class Output:
    """Where one command's words go.

    Args:
        json: Print nothing but the result document.
        quiet: Print nothing but results, warnings and errors.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet

    @property
    def terminal(self) -> bool:
        """Whether a person watches standard error, where progress is drawn."""
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    @property
    def interactive(self) -> bool:
        """Whether somebody can be asked."""
        return self.terminal and sys.stdin.isatty()

    def line(self, text: str = "") -> None:
        """One line of a result for people; with ``--json`` nothing."""
        if not self.json:
            _print(one_line(text), sys.stdout)

    def text(self, text: str, *, end: str = "\n") -> None:
        """Text of several lines (a template, an answer's next piece), shown at once."""
        if not self.json:
            _print(harmless(text), sys.stdout, end=end)

    def pictures(self, text: str) -> None:
        """Text that is meant to drive the terminal, made here alone (QR codes)."""
        if not self.json:
            _print(text, sys.stdout, end="")

    def note(self, text: str) -> None:
        """A remark beside the result; with ``--json`` or ``--quiet`` nothing."""
        if not (self.json or self.quiet):
            _print(one_line(text), sys.stderr)

    def warn(self, text: str) -> None:
        """A warning; shown even with ``--quiet``."""
        _print(f"{_styled('warning:', _YELLOW, sys.stderr)} {one_line(text)}", sys.stderr)

    def table(
        self, headers: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()
    ) -> None:
        """Columns as wide as their content, two spaces apart.

        Args:
            headers: One per column; upper case, as Ollama's.
            rows: Cells in the order of the headers.
            right: Headers of the columns set flush right.
        """
        if self.json:
            return
        lines = [tuple(headers), *(tuple(one_line(cell) for cell in row) for row in rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
        for number, line in enumerate(lines):
            cells = (
                cell.rjust(width) if header in right else cell.ljust(width)
                for header, cell, width in zip(headers, line, widths, strict=True)
            )
            text = "  ".join(cells).rstrip()
            _print(text if number else _styled(text, _BOLD, sys.stdout), sys.stdout)

    def fields(self, pairs: Iterable[tuple[str, object]], *, indent: int = 0) -> None:
        """``name  value`` lines with the values aligned; pairs without a value are left out."""
        shown = [(name, one_line(value)) for name, value in pairs if value not in (None, "")]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            self.line(f"{'':{indent}}{name:<{width}}  {value}")

    def result(self, document: object) -> None:
        """The result for scripts; without ``--json`` nothing. ASCII, so no control characters."""
        if self.json:
            _print(json.dumps(document, indent=2, ensure_ascii=True), sys.stdout)

    @contextmanager
    def progress(self, total: int = 0, description: str = "") -> Iterator[Meter]:
        """Count bytes: bars with rate and time left on a terminal, else a line now and then.

        Args:
            total: Bytes of a first piece of work; 0 where unknown.
            description: Its name; without one, nothing is shown until ``begin``.
        """
        meter: Meter
        with ExitStack() as stack:
            if self.json or self.quiet:
                meter = _Silent()
            elif self.terminal:
                meter = _Bars(stack)
            else:
                meter = _Lines()
            if description:
                meter.begin(description, total)
            yield meter


class _Silent:
    def begin(self, name: str, size: int) -> None:
        """Nothing is shown."""

    def advance(self, count: int) -> None:
        """Nothing is shown."""


class _Lines:
    def __init__(self) -> None:
        self._name, self._size, self._done = "", 0, 0
        self._next = time.monotonic() + _PLAIN_SECONDS

    def begin(self, name: str, size: int) -> None:
        self._name, self._size, self._done = one_line(name), size, 0

    def advance(self, count: int) -> None:
        self._done += count
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _PLAIN_SECONDS
        share = f"{self._done * 100 // self._size}% of " if self._size else ""
        _print(f"{self._name}: {share}{bytes_text(self._size or self._done)}", sys.stderr)


class _Bars:
    """Draws from the first ``begin`` on: a prompt before it would be painted over."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._progress: RichProgress | None = None
        self._task: TaskID | None = None

    def begin(self, name: str, size: int) -> None:
        if self._progress is None:
            self._progress = self._stack.enter_context(_bars())
        if self._task is not None:  # one line for all, so that a thousand blobs do not scroll
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(_short(one_line(name)), total=size or None)

    def advance(self, count: int) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, count)


def _short(name: str) -> str:
    """So that bar, amount, rate and time left fit beside it into 80 columns."""
    return name if len(name) <= _NAME_CHARS else f"{name[: _NAME_CHARS - 1]}…"


def _bars() -> RichProgress:
    # 80 ms of imports, paid only where a bar is drawn.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),  # honours NO_COLOR
        transient=True,
    )


def report(error: SealiftError, *, as_json: bool) -> None:
    """Show the error that ends a command: one line on standard error, or its document there."""
    if as_json:
        document: dict[str, Any] = {"error": error.document()}
        _print(json.dumps(document, ensure_ascii=True), sys.stderr)
    else:
        _print(f"{_styled(f'error[{error.code}]:', _RED, sys.stderr)} {error.line()}", sys.stderr)


def complain(text: str) -> None:
    """Show what no error of ours describes (help after a usage error, a traceback)."""
    _print(harmless(text), sys.stderr)


def _styled(text: str, style: str, stream: TextIO) -> str:
    """Text as a terminal shows it apart; as it is where none would, or where ``NO_COLOR`` is set.

    What is styled has been made harmless before.
    """
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") in (None, "dumb")  # no-color.org
    return text if plain or not text or not stream.isatty() else f"\x1b[{style}m{text}\x1b[0m"


def _print(text: str, stream: TextIO, *, end: str = "\n") -> None:
    print(text, file=stream, end=end, flush=True)
