"""``bundle export``: any bundle as a plain OCI image layout, for tools that know nothing of ours.

All checks of an import run first, on the same code; only then does the folder appear, whole. Blobs
are copied, never linked to the store's: other tools may change what they find in the folder.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

from bundler.archive import layout
from bundler.clock import now
from bundler.descriptor import BundleDescriptor, BundledModel
from bundler.files import Source, free_space, open_regular, write_file
from bundler.finding import find_bundle
from bundler.head import Head, advice, open_head
from bundler.importer import Wishes, staged_head, withdrawals_at
from bundler.intake import Need, assemble, incomplete
from bundler.mending import mending
from bundler.pipes import is_pipe, standard_input
from bundler.volumes import look
from registry import oci
from registry.blobs import BlobStore
from registry.digest import Digest
from registry.staging import StagingArea, sync_folder
from registry.store import Store
from registry.verify import storage_errors
from registry.weights import weight_facts
from schemas import strictjson
from schemas.errors import AlreadyExists, IncompleteBundle, NotFound, StorageFull
from schemas.render import Meter

_WITHDRAWN: Final = "Export the others with --only"
_NAME_CHARS: Final = 40  # of the folder's name in that of the unfinished one
_COSIGN_IMAGE: Final = "dev.cosignproject.cosign/image"  # what cosign --local-image verifies
_READABLE: Final = 0o755  # the blobs themselves have 0444


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        folder: The OCI image layout.
        descriptor: Of the bundle.
        models: Those that are in it.
        anchor: Name of the pinned publisher that vouched for them.
        blobs: All blobs, to size in bytes.
    """

    folder: Path
    descriptor: BundleDescriptor
    models: tuple[BundledModel, ...]
    anchor: str
    blobs: Mapping[Digest, int]


def export_paths(
    home: Path,
    folder: Path,
    paths: Sequence[Path],
    wishes: Wishes,
    progress: Meter,
    *,
    overwrite: bool,
) -> Exported:
    """Write a bundle as an OCI image layout.

    Args:
        home: Whose pinned roots decide, and whose blobs deltas build upon.
        folder: The layout; appears when all is verified and on disk, or not at all.
        paths: As for :func:`bundler.isolated.import_paths`.
        wishes: Which models, and whom to believe.
        progress: Told of the bytes.
        overwrite: Whether an OCI layout that is there may be replaced.

    Raises:
        AlreadyExists: Something is there that may not be replaced.
        IncompleteBundle: Volumes are missing.
        BlobsMissing: A differential bundle builds upon what the store has not.
        ContentError, TrustError, EnvironmentFault: A check failed; nothing is written.
    """
    folder = _target(folder, overwrite=overwrite)
    if is_pipe(paths):
        with standard_input() as pipe, Store.open(home) as store:
            return _export(store, folder, pipe, {}, wishes, now(), progress)
    media = look(paths)
    with Store.open(home) as store:
        head, volumes = find_bundle(media, lambda bundle: staged_head(store, bundle))
        return mending(
            head,
            media,
            volumes,
            lambda source, files: _export(store, folder, source, files, wishes, now(), progress),
        )


def _export(
    store: Store,
    folder: Path,
    source: BinaryIO,
    volumes: Mapping[int, Source],
    wishes: Wishes,
    moment: datetime,
    progress: Meter,
) -> Exported:
    trusted = open_head(store.catalogue, source, anchor=wishes.anchor, now=moment)
    wanted = wishes.wanted(trusted.descriptor)
    with advice(), _appearing(folder) as partial:
        blobs = BlobStore(partial)
        blobs.prepare()
        with blobs.stage("export") as area:
            head = trusted.read_rest(lambda data: _take_small(area, data))
            withdrawals_at(store, head, wanted).check(_WITHDRAWN)
            need = Need.of(head, wanted)
            need.check(store, rebuilds_held=True)
            found = {b.digest: b.size for model in wanted for b in head.blobs_of(model)}
            _check_space(partial, sum(found.values()))
            if assemble(store, area, need, volumes, progress) != wanted:
                error = incomplete(need, area)
                hint = "Give all volumes at once"
                raise IncompleteBundle(error.what, why=error.why, hint=hint)
            _copy_required(store, area, head, found, progress)
            for model in wanted:
                for layer in head.weights[model.manifest.digest]:
                    with open_regular(area.path(layer.digest)) as file:
                        weight_facts(file, layer.size)
            area.install(found)
        _finish(partial, _index(head, wanted))
    anchor = trusted.trust.new_state.anchor
    return Exported(folder, trusted.descriptor, wanted, anchor, found)


def _take_small(area: StagingArea, data: bytes) -> None:
    area.add_bytes(data)


def _copy_required(
    store: Store, area: StagingArea, head: Head, found: Mapping[Digest, int], progress: Meter
) -> None:
    """What a differential bundle left out comes from the store, verified like the rest."""
    for digest, size in head.descriptor.requires:
        if digest in found:
            progress.begin(f"blob {digest.short}", size)
            with store.blobs.open(digest) as file:
                area.add(file, digest, size, progress.advance, at_end=True)


def _target(folder: Path, *, overwrite: bool) -> Path:
    """Where to write, links resolved; refused where something could be lost."""
    what = f"cannot write {folder}"
    with storage_errors(what):
        folder = folder.resolve()
        if not folder.parent.is_dir():
            raise NotFound(what, why=f"there is no folder {folder.parent}", hint="Make it first")
        if not folder.exists():
            return folder
        if folder.is_dir() and not any(folder.iterdir()):
            return folder
        if not (folder / layout.LAYOUT_NAME).is_file():
            # Not even with --force: a slip of the finger must not cost a home folder.
            raise AlreadyExists(
                what, why="it is neither empty nor an OCI layout", hint="Name another folder"
            )
        if not overwrite:
            raise AlreadyExists(
                what, why="there is an OCI layout", hint="Give --force to replace it"
            )
    return folder


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A folder that appears under its name when the block ends well; else not at all."""
    stem = f".{folder.name[:_NAME_CHARS]}.{secrets.token_hex(4)}"
    partial = folder.with_name(f"{stem}.partial")
    old = folder.with_name(f"{stem}.old")
    what = f"cannot write {folder}"
    with storage_errors(what):
        partial.mkdir(mode=0o700)
    try:
        yield partial
        with storage_errors(what):
            if folder.exists():
                folder.rename(old)
            partial.rename(folder)
            sync_folder(folder.parent)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _index(head: Head, wanted: Sequence[BundledModel]) -> bytes:
    """The models under their names, and what refers to them, as oras and cosign look for it."""
    models = [
        {
            **model.manifest.document(),
            "artifactType": oci.MODEL_ARTIFACT,
            "annotations": {oci.REF_NAME: str(model.reference), "kind": _COSIGN_IMAGE},
        }
        for model in wanted
    ]
    referrers = {
        each.digest: {**each.document(), "artifactType": item.artifact_type}
        for model in wanted
        for each, item in head.referrers_of(model)
    }
    manifests = [*models, *referrers.values()]
    return strictjson.dumps(
        {"schemaVersion": 2, "mediaType": oci.IMAGE_INDEX, "manifests": manifests}
    )


def _finish(partial: Path, index: bytes) -> None:
    """All blobs are in their places: add what makes a layout of them."""
    with storage_errors(f"cannot write {partial}"):
        shutil.rmtree(partial / "staging")
        for each in (partial, partial / "blobs", partial / "blobs" / "sha256"):
            each.chmod(_READABLE)
    write_file(partial / layout.INDEX_NAME, index)
    write_file(partial / layout.LAYOUT_NAME, oci.LAYOUT_FILE)
    with storage_errors(f"cannot write {partial}"):
        sync_folder(partial)


def _check_space(partial: Path, total: int) -> None:
    free = free_space(partial, f"cannot write {partial}")
    if free < total:
        raise StorageFull(
            "not enough space for the layout",
            why=f"{total} bytes needed, {free} free",
            hint="Free some space or write to another disk",
        )
