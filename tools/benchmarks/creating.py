"""`bundle create` of 2 GiB against copying and hashing the same file."""

from __future__ import annotations

from typing import Final

from tools.benchmarks import copying, quiet
from tools.benchmarks.models import write_model
from tools.benchmarks.process import Cost
from tools.benchmarks.results import Section, at_most
from tools.benchmarks.site import Bench, Site

_SIZE: Final = 2 << 30
_AIM: Final = 0.8
_HOW: Final = """\
One model of 2 GiB into a bundle, from the command's start to its end: header, hash, signatures with
the passphrase's key derivation, a copy that is hashed again on its way, `fsync`. Beside it `cp`,
`sync` and `sha256sum` of the same model, as above.
{pairs} pairs; median (least-largest)."""


def measure(bench: Bench) -> Section:
    """Both states of the source, interleaved.

    Raises:
        BenchError: No room, or a command failed.
    """
    quiet.need_space(bench.folder, 2 * _SIZE)
    site = Site(bench, "create")
    try:
        model = write_model(site.folder / "m.gguf", _SIZE, name="2 GiB")
        bundle = site.folder / "m.bundle.tar"

        def ours() -> Cost:
            return site.create(model, bundle, name="library/synthetic:2g")

        def undo() -> None:
            bundle.unlink(missing_ok=True)

        found = copying.interleave(bench, model, "create", ours, undo)
    finally:
        site.remove()
    return Section(
        "create",
        "Create against a plain copy",
        _HOW.format(pairs=bench.pairs) + "\n\n" + copying.tables(found, "bundle create"),
        tuple(
            at_most(f"create 2 GiB / cp+sync+sha256sum, {state}", pairs.ratio, _AIM)
            for state, pairs in found.items()
        ),
    )
