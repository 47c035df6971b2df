"""Whom an isolated site trusts: roots pinned, shown and forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from bundler.clock import now
from bundler.files import open_regular
from bundler.policy import reading
from bundler.policy.model import SITE_NAME
from bundler.trust.clock import reference_time
from bundler.trust.fingerprint import parse_fingerprint
from bundler.trust.verifier import PinnedRoot, pin_root
from registry.records import Anchor, TrustState
from registry.store import Store
from registry.verify import storage_errors
from schemas import limits, strictjson
from schemas.errors import AlreadyExists, InvalidName, PolicyRefused, TrustMissing


@dataclass(frozen=True, slots=True)
class KnownAnchor:
    """A pinned publisher and what it said last.

    Attributes:
        anchor: Name, fingerprint, since when.
        roles: Role to version and expiry of what is trusted; only the root before an import.
        least_timestamp: The version that its first timestamp must have at least; 0 for any.
        namespaces: Those that it brought first, so that no other publisher may.
        stale_days: Whole days since the timestamp expired; None if it has not, or there is none.
    """

    anchor: Anchor
    roles: Mapping[str, tuple[int, str]] = field(hash=False)
    least_timestamp: int = 0
    namespaces: tuple[str, ...] = ()
    stale_days: int | None = None


def pin(home: Path, root: Path, fingerprint: str, name: str, least: int = 0) -> KnownAnchor:
    """Pin a root; for the same root under the same name nothing changes, not what it said since.

    Args:
        home: The store.
        root: The root's file.
        fingerprint: From paper, as people copy it.
        name: What the site will call the publisher.
        least: The timestamp version on the same paper: no older bundle is the first one.

    Raises:
        InvalidName: The name or the fingerprint is none.
        FingerprintMismatch: The file is another root.
        AlreadyExists: The name stands for another root, or the publisher has another name here.
        PolicyRefused: The site's policy wants another root under this name.
    """
    if not SITE_NAME.fullmatch(name):
        raise InvalidName(
            f"{name[:64]!r} cannot name a publisher",
            hint="Use up to 64 of a-z, 0-9, dot, dash and underscore",
        )
    with open_regular(root) as file, storage_errors(f"cannot read {root}"):
        data = file.read(limits.TUF_ROOT_BYTES + 1)
    pinned = pin_root(data, parse_fingerprint(fingerprint))
    _ask_policy(home, name, pinned)
    state = pinned.trust_state(name, least)
    with Store.open(home) as store, store.lock():
        known = store.catalogue.trust(name)
        if known is not None and known.fingerprint == state.fingerprint:
            if not known.metadata and least > known.least_timestamp:
                _set(store, replace(known, least_timestamp=least), "trust.minimum")
            return _known(store, name)
        _refuse_second_name(store, name, pinned)
        with store.catalogue.transaction() as tx:
            tx.add_anchor(name, state.fingerprint)
            tx.set_trust(name, state)
            detail = {"fingerprint": str(state.fingerprint), "minimum": least}
            tx.add_audit_event(store.audit_event("trust.init", name, detail))
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


def unpin(home: Path, name: str, *, dry_run: bool, release: bool = False) -> KnownAnchor:
    """Forget a pinned root and everything trusted under it; models stay.

    Its namespaces stay its own, so that nobody who is pinned later gets them by that.

    Args:
        home: The store.
        name: Of the publisher.
        dry_run: Change nothing.
        release: Let others bring its namespaces.

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
                detail = {"fingerprint": str(known.anchor.fingerprint)}
                if release:
                    freed = tx.release_namespaces(known.anchor.fingerprint)
                    detail["released"] = " ".join(freed)[:1000]
                tx.add_audit_event(store.audit_event("trust.remove", name, detail))
        return known


def _set(store: Store, state: TrustState, action: str) -> None:
    with store.catalogue.transaction() as tx:
        tx.set_trust(state.anchor, state)
        detail = {"minimum": state.least_timestamp}
        tx.add_audit_event(store.audit_event(action, state.anchor, detail))


def _ask_policy(home: Path, name: str, pinned: PinnedRoot) -> None:
    for rule in reading.load(home).publishers:
        if rule.anchor == name and rule.fingerprint not in (None, pinned.fingerprint):
            raise PolicyRefused(
                f"this site's policy wants another root under the name {name}",
                why=f"the one with fingerprint {rule.fingerprint}",
                hint="Compare paper and policy; see `sealift policy show`",
            )


def _refuse_second_name(store: Store, name: str, pinned: PinnedRoot) -> None:
    """One publisher under two names would have two memories, and an old stick would find one."""
    for anchor in store.catalogue.anchors():
        state = store.catalogue.trust(anchor.name)
        if state is not None and pinned.data in state.roots.values():
            raise AlreadyExists(
                f"this publisher is trusted already, as {anchor.name}",
                hint=f"Keep it, or forget it first: bundle trust remove {anchor.name}",
            )
        if anchor.name == name:
            raise AlreadyExists(
                f"there is a trust anchor {name!r} already",
                why="for another root",
                hint="Choose another --name, or remove it first",
            )


def _unknown(name: str) -> TrustMissing:
    return TrustMissing(
        f"no publisher {name!r} is trusted here", hint="See `bundle trust list` for their names"
    )


def _known(store: Store, name: str) -> KnownAnchor:
    anchor = next(a for a in store.catalogue.anchors() if a.name == name)
    state = store.catalogue.trust(name)
    if state is None:
        raise _unknown(name)
    files = {"root": state.roots[max(state.roots)], **state.metadata}
    roles = {role: _version_and_expiry(data) for role, data in files.items()}
    owned = [n for n, pin in store.catalogue.namespaces().items() if pin == anchor.fingerprint]
    time = reference_time(now(), store.catalogue.clock_floor()).time
    late = time - datetime.fromisoformat(roles["timestamp"][1]) if "timestamp" in roles else None
    stale = late.days if late is not None and late.total_seconds() >= 0 else None
    return KnownAnchor(anchor, roles, state.least_timestamp, tuple(sorted(owned)), stale)


def _version_and_expiry(metadata: bytes) -> tuple[int, str]:
    signed: dict[str, Any] = strictjson.parse_object(
        metadata, what="trusted metadata", max_bytes=limits.TUF_TARGETS_BYTES
    )["signed"]
    return signed["version"], signed["expires"]
