"""What the parts of Sealift that are measured alone do, in a process of their own.

Usage::

    python pieces_run.py encode BLOB STORED        # as `bundle create` would
    python pieces_run.py encode-max BLOB STORED    # … with --compression max
    python pieces_run.py decode STORED BLOB
    python pieces_run.py index BLOB INDEX          # while it is hashed
    python pieces_run.py diff BLOB INDEX STORED    # against the blob of the index
    python pieces_run.py patch STORED BASE BLOB

Each prints one line of JSON. What is signed otherwise lies beside STORED, in ``STORED.json``.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(_ROOT))

from bundler.archive import codec, delta, pieces  # noqa: E402 - found by the line above
from bundler.archive.codec import Compression, Encoding  # noqa: E402
from bundler.archive.pieces import Segment  # noqa: E402
from bundler.archive.rebuild import rebuild  # noqa: E402
from bundler.chunks.chunker import Chunker  # noqa: E402
from bundler.chunks.index import ChunkIndex, IndexBuilder  # noqa: E402
from bundler.chunks.recipes import RecipeMaker  # noqa: E402
from bundler.chunks.regions import element_hint, read_table, regions_of  # noqa: E402
from registry.digest import Digest  # noqa: E402
from registry.verify import DigestWriter, digest_stream  # noqa: E402


def encode(blob: Path, stored: Path, mode: Compression = Compression.AUTO) -> dict[str, Any]:
    """Sample, choose, encode, hash what is stored."""
    size = blob.stat().st_size
    with blob.open("rb") as file, stored.open("wb", buffering=0) as out:
        hint = element_hint(read_table(file, size))

        def sample(offset: int, length: int) -> bytes:
            return os.pread(file.fileno(), length, offset)

        choice = codec.choose_encoding(sample, size, mode=mode, hint=hint)
        file.seek(0)
        segments = pieces.encode_stream(file, size, choice, out)
    _write(stored, size, None, segments, encoding=choice.encoding)
    return {"encoding": choice.encoding, "level": choice.level}


def decode(stored: Path, blob: Path) -> dict[str, Any]:
    """Verify, decode, hash what comes out."""
    signed = _read(stored)
    with stored.open("rb", buffering=0) as source, blob.open("wb", buffering=0) as out:
        sink = DigestWriter(out)
        encoding = Encoding(signed["encoding"])
        pieces.decode_stream(source, signed["segments"], signed["size"], encoding, sink)
    return {"digest": str(sink.digest)}


def index(blob: Path, target: Path) -> dict[str, Any]:
    """Hash the blob and its chunks in one pass."""
    size = blob.stat().st_size
    builder = IndexBuilder()
    with blob.open("rb", buffering=0) as file:
        chunker = Chunker(regions_of(file, size))
        file.seek(0)
        digest = digest_stream(file, size, also=[chunker.giving(builder.add)])
    with target.open("wb", buffering=0) as out:
        builder.write(out, digest, size)
    return {"bytes": target.stat().st_size}


def diff(blob: Path, index_path: Path, stored: Path) -> dict[str, Any]:
    """Hash the blob, find what the base has, encode the rest."""
    size = blob.stat().st_size
    segments = []
    with ChunkIndex(index_path) as base, blob.open("rb", buffering=0) as file:
        maker = RecipeMaker([base])
        builder = IndexBuilder()
        chunker = Chunker(regions_of(file, size))
        file.seek(0)
        digest = digest_stream(file, size, also=[chunker.giving(builder.add, maker.take)])
        made = maker.finish(digest)
        if made is None:
            return {"operations": 0}
        with stored.open("wb", buffering=0) as out:
            for piece in delta.store_delta(made.recipe, file.fileno(), mode=Compression.AUTO):
                pieces.write_all(out, piece.data)
                segments.append(piece.segment)
    _write(stored, size, digest, segments, encoding=Encoding.DELTA)
    return {"operations": len(made.recipe), "literal": made.recipe.literal_size}


def patch(stored: Path, base: Path, blob: Path) -> dict[str, Any]:
    """Verify the delta, rebuild the blob, verify it."""
    signed = _read(stored)
    segments = signed["segments"]
    with stored.open("rb", buffering=0) as source, base.open("rb") as old, blob.open("w+b") as out:
        first = source.read(delta.recipe_size(segments))
        sizes = [os.fstat(old.fileno()).st_size]
        recipe = delta.read_recipe(first, segments, size=signed["size"], base_sizes=sizes)
        rest = (source.read(segment.size) for segment in segments[1:])
        literals = delta.read_literals(rest, segments, recipe)
        done = rebuild(recipe, [old.fileno()], literals, out.fileno(), signed["digest"])
    return {"shared": done.shared, "copied": done.copied, "literal": done.literal}


def _write(
    stored: Path, size: int, digest: Digest | None, segments: list[Segment], *, encoding: Encoding
) -> None:
    document = {
        "size": size,
        "digest": digest and str(digest),
        "encoding": encoding,
        "segments": [[segment.size, str(segment.digest)] for segment in segments],
    }
    Path(f"{stored}.json").write_text(json.dumps(document))


def _read(stored: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path(f"{stored}.json").read_text())
    segments = [Segment(size, Digest.parse(digest)) for size, digest in document["segments"]]
    digest = document["digest"] and Digest.parse(document["digest"])
    return document | {"digest": digest, "segments": segments}


_COMMANDS: Final = {
    "encode": encode,
    "encode-max": partial(encode, mode=Compression.MAX),
    "decode": decode,
    "index": index,
    "diff": diff,
    "patch": patch,
}

if __name__ == "__main__":
    command: Any = _COMMANDS[sys.argv[1]]
    print(json.dumps(command(*map(Path, sys.argv[2:]))))
