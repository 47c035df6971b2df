"""A connected and an isolated side to measure on, made with the commands that everyone uses."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tools.benchmarks.neighbours import Patience
from tools.benchmarks.process import Cost, run

_PASSPHRASE: Final = "for measuring only\n"  # noqa: S105 - it protects nothing


@dataclass(frozen=True, slots=True)
class Bench:
    """What every figure gets.

    Attributes:
        folder: Everything is written below it, on the disk that is measured.
        pairs: Interleaved repeats.
        patience: How long to wait for a quiet machine.
        say: Shows one line of progress.
        bin: Where the console scripts lie.
    """

    folder: Path
    pairs: int
    patience: Patience
    say: Callable[[str], None]
    bin: Path = field(default_factory=lambda: Path(sys.executable).parent)

    def command(self, name: str) -> str:
        """Path of a console script of the virtual environment."""
        return str(self.bin / name)


class Site:
    """A publisher, and stores that have pinned its root.

    Args:
        bench: Where, and with which commands.
        name: Of the folder; emptied first.

    Attributes:
        bundle: Path of the command.
        folder: Of this site.
    """

    def __init__(self, bench: Bench, name: str) -> None:
        self.bundle = bench.command("bundle")
        self.folder = bench.folder / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        passphrase = self.folder / "passphrase"
        passphrase.write_text(_PASSPHRASE)
        os.environ["SEALIFT_PASSPHRASE_FILE"] = str(passphrase)
        self._publisher = {"SEALIFT_HOME": str(self.folder / "publisher-home")}
        root = self.folder / "root.json"
        run([self.bundle, "keys", "init"], env=self._publisher)
        run([self.bundle, "keys", "root", "-o", str(root)], env=self._publisher)
        shown = run([self.bundle, "keys", "show", "--json"], env=self._publisher).output
        fingerprint = str(json.loads(shown)["rootFingerprint"])
        self._fresh = self.folder / "fresh-store"
        run(
            [self.bundle, "trust", "init", "--root", str(root), "--fingerprint", fingerprint],
            env={"SEALIFT_HOME": str(self._fresh)},
        )

    def create(self, model: Path, bundle: Path, *options: str, name: str) -> Cost:
        """``bundle create`` of one model; ``bundle`` must not be there."""
        command = [self.bundle, "create", str(model), "--name", name, "-o", str(bundle)]
        return run([*command, *options], env=self._publisher)

    def add_namespace(self, name: str) -> None:
        """A key for one more namespace."""
        run([self.bundle, "keys", "add-namespace", name], env=self._publisher)

    def create_many(self, folder: Path, models: Mapping[str, str], bundle: Path) -> Cost:
        """``bundle create`` of many.

        Args:
            folder: Where they lie; the command runs there, so that its line stays short.
            models: Names of files to names of models.
            bundle: Must not be there.
        """
        command = [self.bundle, "create", "--quiet", "-o", str(bundle), *models]
        command += [f"--name={name}" for name in models.values()]
        return run(command, env=self._publisher, cwd=folder)

    def new_store(self, name: str = "store") -> Path:
        """An empty store that has the root pinned; replaces the one of this name."""
        store = self.folder / name
        shutil.rmtree(store, ignore_errors=True)
        return Path(shutil.copytree(self._fresh, store))

    def import_bundle(self, bundle: Path, store: Path, *more: Path) -> Cost:
        """``bundle import`` into a store.

        Args:
            bundle: Or its head.
            store: From :meth:`new_store`.
            more: Volumes, or the folder with them.
        """
        command = [self.bundle, "import", str(bundle), *map(str, more), "--quiet"]
        return run(command, env=self.isolated(store))

    def verify_bundle(self, bundle: Path, store: Path) -> Cost:
        """``bundle verify`` against what a store trusts."""
        return run([self.bundle, "verify", str(bundle), "--quiet"], env=self.isolated(store))

    def unpack(self, bundle: Path, folder: Path) -> Cost:
        """``tar -x`` and ``sync``, in one process."""
        script = 'tar -xf "$0" -C "$1" && sync --file-system "$1"'
        return run(["sh", "-c", script, str(bundle), str(folder)])

    def isolated(self, store: Path) -> dict[str, str]:
        """The environment of an isolated side: all that it writes lies below its store."""
        temporary = store / "tmp"
        temporary.mkdir(exist_ok=True)
        return {"SEALIFT_HOME": str(store), "TMPDIR": str(temporary)}

    def clear(self, *folders: Path) -> None:
        """Remove folders of the site."""
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    def remove(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)
