"""How long the commands take that people wait for without thinking."""

from __future__ import annotations

from statistics import median
from typing import Final

from tools.benchmarks import quiet
from tools.benchmarks.models import write_model
from tools.benchmarks.process import Cost, run
from tools.benchmarks.results import Figure, Section, at_most, seconds, table
from tools.benchmarks.site import Bench, Site

_REPEATS: Final = 10
_HOW: Final = """\
From the process's start to its end, {repeats} rounds of all in turn, after one that does not count;
median (least-largest). The console scripts of the virtual environment, as they are installed;
`sealift list` shows a store with one model. Beside them the interpreter doing nothing."""


def measure(bench: Bench) -> Section:
    """All commands in turn.

    Raises:
        BenchError: A command failed.
    """
    site = Site(bench, "startup")
    try:
        model = write_model(site.folder / "m.gguf", 1 << 20, name="1 MiB")
        bundle = site.folder / "m.bundle.tar"
        site.create(model, bundle, name="library/synthetic:1m")
        store = site.new_store()
        site.import_bundle(bundle, store)
        commands: dict[str, tuple[list[str], float | None]] = {
            "python -c pass": ([bench.command("python"), "-c", "pass"], None),
            "bundle --help": ([bench.command("bundle"), "--help"], 0.2),
            "sealift --help": ([bench.command("sealift"), "--help"], 0.2),
            "sealift list": ([bench.command("sealift"), "list"], 0.3),
        }
        taken: dict[str, list[Cost]] = {name: [] for name in commands}
        quiet.settle(bench.folder, (), cold=False, size=0)
        for number in range(_REPEATS + 1):
            bench.patience.wait()
            for name, (command, _) in commands.items():
                cost = run(command, env={"SEALIFT_HOME": str(store)})
                if number:
                    taken[name].append(cost)
    finally:
        site.remove()
    figures: list[Figure] = []
    rows = []
    for name, (_, aim) in commands.items():
        took = [cost.seconds for cost in taken[name]]
        cpu = median(cost.cpu_seconds for cost in taken[name])
        if aim is not None:
            figures.append(at_most(f"{name}, s", median(took), aim))
        rows.append([f"`{name}`", seconds(took), f"{cpu:.2f}", "-" if aim is None else f"≤ {aim}"])
        bench.say(f"{name} {median(took):.2f} s, {cpu:.2f} s of them processor")
    head = ["command", "seconds", "processor, s", "aim"]
    text = f"{_HOW.format(repeats=_REPEATS)}\n\n{table(head, rows)}"
    return Section("startup", "Start-up", text, tuple(figures))
