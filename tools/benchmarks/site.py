"""A connected and an isolated side to measure on, made with the commands that everyone uses."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
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
    """

    def __init__(self, bench: Bench, name: str) -> None:
        self._bundle = bench.command("bundle")
        self.folder = bench.folder / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        passphrase = self.folder / "passphrase"
        passphrase.write_text(_PASSPHRASE)
        os.environ["SEALIFT_PASSPHRASE_FILE"] = str(passphrase)
        self._publisher = {"SEALIFT_HOME": str(self.folder / "publisher-home")}
        root = self.folder / "root.json"
        run([self._bundle, "keys", "init"], env=self._publisher)
        run([self._bundle, "keys", "root", "-o", str(root)], env=self._publisher)
        shown = run([self._bundle, "keys", "show", "--json"], env=self._publisher).output
        fingerprint = str(json.loads(shown)["rootFingerprint"])
        self._fresh = self.folder / "fresh-store"
        run(
            [self._bundle, "trust", "init", "--root", str(root), "--fingerprint", fingerprint],
            env={"SEALIFT_HOME": str(self._fresh)},
        )

    def create(self, model: Path, bundle: Path, *, name: str) -> Cost:
        """``bundle create`` of one model; ``bundle`` must not be there."""
        command = [self._bundle, "create", str(model), "--name", name, "-o", str(bundle)]
        return run(command, env=self._publisher)

    def new_store(self, name: str = "store") -> Path:
        """An empty store that has the root pinned; replaces the one of this name."""
        store = self.folder / name
        shutil.rmtree(store, ignore_errors=True)
        return Path(shutil.copytree(self._fresh, store))

    def import_bundle(self, bundle: Path, store: Path) -> Cost:
        """``bundle import`` into a store."""
        command = [self._bundle, "import", str(bundle)]
        return run(command, env={"SEALIFT_HOME": str(store)})

    def remove(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)
