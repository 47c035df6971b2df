"""`bundle import` of 1 GiB against copying and hashing the same file."""

from __future__ import annotations

import shutil
from typing import Final

from tools.benchmarks import copying, quiet
from tools.benchmarks.models import write_model
from tools.benchmarks.process import Cost
from tools.benchmarks.results import Section, at_most
from tools.benchmarks.site import Bench, Site

_SIZE: Final = 1 << 30
_AIM: Final = 0.8
_HOW: Final = """\
A bundle of one model of 1 GiB into an empty store, from the command's start to its end: signatures,
every byte's hash, the GGUF header, the store's copy on the disk (`fsync`), the catalogue. Beside
it, on the same disk and in turn, `cp` of the same bundle, `sync` of the copy, `sha256sum` of the
copy. Before each timed run what the last one wrote is removed, the file system written out, and
the source read into the page cache (warm) or dropped from it (cold); on a virtual machine a pause
lets freed memory go back to the host, so that new memory costs everyone the same.
{pairs} pairs; median (least-largest)."""


def measure(bench: Bench) -> Section:
    """Both states of the source, interleaved.

    Raises:
        BenchError: No room, or a command failed.
    """
    quiet.need_space(bench.folder, 2 * _SIZE)
    site = Site(bench, "import")
    try:
        bundle = site.folder / "m.bundle.tar"
        model = write_model(site.folder / "m.gguf", _SIZE, name="1 GiB")
        site.create(model, bundle, name="library/synthetic:1g")
        model.unlink()

        def ours() -> Cost:
            return site.import_bundle(bundle, store)

        def undo() -> None:
            shutil.rmtree(store)
            site.new_store()

        store = site.new_store()
        found = copying.interleave(bench, bundle, "import", ours, undo)
    finally:
        site.remove()
    return Section(
        "import",
        "Import against a plain copy",
        _HOW.format(pairs=bench.pairs) + "\n\n" + copying.tables(found, "bundle import"),
        tuple(
            at_most(f"import 1 GiB / cp+sync+sha256sum, {state}", pairs.ratio, _AIM)
            for state, pairs in found.items()
        ),
    )
