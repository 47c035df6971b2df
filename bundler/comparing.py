"""``bundle diff``: two bundles, or a bundle and the store, model by model and blob by blob."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bundler.clock import now
from bundler.files import open_regular
from bundler.finding import find_bundle
from bundler.inspecting import Contents, look_into
from bundler.volumes import look
from registry.digest import Digest
from registry.store import Store
from schemas.errors import NotFound

STORE: Final = "store"
"""The word that stands for the store; a file of that name is ``./store``."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two.

    Attributes:
        name: As typed.
        verified: Whether its signatures were checked; the store's were, when it was imported.
        doubt: Why not.
        models: Name to manifest digest.
        blobs: All that the models consist of, to size in bytes.
        stored: What it carries, to bytes as stored.
    """

    name: str
    verified: bool
    doubt: str
    models: Mapping[str, Digest]
    blobs: Mapping[Digest, int]
    stored: Mapping[Digest, int]


@dataclass(frozen=True, slots=True)
class Difference:
    """What has to change for the first to become the second.

    Attributes:
        before: The first.
        after: The second.
    """

    before: Side
    after: Side

    @property
    def added(self) -> tuple[str, ...]:
        """Models that only the second has."""
        return tuple(name for name in self.after.models if name not in self.before.models)

    @property
    def removed(self) -> tuple[str, ...]:
        """Models that only the first has."""
        return tuple(name for name in self.before.models if name not in self.after.models)

    @property
    def changed(self) -> tuple[str, ...]:
        """Models that both have, with other content."""
        before, after = self.before.models, self.after.models
        return tuple(name for name in after if name in before and before[name] != after[name])

    @property
    def unchanged(self) -> tuple[str, ...]:
        """Models that are the same in both."""
        before = self.before.models
        return tuple(
            name for name, digest in self.after.models.items() if before.get(name) == digest
        )

    @property
    def shared(self) -> dict[Digest, int]:
        """Blobs that both have, to size in bytes."""
        return {d: size for d, size in self.after.blobs.items() if d in self.before.blobs}

    @property
    def fresh(self) -> dict[Digest, int]:
        """Blobs that only the second has, to size in bytes."""
        return {d: size for d, size in self.after.blobs.items() if d not in self.before.blobs}

    @property
    def transfer(self) -> int:
        """Bytes of the fresh blobs as the second carries them."""
        return sum(self.after.stored.get(digest, 0) for digest in self.fresh)

    @property
    def absent(self) -> dict[Digest, int]:
        """Fresh blobs that the second does not carry either: they must be at the far side."""
        return {d: size for d, size in self.fresh.items() if d not in self.after.stored}


def compare(home: Path, before: str, after: str, publisher: str | None) -> Difference:
    """Compare two bundles, or a bundle and the store.

    Args:
        home: Of the store, if there is one; nothing is changed in it.
        before: A bundle's file or folder, or :data:`STORE`.
        after: Likewise.
        publisher: Name of the pinned root to use; None takes the one that fits.

    Raises:
        NotFound: There is no such bundle, or no store.
        ContentError, OutsideClosure: A bundle contradicts itself.
        EnvironmentFault: It cannot be read.
    """
    with store_if_any(home) as store:
        return Difference(_side(store, before, publisher), _side(store, after, publisher))


@contextmanager
def store_if_any(home: Path) -> Iterator[Store | None]:
    """The store, for reading; None where there is none, and none is made."""
    try:
        store = Store.open(home, create=False)
    except NotFound:
        yield None
        return
    with store:
        yield store


def _side(store: Store | None, name: str, publisher: str | None) -> Side:
    if name == STORE:
        if store is None:
            raise NotFound("there is no store here", hint="Import a bundle, or set SEALIFT_HOME")
        return _of_store(store)
    media = look([Path(name)])
    head, _ = find_bundle(media)
    catalogue = store.catalogue if store is not None else None
    with open_regular(head) as source:
        looked = look_into(catalogue, source, media.of, anchor=publisher, now=now())
    return _of_bundle(name, looked.contents, looked.anchor is not None, looked.doubt)


def _of_store(store: Store) -> Side:
    records = store.catalogue.models()
    blobs = {
        blob.digest: blob.size
        for record in records
        for blob in (record.descriptor, *record.manifest.blobs)
    }
    models = {str(record.reference): record.descriptor.digest for record in records}
    return Side(STORE, verified=True, doubt="", models=models, blobs=blobs, stored=blobs)


def _of_bundle(name: str, contents: Contents, verified: bool, doubt: str) -> Side:  # noqa: FBT001
    return Side(
        name,
        verified,
        doubt,
        {str(m.bundled.reference): m.bundled.manifest.digest for m in contents.models},
        {blob.digest: blob.size for model in contents.models for blob in model.blobs},
        {entry.digest: entry.stored_size for entry in contents.descriptor.contents},
    )
