"""`bundle import` of 2 GiB against copying and hashing the same file, and against skopeo."""

from __future__ import annotations

import shutil
from typing import Final

from tools.benchmarks import copying, quiet
from tools.benchmarks.models import write_model
from tools.benchmarks.process import BenchError, Cost, run
from tools.benchmarks.results import Section, at_most
from tools.benchmarks.site import Bench, Site

_SIZE: Final = 2 << 30
_AIM: Final = 0.8
_RIVAL_AIM: Final = 0.5
_RIVAL: Final = "`skopeo copy`"
_HOW: Final = """\
A bundle of one model of 2 GiB, stored as it is, into an empty store, from the command's start to
its end: signatures, every byte's hash, the GGUF header, the store's copy on the disk (`fsync`), the
catalogue. Beside it, on the same disk and in turn, `cp` of the same bundle, `sync` of the copy,
`sha256sum` of the copy; then `skopeo copy oci-archive:BUNDLE oci:FOLDER`, which unpacks the archive
into a temporary folder (on the same disk), hashes, checks no signature and syncs nothing. Before
each timed run what the last one wrote is removed, the file system written out, and the source read
into the page cache (warm) or dropped from it (cold); on a virtual machine a pause lets freed memory
go back to the host, so that new memory costs everyone the same.
{pairs} pairs; median (least-largest)."""


def measure(bench: Bench) -> Section:
    """Both states of the source, interleaved.

    Raises:
        BenchError: No room, no skopeo, or a command failed.
    """
    if shutil.which("skopeo") is None:
        raise BenchError("skopeo is not installed (Debian: apt-get install skopeo)")
    quiet.need_space(bench.folder, 3 * _SIZE)
    site = Site(bench, "import")
    try:
        bundle = site.folder / "m.bundle.tar"
        model = write_model(site.folder / "m.gguf", _SIZE, name="2 GiB")
        site.create(model, bundle, name="library/synthetic:2g")
        model.unlink()
        layout, unpacked = site.folder / "layout", site.folder / "unpacked"

        def ours() -> Cost:
            return site.import_bundle(bundle, store)

        def skopeo() -> Cost:
            unpacked.mkdir()
            command = ["skopeo", "--insecure-policy", "--tmpdir", str(unpacked), "copy", "--quiet"]
            return run([*command, f"oci-archive:{bundle}", f"oci:{layout}:any"])

        def undo() -> None:
            for folder in (store, layout, unpacked):
                shutil.rmtree(folder, ignore_errors=True)
            site.new_store()

        store = site.new_store()
        found = copying.interleave(bench, bundle, "import", ours, undo, skopeo)
    finally:
        site.remove()
    text = copying.tables(found, "bundle import")
    rival = copying.rivals_table(found, "bundle import", _RIVAL)
    return Section(
        "import",
        "Import against a plain copy, and against skopeo",
        f"{_HOW.format(pairs=bench.pairs)}\n\n{text}\n\n{rival}",
        tuple(
            figure
            for state, pairs in found.items()
            for figure in (
                at_most(f"import 2 GiB / cp+sync+sha256sum, {state}", pairs.ratio, _AIM),
                at_most(f"import 2 GiB / skopeo copy, {state}", pairs.rival_ratio, _RIVAL_AIM),
            )
        ),
    )
