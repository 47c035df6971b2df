"""Which files an interpreter with native extensions needs to go on running, and nothing more."""

from __future__ import annotations

import mimetypes
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from runtime.sandbox.landlock import LIST, READ, WRITE_FILE, Grant

_OWN_PACKAGES: Final = ("schemas", "registry", "bundler", "runtime")
_LIBRARIES: Final = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    # OpenSSL's public settings: a file that is there but not readable is an error to it.
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/openssl.cnf",
    "/etc/crypto-policies",
)
# CPU features and topology (ggml, OpenMP, OpenBLAS), memory figures, own maps (libffi's static
# trampolines) and own status (metrics, doctor). Not /proc as a whole: other processes are there.
_MACHINE: Final = (
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/crypto/fips_enabled",
    "/proc/self/maps",
    "/proc/self/stat",
    "/proc/self/statm",
    "/proc/self/status",
    "/proc/self/fd",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/kernel/mm/transparent_hugepage",
    "/dev/urandom",
    "/dev/zero",
)


def interpreter_grants() -> Iterator[Grant]:
    """Read-only: the standard library, installed packages, our own, shared libraries, CPU facts."""
    paths = sysconfig.get_paths()
    for key in ("stdlib", "platstdlib", "purelib", "platlib"):
        yield Grant(Path(paths[key]).resolve(), READ)
    yield Grant(Path(sys.prefix).resolve() / "pyvenv.cfg", READ)
    base = Path(sys.base_prefix).resolve()
    yield Grant(base / "lib", READ)
    for path in (*_LIBRARIES, *_MACHINE):
        yield Grant(Path(path), READ)
    yield Grant(Path("/dev/null"), WRITE_FILE)
    # In a checkout the packages lie beside other things: names may be listed, not read.
    home = Path(__file__).resolve().parents[2]
    yield Grant(home, LIST)
    for package in _OWN_PACKAGES:
        yield Grant(home / package, READ)


def web_grants() -> Iterator[Grant]:
    """What a web server reads beside: the names of media types, where a host lists them."""
    for path in mimetypes.knownfiles:
        yield Grant(Path(path), READ)
