"""Small models for tests of the store: real manifests, a few bytes of weights."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

from registry import oci
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from registry.reference import Reference
from registry.store import Store


@dataclass(frozen=True, slots=True)
class TinyModel:
    """One weight layer and a config; ``seed`` decides the weights."""

    weights: bytes
    config: bytes = b'{"tiny":true}'
    subject: Descriptor | None = None

    @property
    def manifest(self) -> Manifest:
        return Manifest(
            config=Descriptor.for_bytes(oci.MODEL_CONFIG, self.config),
            layers=(
                Descriptor.for_bytes(oci.WEIGHT_RAW, self.weights, {oci.FILEPATH: "tiny.gguf"}),
            ),
            artifact_type=oci.MODEL_ARTIFACT,
            subject=self.subject,
        )

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor.for_bytes(oci.IMAGE_MANIFEST, self.manifest.to_bytes())

    @property
    def digests(self) -> frozenset[Digest]:
        """All blobs, the manifest's own included."""
        return frozenset({self.descriptor.digest, *(b.digest for b in self.manifest.blobs)})


def tiny(seed: int = 0, size: int = 1000) -> TinyModel:
    """A model whose bytes follow from ``seed``."""
    return TinyModel(hashlib.shake_128(seed.to_bytes(8, "big")).digest(size))


def install(store: Store, model: TinyModel, name: str | None) -> None:
    """As an import does it: stage, install, one transaction. None gives it no name."""
    parts = (model.manifest.to_bytes(), model.config, model.weights)
    with store.blobs.stage() as area:
        for data in parts:
            digest = Digest.of(data)
            if not area.claim(digest, len(data)):
                area.add(io.BytesIO(data), digest, len(data))
        with store.lock():
            area.install()
            with store.catalogue.transaction() as tx:
                for blob in model.manifest.blobs:
                    tx.put_blob(blob)
                reference = Reference.parse(name or "library/unnamed")
                tx.put_manifest(reference.repository, model.descriptor, model.manifest, {"seed": 1})
                if name is not None:
                    tx.set_tag(reference, model.descriptor.digest)


def snapshot(home: Path) -> dict[str, bytes]:
    """Every file under a folder with its content, folders by name.

    Without SQLite's ``-shm``: shared memory of the open handles, in which readers mark themselves.
    """
    found = {}
    for folder, folders, files in os.walk(home):
        for name in folders:
            found[str((Path(folder) / name).relative_to(home)) + "/"] = b""
        for name in (name for name in files if not name.endswith("-shm")):
            path = Path(folder) / name
            found[str(path.relative_to(home))] = path.read_bytes()
    return found


def backdate(path: Path, seconds: float) -> None:
    """Make a file look older."""
    status = path.stat()
    os.utime(path, (status.st_atime - seconds, status.st_mtime - seconds))
