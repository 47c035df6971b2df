"""Many blobs: the time for each must not grow with their number."""

from __future__ import annotations

import os
from dataclasses import replace
from math import ceil
from statistics import median
from typing import Final

from tools.benchmarks import quiet
from tools.benchmarks.models import NAMESPACES, tiny_models
from tools.benchmarks.process import Cost
from tools.benchmarks.results import Figure, Section, at_most, table
from tools.benchmarks.site import Bench, Site

_FEW: Final = (1, len(NAMESPACES))  # models: about 10 blobs, and one of each key
_COUNTS: Final = (1_000, 10_000, 100_000)  # blobs
_MANY: Final = 100  # times as few models are measured more than once
_BASE: Final = 10_000  # a further blob's base: of 1,000, starting is most and varies more
_AIM: Final = 1.2  # times that; what stays constant per blob varies so much by itself
_HOW: Final = """\
Bundles of very many very small models, each with weights, config, manifest and attestations of its
own: {sizes}.

Six namespaces with a signing role each share them. "All" divides the whole command by its blobs.
That hides what grows, as starting is most of what few take; so "further" leaves out what the
command takes for one model of each namespace, and compares with {base}, the fewest that take longer
than starting varies by. One run of the most, the median of some of the fewer. `import` writes and
syncs every blob; beside it `tar -x` of the same bundle and `sync`, on the same disk, which verifies
nothing. The aim: a blob among {largest} costs at most {aim} times what one among fewer does."""

_VERBS: Final = ("create", "verify", "import")
_ALL: Final = (*_VERBS, "tar")


def measure(bench: Bench) -> Section:
    """Each number once, and a few models for what everything costs anyway.

    Raises:
        BenchError: No room, or a command failed.
    """
    quiet.need_space(bench.folder, 4 << 30)
    site = Site(bench, "scale")
    for name in NAMESPACES:
        site.add_namespace(name)
    found: dict[int, dict[str, Cost]] = {}
    sizes: list[str] = []
    try:
        for models in _FEW:
            _measure(bench, site, models, found, sizes)
        first, second = found
        each = (second - first) / (_FEW[1] - _FEW[0])
        for wanted in _COUNTS:
            models = ceil(wanted / each)
            _measure(bench, site, models, found, sizes)
    finally:
        site.remove()
    return _section(found, sizes)


def _measure(
    bench: Bench, site: Site, models: int, found: dict[int, dict[str, Cost]], sizes: list[str]
) -> None:
    repeats = bench.pairs if models * _MANY < max(_COUNTS) else 1
    runs = [_one(site, models) for _ in range(repeats)]
    blobs, _, size = runs[0]
    found[blobs] = {verb: _typical([costs[verb] for _, costs, _ in runs]) for verb in _ALL}
    costs = found[blobs]
    sizes.append(f"{models:,} with {blobs:,} blobs in {size / 1e6:.1f} MB")
    took = ", ".join(f"{verb} {cost.seconds:.1f} s" for verb, cost in costs.items())
    bench.say(f"{blobs} blobs: {took}")


def _typical(costs: list[Cost]) -> Cost:
    """Medians: of the few blobs, what each takes is less than what starting varies by."""
    return replace(
        costs[0],
        seconds=median(cost.seconds for cost in costs),
        cpu_seconds=median(cost.cpu_seconds for cost in costs),
    )


def _one(site: Site, models: int) -> tuple[int, dict[str, Cost], int]:
    """Blobs of a bundle with so many models, what each verb cost, and its bytes."""
    folder = site.folder / "models"
    folder.mkdir()
    names = tiny_models(folder, models)
    bundle = site.folder / "m.bundle.tar"
    quiet.settle(site.folder, (), cold=False, size=0)
    costs = {"create": site.create_many(folder, names, bundle)}
    store = site.new_store()
    quiet.settle(site.folder, (bundle,), cold=False, size=0)
    costs["verify"] = site.verify_bundle(bundle, store)
    quiet.settle(site.folder, (bundle,), cold=False, size=0)
    costs["import"] = site.import_bundle(bundle, store)
    size = bundle.stat().st_size
    quiet.settle(site.folder, (bundle,), cold=False, size=0)
    unpacked = site.folder / "unpacked"
    unpacked.mkdir()
    costs["tar"] = site.unpack(bundle, unpacked)
    blobs = sum(1 for _ in os.scandir(unpacked / "blobs" / "sha256"))
    site.clear(folder, store, unpacked)
    bundle.unlink()
    return blobs, costs, size


def per_blob(costs: dict[int, float]) -> dict[int, float]:
    """Microseconds per blob beyond what the smallest bundle takes.

    Args:
        costs: Seconds by number of blobs.
    """
    least = min(costs)
    return {
        blobs: 1e6 * max(seconds - costs[least], 0.0) / (blobs - least)
        for blobs, seconds in costs.items()
        if blobs > least
    }


def growth(name: str, base: float, largest: float) -> Figure:
    """How much more a blob costs among many; no figure where starting outweighs the few."""
    if base <= 0:
        return Figure(name, "lost in noise", f"≤ {_AIM:.2f}", met=None)
    return at_most(name, largest / base, _AIM)


def _section(found: dict[int, dict[str, Cost]], sizes: list[str]) -> Section:
    rows = []
    figures: list[Figure] = []
    largest = max(found)
    several = {blobs: costs for blobs, costs in found.items() if blobs > min(found)}
    few, base = (min(found, key=lambda b: abs(b - count)) for count in (_COUNTS[0], _BASE))
    for verb in _ALL:
        wall = per_blob({blobs: costs[verb].seconds for blobs, costs in several.items()})
        cpu = per_blob({blobs: costs[verb].cpu_seconds for blobs, costs in several.items()})
        for blobs in found:
            cost, each = found[blobs][verb], wall.get(blobs)
            rows.append(
                [
                    f"{_LABELS[verb]}, {blobs:,}",
                    f"{cost.seconds:.2f}",
                    f"{1e6 * cost.seconds / blobs:.0f}",
                    "-" if each is None else f"{each:.0f}",
                    "-" if each is None else f"{cpu[blobs]:.0f}",
                    f"{cost.peak_bytes >> 20}",
                ]
            )
        if verb == "tar":
            continue
        whole = {blobs: found[blobs][verb].seconds / blobs for blobs in (few, largest)}
        name = f"{verb} per blob, all, {_COUNTS[-1]:,} / {_COUNTS[0]:,}"
        figures.append(growth(name, whole[few], whole[largest]))
        for what, times in (("", wall), (" CPU", cpu)):
            name = f"{verb}{what} per further blob, {_COUNTS[-1]:,} / {_BASE:,}"
            figures.append(growth(name, times[base], times[largest]))
    head = ["command, blobs", "seconds", "all, us", "further, us", "CPU, us", "peak, MiB"]
    how = _HOW.format(
        sizes=", ".join(sizes), largest=f"{_COUNTS[-1]:,}", base=f"{_BASE:,}", aim=_AIM
    )
    return Section("scale", "Many blobs", f"{how}\n\n{table(head, rows)}", tuple(figures))


_LABELS: Final = {verb: f"`bundle {verb}`" for verb in _VERBS} | {"tar": "`tar -x` and `sync`"}
