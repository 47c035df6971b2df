"""What the commands of the isolated side do, behind one function each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from bundler.clock import now
from bundler.files import Source, open_regular
from bundler.importer import Imported, Verified, Wishes, import_bundle, staged_head
from bundler.mending import restored
from bundler.pipes import is_pipe, standard_input
from bundler.reports import write_want_list
from bundler.trust.verifier import pin_root
from bundler.verifying import verify_bundle
from bundler.volumes import Media, look, one_bundle
from registry.digest import Digest
from registry.records import Anchor
from registry.store import Store
from registry.verify import storage_errors
from schemas import limits, strictjson
from schemas.errors import (
    BlobsMissing,
    ContentError,
    IncompleteBundle,
    InvalidName,
    NotFound,
    TrustMissing,
    UsageError,
)
from schemas.render import Meter

_Result = TypeVar("_Result")
Ask = Callable[[IncompleteBundle], Sequence[Path] | None]


@dataclass(frozen=True, slots=True)
class KnownAnchor:
    """A pinned publisher and what it said last.

    Attributes:
        anchor: Name, fingerprint, since when.
        roles: Role to version and expiry of what is trusted; only the root before an import.
    """

    anchor: Anchor
    roles: dict[str, tuple[int, str]]


def import_paths(
    home: Path,
    paths: Sequence[Path],
    wishes: Wishes,
    progress: Meter,
    ask: Ask | None = None,
    *,
    want_list: Path | None = None,
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

    Raises:
        UsageError: No bundle among the files, or several.
        BlobsMissing: Something is lacking; nothing was installed, and a want-list says what.
    """
    if is_pipe(paths):
        with standard_input() as pipe, Store.open(home) as store:
            return import_bundle(store, pipe, {}, wishes=wishes, now=now(), progress=progress)
    media = look(paths)  # before a store is made for nothing
    with Store.open(home) as store:
        while True:
            head, volumes = _find(store, media)
            try:
                return mending(
                    head,
                    media,
                    volumes,
                    lambda source, files: import_bundle(
                        store, source, files, wishes=wishes, now=now(), progress=progress
                    ),
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


def verify_paths(home: Path, paths: Sequence[Path], wishes: Wishes, progress: Meter) -> Verified:
    """See :func:`bundler.verifying.verify_bundle`; the paths are as for :func:`import_paths`."""
    if is_pipe(paths):
        with standard_input() as pipe, Store.open(home) as store:
            return verify_bundle(store, pipe, {}, wishes=wishes, now=now(), progress=progress)
    media = look(paths)
    with Store.open(home) as store:
        head, volumes = _find(store, media)
        return mending(
            head,
            media,
            volumes,
            lambda source, files: verify_bundle(
                store, source, files, wishes=wishes, now=now(), progress=progress
            ),
        )


def mending(
    head: Path,
    media: Media,
    volumes: Mapping[int, Path],
    read: Callable[[BinaryIO, Mapping[int, Source]], _Result],
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


def pin(home: Path, root: Path, fingerprint: str, name: str) -> KnownAnchor:
    """Pin a root; for the same root under the same name nothing changes, not what it said since.

    Raises:
        FingerprintMismatch: The file is another root.
        AlreadyExists: The name stands for another root.
    """
    with open_regular(root) as file, storage_errors(f"cannot read {root}"):
        data = file.read(limits.TUF_ROOT_BYTES + 1)
    state = pin_root(data, parse_fingerprint(fingerprint)).trust_state(name)
    with Store.open(home) as store, store.lock():
        known = store.catalogue.trust(name)
        if known is not None and known.fingerprint == state.fingerprint:
            return _known(store, name)
        with store.catalogue.transaction() as tx:
            tx.add_anchor(name, state.fingerprint)
            tx.set_trust(name, state)
            tx.add_audit_event(
                store.audit_event("trust.init", name, {"fingerprint": str(state.fingerprint)})
            )
        return _known(store, name)


def anchors(home: Path, name: str | None) -> list[KnownAnchor]:
    """All pinned publishers, or the one of this name.

    Raises:
        TrustMissing: None of this name.
    """
    with Store.open(home) as store:
        names = [anchor.name for anchor in store.catalogue.anchors()]
        if name is not None and name not in names:
            raise _unknown(name)
        return [_known(store, each) for each in ([name] if name is not None else names)]


def unpin(home: Path, name: str, *, dry_run: bool) -> KnownAnchor:
    """Forget a pinned root and everything trusted under it; models stay.

    Raises:
        TrustMissing: There is none of this name.
    """
    with Store.open(home) as store, store.lock():
        if name not in (anchor.name for anchor in store.catalogue.anchors()):
            raise _unknown(name)
        known = _known(store, name)
        if not dry_run:
            with store.catalogue.transaction() as tx:
                tx.remove_anchor(name)
                tx.add_audit_event(store.audit_event("trust.remove", name, {}))
        return known


def parse_fingerprint(text: str) -> Digest:
    """A SHA-256 fingerprint as people copy it: groups, colons and upper case are fine.

    Raises:
        InvalidName: Not 64 hexadecimal digits.
    """
    digits = text.strip().lower().removeprefix("sha256:")
    digits = "".join(c for c in digits if c not in " :-\t")
    try:
        return Digest("sha256", digits)
    except InvalidName:
        raise InvalidName(
            "the fingerprint is not 64 hexadecimal digits",
            why=f"it has {len(digits)}",
            hint="Copy it whole from the publisher's paper",
        ) from None


def _unknown(name: str) -> TrustMissing:
    return TrustMissing(
        f"no publisher {name!r} is trusted here", hint="See `bundle trust show` for their names"
    )


def _known(store: Store, name: str) -> KnownAnchor:
    anchor = next(a for a in store.catalogue.anchors() if a.name == name)
    state = store.catalogue.trust(name)
    if state is None:
        raise _unknown(name)
    files = {"root": state.roots[max(state.roots)], **state.metadata}
    return KnownAnchor(anchor, {role: _version_and_expiry(data) for role, data in files.items()})


def _version_and_expiry(metadata: bytes) -> tuple[int, str]:
    signed = strictjson.parse_object(
        metadata, what="trusted metadata", max_bytes=limits.TUF_TARGETS_BYTES
    )["signed"]
    return signed["version"], signed["expires"]
