"""Kills imports and bundlings at random moments, and looks at what they leave.

Run as a program, so that what forks here has no threads and has loaded all it needs: a child then
spends its time in the work itself, where it is to be killed. Prints counts as JSON.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from bundler.chunking import Chunking
from bundler.chunks.shelf import IndexShelf
from bundler.create import Form, create_bundle
from bundler.importer import Wishes
from bundler.isolated import import_paths
from bundler.sources import resolve
from bundler.trust.publisher import Publisher
from bundler.verifying import verify_bundle
from registry.store import Store
from schemas.render import Output
from tests.support.bundle_simulator import digest, members
from tests.support.site import Site, check_sound, snapshot

PASSPHRASE = b"correct horse"


def kill_imports(pristine: Path, bundle: Path, model: str, kills: int, seed: int) -> Counter[str]:
    """Import until so many were killed; a killed import is simply run again over its remains.

    Args:
        pristine: A site that trusts the bundle's publisher and holds nothing.
        bundle: A good one, with one model: a file, or a folder with head and volumes.
        model: The model's name.
        kills: How many imports must die.
        seed: For the moments.
    """
    counts: Counter[str] = Counter()
    home = pristine.with_name("killed")
    before = snapshot(pristine).catalogue

    def renew() -> None:
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(pristine, home)

    def once() -> None:
        with Output(quiet=True).progress() as meter:
            import_paths(home, [bundle], Wishes(), meter)

    longest = _duration(once, renew)
    moments = random.Random(seed)
    renew()
    while counts["killed"] < kills:
        died = _kill_after(moments.uniform(0, longest), once)
        counts["killed" if died else "finished"] += 1
        models = check_sound(home)
        if died:
            again = repeated(home, bundle)
            counts["most-repeated"] = max(counts["most-repeated"], again)
            counts["left-staging"] += any((home / "staging").iterdir())
            counts["left-blobs"] += not models and len(snapshot(home).blobs) > 1
        if not models:
            assert died, "an import ended well and installed nothing"
            assert snapshot(home).catalogue == before
            continue
        assert models == [model]
        assert Site(home).imports() == 1
        counts["killed-after-commit"] += died
        renew()
    once()
    after = snapshot(home)
    assert check_sound(home) == [model]
    assert not any((home / "staging").iterdir())
    assert len([name for name in after.files if name.startswith("blobs/sha256/")]) == 3
    return counts


def repeated(home: Path, bundle: Path) -> int:
    """Segments that are in their place and not in the journal: the next run reads them again."""
    if not bundle.is_dir():
        return 0
    head = min(bundle.iterdir()).read_bytes()
    table = next(m.data for m in members(head) if m.name == "sealift/bundle.json")
    found = 0
    for part in (home / "staging").glob("*/*.part"):
        blob = part.stem.replace("-", ":")
        entry = next(c for c in json.loads(table)["contents"] if c["digest"] == blob)
        if "segments" not in entry:  # a manifest or a config
            continue
        journal = part.with_name("journal").read_text().splitlines()
        data, place = part.read_bytes(), 0
        for number, segment in enumerate(entry["segments"]):
            there = digest(data[place : place + segment["size"]]) == segment["digest"]
            found += there and f"{part.stem.partition('-')[2]} {number}" not in journal
            place += segment["size"]
    return found


def kill_creates(folder: Path, source: Path, kills: int, seed: int) -> Counter[str]:
    """Write a bundle over the last one until so many attempts were killed.

    Args:
        folder: To work in.
        source: A model.
        kills: How many must die.
        seed: For the moments.
    """
    counts: Counter[str] = Counter()
    publisher = Publisher.init(
        folder / "publisher",
        name="killed",
        namespaces=["library"],
        passphrase=PASSPHRASE,
        kdf_rounds=1000,
    )
    home, output = folder / "home", folder / "out" / "models.tar"
    output.parent.mkdir()
    root = folder / "root.json"
    root.write_bytes(publisher.root_bytes)
    Site(home).bundle("trust", "init", "--root", root, "--fingerprint", publisher.fingerprint)

    chunking = Chunking(IndexShelf(folder / "chunks"), {})

    def once() -> None:
        with Output(quiet=True).progress() as meter:
            create_bundle(
                Publisher.open(folder / "publisher"),
                [resolve(str(source), "library/tiny:1", chunking, meter)],
                output,
                passphrase=PASSPHRASE,
                now=datetime.now(UTC),
                form=Form(overwrite=True),
                progress=meter,
            )

    longest = _duration(once, lambda: output.unlink(missing_ok=True))
    output.unlink()
    moments = random.Random(seed)
    while counts["killed"] < kills:
        died = _kill_after(moments.uniform(0, longest), once)
        counts["killed" if died else "finished"] += 1
        left = sorted(path.name for path in output.parent.iterdir() if path != output)
        counts["left-partial"] += bool(left)
        for name in left:
            assert re.fullmatch(rf"\.{output.name}\.([0-9a-f]+\.partial|[0-9a-z_]+)", name)
            path = output.parent / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert died or output.exists()
        if output.exists():
            _check_whole(home, output)
        else:
            counts["nothing-yet"] += 1
    once()
    _check_whole(home, output)
    return counts


def _check_whole(home: Path, output: Path) -> None:
    with (
        Store.open(home) as store,
        output.open("rb", buffering=0) as source,
        Output(quiet=True).progress() as meter,
    ):
        verify_bundle(store, source, {}, wishes=Wishes(), now=datetime.now(UTC), progress=meter)


def _duration(work: Callable[[], None], prepare: Callable[[], None]) -> float:
    """Of the slowest of three undisturbed runs in a child, in seconds."""
    found = []
    for _ in range(3):
        prepare()
        began = time.monotonic()
        assert not _kill_after(60, work)
        found.append(time.monotonic() - began)
    return max(found)


def _kill_after(seconds: float, work: Callable[[], None]) -> bool:
    """Fork, do the work there, kill it after a while; whether it died of that."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - a forked child must not return into its parent's code
            traceback.print_exc()
        finally:
            os._exit(code)
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(min(left, 0.002))
    else:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "it failed by itself"
    return False


def main() -> None:
    what, first, second, *rest = sys.argv[1:]
    if what == "imports":
        model, kills, seed = rest
        counts = kill_imports(Path(first), Path(second), model, int(kills), int(seed))
    else:
        kills, seed = rest
        counts = kill_creates(Path(first), Path(second), int(kills), int(seed))
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
