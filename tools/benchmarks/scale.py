"""Many blobs: the time for each must not grow with their number."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tools.benchmarks import quiet
from tools.benchmarks.models import write_header
from tools.benchmarks.process import Cost
from tools.benchmarks.results import Figure, Section, at_most, table
from tools.benchmarks.site import Bench, Site

_PER_MODEL: Final = 3  # weights, config, manifest
_COUNTS: Final = (10, 1_000, 100_000)
_BASE: Final = 1_000  # what the largest is compared with: of 10, starting is most
_AIM: Final = 1.2  # times that; what stays constant per blob varies so much by itself
_WEIGHTS: Final = 512  # bytes of tensor data per model
_HOW: Final = """\
Bundles of very many very small models, each with weights, a config and a manifest of its own, so
three blobs; {sizes}. Seconds are of the whole command; microseconds per blob leave out what the
command takes for one model, so that they do not hide what grows. One run each. `import` writes and
syncs every blob; beside it `tar -x` of the same bundle and `sync`, on the same disk, which verifies
nothing. The aim: per blob, {largest} cost at most {aim} times what {base} do."""

_VERBS: Final = ("create", "verify", "import")


def measure(bench: Bench) -> Section:
    """Each number once, and one model for what everything costs anyway.

    Raises:
        BenchError: No room, or a command failed.
    """
    quiet.need_space(bench.folder, 4 << 30)
    site = Site(bench, "scale")
    found: dict[int, dict[str, Cost]] = {}
    sizes = []
    try:
        for blobs in (_PER_MODEL, *_COUNTS):
            models = -(-blobs // _PER_MODEL)
            found[models], size = _one(site, models)
            if blobs != _PER_MODEL:
                sizes.append(f"{models * _PER_MODEL:,} in {size / 1e6:.1f} MB")
            took = ", ".join(f"{verb} {cost.seconds:.1f} s" for verb, cost in found[models].items())
            bench.say(f"{models * _PER_MODEL} blobs: {took}")
    finally:
        site.remove()
    return _section(found, sizes)


def _one(site: Site, models: int) -> tuple[dict[str, Cost], int]:
    """What each verb cost with so many models, and the bundle's bytes."""
    folder = site.folder / "models"
    folder.mkdir()
    names = [_small(folder, number).name for number in range(models)]
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
    site.clear(folder, store, unpacked)
    bundle.unlink()
    return costs, size


def _small(folder: Path, number: int) -> Path:
    """A model like no other; not synced, nobody measures that."""
    path = folder / f"m{number}.gguf"
    with path.open("wb") as file:
        write_header(file, _WEIGHTS, name=f"m{number}")
        file.write(number.to_bytes(8, "little") + os.urandom(_WEIGHTS - 8))
    return path


def per_blob(costs: dict[int, float]) -> dict[int, float]:
    """Microseconds per blob beyond what one model takes.

    Args:
        costs: Seconds by number of models; the least number is the base.
    """
    least = min(costs)
    return {
        models: 1e6 * max(seconds - costs[least], 0.0) / ((models - least) * _PER_MODEL)
        for models, seconds in costs.items()
        if models > least
    }


def _section(found: dict[int, dict[str, Cost]], sizes: list[str]) -> Section:
    rows = []
    figures: list[Figure] = []
    largest = max(found)
    base = -(-_BASE // _PER_MODEL)
    for verb in (*_VERBS, "tar"):
        wall = per_blob({models: costs[verb].seconds for models, costs in found.items()})
        cpu = per_blob({models: costs[verb].cpu_seconds for models, costs in found.items()})
        for models, each in wall.items():
            cost = found[models][verb]
            rows.append(
                [
                    f"{_LABELS[verb]}, {models * _PER_MODEL:,}",
                    f"{cost.seconds:.2f}",
                    f"{each:.0f}",
                    f"{cpu[models]:.0f}",
                    f"{cost.peak_bytes >> 20}",
                ]
            )
        if verb == "tar":
            continue
        for what, times in (("", wall), (" CPU", cpu)):
            name = f"{verb}{what} per blob, 100,000 / 1,000"
            figures.append(at_most(name, times[largest] / max(times[base], 1e-9), _AIM))
        figures.append(Figure(f"{verb}, 100,000 blobs, us per blob", f"{wall[largest]:.0f}"))
    head = ["command, blobs", "seconds", "us per blob", "CPU us per blob", "peak, MiB"]
    how = _HOW.format(
        sizes=", ".join(sizes), largest=f"{_COUNTS[-1]:,}", base=f"{_BASE:,}", aim=_AIM
    )
    return Section("scale", "Many blobs", f"{how}\n\n{table(head, rows)}", tuple(figures))


_LABELS: Final = {verb: f"`bundle {verb}`" for verb in _VERBS} | {"tar": "`tar -x` and `sync`"}
