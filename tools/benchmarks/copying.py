"""The peer of import and create: ``cp``, ``sync`` and a checksum of the same file.

``sync FILE`` waits for that file alone, which is kinder to the peer than writing out the whole
system. ``sha256sum`` of some distributions hashes without the processor's own instructions; where
``openssl`` is there, it hashes the same copy as well, and stands as a stricter peer beside it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tools.benchmarks import quiet
from tools.benchmarks.process import Cost, run
from tools.benchmarks.results import ratio_of_medians, seconds, spread, table
from tools.benchmarks.site import Bench


@dataclass(frozen=True, slots=True)
class Copy:
    """Seconds of each step of one copy.

    Attributes:
        cp: Copying.
        sync: Waiting for the disk.
        sha256sum: Hashing the copy with coreutils.
        openssl: Hashing it with OpenSSL; None where the command is missing.
        others: Largest share of the processors that others used during a step.
    """

    cp: float
    sync: float
    sha256sum: float
    openssl: float | None
    others: float

    @property
    def plain(self) -> float:
        """With ``sha256sum``."""
        return self.cp + self.sync + self.sha256sum

    @property
    def strict(self) -> float | None:
        """With ``openssl dgst``."""
        return None if self.openssl is None else self.cp + self.sync + self.openssl


@dataclass(frozen=True, slots=True)
class Pairs:
    """Interleaved repeats.

    Attributes:
        ours: Of our command.
        theirs: Of the copies, in the same order.
        rival: Of the other tool, in the same order; empty without one.
    """

    ours: tuple[Cost, ...]
    theirs: tuple[Copy, ...]
    rival: tuple[Cost, ...] = ()

    @property
    def seconds(self) -> list[float]:
        """Of our command."""
        return [cost.seconds for cost in self.ours]

    @property
    def rival_ratio(self) -> float:
        """Of the medians, against the other tool."""
        return ratio_of_medians(self.seconds, [cost.seconds for cost in self.rival])

    @property
    def both(self) -> Iterable[tuple[Cost, Copy]]:
        """Pair by pair."""
        return zip(self.ours, self.theirs, strict=True)

    @property
    def plain(self) -> list[float]:
        """Of the copies with ``sha256sum``."""
        return [copy.plain for copy in self.theirs]

    @property
    def strict(self) -> list[float]:
        """Of the copies with ``openssl``; empty without."""
        return [copy.strict for copy in self.theirs if copy.strict is not None]

    @property
    def ratio(self) -> float:
        """Of the medians, against ``sha256sum``."""
        return ratio_of_medians(self.seconds, self.plain)


def interleave(
    bench: Bench,
    source: Path,
    what: str,
    ours: Callable[[], Cost],
    undo: Callable[[], None],
    rival: Callable[[], Cost] | None = None,
) -> dict[str, Pairs]:
    """Measure one of ours, one copy, one of ours, … with a warm and a cold source.

    Args:
        bench: How often.
        source: What both read.
        what: Name of our command, for the progress.
        ours: Runs our command once.
        undo: Removes what any of them wrote, and prepares the next run.
        rival: Runs another tool once that does the same; None without one.
    """
    size = source.stat().st_size
    found = {}
    for state in ("warm", "cold"):
        pairs: list[tuple[Cost, Copy, Cost | None]] = []

        def fresh(*, cold: bool = state == "cold") -> None:
            undo()
            quiet.settle(bench.folder, (source,), cold=cold, size=size)

        while len(pairs) < bench.pairs:
            bench.patience.wait()
            fresh()
            mine = ours()
            fresh()
            copy = _copy(source, bench.folder / "copy")
            other = None
            if rival is not None:
                fresh()
                other = rival()
            again = bench.patience.again(max(cost.others for cost in (mine, copy, other) if cost))
            if not again:
                pairs.append((mine, copy, other))
            bench.say(
                f"{state} {len(pairs)}/{bench.pairs}: {what} {mine.seconds:.2f} s,"
                f" cp + sync + sha256sum {copy.plain:.2f} s"
                f"{f', the other tool {other.seconds:.2f} s' if other else ''}"
                f"{' (once more: others used the processors)' if again else ''}"
            )
        found[state] = Pairs(
            tuple(mine for mine, _, _ in pairs),
            tuple(copy for _, copy, _ in pairs),
            tuple(other for _, _, other in pairs if other is not None),
        )
    undo()
    return found


def rivals_table(found: dict[str, Pairs], command: str, rival: str) -> str:
    """Both states against the other tool, as a Markdown table."""
    head = ["source", f"`{command}`, s", f"{rival}, s", "ratio", "pairs' ratios", "its CPU, s"]
    head += ["its peak, MiB"]
    rows = []
    for state, pairs in found.items():
        theirs = [cost.seconds for cost in pairs.rival]
        rows.append(
            [
                state,
                seconds(pairs.seconds),
                seconds(theirs),
                f"**{pairs.rival_ratio:.2f}**",
                spread(pairs.seconds, theirs),
                f"{median(cost.cpu_seconds for cost in pairs.rival):.2f}",
                f"{max(cost.peak_bytes for cost in pairs.rival) >> 20}",
            ]
        )
    return table(head, rows)


def tables(found: dict[str, Pairs], command: str) -> str:
    """Both states as two Markdown tables: the ratios, and what the peer's steps took."""
    ratios = []
    steps = []
    for state, pairs in found.items():
        row = [state, seconds(pairs.seconds), seconds(pairs.plain)]
        row += [f"**{pairs.ratio:.2f}**", spread(pairs.seconds, pairs.plain)]
        if pairs.strict:
            strict = ratio_of_medians(pairs.seconds, pairs.strict)
            row += [seconds(pairs.strict), f"{strict:.2f}"]
        else:
            row += ["-", "-"]
        ratios.append(row)
        cpu = median(cost.cpu_seconds for cost in pairs.ours)
        others = (max(mine.others, copy.others) for mine, copy in pairs.both)
        steps.append([state, f"{cpu:.2f}", *_steps(pairs.theirs), f"{100 * median(others):.0f} %"])
    head = ["source", f"`{command}`, s", "cp+sync+sha256sum, s", "ratio", "pairs' ratios"]
    head += ["with openssl, s", "ratio"]
    costs = ["source", f"`{command}`, CPU s", "cp, s", "sync, s", "sha256sum, s", "openssl, s"]
    costs += ["others' CPU"]
    return f"{table(head, ratios)}\n\n{table(costs, steps)}"


def _steps(copies: Sequence[Copy]) -> list[str]:
    openssl = [copy.openssl for copy in copies if copy.openssl is not None]
    return [
        f"{median(copy.cp for copy in copies):.2f}",
        f"{median(copy.sync for copy in copies):.2f}",
        f"{median(copy.sha256sum for copy in copies):.2f}",
        f"{median(openssl):.2f}" if openssl else "-",
    ]


def _copy(source: Path, target: Path) -> Copy:
    try:
        steps = [
            run(["cp", str(source), str(target)]),
            run(["sync", str(target)]),
            run(["sha256sum", str(target)]),
        ]
        if shutil.which("openssl"):
            steps.append(run(["openssl", "dgst", "-sha256", str(target)]))
    finally:
        target.unlink(missing_ok=True)
    cp, sync, sha256sum, *openssl = (step.seconds for step in steps)
    others = max(step.others for step in steps if step is not steps[1])  # sync: the kernel writes
    return Copy(cp, sync, sha256sum, openssl[0] if openssl else None, others)
