"""What a change of trust metadata means, in words, for those who are asked to sign it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from tuf.api.metadata import Root, TargetFile, Targets

from bundler.trust import names
from bundler.trust.envelope import Envelope
from bundler.trust.requests import Asked, Review
from bundler.trust.roles import RoleKeys

_SHORT = 16  # digits of a key id


@dataclass(frozen=True, slots=True)
class Statement:
    """One role of a request.

    Attributes:
        role: Which.
        version: The proposed one.
        expires: UTC.
        signed: How many signatures it has.
        missing: How many more it needs at least.
        changes: Sentences; never empty.
    """

    role: str
    version: int
    expires: datetime
    signed: int
    missing: int
    changes: tuple[str, ...]


def statements(reviewed: Review) -> list[Statement]:
    """All that a request would change; nothing is left out."""
    labels = reviewed.request.key_names
    found = []
    for role, asked in reviewed.asked.items():
        item = asked.item
        changes = tuple(_changes(asked, labels))
        if not changes:
            changes = ("nothing but its expiry" if asked.before else "signs for nothing yet",)
        found.append(
            Statement(role, item.version, item.expires, len(item.signers), asked.missing, changes)
        )
    return found


def _changes(asked: Asked, labels: Mapping[str, str]) -> Iterator[str]:
    if asked.item.role == names.ROOT:
        yield from _keys(_root_roles(asked.before), _root_roles(asked.item), labels)
        return
    yield from _keys(_delegations(asked.before), _delegations(asked.item), labels)
    yield from _shut(asked.before, asked.item)
    yield from _targets(asked.before, asked.item)


def _root_roles(item: Envelope | None) -> dict[str, RoleKeys]:
    if item is None:
        return {}
    root = item.payload(Root)
    return {
        role: RoleKeys(tuple(map(root.get_key, each.keyids)), each.threshold)
        for role, each in root.roles.items()
    }


def _delegations(item: Envelope | None) -> dict[str, RoleKeys]:
    targets = item.payload(Targets) if item else Targets()
    if targets.delegations is None:
        return {}
    return {
        role: RoleKeys(tuple(map(targets.get_key, each.keyids)), each.threshold)
        for role, each in (targets.delegations.roles or {}).items()
    }


def _keys(
    before: Mapping[str, RoleKeys], after: Mapping[str, RoleKeys], labels: Mapping[str, str]
) -> Iterator[str]:
    """Who may sign which role; the same order of roles as in the metadata."""

    def name(keyid: str) -> str:
        label = labels.get(keyid)
        return f"key {keyid[:_SHORT]}" + (f" (said to be {label})" if label else "")

    for role, now in after.items():
        was = before.get(role)
        if was is None:
            who = ", ".join(map(name, now.keyids))
            yield f"new role {_title(role)}: {now.threshold} of {len(now.keys)} must sign: {who}"
            continue
        for keyid in now.keyids:
            if keyid not in was.keyids:
                yield f"{name(keyid)} may sign {_title(role)} from now on"
        for keyid in was.keyids:
            if keyid not in now.keyids:
                yield f"{name(keyid)} may not sign {_title(role)} any more"
        if (was.threshold, len(was.keys)) != (now.threshold, len(now.keys)):
            yield (
                f"{_title(role)} needs {now.threshold} of {len(now.keys)} signatures"
                f" instead of {was.threshold} of {len(was.keys)}"
            )
    for role in before:
        if role not in after:
            yield f"role {_title(role)} is gone"


def _shut(before: Envelope | None, after: Envelope) -> Iterator[str]:
    closed, was = _closed(after), _closed(before)
    for role in sorted(closed - was):
        yield f"{_title(role)} may sign for no model any more; what it signed for is void"
    for role in sorted(was - closed):
        yield f"{_title(role)} may sign for models again"


def _closed(item: Envelope | None) -> set[str]:
    targets = item.payload(Targets) if item else Targets()
    found = (targets.delegations.roles if targets.delegations else None) or {}
    return {role for role, each in found.items() if each.paths == list(names.retired_paths(role))}


def _targets(before: Envelope | None, after: Envelope) -> Iterator[str]:
    was = before.payload(Targets).targets if before else {}
    now = after.payload(Targets).targets
    for path, target in now.items():
        if path not in was:
            yield f"signs for {_target(path, target)}"
        elif was[path] != target:
            yield f"signs for another {_target(path, target)}"
    for path in was:
        if path not in now:
            yield f"does not sign for {path} any more"


def _target(path: str, target: TargetFile) -> str:
    custom = dict(target.custom or {})
    facts = [f"{target.length} bytes, sha256 {target.hashes['sha256']}"]
    if "closure_bytes" in custom:
        size, count = custom.pop("closure_bytes"), custom.pop("blob_count", "?")
        facts.append(f"{size} bytes in {count} blobs")
    if path.startswith("models/"):
        facts.append(f"licence {custom.pop('licence', '') or 'unknown'}")
    facts += [f"{name} {value}" for name, value in custom.items()]
    return f"{path}: {', '.join(facts)}"


def _title(role: str) -> str:
    namespace = names.namespace_of(role)
    return role if namespace is None else f"publisher {namespace}"
