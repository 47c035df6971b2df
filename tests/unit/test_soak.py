"""What the soak makes of its samples and outcomes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tools.benchmarks.faults import Outcome
from tools.benchmarks.soak import _growth, _Load, _phases, _plot, _Sample, _section, _series, _slope

MIB = 1 << 20
GOOD = Outcome("load", 1, "worker-failed", False, True, True, 0.5)


def samples(step: float, seconds: int = 400) -> list[_Sample]:
    """A front-end that grows by so many bytes a second, a worker that does not."""
    return [_Sample(at, int(70 * MIB + at * step), 400 * MIB) for at in range(seconds)]


def test_growth_and_slope() -> None:
    flat, rising = samples(0), samples(MIB / 100)
    assert _growth(flat, 400, lambda s: s.front) == 0
    assert _growth(rising, 400, lambda s: s.front) == pytest.approx(2.0, abs=0.02)
    assert _slope(rising, 400, lambda s: s.front) == pytest.approx(36, abs=0.5)
    assert _slope(rising, 400, lambda s: s.workers) == 0


def test_the_series_has_a_dozen_rows() -> None:
    lines = _series(samples(0), 400).splitlines()
    assert len(lines) == 2 + 12
    assert "| 70.0 | 70.0 | 400.0 | 400.0 |" in lines[-1]


def test_the_plot_has_sixty_points_of_both() -> None:
    workers, fronts = (line for line in _plot(samples(0), 400).splitlines() if "line [" in line)
    assert workers.split("[")[1] == ", ".join(["400"] * 60) + "]"
    assert fronts.count("70") == 60


@pytest.mark.parametrize(
    "change",
    [
        {"errors": 0, "code": ""},
        {"errors": 2},
        {"code": "internal"},
        {"completed": True},
        {"bystander": False},
        {"again": False},
    ],
)
def test_what_is_not_good(change: dict[str, object]) -> None:
    assert GOOD.good
    assert not replace(GOOD, **change).good  # type: ignore[arg-type]


def test_the_section() -> None:
    outcomes = [GOOD, replace(GOOD, phase="decode"), replace(GOOD, phase="decode", errors=2)]
    load = _Load(0, 0.0)
    load.done.update(chat=5, wrong=2)
    section = _section(samples(0), load, outcomes, 400)
    assert [figure.met for figure in section.figures] == [True, True, True, False, None]
    assert "7 requests: 5 chat, 2 wrong" in section.text
    assert "| in decode | 2 | 1 | 0.50 | 0.50 |" in _phases(outcomes)
