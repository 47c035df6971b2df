"""Figures as numbers, as Markdown and as a summary on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the summary.

    Attributes:
        name: What was measured, at most 44 characters.
        measured: With its unit.
        aim: As ``≤ 0.8``; empty for a figure that only informs.
        met: Whether the aim is met; None without one.
    """

    name: str
    measured: str
    aim: str = ""
    met: bool | None = None

    @property
    def verdict(self) -> str:
        """As the summary shows it."""
        return {True: "met", False: "MISSED", None: ""}[self.met]


@dataclass(frozen=True, slots=True)
class Section:
    """What one module found out.

    Attributes:
        key: As on the command line; names the section's markers in the document.
        title: Of the section.
        text: Markdown: how it was measured, and the tables.
        figures: For the summary.
    """

    key: str
    title: str
    text: str
    figures: tuple[Figure, ...]


def at_most(name: str, value: float, limit: float, form: str = "{:.2f}") -> Figure:
    """A figure that should not exceed its aim."""
    return Figure(name, form.format(value), "≤ " + form.format(limit), value <= limit)


def at_least(name: str, value: float, limit: float, form: str = "{:.2f}") -> Figure:
    """A figure that should reach its aim."""
    return Figure(name, form.format(value), "≥ " + form.format(limit), value >= limit)


def ratio_of_medians(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Ours through theirs."""
    return median(ours) / median(theirs)


def spread(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Least and largest ratio over the interleaved pairs."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return f"{min(ratios):.2f}-{max(ratios):.2f}"


def seconds(values: Sequence[float]) -> str:
    """Median, and least to largest in brackets."""
    return f"{median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left, the others to the right."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def summary(figures: Sequence[Figure]) -> str:
    """All figures below each other, within 80 columns."""
    rows = [("figure", "measured", "aim", "")]
    rows += [(f.name, f.measured, f.aim, f.verdict) for f in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d}".rstrip() for a, b, c, d in rows
    )
