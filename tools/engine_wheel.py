"""Builds llama-cpp-python once per machine, with the project's own flags.

The package index carries only its source distribution. A build takes minutes, so the wheel is
kept in a cache of our own, keyed by everything that decides its content; pip's cache is not used,
because it does not know build flags and would hand back a wheel made with others.

Standard library only: this runs before anything is installed.

Usage::

    python tools/engine_wheel.py                 # print the wheel's path; build it where missing
    python tools/engine_wheel.py --requirements  # print the requirements file for this processor
    python tools/engine_wheel.py --check         # does the installed engine have the named flags?
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

REQUIREMENTS: Final = Path(__file__).resolve().parent.parent / "requirements"
BUILD_REQUIREMENTS: Final = REQUIREMENTS / "engine-build.txt"
CPUINFO: Final = Path("/proc/cpuinfo")

_V2: Final = frozenset({"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"})
_V3: Final = _V2 | {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}
_AVX512: Final = _V3 | {
    "avx512_bf16",
    "avx512_vnni",
    "avx512bw",
    "avx512cd",
    "avx512dq",
    "avx512f",
    "avx512vbmi",
    "avx512vl",
}
_AMX: Final = _AVX512 | {"amx_int8", "amx_tile"}
# First match wins. The names of the flags are those of Linux's /proc/cpuinfo.
X86_VARIANTS: Final = (
    ("engine-x86-64-amx.txt", _AMX),
    ("engine-x86-64-avx512.txt", _AVX512),
    ("engine-x86-64-v3.txt", _V3),
    ("engine-x86-64-v2.txt", _V2),
)

_SWITCH: Final = re.compile(r"cmake\.define\.GGML_(\w+)=(ON|OFF)")
# Names in ggml's system info that differ from the build switch.
_INFO_NAME: Final = {"SSE42": "SSE3"}
_LOG_TAIL: Final = 30  # lines of the build log shown after a failure
_TICK: Final = 30.0  # seconds between signs of life


class BuildError(Exception):
    """The engine cannot be built or used here; the message says what to do."""


def choose(machine: str, cpuinfo: str) -> str:
    """The name of the requirements file for a processor.

    Args:
        machine: ``platform.machine()``.
        cpuinfo: The text of ``/proc/cpuinfo``. Only what every listed processor has counts, so
            that a machine with unlike cores gets what all of them can run.

    Raises:
        BuildError: no file fits this processor.
    """
    if machine.lower() in {"aarch64", "arm64"}:
        return "engine-aarch64.txt"
    if machine.lower() not in {"x86_64", "amd64"}:
        msg = f"the engine has no build flags for {machine} processors, only x86-64 and aarch64"
        raise BuildError(msg)
    lists = re.findall(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    common = set.intersection(*(set(flags.split()) for flags in lists)) if lists else set()
    for name, needed in X86_VARIANTS:
        if needed <= common:
            return name
    missing = ", ".join(sorted(_V2 - common))
    msg = f"this processor is too old for the engine: it lacks {missing}"
    raise BuildError(msg)


def requirements_file() -> Path:
    """The requirements file for the processor that this runs on."""
    cpuinfo = CPUINFO.read_text(encoding="ascii", errors="replace") if CPUINFO.exists() else ""
    return REQUIREMENTS / choose(platform.machine(), cpuinfo)


def cache_root() -> Path:
    """The folder that holds one folder per built wheel."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "sealift" / "wheels"


def cache_key(requirements: Path) -> str:
    """A key over all that decides the wheel: flags, build tools, interpreter and platform."""
    digest = hashlib.sha256()
    for part in (
        requirements.read_bytes(),
        BUILD_REQUIREMENTS.read_bytes(),
        sys.implementation.cache_tag.encode(),
        sysconfig.get_platform().encode(),
        "-".join(platform.libc_ver()).encode(),
    ):
        digest.update(hashlib.sha256(part).digest())
    return f"{requirements.stem}-{digest.hexdigest()[:16]}"


def wheel() -> Path:
    """The engine's wheel, out of the cache or freshly built.

    An interrupted build leaves nothing under the final name; of two at once, one waits.

    Raises:
        BuildError: no compiler, or the build failed.
    """
    requirements = requirements_file()
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    target = root / cache_key(requirements)
    with _locked(root / "lock"):
        found = sorted(target.glob("*.whl"))
        if not found:
            _build(requirements, root, target)
            found = sorted(target.glob("*.whl"))
    return found[0]


def check(requirements: Path) -> list[str]:
    """The switches of a requirements file that the installed engine contradicts."""
    llama_cpp = importlib.import_module("llama_cpp")
    info: str = llama_cpp.llama_print_system_info().decode("ascii", "replace")
    has = set(re.findall(r"(\w+) = 1", info))
    wrong: list[str] = []
    for name, state in _SWITCH.findall(requirements.read_text(encoding="ascii")):
        shown = _INFO_NAME.get(name, name)
        if shown.startswith(("AMX_INT8", "AVX", "BMI", "F16C", "FMA", "SSE")) and (
            shown in has
        ) != (state == "ON"):
            wrong.append(f"{name} should be {state}")
    return wrong


def _build(requirements: Path, root: Path, target: Path) -> None:
    _need_compiler()
    for stale in root.glob("building-*"):  # we hold the lock, so nobody is at work in there
        shutil.rmtree(stale)
    log = root / f"{target.name}.log"
    _say(f"building the engine with {requirements.name}; this takes minutes, and only once")
    _say(f"log: {log}")
    # Compilers that were just told to stop may still write: the next build sweeps up the rest.
    with tempfile.TemporaryDirectory(
        prefix="building-", dir=root, ignore_cleanup_errors=True
    ) as name:
        work = Path(name)
        wheels = work / "wheels"
        environment = work / "venv"
        venv.create(environment, with_pip=True)
        python = str(environment / "bin" / "python")
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]
        install = ["install", "--require-hashes", "--no-deps", "-r", str(BUILD_REQUIREMENTS)]
        # No build isolation: it would fetch build tools by version ranges, without hashes.
        build = ["wheel", "-v", "--no-cache-dir", "--no-deps", "--no-build-isolation"]
        build += ["--require-hashes", "-w", str(wheels), "-r", str(requirements)]
        env = _build_environment(work, environment)
        with log.open("wb") as out:
            for command in ([*pip, *install], [*pip, *build]):
                _run(command, env, out.fileno(), log)
        if len(list(wheels.glob("llama_cpp_python-*.whl"))) != 1:
            msg = f"the build left no wheel; see {log}"
            raise BuildError(msg)
        if target.exists():
            shutil.rmtree(target)
        wheels.rename(target)


def _build_environment(work: Path, environment: Path) -> dict[str, str]:
    """Our own environment without what would change the build behind the requirements file."""
    behind = ("CMAKE_", "SKBUILD_", "GGML_", "LLAMA_", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS")
    env = {key: value for key, value in os.environ.items() if not key.startswith(behind)}
    env.pop("SOURCE_DATE_EPOCH", None)
    env["PATH"] = f"{environment / 'bin'}{os.pathsep}{env.get('PATH', os.defpath)}"
    env["CMAKE_BUILD_PARALLEL_LEVEL"] = str(len(os.sched_getaffinity(0)))
    env["CMAKE_GENERATOR"] = "Ninja"
    env["TMPDIR"] = str(work / "tmp")  # sources and objects go where we clean up
    (work / "tmp").mkdir()
    return env


def _run(command: list[str], env: dict[str, str], out: int, log: Path) -> None:
    start = time.monotonic()
    with subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            while True:
                try:
                    code = process.wait(timeout=_TICK)
                    break
                except subprocess.TimeoutExpired:
                    _say(f"still building: {time.monotonic() - start:.0f} s")
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)  # pip, CMake, Ninja and the compilers at work
            raise
    if code:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL:]
        msg = "\n".join([*tail, f"the engine's build failed (exit {code}); whole log: {log}"])
        raise BuildError(msg)


def _need_compiler() -> None:
    cxx = os.environ.get("CXX", "c++").split()[0]
    cc = os.environ.get("CC", "cc").split()[0]
    missing = [name for name in (cc, cxx) if shutil.which(name) is None]
    if missing:
        msg = f"no C and C++ compiler ({' and '.join(missing)}): apt-get install g++"
        raise BuildError(msg)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("wb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another build is at work; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    print(f"engine: {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Parse, do one thing, print its result on standard output."""
    parser = argparse.ArgumentParser(description="Build llama-cpp-python once, with our own flags.")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--requirements", action="store_true", help="print the requirements file")
    mode.add_argument("--check", action="store_true", help="check the installed engine's flags")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        if options.requirements:
            print(requirements_file())
        elif options.check:
            wrong = check(requirements_file())
            if wrong:
                _say(f"wrong flags: {'; '.join(wrong)}. Rebuild: make clean-cache venv")
                return 1
        else:
            print(wheel())
    except BuildError as error:
        _say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
