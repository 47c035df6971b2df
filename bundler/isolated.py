"""What the commands of the isolated side do, behind one function each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

from bundler.clock import now
from bundler.evidence.attempt import Attempt
from bundler.evidence.recording import recorded
from bundler.files import Source, open_regular
from bundler.importer import Imported, Verified, Wishes, import_bundle, staged_head
from bundler.mending import restored
from bundler.pipes import is_pipe, standard_input
from bundler.policy.gate import Consent, Gate, Persons
from bundler.policy.reading import load
from bundler.reports import write_want_list
from bundler.verifying import verify_bundle
from bundler.volumes import Media, look, one_bundle
from registry.store import Store
from schemas.errors import (
    BlobsMissing,
    ContentError,
    IncompleteBundle,
    NotFound,
    UsageError,
)
from schemas.render import Meter

_Result = TypeVar("_Result")
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
            of the bundle's name is made. None writes none; nor is there one for a bundle from a
            pipe.
        consent: What the operator says yes to.
        persons: Approvals by others; or whose request for them shall come of it.

    Raises:
        UsageError: No bundle among the files, or several.
        BlobsMissing: Something is lacking; nothing was installed, and a want-list says what.
    """
    if is_pipe(paths):
        with standard_input() as pipe, Store.open(home) as store, recorded(store) as attempt:
            gate = Gate(load(home), consent, persons)
            return import_bundle(
                store,
                pipe,
                {},
                wishes=wishes,
                now=attempt.clock,
                progress=progress,
                attempt=attempt,
                gate=gate,
            )
    media = look(paths)  # before a store is made for nothing
    with Store.open(home) as store, recorded(store) as attempt:
        gate = Gate(load(home), consent, persons)
        while True:
            head, volumes = _find(store, media)
            attempt.see([head, *volumes.values()], now())
            try:
                return mending(
                    head,
                    media,
                    volumes,
                    lambda source, files: import_bundle(
                        store,
                        source,
                        files,
                        wishes=wishes,
                        now=attempt.clock,
                        progress=progress,
                        attempt=attempt,
                        gate=gate,
                    ),
                    attempt,
                )
            except IncompleteBundle as error:
                more = ask(error) if ask is not None else None
                if more is None:
                    raise
                media = look([head, *more])
            except BlobsMissing as error:
                if want_list is None:
                    raise
                raise write_want_list(store, head, wishes.anchor, want_list, error) from error


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


def mending(
    head: Path,
    media: Media,
    volumes: Mapping[int, Path],
    read: Callable[[BinaryIO, Mapping[int, Source]], _Result],
    attempt: Attempt | None = None,
) -> _Result:
    """Read a bundle; where volumes are lost or damaged, once more with help of the parity."""
    try:
        with open_regular(head) as source:
            return read(source, volumes)
    except BlobsMissing:
        raise
    except ContentError:
        if not any(label.parity for label in media.volumes):
            raise
        with restored(head, media) as mended:
            if mended is None:
                raise
            if attempt is not None:
                attempt.lost = tuple(mended.keys() - volumes.keys())
            with open_regular(head) as source:
                return read(source, mended)


def _find(store: Store, media: Media) -> tuple[Path, dict[int, Path]]:
    """The head among the files, or the one kept from an earlier sitting; and its volumes."""
    return find_bundle(media, lambda bundle: staged_head(store, bundle))


def find_bundle(
    media: Media, staged: Callable[[str], Path | None] = lambda _: None
) -> tuple[Path, dict[int, Path]]:
    """The one bundle among the files: its head, and its volumes by number.

    Args:
        media: The files.
        staged: Finds the head of a bundle that was kept in an earlier sitting.

    Raises:
        UsageError: They are of several bundles.
        NotFound: There is none, or no head.
    """
    bundle = one_bundle(media)
    if len(media.strangers) == 1 and not (media.heads or media.volumes):
        return media.strangers[0], {}  # reading it says what it is instead
    if media.strangers:
        raise UsageError(
            f"{media.strangers[0].name} is no part of a bundle",
            why="it is neither a head nor a volume",
            hint="Copy it again from its source, or leave it out",
        )
    if len(media.heads) > 1:
        raise UsageError(
            "these are several bundles",
            why=", ".join(path.name for path in media.heads[:5]),
            hint="Import one bundle at a time",
        )
    if media.heads:
        return media.heads[0], media.of(bundle) if bundle else {}
    if bundle is None:
        raise NotFound("there is no bundle here", hint="Give the bundle's file, or its folder")
    head = staged(bundle)
    if head is None:
        raise NotFound(
            "these are volumes without their head", hint="Give the bundle's head file too"
        )
    return head, media.of(bundle)
