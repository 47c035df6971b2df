"""Pull and push: models between the store and the mirror, verified byte by byte.

The mirror is this site's own, yet nothing that it sends is believed: a blob is what its digest
says, or it is not kept. What is pulled is signed by nobody, unless a bundle brought the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

from registry import oci
from registry.database import rfc3339
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from registry.parts import weight_layers
from registry.pipeline import hash_through
from registry.reference import Reference
from registry.staging import StagingArea
from registry.store import Store, actor
from registry.verify import storage_errors
from registry.weights import GGUF, WeightFacts, together, weight_facts
from runtime.making import settle, signed_with
from runtime.mirror.remote import Remote
from runtime.provenance import Made
from schemas import limits
from schemas.errors import (
    Cancelled,
    ContentMismatch,
    InvalidName,
    MalformedModel,
    NotFound,
    RemoteUnavailable,
    UnsupportedRequest,
    UsageError,
)

Tell = Callable[[dict[str, Any]], None]
_MOST_WEIGHTS: Final = 2  # a model and a projector
_OPEN: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def pull(store: Store, remote: Remote, reference: Reference, tell: Tell) -> None:
    """Bring a model from the mirror. What was fetched of an interrupted pull is not fetched again.

    Args:
        store: Gets it, under the name without the host.
        remote: The mirror.
        reference: Its name there; a host must be the mirror's.
        tell: Told what is done, in Ollama's words: the lines of ``/api/pull``.

    Raises:
        NotFound: The mirror has no such model.
        UnsupportedRequest: It is none that can be served here.
        ModelWithdrawn: It was taken back, or this site denies it.
        AlreadyExists: The name is that of another model, which a publisher signed.
        ContentMismatch, MalformedModel, MalformedDocument: It is not what it should be.
        RemoteError: The mirror fails or refuses.
        Cancelled: Somebody called :meth:`Remote.abort`.
        StorageFull, StorageFailure, StoreBusy: The store cannot take it.
    """
    reference = _local(remote, reference)
    tell({"status": "pulling manifest"})
    data, media_type = remote.manifest(reference)
    manifest = Manifest.parse(data, media_type=media_type)
    whole = Descriptor.for_bytes(media_type, data)
    files = _check(store, reference, whole, manifest)
    batch = f"pull-{whole.digest.hex[:16]}"
    with store.blobs.stage(batch, kept=True) as area:
        for blob in dict.fromkeys((*manifest.layers, manifest.config)):
            _take(area, remote, reference, blob, tell)
        tell({"status": "verifying sha256 digest"})  # done while the bytes came
        try:
            facts = _facts(store, area, reference, files)
        except (MalformedModel, UnsupportedRequest):
            area.discard()  # no second attempt will make a model of it
            raise
        tell({"status": "writing manifest"})
        vouched = {digest for file in files for digest in signed_with(store, file.digest)}
        bases = {*vouched, *_named_base(manifest)} - {whole.digest}
        made = Made(
            "pulled", str(remote.address), actor(), rfc3339(datetime.now(UTC)), tuple(sorted(bases))
        )
        name = Reference(reference.namespace, reference.name, reference.tag)
        settle(store, area, name, data, made.within(facts), media_type)
        area.discard()
    tell({"status": "success"})


def push(store: Store, remote: Remote, reference: Reference, tell: Tell) -> None:
    """Give a model to the mirror.

    Args:
        store: Has it, under the name without the host.
        remote: The mirror.
        reference: Its name; a host must be the mirror's.
        tell: As of :func:`pull`.

    Raises:
        NotFound: There is no such model here.
        ModelWithdrawn: It was taken back, or this site denies it.
        RemoteError: The mirror fails or refuses.
        Cancelled: Somebody called :meth:`Remote.abort`.
    """
    reference = _local(remote, reference)
    tell({"status": "retrieving manifest"})
    record = store.catalogue.resolve(reference)
    if record is None:
        raise NotFound(f"model '{reference.shortest}' not found")
    withdrawal = store.withdrawal_of(record.descriptor.digest)
    if withdrawal is not None and withdrawal.stops:
        raise withdrawal.refusal(reference.shortest)
    repository = reference.repository
    for blob in dict.fromkeys((*record.manifest.layers, record.manifest.config)):
        progress = _Progress(remote, tell, f"pushing {blob.digest.short}", blob)
        if not remote.has_blob(repository, blob.digest):
            with store.blobs.open(blob.digest) as file:
                remote.put_blob(repository, blob.digest, blob.size, _Counted(file, progress))
        progress.finish()
    tell({"status": "pushing manifest"})
    data = store.blobs.read(record.descriptor.digest, limits.MANIFEST_BYTES)
    remote.put_manifest(reference, data, record.descriptor.media_type)
    with store.lock(), store.catalogue.transaction() as tx:
        detail = {"manifest": str(record.descriptor.digest), "to": str(remote.address)}
        tx.add_audit_event(store.audit_event("model.push", str(reference), detail))
    tell({"status": "success"})


def _local(remote: Remote, reference: Reference) -> Reference:
    """The name without its host, which must be the mirror's."""
    if reference.host is not None and not remote.address.same_host(reference.host):
        raise UsageError(
            f"{reference.host} is not the mirror",
            why=f"only {remote.address} may be reached",
            hint="Leave the host out",
        )
    return reference.local


def _facts(
    store: Store, area: StagingArea, reference: Reference, files: Sequence[Descriptor]
) -> dict[str, Any]:
    """What the weights' headers say, once they are here."""
    found: list[WeightFacts] = []
    for file in files:
        waiting = area.path(file.digest)
        path = waiting if waiting.exists() else store.blobs.path(file.digest)
        with storage_errors(f"cannot read blob {file.digest.short}"), path.open("rb") as source:
            found.append(weight_facts(source, file.size))
    facts = together(found)
    if facts.format != GGUF or (len(files) > 1 and facts.projector is None):
        raise _not_served(reference)
    return facts.document()


def _not_served(reference: Reference) -> UnsupportedRequest:
    return UnsupportedRequest(
        f"model '{reference.shortest}' cannot be served",
        why="it is not a single GGUF file, with a projector or without, which is all that the "
        "engine here runs",
    )


def _check(
    store: Store, reference: Reference, whole: Descriptor, manifest: Manifest
) -> list[Descriptor]:
    """What can be said before a byte of the model is fetched. Returns its weights."""
    if reference.digest not in (None, whole.digest):
        raise ContentMismatch(f"the mirror sent another manifest than {reference.digest}")
    weights = weight_layers(manifest.layers)
    if not 1 <= len(weights) <= _MOST_WEIGHTS or len(manifest.layers) > limits.MODEL_FILES:
        raise _not_served(reference)
    blobs = [blob.digest for blob in manifest.blobs]
    vouched = [digest for layer in weights for digest in signed_with(store, layer.digest)]
    bases = [*vouched, *_named_base(manifest)]
    for digest in (whole.digest, *bases):
        found = store.catalogue.withdrawals.of(digest, blobs)
        if found is not None and found.stops:
            raise found.refusal(reference.shortest)
    store.check_name(reference, whole.digest)
    return weights


def _named_base(manifest: Manifest) -> list[Digest]:
    """What a manifest says that it was made from: believed only where it was taken back."""
    text = manifest.annotations.get(oci.BASE_DIGEST)
    if text is None:
        return []
    try:
        return [Digest.parse(text)]
    except InvalidName:
        return []


def _take(
    area: StagingArea, remote: Remote, reference: Reference, blob: Descriptor, tell: Tell
) -> None:
    """Have a blob in the area: from the store, from an earlier attempt, or from the mirror."""
    progress = _Progress(remote, tell, f"pulling {blob.digest.short}", blob)
    if not area.claim(blob.digest, blob.size):
        _fetch(area, remote, reference.repository, blob, progress)
    progress.finish()


def _fetch(
    area: StagingArea, remote: Remote, repository: str, blob: Descriptor, progress: _Progress
) -> None:
    part, digest = area.part(blob.digest), blob.digest
    with storage_errors(f"cannot store blob {digest.short}"):
        fd = os.open(part, _OPEN, 0o600)
        try:
            seed = digest.hasher()
            done = _reread(fd, blob, seed, progress)
            with remote.blob(repository, digest, done) as (source, start):
                if start != done:  # the mirror begins anew, so do we
                    seed, done = digest.hasher(), 0
                    progress.begin_again()
                os.ftruncate(fd, done)
                os.lseek(fd, done, os.SEEK_SET)
                came, encoded = hash_through(
                    source, blob.size - done, digest.algorithm,
                    sink_fd=fd, progress=progress, seed=seed,
                )  # fmt: skip
                longer = came == blob.size - done and source.read(1)
            if came < blob.size - done:
                raise RemoteUnavailable(
                    f"{remote.address} broke off", why=f"blob {digest.short} is not complete",
                    hint="Pull again: it goes on from there",
                )  # fmt: skip
            if encoded != digest.hex or longer:
                part.unlink()
                raise ContentMismatch(
                    f'digest mismatch, expected "{digest}", got "{digest.algorithm}:{encoded}"'
                )
            os.fsync(fd)
        finally:
            os.close(fd)
    area.accept(digest, blob.size)


def _reread(fd: int, blob: Descriptor, seed: Any, progress: _Progress) -> int:
    """Hash what an earlier attempt left; returns how much that is."""
    there = os.fstat(fd).st_size
    if there == 0 or there > blob.size:
        return 0
    with open(os.dup(fd), "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor has no path
        came, _ = hash_through(file, there, blob.digest.algorithm, progress=progress, seed=seed)
    return came


class _Progress:
    """Lines about one blob, not more often than anybody can read them.

    Args:
        remote: Whose :meth:`Remote.abort` ends it.
        tell: Gets the lines.
        status: What is done.
        blob: To what.
    """

    def __init__(self, remote: Remote, tell: Tell, status: str, blob: Descriptor) -> None:
        self._remote = remote
        self._tell = tell
        self._line = {"status": status, "digest": str(blob.digest), "total": blob.size}
        self._size = blob.size
        self._done = 0
        self._next = 0.0
        self(0)

    def __call__(self, count: int) -> None:
        if self._remote.aborted:
            raise Cancelled("the transfer was cancelled")
        self._done += count
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + limits.PROGRESS_SECONDS
            self._say()

    def begin_again(self) -> None:
        """What was there is of no use."""
        self._done = 0

    def finish(self) -> None:
        """All of it is there."""
        self._done = self._size
        self._say()

    def _say(self) -> None:
        # Ollama leaves "completed" out while it is 0.
        done = {"completed": self._done} if self._done else {}
        self._tell({**self._line, **done})


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, file: BinaryIO, progress: _Progress) -> None:
        self._file = file
        self._progress = progress

    def read(self, n: int, /) -> bytes:
        data = self._file.read(n)
        self._progress(len(data))
        return data
