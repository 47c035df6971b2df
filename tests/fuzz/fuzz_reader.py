"""Coverage-guided fuzzing of all that reads a bundle (atheris, libFuzzer): `make fuzz`.

The first byte of an input chooses what reads the rest. Whatever comes, the only way out is a
:class:`~schemas.errors.SealiftError`; anything else is a defect, and libFuzzer keeps the input.
Signatures cannot be guessed, so the parts behind them are fed directly.

    python tests/fuzz/fuzz_reader.py [libFuzzer options] [corpus folder]
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris  # type: ignore[import-untyped, unused-ignore]  # not on every platform

with atheris.instrument_imports(include=["bundler", "registry", "schemas"]):
    from bundler.archive.codec import Encoding, decode_piece
    from bundler.archive.recipe import Recipe
    from bundler.descriptor import BundleDescriptor
    from bundler.inventory import held, wanted
    from bundler.parity.table import Table
    from bundler.reading import read_body, read_front
    from bundler.trust import envelope
    from bundler.volumes import Label
    from registry import safetensors
    from registry.gguf import read_header
    from registry.oci import Manifest
    from schemas.errors import SealiftError

VECTORS = Path(__file__).parents[1] / "vectors"
_ENCODINGS = (Encoding.ZSTD, Encoding.PLANES2, Encoding.PLANES4)


def whole(data: bytes) -> None:
    """The front of a bundle and, as if it were signed, what the descriptor predicts."""
    source = io.BytesIO(data)
    front = read_front(source)
    descriptor = BundleDescriptor.from_bytes(front.descriptor_bytes)
    read_body(front.reader, descriptor, lambda _: None, lambda _: None)


def piece(data: bytes) -> None:
    """One encoded piece: two bytes choose its encoding and its raw size."""
    if len(data) > 2:
        decode_piece(_ENCODINGS[data[0] % 3], data[2:], data[1] * 64 + 1)


def recipe(data: bytes) -> None:
    """A recipe over two bases."""
    Recipe.from_bytes(data, size=4096, base_sizes=[4096, 100])


def metadata(data: bytes) -> None:
    """One file of trust metadata of each role."""
    for role in ("root", "timestamp", "snapshot", "targets", "bundle"):
        try:
            envelope.read(role, data)
        except SealiftError:
            continue


TARGETS: tuple[Callable[[bytes], object], ...] = (
    whole,
    BundleDescriptor.from_bytes,
    Manifest.parse,
    piece,
    recipe,
    Table.decode,
    Label.from_bytes,
    metadata,
    lambda data: read_header(data, len(data) + 64),
    lambda data: safetensors.read_header(io.BytesIO(data), len(data) + 64),
    held.read,
    wanted.read_want_list,
)


def one_input(data: bytes) -> None:
    """What libFuzzer calls."""
    if data:
        try:
            TARGETS[data[0] % len(TARGETS)](data[1:])
        except SealiftError:
            return


def seeds(folder: Path) -> None:
    """A corpus to begin with: the test vectors, whole and in parts."""
    for path in (VECTORS / "identity.tar", VECTORS / "volumes.tar", VECTORS / "zstd.tar"):
        data = path.read_bytes()[: 64 * 1024]
        front = read_front(io.BytesIO(data))
        descriptor = BundleDescriptor.from_bytes(front.descriptor_bytes)
        parts: list[tuple[int, bytes]] = [
            (0, data),
            (1, front.descriptor_bytes),
            (6, Label(descriptor.id, 1).to_bytes()),
            *((7, file) for file in front.trust_files.values()),
        ]
        small: list[bytes] = []
        with suppress(SealiftError):  # the vector was cut short; what came before is wanted
            read_body(front.reader, descriptor, small.append, lambda _: None)
        parts += [(2, manifest) for manifest in small]
        for number, (target, part) in enumerate(parts):
            (folder / f"{path.stem}-{number}").write_bytes(bytes([target]) + part)


def main() -> None:
    """Run libFuzzer with the given options."""
    with tempfile.TemporaryDirectory() as corpus:
        seeds(Path(corpus))
        # New findings go into the first folder, so the caller's comes before the seeds.
        atheris.Setup([*sys.argv, corpus], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
