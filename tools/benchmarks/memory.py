"""Peak memory of import and create over the size of the model."""

from __future__ import annotations

import shutil
from typing import Final

from tools.benchmarks import quiet
from tools.benchmarks.models import write_model
from tools.benchmarks.process import BenchError
from tools.benchmarks.results import Figure, Section, at_most, table
from tools.benchmarks.site import Bench, Site

_SIZES: Final = {"0.1": (1 << 30) // 10, "1": 1 << 30, "4": 4 << 30}  # GiB to bytes
_AIM: Final = 150  # MiB
_HOW: Final = """\
Largest resident set of the whole process (`ru_maxrss` from `wait4`), in MiB; the aim is at most
150 MiB whatever the size. The first row is the same interpreter doing nothing."""


def measure(bench: Bench) -> Section:
    """One create and one import per size.

    Raises:
        BenchError: No room for the smallest, or a command failed.
    """
    site = Site(bench, "rss")
    rows = [["nothing", _mebibytes(_idle(bench)), _mebibytes(_idle(bench))]]
    figures = []
    try:
        for label, size in _SIZES.items():
            try:
                quiet.need_space(bench.folder, 2 * size)
            except BenchError as error:
                bench.say(f"{label} GiB left out: {error}")
                rows.append([f"{label} GiB", "no room", "no room"])
                figures.append(Figure(f"peak memory at {label} GiB", "no room", "≤ 150", met=False))
                continue
            create, imported = _one(site, label, size)
            bench.say(f"{label} GiB: create {create >> 20} MiB, import {imported >> 20} MiB")
            rows.append([f"{label} GiB", _mebibytes(create), _mebibytes(imported)])
            for what, peak in (("create", create), ("import", imported)):
                name = f"peak memory of {what}, {label} GiB, MiB"
                figures.append(at_most(name, peak / (1 << 20), _AIM, "{:.0f}"))
    finally:
        site.remove()
    head = ["model", "`bundle create`, MiB", "`bundle import`, MiB"]
    return Section("rss", "Peak memory", f"{_HOW}\n\n{table(head, rows)}", tuple(figures))


def _one(site: Site, label: str, size: int) -> tuple[int, int]:
    """Peak bytes of create and of import; at most two files of this size lie on the disk."""
    bundle = site.folder / "m.bundle.tar"
    model = write_model(site.folder / "m.gguf", size, name=f"{label} GiB")
    create = site.create(model, bundle, name="library/synthetic:any").peak_bytes
    model.unlink()
    store = site.new_store()
    imported = site.import_bundle(bundle, store).peak_bytes
    shutil.rmtree(store)
    bundle.unlink()
    return create, imported


def _idle(bench: Bench) -> int:
    from tools.benchmarks.process import run

    return run([bench.command("python"), "-c", "pass"]).peak_bytes


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.0f}"
