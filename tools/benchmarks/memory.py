"""Peak memory of import and create over the size of the model."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Final

from tools.benchmarks import quiet
from tools.benchmarks.models import Fill, compressible, hole, write_model
from tools.benchmarks.process import BenchError, run
from tools.benchmarks.results import Figure, Section, at_most, table
from tools.benchmarks.site import Bench, Site

_MIB: Final = 1 << 20
_GIB: Final = 1 << 30
_AIM: Final = 150  # MiB
_HOW: Final = """\
Largest resident set of the whole process (`ru_maxrss` from `wait4`), in MiB; the aim is at most
150 MiB whatever the size. The first row is the same interpreter doing nothing. Weights of 16 GiB
are a sparse file of zeros, stored as they are (`--compression none`), the others random bytes;
those of "zstd" save a quarter and are encoded."""


@dataclass(frozen=True, slots=True)
class _Case:
    """One model.

    Attributes:
        size: Of its weights, in bytes.
        options: Of `bundle create`.
        fill: Makes its weights.
    """

    size: int
    options: tuple[str, ...] = ()
    fill: Fill = os.urandom

    @property
    def needed(self) -> int:
        """Bytes on the disk at a time."""
        return 2 * self.size  # the bundle is never sparse


_CASES: Final = {
    "0.1 GiB": _Case(_GIB // 10),
    "1 GiB": _Case(_GIB),
    "4 GiB": _Case(4 * _GIB),
    "16 GiB": _Case(16 * _GIB, ("--compression", "none"), hole),
    "1 GiB, zstd": _Case(_GIB, (), compressible),
    "1 GiB, volumes": _Case(_GIB, ("--volume-size", "200M")),
}


def measure(bench: Bench) -> Section:
    """One create and one import per size.

    Raises:
        BenchError: A command failed.
    """
    site = Site(bench, "rss")
    idle = run([bench.command("python"), "-c", "pass"]).peak_bytes
    rows = [["nothing", _mebibytes(idle), _mebibytes(idle)]]
    figures = []
    try:
        for label, case in _CASES.items():
            try:
                quiet.need_space(bench.folder, case.needed)
            except BenchError as error:
                bench.say(f"{label} left out: {error}")
                rows.append([label, "no room", "no room"])
                figures.append(Figure(f"peak memory at {label}", "no room", "≤ 150", met=False))
                continue
            create, imported = _one(site, label, case)
            bench.say(f"{label}: create {create // _MIB} MiB, import {imported // _MIB} MiB")
            rows.append([label, _mebibytes(create), _mebibytes(imported)])
            for what, peak in (("create", create), ("import", imported)):
                name = f"peak memory of {what}, {label}, MiB"
                figures.append(at_most(name, peak / _MIB, _AIM, "{:.0f}"))
    finally:
        site.remove()
    head = ["model", "`bundle create`, MiB", "`bundle import`, MiB"]
    return Section("rss", "Peak memory", f"{_HOW}\n\n{table(head, rows)}", tuple(figures))


def _one(site: Site, label: str, case: _Case) -> tuple[int, int]:
    """Peak bytes of create and of import; at most two files of this size lie on the disk."""
    stick = site.folder / "stick"
    stick.mkdir()
    bundle = stick / "m.bundle.tar"
    model = write_model(site.folder / "m.gguf", case.size, name=label, fill=case.fill)
    create = site.create(model, bundle, *case.options, name="library/synthetic:any").peak_bytes
    model.unlink()
    store = site.new_store()
    imported = site.import_bundle(stick, store).peak_bytes
    shutil.rmtree(store)
    shutil.rmtree(stick)
    return create, imported


def _mebibytes(size: int) -> str:
    return f"{size / _MIB:.0f}"
