"""Builds llama-server once per machine: the peer that the serving figures stand beside.

From the same source distribution as the engine's wheel, so from the same vendored llama.cpp, and
with the same instruction flags. Kept in the cache beside the wheel, keyed by all that decides it.

Usage::

    python tools/llama_server.py    # print the program's path; build it where missing, minutes
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path
from typing import Final

if not __package__:  # a script finds its neighbours only
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.engine_wheel import BUILD_REQUIREMENTS, cache_key, cache_root, requirements_file

_PROGRAM: Final = "llama-server"
_SETTING: Final = re.compile(r'cmake\.define\.(\w+=[^"]+)"')
# What the peer needs none of here: downloads, TLS, a page, tests. One file is kept: no libraries.
_OPTIONS: Final = (
    "CMAKE_BUILD_TYPE=Release",
    "BUILD_SHARED_LIBS=OFF",
    "LLAMA_CURL=OFF",
    "LLAMA_OPENSSL=OFF",
    "LLAMA_BUILD_UI=OFF",
    "LLAMA_USE_PREBUILT_UI=OFF",
    "LLAMA_BUILD_TESTS=OFF",
    "LLAMA_BUILD_EXAMPLES=OFF",
)
_LOG_TAIL: Final = 2000  # characters of the build's log that are shown after a failure


class BuildError(Exception):
    """The server cannot be built here; the message says why."""


def program() -> Path:
    """The program, out of the cache or freshly built.

    Raises:
        BuildError: It cannot be built.
    """
    requirements = requirements_file()
    digest = hashlib.sha256(" ".join((cache_key(requirements), *_OPTIONS)).encode()).hexdigest()
    folder = cache_root().parent / "peers"
    target = folder / f"{_PROGRAM}-{digest[:16]}"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="building-", dir=folder) as name:
            _build(requirements, Path(name)).rename(target)
    return target


def _build(requirements: Path, work: Path) -> Path:
    environment = work / "venv"
    venv.create(environment, with_pip=True)
    log = work.parent / f"{_PROGRAM}.log"
    print(f"{_PROGRAM}: building; this takes minutes, and only once; log: {log}", file=sys.stderr)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    pip += ["--no-input"]
    hashed = ["--require-hashes", "--no-deps"]
    sources = ["--no-build-isolation", "-d", str(work / "source"), "-r", str(requirements)]
    with log.open("wb") as out:

        def step(*command: str) -> None:
            env = {**os.environ, "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"}
            env["TMPDIR"] = str(work)
            done = subprocess.run(
                command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False
            )
            if done.returncode:
                tail = log.read_text(errors="replace")[-_LOG_TAIL:]
                msg = f"{tail}\n{command[0]} failed; whole log: {log}"
                raise BuildError(msg)

        step(*pip, "install", *hashed, "-r", str(BUILD_REQUIREMENTS))
        step(*pip, "download", *hashed, *sources)
        source = _unpack(work / "source") / "vendor" / "llama.cpp"
        switches = [*_OPTIONS, *_SETTING.findall(requirements.read_text(encoding="ascii"))]
        build = str(work / "build")
        defines = [f"-D{switch}" for switch in switches]
        step("cmake", "-S", str(source), "-B", build, "-G", "Ninja", *defines)
        cores = str(len(os.sched_getaffinity(0)))
        step("cmake", "--build", build, "--target", _PROGRAM, "--parallel", cores)
    return work / "build" / "bin" / _PROGRAM


def _unpack(folder: Path) -> Path:
    """The one folder in the one archive."""
    [archive] = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    [found] = (path for path in folder.iterdir() if path.is_dir())
    return found


def main() -> int:
    """Print the path, or why there is none."""
    if shutil.which("c++") is None:
        print("no C++ compiler: apt-get install g++", file=sys.stderr)
        return 1
    try:
        print(program())
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
