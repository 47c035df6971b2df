"""What the audit log costs: to append, to verify, to prove; at three sizes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Final

from tools.benchmarks.process import BenchError, Cost, run
from tools.benchmarks.results import Figure, Section, at_most, table
from tools.benchmarks.site import Bench

_SIZES: Final = {"1,000": 1_000, "100,000": 100_000, "1,000,000": 1_000_000}
_SINGLE: Final = 200  # appended one by one
_PROOFS: Final = 50
_MIB: Final = 1 << 20
_MEMORY: Final = 100  # MiB
_ROOT: Final = Path(__file__).resolve().parents[2]
_HOW: Final = """\
Entries of some 350 bytes, as an import leaves them. "append" is the time per entry where 1,000
share a transaction, "alone" where each has its own, as an import does; in brackets the same bytes
as rows of a bare SQLite table, with the same durability, no schema and no tree. "verify" is
`sealift audit verify` as a process: every entry, every node of the tree, every checkpoint. A proof
shows that one entry is in the log; "check" is its verification, the signature included."""


def measure(bench: Bench) -> Section:
    """Each size once, from empty.

    Raises:
        BenchError: Something failed.
    """
    folder = bench.folder / "audit"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows, figures = [], list[Figure]()
    try:
        for name, size in _SIZES.items():
            bench.patience.wait()
            row, found = _one(bench, folder / str(size), name, size)
            rows.append(row)
            figures += found
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    head = [
        "entries",
        "append, µs",
        "alone, ms",
        "verify, s",
        "verify, MiB",
        "log, MiB",
        "proof, hashes",
        "proof, bytes",
        "make, ms",
        "check, ms",
    ]
    return Section("audit", "The audit log", f"{_HOW}\n\n{table(head, rows)}", tuple(figures))


def _one(bench: Bench, folder: Path, name: str, size: int) -> tuple[list[str], list[Figure]]:
    home, bare = folder / "home", folder / "bare.db"
    folder.mkdir()
    fill, plain = _run(bench, "fill", home, size), _run(bench, "plain", bare, size)
    one, plain_one = _run(bench, "one", home, _SINGLE), _run(bench, "plain-one", bare, _SINGLE)
    proof = _run(bench, "prove", home, _PROOFS)
    checked = _verify(bench, home, size + _SINGLE)
    stored = sum(path.stat().st_size for path in home.glob("catalog.db*"))
    bench.say(f"{name}: {fill['each'] * 1e6:.0f} µs, verify {checked.seconds:.1f} s")
    figures = [
        at_most(f"audit verify, {name} entries, MiB", checked.peak_bytes / _MIB, _MEMORY, "{:.0f}"),
        Figure(f"audit append, {name} entries, µs", f"{fill['each'] * 1e6:.0f}"),
        Figure(f"audit proof, {name} entries, bytes", f"{proof['bytes']:.0f}"),
    ]
    row = [
        name,
        f"{fill['each'] * 1e6:.0f} ({plain['each'] * 1e6:.0f})",
        f"{one['each'] * 1e3:.2f} ({plain_one['each'] * 1e3:.2f})",
        f"{checked.seconds:.2f}",
        f"{checked.peak_bytes / _MIB:.0f}",
        f"{stored / _MIB:.1f}",
        f"{proof['hashes']:.0f}",
        f"{proof['bytes']:.0f}",
        f"{proof['make'] * 1e3:.2f}",
        f"{proof['check'] * 1e3:.2f}",
    ]
    shutil.rmtree(folder)
    return row, figures


def _run(bench: Bench, what: str, place: Path, count: int) -> dict[str, float]:
    module = ["-m", "tools.benchmarks.audit_run", what, str(place), str(count)]
    found: dict[str, float] = json.loads(run([bench.command("python"), *module], cwd=_ROOT).output)
    return found


def _verify(bench: Bench, home: Path, wanted: int) -> Cost:
    command = [bench.command("sealift"), "audit", "verify", "--json"]
    cost = run(command, env={"SEALIFT_HOME": str(home)})
    if json.loads(cost.output)["size"] != wanted:
        raise BenchError("audit verify saw another log than was written")
    return cost
