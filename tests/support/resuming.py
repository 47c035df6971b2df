"""Interrupts `bundle create` again and again, and sees that each attempt goes on where the last was.

Run as a program, so that what forks here has no threads and has loaded all it needs. Prints counts
as JSON.

A power loss is simulated: while an attempt runs, what it has synced is copied aside, file by file
and folder by folder; afterwards the disk is made to hold just that.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from schemas import limits

SEGMENT = 1 * limits.MIB
limits.SEGMENT_BYTES = SEGMENT  # type: ignore[misc]
limits.PIECE_BYTES = SEGMENT  # type: ignore[misc]

from bundler.archive.codec import Compression  # noqa: E402 - the limits first
from bundler.chunking import Chunking  # noqa: E402 - the limits first
from bundler.chunks.shelf import IndexShelf  # noqa: E402 - the limits first
from bundler.create import Form, create_bundle  # noqa: E402 - the limits first
from bundler.importer import Wishes  # noqa: E402 - the limits first
from bundler.isolated import verify_paths  # noqa: E402 - the limits first
from bundler.sources import resolve  # noqa: E402 - the limits first
from bundler.trust.publisher import Publisher  # noqa: E402 - the limits first
from bundler.workbench import folder_of  # noqa: E402 - the limits first
from registry.store import Store  # noqa: E402 - the limits first
from schemas.errors import AlreadyExists  # noqa: E402 - the limits first
from schemas.render import Output  # noqa: E402 - the limits first
from tests.support.site import Site  # noqa: E402 - the limits first

PASSPHRASE = b"correct horse"
SLACK = 400 * limits.KIB  # of an attempt: plan, metadata, head, a journal line now and then


class Interrupter:
    """One publisher, one site that trusts it, one model, bundled again and again."""

    def __init__(self, folder: Path, source: Path, form: Form, seed: int) -> None:
        self.folder, self.form, self.moments = folder, form, random.Random(seed)
        self.publisher = Publisher.init(
            folder / "publisher",
            name="interrupted",
            namespaces=["library"],
            passphrase=PASSPHRASE,
            kdf_rounds=1000,
        )
        self.home, self.output = folder / "home", folder / "out" / "models.tar"
        self.disk, self.shadow = self.output.parent, folder / "shadow"
        self.disk.mkdir()
        root = folder / "root.json"
        root.write_bytes(self.publisher.root_bytes)
        Site(self.home).bundle(
            "trust", "init", "--root", root, "--fingerprint", self.publisher.fingerprint
        )
        chunking = Chunking(IndexShelf(folder / "chunks"), {})
        with Output(quiet=True).progress() as self.meter:
            self.model = resolve(str(source), "library/tiny:1", chunking, self.meter)

    def create(self) -> None:
        """One attempt; a bundle that is complete already is fine."""
        try:
            create_bundle(
                Publisher.open(self.folder / "publisher"),
                [self.model],
                self.output,
                passphrase=PASSPHRASE,
                now=datetime.now(UTC),
                form=self.form,
                progress=self.meter,
            )
        except AlreadyExists:
            assert self.output.exists()

    def create_remembering(self) -> None:
        """One attempt, of which everything that is synced is remembered."""
        remember = Remember(self.disk, self.shadow)
        for name in ("fsync", "fdatasync"):
            setattr(os, name, remember.wrap(getattr(os, name)))
        self.create()

    def check(self) -> bool:
        """Whether a bundle is there; if so, it is whole, and nothing else is beside it."""
        if not self.output.exists():
            return False
        with Output(quiet=True).progress() as meter:
            paths = [path for path in self.disk.iterdir() if path.is_file()]
            verify_paths(self.home, paths, Wishes(), meter)
        return True

    def renew(self) -> None:
        shutil.rmtree(self.disk)
        shutil.rmtree(self.shadow, ignore_errors=True)
        self.disk.mkdir()

    def kill(self, kills: int) -> Counter[str]:
        """SIGKILL at random moments, until so many attempts died."""
        counts: Counter[str] = Counter()
        longest, whole = self._measure(self.create)
        written = attempts = 0
        while counts["killed"] < kills:
            died, count = _kill_after(self.moments.uniform(0, longest), self.create)
            written, attempts = written + count, attempts + 1
            counts["killed"] += died
            if not died:
                assert written <= whole + attempts * (SEGMENT + SLACK), (written, whole, attempts)
                counts["finished"] += 1
                counts["attempts"] = max(counts["attempts"], attempts)
                assert not folder_of(self.output).exists()
                assert self.check()
                self.renew()
                written = attempts = 0
            else:
                counts["left"] += folder_of(self.output).exists()
                self.check()
        self._finish()
        return counts

    def lose_power(self, losses: int) -> Counter[str]:
        """Lose all that was not synced, at random moments, until it happened so often."""
        counts: Counter[str] = Counter()
        longest, _ = self._measure(self.create_remembering)
        while counts["lost"] < losses:
            died, _ = _kill_after(self.moments.uniform(0, longest), self.create_remembering)
            if died:
                counts["lost"] += 1
                counts["begun"] += Remember(self.disk, self.shadow).restore()
            if self.check():
                counts["whole"] += 1
                self.renew()
            else:
                assert died, "it ended well and left nothing"
        self._finish()
        return counts

    def _finish(self) -> None:
        if not self.output.exists():
            self.create()
        assert self.check()

    def _measure(self, work: Callable[[], None]) -> tuple[float, int]:
        """Of an undisturbed attempt: seconds, and bytes written."""
        began = time.monotonic()
        died, count = _kill_after(100, work)
        assert not died
        spent = time.monotonic() - began
        assert self.check()
        self.renew()
        return spent, count


class Remember:
    """What of a folder and its sub-folders would be there after a power loss.

    Args:
        disk: The folder.
        shadow: Where copies go: ``<inode>`` of a file, ``<inode>.names`` of a folder.
    """

    def __init__(self, disk: Path, shadow: Path) -> None:
        self._disk, self._shadow = disk, shadow
        shadow.mkdir(exist_ok=True)

    def wrap(self, sync: Callable[[int], None]) -> Callable[[int], None]:
        def wrapped(fd: int) -> None:
            sync(fd)
            path = Path(f"/proc/self/fd/{fd}").readlink()
            if not path.is_relative_to(self._disk):
                return
            if path.is_dir():
                names = {p.name: [p.stat().st_ino, p.is_dir()] for p in path.iterdir()}
                self._put(f"{path.stat().st_ino}.names", json.dumps(names).encode())
            else:
                data = os.pread(fd, os.fstat(fd).st_size, 0) if _readable(fd) else path.read_bytes()
                self._put(str(os.fstat(fd).st_ino), data)

        return wrapped

    def restore(self) -> bool:
        """Make the disk hold what was synced; whether there was anything."""
        top = self._disk.stat().st_ino
        trees = self._tree(top, self._disk)
        for path in list(self._disk.iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path, data in trees.items():
            path.parent.mkdir(exist_ok=True, mode=0o700)
            path.write_bytes(data)
        shutil.rmtree(self._shadow)
        self._shadow.mkdir()
        self._remember_all(self._disk)
        return bool(trees)

    def _remember_all(self, folder: Path) -> None:
        """What lies there now is on the disk for good."""
        names = {p.name: [p.stat().st_ino, p.is_dir()] for p in folder.iterdir()}
        self._put(f"{folder.stat().st_ino}.names", json.dumps(names).encode())
        for path in folder.iterdir():
            if path.is_dir():
                self._remember_all(path)
            else:
                self._put(str(path.stat().st_ino), path.read_bytes())

    def _tree(self, inode: int, path: Path) -> dict[Path, bytes]:
        listing = self._shadow / f"{inode}.names"
        found: dict[Path, bytes] = {}
        if listing.exists():
            for name, (child, is_dir) in json.loads(listing.read_bytes()).items():
                if is_dir:
                    found |= self._tree(child, path / name)
                else:
                    content = self._shadow / str(child)
                    found[path / name] = content.read_bytes() if content.exists() else b""
        return found

    def _put(self, name: str, data: bytes) -> None:
        new = self._shadow / f"{name}.new"
        new.write_bytes(data)
        new.replace(self._shadow / name)


def _readable(fd: int) -> bool:
    flags = (
        Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii").split("flags:")[1].split()[0]
    )
    return int(flags, 8) & os.O_ACCMODE != os.O_WRONLY


def _kill_after(seconds: float, work: Callable[[], None]) -> tuple[bool, int]:
    """Fork, do the work there, kill it after a while.

    Returns:
        Whether it died of that, and how many bytes it had written.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            os.write(writing, str(_written("self")).encode())
            code = 0
        except BaseException:  # noqa: BLE001 - a forked child must not return into its parent's code
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    deadline = time.monotonic() + seconds
    count = 0
    while (left := deadline - time.monotonic()) > 0:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(min(left, 0.002))
    else:
        os.kill(child, signal.SIGSTOP)
        _, status = os.waitpid(child, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            count = _written(str(child))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True, count
    assert os.WEXITSTATUS(status) == 0, "it failed by itself"
    return False, int(text or count)


def _written(process: str) -> int:
    try:
        text = Path(f"/proc/{process}/io").read_text(encoding="ascii")
    except OSError:  # it ended just now
        return 0
    return int(text.split("wchar:")[1].split()[0])


FORMS = {
    "one": Form(Compression.NONE),
    "coded": Form(Compression.MAX),
    "volumes": Form(Compression.NONE, volume_size=limits.VOLUME_BYTES_MIN),
    "parity": Form(Compression.NONE, volume_size=3 * limits.VOLUME_BYTES_MIN, parity=2),
    "coded-volumes": Form(Compression.AUTO, volume_size=3 * limits.VOLUME_BYTES_MIN),
}


def main() -> None:
    """``resuming.py kill|power FORM FOLDER MODEL TIMES SEED``."""
    what, form, folder, source, times, seed = sys.argv[1:]
    interrupter = Interrupter(Path(folder), Path(source), FORMS[form], int(seed))
    work = {"kill": interrupter.kill, "power": interrupter.lose_power}[what]
    with Store.open(interrupter.home):  # made, so that all has been loaded before the first fork
        pass
    print(json.dumps(work(int(times))))


if __name__ == "__main__":
    main()
