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
from contextlib import contextmanager
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

_UNITS: Final = ("B", "KB", "MB", "GB", "TB")
_PLAIN_SECONDS: Final = 5.0  # between two lines of progress where there is no terminal


def harmless(text: str) -> str:
    """Text of several lines, with every control character but newline and tab made visible."""
    return text.replace("\r\n", "\n").translate(_TEXT)


def one_line(text: object) -> str:
    """As :func:`harmless`, newlines and tabs made visible too."""
    return str(text).translate(_ONE_LINE)


def size(count: int) -> str:
    """Bytes for people, in powers of 1000 as Ollama counts: ``93 MB``, ``1.2 GB``."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    digits = f"{value:.1f}" if value < 10 and value != int(value) else str(int(value))
    return f"{digits} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """A time span for people: ``350ms``, ``4.2s``, ``3m12s``, ``2h5m``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60}m"


def ago(moment: datetime, now: datetime | None = None) -> str:
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

    def advance(self, count: int, name: str = "") -> None:
        """Count on; ``name`` is what is being worked on now."""
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

    def line(self, text: str = "") -> None:
        """One line of a result for people; with ``--json`` nothing."""
        if not self.json:
            _print(one_line(text), sys.stdout)

    def text(self, text: str, *, end: str = "\n") -> None:
        """Text of several lines (a template, an answer's next piece), shown at once."""
        if not self.json:
            _print(harmless(text), sys.stdout, end=end)

    def note(self, text: str) -> None:
        """A remark beside the result; with ``--json`` or ``--quiet`` nothing."""
        if not (self.json or self.quiet):
            _print(one_line(text), sys.stderr)

    def warn(self, text: str) -> None:
        """A warning; shown even with ``--quiet``."""
        _print(f"warning: {one_line(text)}", sys.stderr)

    def table(
        self, headers: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()
    ) -> None:
        """Columns as wide as their content, three spaces apart.

        Args:
            headers: One per column; upper case, as Ollama's.
            rows: Cells in the order of the headers.
            right: Headers of the columns set flush right.
        """
        if self.json:
            return
        lines = [tuple(headers), *(tuple(one_line(cell) for cell in row) for row in rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
        for line in lines:
            cells = (
                cell.rjust(width) if header in right else cell.ljust(width)
                for header, cell, width in zip(headers, line, widths, strict=True)
            )
            _print("   ".join(cells).rstrip(), sys.stdout)

    def fields(self, pairs: Iterable[tuple[str, object]], *, indent: int = 0) -> None:
        """``name   value`` lines with the values aligned; pairs without a value are left out."""
        shown = [(name, one_line(value)) for name, value in pairs if value not in (None, "")]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            self.line(f"{'':{indent}}{name:<{width}}   {value}")

    def result(self, document: object) -> None:
        """The result for scripts; without ``--json`` nothing. ASCII, so no control characters."""
        if self.json:
            _print(json.dumps(document, indent=2, ensure_ascii=True), sys.stdout)

    @contextmanager
    def progress(self, total: int, description: str) -> Iterator[Meter]:
        """Count bytes: a bar with rate and time left on a terminal, else a line now and then.

        Args:
            total: Bytes to come; 0 where unknown.
            description: What is done, as in ``"importing"``.
        """
        if self.json or self.quiet:
            yield _Silent()
        elif self.terminal:
            with _bar() as bar:
                yield _Bar(bar, bar.add_task(one_line(description), total=total or None, name=""))
        else:
            yield _Lines(total, one_line(description))


class _Silent:
    def advance(self, count: int, name: str = "") -> None:
        """Nothing is shown."""


class _Lines:
    def __init__(self, total: int, description: str) -> None:
        self._total, self._description, self._done = total, description, 0
        self._next = time.monotonic() + _PLAIN_SECONDS

    def advance(self, count: int, name: str = "") -> None:
        self._done += count
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _PLAIN_SECONDS
        share = f"{self._done * 100 // self._total}% of {size(self._total)}" if self._total else ""
        text = f"{self._description}: {share or size(self._done)} {one_line(name)}"
        _print(text.rstrip(), sys.stderr)


class _Bar:
    def __init__(self, bar: RichProgress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def advance(self, count: int, name: str = "") -> None:
        if name:
            self._bar.update(self._task, name=one_line(name)[-30:])
        self._bar.advance(self._task, count)


def _bar() -> RichProgress:
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
        TextColumn("{task.fields[name]}", markup=False),
        console=Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")) or None),
        transient=True,
    )


def report(error: SealiftError, *, as_json: bool) -> None:
    """Show the error that ends a command: one line on standard error, or its document there."""
    if as_json:
        document: dict[str, Any] = {"error": error.document()}
        _print(json.dumps(document, ensure_ascii=True), sys.stderr)
    else:
        _print(f"error[{error.code}]: {error.line()}", sys.stderr)


def complain(text: str) -> None:
    """Show what no error of ours describes (help after a usage error, a traceback)."""
    _print(harmless(text), sys.stderr)


def _print(text: str, stream: TextIO, *, end: str = "\n") -> None:
    print(text, file=stream, end=end, flush=True)
