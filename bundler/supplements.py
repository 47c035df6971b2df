"""Top-up bundles: newer than the bundle that they top up, and imported before it.

A site that imported one has seen the publisher's newer state, and yet has to take the older bundle
after it. So the trusted versions stay as they are, and what was seen becomes a floor: for every
bundle but that one, no role may be behind it. The older bundle may not turn back a name that the
top-up has set. Once the trusted versions have come so far the floor is of no use and goes.

Where a top-up brings a newer root, keys may have been taken back; then nothing is held open, and
the older bundle has to be made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bundler.descriptor import BundleDescriptor
from bundler.trust.names import ROOT
from bundler.trust.verifier import VerifiedTrust
from registry.records import Supplement, TrustState
from registry.transaction import Transaction
from schemas.errors import RollbackDetected


def check(
    seen: Sequence[Supplement], versions: Mapping[str, int], descriptor: BundleDescriptor
) -> None:
    """See that a bundle is not older than what a top-up showed, unless it is the one topped up.

    Args:
        seen: Of the same publisher.
        versions: Role to version of the bundle's metadata.
        descriptor: Of the bundle; signed.

    Raises:
        RollbackDetected: It is; or it would turn back a name.
    """
    if any(each.bundle == descriptor.id for each in seen):
        for each in seen:
            _check_names(each, descriptor)
        return
    for each in seen:
        for role, version in each.versions.items():
            if versions.get(role, 0) < version:
                raise RollbackDetected(
                    "the bundle is older than what this site has already seen",
                    why=f"its {role} is v{versions.get(role, 0)}, a top-up came with v{version}",
                    hint="Import the newest bundle instead",
                )


def _check_names(seen: Supplement, descriptor: BundleDescriptor) -> None:
    for model in descriptor.models:
        named = seen.names.get(str(model.reference))
        if named not in (None, str(model.manifest.digest)):
            raise RollbackDetected(
                f"the bundle would turn {model.reference} back",
                why="its top-up is newer and has another model under this name",
                hint="Have the bundle made again",
            )


def commit(
    tx: Transaction,
    seen: Sequence[Supplement],
    descriptor: BundleDescriptor,
    trust: VerifiedTrust,
    before: TrustState,
) -> None:
    """Let the trusted state advance, or keep it and note what was seen.

    Args:
        tx: The import's.
        seen: Earlier top-ups of the same publisher.
        descriptor: Of the bundle that is being imported.
        trust: What was verified of it.
        before: The state that it was verified from.

    Raises:
        RollbackDetected: See `check`.
    """
    anchor = before.anchor
    check(seen, trust.versions, descriptor)  # another import may have been faster
    if not holds_back(descriptor, trust.versions, before):
        tx.set_trust(anchor, trust.new_state)
        for each in seen:
            if all(trust.versions.get(role, 0) >= v for role, v in each.versions.items()):
                tx.remove_supplement(anchor, each.bundle)
        return
    older = descriptor.supplements or ""
    known = next((each for each in seen if each.bundle == older), Supplement(older, {}, {}))
    roles = known.versions.keys() | trust.versions.keys()
    versions = {
        role: max(known.versions.get(role, 0), trust.versions.get(role, 0)) for role in roles
    }
    names = {str(model.reference): str(model.manifest.digest) for model in descriptor.models}
    tx.put_supplement(anchor, Supplement(older, versions, {**known.names, **names}))


def holds_back(
    descriptor: BundleDescriptor, versions: Mapping[str, int], before: TrustState
) -> bool:
    """Whether an import of this bundle leaves the trusted versions as they are."""
    return descriptor.supplements is not None and versions[ROOT] <= max(before.roots)
