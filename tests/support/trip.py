"""There and back: a publisher whose keys were made by the command, and sites that trust it."""

from __future__ import annotations

import random
from pathlib import Path

from tests.gguf_files import Pieces, string, tensor
from tests.support.site import Site

LAYERS = 8
FLOATS = 1 << 16  # 256 KiB a layer
BASE = "library/base:1"


def model(path: Path, *, name: str = "Base", changed: int | None = None) -> Path:
    """A model of noise; the same noise but for what is asked to differ."""
    pieces = Pieces(
        tensors=tuple(
            tensor(f"blk.{n}.weight", (FLOATS,), 0, 4 * FLOATS * n) for n in range(LAYERS)
        ),
        data_bytes=0,
    ).with_value("general.name", string(name))
    layers = [random.Random(n).randbytes(4 * FLOATS) for n in range(LAYERS)]
    if changed is not None:
        layers[changed] = random.Random(99).randbytes(4 * FLOATS)
    path.write_bytes(pieces.build() + b"".join(layers))
    return path


class Trip:
    """A publisher, and sites that trust it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.near = Site(folder / "near")
        secret = folder / "passphrase"
        secret.write_text("correct horse\n")
        self.secret = ("--passphrase-file", secret)
        made = self.near.bundle("keys", "init", *self.secret, "--json")
        assert made.code == 0, made
        self.fingerprint = made.document["rootFingerprint"]
        assert self.near.bundle("keys", "root", "-o", folder / "root.json").code == 0
        self.base = model(folder / "base.gguf")

    def site(self, name: str) -> Site:
        site = Site(self.folder / name)
        done = site.bundle(
            "trust", "init", "--root", self.folder / "root.json", "--fingerprint", self.fingerprint
        )
        assert done.code == 0, done
        return site

    def create(self, *argv: object, name: str = "out.tar") -> Path:
        output = self.folder / name
        done = self.near.bundle("create", *argv, "-o", output, *self.secret)
        assert done.code == 0, done
        return output

    def inventory(self, site: Site) -> tuple[Path, str]:
        path = self.folder / f"{site.home.name}.inventory"
        done = site.bundle("inventory", "export", "-o", path, "--json", "--force")
        assert done.code == 0, done
        return path, done.document["site"]
