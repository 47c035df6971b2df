"""``sealift doctor``: is this installation whole, is its store, and can it confine what it runs?

Each check looks at one thing and says what it found; none changes anything.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from registry.store import Store
from runtime.client import Address, Client
from runtime.probe import probe
from schemas.errors import KeyRequired, NotFound, RemoteUnavailable, SealiftError
from schemas.settings import Settings
from schemas.version import TOOL, VERSION

Verdict = Literal["ok", "note", "bad"]

CONTROL: Final = "unconfined"
PACKAGES: Final = ("bundler", "registry", "runtime", "schemas")
_OLDEST_PYTHON: Final = (3, 11)
_SERVING: Final = {"aiohttp": "aiohttp", "jinja2": "jinja2", "llama_cpp": "llama-cpp-python"}
_CRAMPED_BYTES: Final = 1_000_000_000  # less room than this holds no further model


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        check: What was looked at.
        verdict: ``ok``; ``note``: works, but worth knowing; ``bad``: something will fail.
        detail: What was seen.
        hint: What to do about it.
    """

    check: str
    verdict: Verdict
    detail: str
    hint: str = ""

    def document(self) -> dict[str, str]:
        """For JSON."""
        return {k: getattr(self, k) for k in ("check", "verdict", "detail", "hint")}


def examine(settings: Settings) -> Iterator[Finding]:
    """All checks in order, each as soon as it is done."""
    checks: tuple[tuple[str, Callable[[Settings], Finding]], ...] = (
        ("python", _python),
        ("packages", _packages),
        ("serving", _serving),
        ("home", _home),
        ("store", _store),
        ("worker", lambda _: _sandbox("worker")),
        ("front-end", lambda _: _sandbox("front-end")),
        ("engine", _engine),
        ("server", _server),
    )
    for name, check in checks:
        try:
            yield check(settings)
        except SealiftError as error:
            why = f"{error.what}: {error.why}" if error.why else error.what
            yield Finding(name, "bad", why, error.hint)


def _python(_: Settings) -> Finding:
    text = f"{platform.python_implementation()} {platform.python_version()}, {platform.platform()}"
    if sys.version_info < _OLDEST_PYTHON:
        return Finding("python", "bad", text, "Use Python 3.11 or newer")
    return Finding("python", "ok", text)


def _packages(_: Settings) -> Finding:
    """The four top-level names are plain words: make sure that they are ours (design, "Names")."""
    roots = {name: _root(name) for name in PACKAGES}
    ours = roots["runtime"]
    strange = [f"{name} from {root}" for name, root in roots.items() if root != ours]
    if strange:
        return Finding(
            "packages", "bad", ", ".join(strange), "Install sealift in a virtual environment"
        )
    claimed = importlib.metadata.packages_distributions()
    others = {d for name in PACKAGES for d in claimed.get(name, ())} - {TOOL}
    if others:
        detail = f"{', '.join(sorted(others))} installs packages of the same names"
        return Finding("packages", "bad", detail, "Install sealift in a virtual environment")
    try:
        installed = importlib.metadata.version(TOOL)
    except importlib.metadata.PackageNotFoundError:
        return Finding("packages", "note", f"sealift {VERSION}, not installed, run from {ours}")
    if installed != VERSION:
        detail = f"code of {VERSION}, metadata of {installed}"
        return Finding("packages", "bad", detail, "Install sealift again")
    return Finding("packages", "ok", f"sealift {VERSION}: {', '.join(PACKAGES)} from {ours}")


def _root(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent.parent if spec and spec.origin else None


def _serving(_: Settings) -> Finding:
    missing = [name for module, name in _SERVING.items() if not importlib.util.find_spec(module)]
    if missing:
        detail = f"cannot serve models without {', '.join(missing)}"
        return Finding("serving", "note", detail, 'Install "sealift[serve]"')
    versions = (f"{name} {importlib.metadata.version(name)}" for name in _SERVING.values())
    return Finding("serving", "ok", ", ".join(versions))


def _home(settings: Settings) -> Finding:
    home = settings.home
    try:
        status = home.stat()
    except FileNotFoundError:
        detail = f"{home} is not there yet"
        return Finding("home", "note", detail, "Import a bundle first, or set SEALIFT_HOME")
    except OSError as error:
        return Finding("home", "bad", f"{home}: {error.strerror}")
    if not stat.S_ISDIR(status.st_mode):
        return Finding("home", "bad", f"{home} is no folder", "Set SEALIFT_HOME to a folder")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        detail = f"{home} can be written by others (mode {stat.S_IMODE(status.st_mode):04o})"
        return Finding("home", "bad", detail, f"Run chmod go-w {home}")
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        return Finding("home", "note", f"{home} is read-only for you", "Imports need its owner")
    free = shutil.disk_usage(home).free
    verdict: Verdict = "ok" if free >= _CRAMPED_BYTES else "note"
    return Finding("home", verdict, f"{home}, {free / 1e9:.1f} GB free")


def _store(settings: Settings) -> Finding:
    """Names, rows and files agree; the bytes themselves are what ``--scrub`` reads."""
    try:
        store = Store.open(settings.home, create=False)
    except NotFound:
        return Finding("store", "note", "empty", "Import a bundle")
    with store:
        models = len(store.catalogue.models())
        sizes = store.catalogue.blob_sizes()
        lost, wrong = 0, 0
        for digest, size in sizes.items():
            if not store.blobs.has(digest):
                lost += 1
            elif store.blobs.size(digest) != size:
                wrong += 1
    if lost or wrong:
        detail = f"{lost} of {len(sizes)} blobs are missing, {wrong} have a wrong size"
        return Finding("store", "bad", detail, "Import the bundle again")
    total = sum(sizes.values()) / 1e9
    return Finding("store", "ok", f"models: {models}, blobs: {len(sizes)}, {total:.2f} GB")


def _sandbox(process: str) -> Finding:
    report = probe(process)["sandbox"]
    layers = (report["seccomp"], f"Landlock {report['landlock']}", report["namespace"])
    weak = not str(report["landlock"]).startswith("ABI")
    hint = "seccomp holds without it; a newer kernel adds Landlock" if weak else ""
    return Finding(process, "note" if weak else "ok", "; ".join(layers), hint)


def _engine(settings: Settings) -> Finding:
    """Decode a real prompt with the smallest model that is here."""
    if any(importlib.util.find_spec(module) is None for module in _SERVING):
        return Finding("engine", "note", "not tried: not installed")
    from runtime.models import Models
    from runtime.options import Options
    from runtime.trial import decode

    try:
        with Store.open(settings.home, create=False) as store:
            models = Models(store).all()
    except NotFound:
        models = []
    if not models:
        return Finding("engine", "note", "not tried: no model is here yet")
    smallest = min(models, key=lambda model: model.size)
    spec = smallest.worker_spec(
        Options(), context=0, parallel=1, threads=settings.serve.num_threads
    )
    trial = decode(spec, settings.serve.load_timeout_ms / 1000)
    rates = f"{trial.prompt_rate:.0f} tokens/s in, {trial.output_rate:.0f} out"
    return Finding("engine", "ok", f"{smallest.name}: {rates}; {trial.engine}")


def _server(settings: Settings) -> Finding:
    address = Address.parse(settings.serve.host)
    try:
        version = Client.of(settings.serve).get("/api/version").get("version")
    except (RemoteUnavailable, KeyRequired) as error:
        return Finding("server", "note", error.what, error.hint)
    return Finding("server", "ok", f"version {str(version)[:40]} at {address}")


def egress(settings: Settings) -> tuple[str, list[Mapping[str, Any]], Mapping[str, Any]]:
    """What comes of trying to get out, from inside.

    Asks the running server, whose front-end and workers then try. Where no server runs, or no model
    is loaded in it, fresh processes are confined in the same way and try.

    Returns:
        Who tried, for people; per process ``process``, ``sandbox`` and ``attempts``; and the one
        ``address`` that a running server may reach, its mirror, with ``sandbox`` and ``attempts``
        of the courier that connects to it: empty where no mirror is configured. The process
        ``unconfined`` is the control, which shows that the attempts are real.
    """
    mirror: Mapping[str, Any] = {}
    address = Address.parse(settings.serve.host)
    try:
        document = Client.of(settings.serve).get("/api/sealift/egress")
        tried, who = _processes(document), f"the server at {address}"
        found = document.get("mirror")
        mirror = found if isinstance(found, dict) else {}
    except RemoteUnavailable:
        tried, who = [_fresh("front-end")], "fresh processes, for no server runs"
        mirror = _fresh_courier(settings)
    if all(process.get("process") != "worker" for process in tried):
        tried = [*tried, _fresh("worker")]
    return who, [*tried, _fresh(CONTROL)], mirror


def sealed(
    processes: Sequence[Mapping[str, Any]], mirror: Mapping[str, Any] = MappingProxyType({})
) -> bool:
    """Whether it is proven that nothing gets out: each process but the control tried and failed.

    Anything short of that, as a front-end that nobody asked, is no proof. With a mirror, its
    courier must have failed in every way but the one that it is there for.
    """
    if mirror:
        processes = [*processes, {"process": "courier", "attempts": mirror.get("attempts")}]
    outcomes: dict[str, list[object]] = {}
    for process in processes:
        attempts = process.get("attempts")
        found = [a.get("outcome") if isinstance(a, dict) else None for a in _list(attempts)]
        outcomes.setdefault(str(process.get("process")), []).extend(found or [None])
    outcomes.pop(CONTROL, None)
    return {"front-end", "worker"} <= outcomes.keys() and all(
        outcome == "refused" for found in outcomes.values() for outcome in found
    )


def _processes(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [p for p in _list(document.get("processes")) if isinstance(p, dict)]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _fresh_courier(settings: Settings) -> Mapping[str, Any]:
    if not settings.serve.mirror:
        return {}
    from runtime.mirror.service import Mirror

    mirror = Mirror.start(settings.serve)
    if mirror is None:
        return {}
    with closing(mirror):
        return mirror.document()


def _fresh(process: str) -> dict[str, Any]:
    return {"process": process, "fresh": True, **probe(process)}
