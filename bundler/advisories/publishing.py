"""The connected side: taking a model back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bundler.advisories.lists import Entry, WithdrawnList, appended, check_reason
from bundler.clock import now
from bundler.connected import open_publisher
from bundler.files import check_output, write_file
from bundler.trust.changing import Wish, change
from bundler.trust.keyring import Secrets
from bundler.trust.publisher import Publisher
from registry.digest import Digest
from registry.reference import Reference
from registry.withdrawals import Action
from schemas.errors import InvalidName, NotFound


def withdraw(
    home: Path,
    subject: str,
    *,
    action: Action,
    reason: str,
    passphrase: Callable[[], Secrets | bytes],
    only_manifest: bool = False,
    dry_run: bool = False,
    request: Path | None = None,
) -> Entry:
    """Add to the list of withdrawals, and sign it; every bundle from now on carries it.

    Args:
        home: Whose publisher signs.
        subject: A model's name as it was signed last, or a digest of a manifest or blob.
        action: What sites should do; ``NONE`` takes earlier entries back.
        reason: One line, which every site will read.
        passphrase: Called once everything else was checked.
        only_manifest: Of a name, leave its weights out: the same weights under another manifest
            stay usable.
        dry_run: Sign nothing.
        request: Change nothing, but write a request there for others to sign too.

    Returns:
        What was added, or would be.

    Raises:
        NotFound: No model of this name was signed here; or nothing is to be taken back.
        UsageError: The reason is none, or the list is full.
        KeyUnavailable: The passphrase is wrong, or the key is not at hand.
    """
    check_reason(reason)
    publisher = open_publisher(home)
    label, digests = _resolve(publisher, subject, only_manifest=only_manifest)
    moment = now()
    entries: list[Entry] = []

    def make_list(data: bytes | None) -> bytes:
        new = appended(
            data, at=moment, action=action, digests=digests, subject=label, reason=reason
        )
        entries.append(new.entries[-1])
        return new.data

    make_list(publisher.withdrawn)  # before a passphrase is asked for
    if request is not None and not dry_run:
        check_output(request, overwrite=False)
        asked = change(
            publisher,
            lambda planner: planner.withdraw(make_list(publisher.withdrawn)),
            passphrase(),
            wish=Wish.REQUEST,
            now=moment,
        )
        write_file(request, asked.request.to_bytes())
    elif not dry_run:
        publisher.withdraw(make_list, passphrase(), now=moment)
    return entries[-1]


def entries(home: Path) -> tuple[Entry, ...]:
    """All that this publisher withdrew so far, in order."""
    data = open_publisher(home).withdrawn
    return () if data is None else WithdrawnList.parse(data).entries


def _resolve(
    publisher: Publisher, subject: str, *, only_manifest: bool
) -> tuple[str, tuple[Digest, ...]]:
    """What to call it, and which digests are meant."""
    if subject.startswith("sha256:"):
        return "", (Digest.parse(subject),)
    reference = Reference.from_user(subject)
    if reference.host is not None:
        raise InvalidName(f"{reference} names a host", hint="Write it like library/smollm2:135m")
    if reference.digest is not None:
        return str(reference), (reference.digest,)
    signed = publisher.signed(reference)
    if signed is None:
        raise NotFound(
            f"no model {reference.shortest} was signed here",
            hint="Give the digest of its manifest or weights",
        )
    manifest, custom = signed
    weights = str(custom.get("weights", "")).split()
    found = [Digest.parse(text) for text in weights] if not only_manifest else []
    return str(reference), (manifest, *found)
