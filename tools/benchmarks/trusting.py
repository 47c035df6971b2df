"""What it costs to find out whether a bundle is to be believed, before any of its payload is."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import struct
import subprocess
import tarfile
import termios
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Final

from tools.benchmarks import quiet
from tools.benchmarks.models import NAMESPACES, tiny_models
from tools.benchmarks.process import BenchError, Cost, run
from tools.benchmarks.results import Figure, Section, at_most, table
from tools.benchmarks.site import Bench, Site

_COUNTS: Final = (1, 1_000, 10_000)  # models
_AIM: Final = 1.2  # times as much per model among the most as among fewer
_MIB: Final = 1 << 20
_PIPE: Final = 1 << 20  # bytes: in a small one, each filling would cost two switches of process
_STEP: Final = 1 << 14  # bytes of one write: while it waits, they do not count as taken
_LOOK_SECONDS: Final = 0.001
_ROOT: Final = Path(__file__).resolve().parents[2]
_HOW: Final = """\
Bundles of very small models, each with config, manifest, bill of materials and three signed
attestations of its own, for six namespaces with a signing role each. "metadata": from the bundle's
first byte to the believed descriptor: root chain, timestamp, snapshot, every role, their signatures
and versions. "closure": the rest up to the payload: each manifest and config against its signed
digest, its schema and its target, each attestation's signature, and that all of it belongs
together. Both in a process that has its modules loaded; "peak" is all of that process. "first
byte": from the start of `bundle import -`, on an empty store, until it takes the first byte of a
weight file out of its pipe, which it does only after all of the above, and after it has written
each small blob to its staging area; its own peak beside it.
`sha256sum` hashes the same bundle and believes everything. One run each."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What one bundle showed.

    Attributes:
        models: How many it holds.
        size: Of the file, in bytes.
        head: Bytes before the payload.
        metadata: Seconds.
        closure: Seconds.
        process: Of the two.
        first: Of the import, up to the first byte of payload.
        hashed: Of ``sha256sum``.
    """

    models: int
    size: int
    head: int
    metadata: float
    closure: float
    process: Cost
    first: Cost
    hashed: Cost

    @property
    def each(self) -> float:
        """Seconds of verification per model."""
        return (self.metadata + self.closure) / self.models

    @property
    def named(self) -> str:
        """How many models, in words."""
        return f"{self.models:,} model{'s' if self.models > 1 else ''}"

    @property
    def row(self) -> list[str]:
        """Of the table."""
        return [
            f"{self.models:,}",
            f"{self.size / 1e6:.2f}",
            f"{self.metadata:.3f}",
            f"{self.closure:.3f}",
            f"{self.each * 1e3:.2f}",
            f"{self.process.peak_bytes / _MIB:.0f}",
            f"{self.first.seconds:.2f}",
            f"{self.first.peak_bytes / _MIB:.0f}",
            f"{self.hashed.seconds:.2f}",
        ]


def measure(bench: Bench) -> Section:
    """Each number of models once.

    Raises:
        BenchError: No room, or a command failed.
    """
    quiet.need_space(bench.folder, 2 << 30)
    site = Site(bench, "trusting")
    for name in NAMESPACES:
        site.add_namespace(name)
    found = []
    try:
        for models in _COUNTS:
            bench.patience.wait()
            found.append(_one(bench, site, models))
            last = found[-1]
            bench.say(f"{last.named}: {last.metadata:.2f} s and {last.closure:.2f} s")
    finally:
        site.remove()
    return _section(found)


def _one(bench: Bench, site: Site, models: int) -> _Found:
    folder, bundle = site.folder / "models", site.folder / "m.bundle.tar"
    folder.mkdir()
    names = tiny_models(folder, models)
    site.create_many(folder, names, bundle)
    size = bundle.stat().st_size
    payload = _payload(bundle, (folder / name for name in names))
    store = site.new_store()
    quiet.settle(site.folder, (bundle,), cold=False, size=0)
    hashed = run(["sha256sum", str(bundle)])
    process = _head(bench, site, bundle, store)
    told = json.loads(process.output)
    if told["models"] != models:
        raise BenchError(f"{told['models']} models were verified, not {models}")
    quiet.settle(site.folder, (bundle,), cold=False, size=0)
    first = _until(site, bundle, store, payload)
    site.clear(folder, store)
    bundle.unlink()
    return _Found(
        models, size, told["bytes"], told["metadata"], told["closure"], process, first, hashed
    )


def _head(bench: Bench, site: Site, bundle: Path, store: Path) -> Cost:
    module = ["-m", "tools.benchmarks.trusting_run", str(store), str(bundle)]
    return run([bench.command("python"), *module], cwd=_ROOT, env=site.isolated(store))


def _payload(bundle: Path, weights: Iterable[Path]) -> int:
    """Where the first byte of a weight file lies."""
    wanted = {hashlib.sha256(path.read_bytes()).hexdigest() for path in weights}
    with tarfile.open(bundle) as archive:
        for member in archive:
            if member.name.rpartition("/")[2] in wanted:
                return member.offset_data
    raise BenchError(f"{bundle} holds none of its models")


def _until(site: Site, bundle: Path, store: Path, offset: int) -> Cost:
    """The cost of ``bundle import -`` until it has taken more than ``offset`` bytes.

    Raises:
        BenchError: It gave up before that.
    """
    began = time.perf_counter()
    process = subprocess.Popen(  # noqa: SIM115, RUF100 - accounted for by wait4 below
        [site.bundle, "import", "-", "--quiet"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **site.isolated(store)},
    )
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    with process.stdin as pipe:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)
        feed = _Feed(bundle, pipe.fileno())
        while feed.taken <= offset and _alive(process.pid):
            time.sleep(_LOOK_SECONDS)
        seconds, accepted = time.perf_counter() - began, feed.taken > offset
        process.kill()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        feed.join()
    if not accepted:
        raise BenchError("an import ended before the first byte of its payload")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, "")


def _alive(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None


class _Feed(Thread):
    """Writes a file into a pipe, and knows how much of it was taken out."""

    def __init__(self, source: Path, pipe: int) -> None:
        super().__init__(daemon=True)
        self._source = source
        self._pipe = pipe
        self._written = 0
        self.start()

    @property
    def taken(self) -> int:
        """Bytes; at most one write fewer than it is."""
        waiting = fcntl.ioctl(self._pipe, termios.FIONREAD, bytes(4))
        return self._written - int(struct.unpack("i", waiting)[0])

    def run(self) -> None:
        with suppress(BrokenPipeError), self._source.open("rb", buffering=0) as file:
            while data := file.read(_STEP):
                self._written += os.write(self._pipe, data)


def _section(found: list[_Found]) -> Section:
    few, many = found[-2:]
    figures = [
        at_most("verification per model, 10,000 / 1,000", many.each / few.each, _AIM),
        Figure("verification, 10,000 models, s", f"{many.metadata + many.closure:.2f}"),
        Figure("verification, 10,000 models, peak, MiB", f"{many.process.peak_bytes / _MIB:.0f}"),
    ]
    figures += [
        Figure(f"first byte of payload, {each.named}, s", f"{each.first.seconds:.2f}")
        for each in found
    ]
    head = [
        "models",
        "bundle, MB",
        "metadata, s",
        "closure, s",
        "per model, ms",
        "peak, MiB",
        "first byte, s",
        "its peak, MiB",
        "`sha256sum`, s",
    ]
    text = f"{_HOW}\n\n{table(head, [each.row for each in found])}"
    return Section("trusting", "Trust before the payload", text, tuple(figures))
