"""What the commands of the isolated side do, behind one function each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from bundler.clock import now
from bundler.evidence.attempt import Attempt
from bundler.evidence.recording import recorded
from bundler.files import Source
from bundler.finding import find_bundle
from bundler.importer import Imported, Verified, Wishes, import_bundle, staged_head
from bundler.mending import Mended, mending
from bundler.pipes import is_pipe, standard_input
from bundler.policy.gate import Consent, Gate, Persons
from bundler.policy.reading import load
from bundler.reports import write_want_list
from bundler.verifying import verify_bundle
from bundler.volumes import Media, look
from registry.store import Store
from schemas.errors import (
    BlobsMissing,
    IncompleteBundle,
)
from schemas.render import Meter

Ask = Callable[[IncompleteBundle], Sequence[Path] | None]


def import_paths(
    home: Path,
    paths: Sequence[Path],
    wishes: Wishes,
    progress: Meter,
    ask: Ask | None = None,
    *,
    want_list: Path | None = None,
    consent: Consent | None = None,
    persons: Persons | None = None,
) -> Imported:
    """Import a bundle from files and folders; see :func:`bundler.importer.import_bundle`.

    Args:
        home: The store.
        paths: Bundles, heads, volumes, or folders that hold them; ``-`` alone is standard input.
        wishes: What to install.
        progress: Told of the bytes.
        ask: Asks a person for the next stick; returns where to look, or None to stop. Without it,
            missing volumes are an error at once.
        want_list: Where to write what the bundle needs and the store has not; in a folder, a file
            of the bundle's name is made. None writes none.
        consent: What the operator says yes to.
        persons: Approvals by others; or whose request for them shall come of it.

    Raises:
        UsageError: No bundle among the files, or several.
        BlobsMissing: Something is lacking; nothing was installed, and a want-list says what.
    """
    pipe = is_pipe(paths)
    media = Media() if pipe else look(paths)  # before a store is made for nothing
    with Store.open(home) as store, recorded(store) as attempt:
        gate = Gate(load(home), consent, persons)

        def read(source: BinaryIO, files: Mapping[int, Source]) -> Imported:
            imported = import_bundle(
                store,
                source,
                files,
                wishes=wishes,
                now=attempt.clock,
                progress=progress,
                attempt=attempt,
                gate=gate,
            )
            by_parity = files.by_parity if isinstance(files, Mended) else ()
            return replace(imported, mended=tuple(sorted(by_parity)))

        try:
            if pipe:
                with standard_input() as source:
                    return read(source, {})
            return _in_sittings(store, media, read, ask, attempt)
        except BlobsMissing as error:
            if want_list is None or attempt.head is None:
                raise
            descriptor = attempt.head.descriptor
            name = media.heads[0].stem if media.heads else f"bundle-{descriptor.sequence}"
            raise write_want_list(store, descriptor, want_list, name, error) from error


def _in_sittings(
    store: Store,
    media: Media,
    read: Callable[[BinaryIO, Mapping[int, Source]], Imported],
    ask: Ask | None,
    attempt: Attempt,
) -> Imported:
    """Read what is at hand, and ask for more as long as something is missing."""
    while True:
        head, volumes = _find(store, media)
        attempt.see([head, *volumes.values()], now())
        try:
            return mending(head, media, volumes, read, attempt)
        except IncompleteBundle as error:
            more = ask(error) if ask is not None else None
            if more is None:
                raise
            media = look([head, *more])


def verify_paths(
    home: Path,
    paths: Sequence[Path],
    wishes: Wishes,
    progress: Meter,
    *,
    consent: Consent | None = None,
) -> Verified:
    """See :func:`bundler.verifying.verify_bundle`; the arguments are :func:`import_paths`'."""
    gate = Gate(load(home), consent, looking=True)
    if is_pipe(paths):
        with standard_input() as pipe, Store.open(home) as store:
            return verify_bundle(
                store, pipe, {}, wishes=wishes, now=now(), progress=progress, gate=gate
            )
    media = look(paths)
    with Store.open(home) as store:
        head, volumes = _find(store, media)
        return mending(
            head,
            media,
            volumes,
            lambda source, files: verify_bundle(
                store, source, files, wishes=wishes, now=now(), progress=progress, gate=gate
            ),
        )


def _find(store: Store, media: Media) -> tuple[Path, dict[int, Path]]:
    """The head among the files, or the one kept from an earlier sitting; and its volumes."""
    return find_bundle(media, lambda bundle: staged_head(store, bundle))
