"""Peak disk of the isolated side while it imports, for every way in which a bundle can travel."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tools.benchmarks import quiet
from tools.benchmarks.models import compressible, write_model
from tools.benchmarks.process import run
from tools.benchmarks.results import Figure, Section, at_most, table
from tools.benchmarks.site import Bench, Site

_SIZE: Final = 1 << 30
_MIB: Final = 1 << 20
_MARGIN: Final = 64 * _MIB  # beyond the payload itself
_PAUSE_SECONDS: Final = 0.01
_HOW: Final = """\
Models of 1 GiB into an empty store. The payload is what the store holds of them in the end:
weights, manifests, configs. Disk is what everything below the isolated side's folder takes
(`st_blocks`), temporary files and files without a name that the importer has open included, looked
at over and over while it runs; what was there before does not count. The aim is the payload once
and 64 MiB.
"Lost volume": one of the volumes is not there and is made again from parity on the way."""


@dataclass
class Usage:
    """Watches what a process writes below a folder.

    Args:
        folder: On one file system.

    Attributes:
        peak: Most bytes on the disk at any look, over those at the beginning.
        looks: How often it looked.
    """

    folder: Path
    peak: int = 0
    looks: int = 0
    _before: int = field(init=False)

    def __post_init__(self) -> None:
        self._before = used(self.folder)

    def look(self, pid: int) -> None:
        """Look once; then wait a little."""
        now = used(self.folder) + nameless(pid, self.folder.stat().st_dev) - self._before
        self.peak = max(self.peak, now)
        self.looks += 1
        time.sleep(_PAUSE_SECONDS)


def used(folder: Path) -> int:
    """Bytes on the disk of all files below a folder, each once whatever names it has."""
    total = 0
    seen: set[int] = set()
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                status = os.lstat(os.path.join(place, name))  # noqa: PTH118 - many, quickly
            except FileNotFoundError:
                continue  # renamed meanwhile
            if status.st_ino not in seen:
                seen.add(status.st_ino)
                total += status.st_blocks * 512
    return total


def nameless(pid: int, device: int) -> int:
    """Bytes on a disk of removed files that a process still has open."""
    found: dict[int, int] = {}
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            try:
                status = os.stat(entry.path)  # noqa: PTH116 - follows the link to the open file
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode) and not status.st_nlink and status.st_dev == device:
                found[status.st_ino] = status.st_blocks * 512
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return 0  # it ended
    return sum(found.values())


def measure(bench: Bench) -> Section:
    """Every way once.

    Raises:
        BenchError: No room, or a command failed.
    """
    quiet.need_space(bench.folder, 4 * _SIZE)
    site = Site(bench, "disk")
    rows = []
    figures: list[Figure] = []
    try:
        for name, (options, lose, fill, aim) in _WAYS.items():
            payload, usage = _one(site, options, fill, lose=lose)
            over = (usage.peak - payload) / _MIB
            rows.append(
                [
                    name,
                    f"{payload / _MIB:.1f}",
                    f"{usage.peak / _MIB:.1f}",
                    f"{over:+.1f}",
                    str(usage.looks),
                ]
            )
            title = f"disk of import over payload, {name}, MiB"
            limit = _MARGIN / _MIB
            figures.append(
                at_most(title, over, limit, "{:.1f}") if aim else Figure(title, f"{over:.1f}")
            )
            bench.say(f"{name}: payload {payload / _MIB:.0f} MiB, over it {over:.1f} MiB")
    finally:
        site.remove()
    head = ["bundle", "payload, MiB", "peak disk, MiB", "over the payload, MiB", "looks"]
    return Section(
        "disk", "Peak disk of an import", f"{_HOW}\n\n{table(head, rows)}", tuple(figures)
    )


def _one(
    site: Site, options: tuple[str, ...], fill: Callable[[int], bytes], *, lose: bool
) -> tuple[int, Usage]:
    """Bytes of the payload, and what the import of it took."""
    model = write_model(site.folder / "m.gguf", _SIZE, name="1 GiB", fill=fill)
    folder = site.folder / "stick"
    folder.mkdir()
    bundle = folder / "m.bundle.tar"
    site.create(model, bundle, *options, name="library/synthetic:any")
    model.unlink()
    if lose:
        (folder / "m.bundle.v002.tar").unlink()
    store = site.new_store()
    usage = Usage(store)
    command = [site.bundle, "import", str(folder if options else bundle), "--quiet"]
    environment = site.isolated(store)
    run(command, env=environment, watch=usage.look)
    payload = sum(path.stat().st_size for path in (store / "blobs").rglob("*") if path.is_file())
    site.clear(folder, store)
    return payload, usage


_VOLUMES: Final = ("--volume-size", "200M")
# Name to: options of `bundle create`, whether a volume gets lost, the weights, whether to aim.
_WAYS: Final[dict[str, tuple[tuple[str, ...], bool, Callable[[int], bytes], bool]]] = {
    "identity": ((), False, os.urandom, True),
    "zstd": ((), False, compressible, True),
    "volumes": (_VOLUMES, False, os.urandom, True),
    "volumes, zstd": (_VOLUMES, False, compressible, True),
    "lost volume": ((*_VOLUMES, "--parity", "1"), True, os.urandom, False),
}
