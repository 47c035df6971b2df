"""The isolated side: which of a bundle's models were taken back, and by whom.

Three words count: the list that came with the bundle, the lists that came before, and this site's
own deny list. The bundle's list is verified and at least as long as the one before, or the bundle
is refused. It is accepted in the import's one transaction, also if every model of the bundle is
refused: that is how news of a withdrawal arrives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bundler.advisories.lists import WithdrawnList
from bundler.descriptor import BundledModel
from bundler.trust.names import ADVISORIES, WITHDRAWN_TARGET
from bundler.trust.verifier import VerifiedTrust
from registry.catalogue import Catalogue
from registry.digest import Digest
from registry.oci import Descriptor
from registry.reference import Reference
from registry.transaction import Transaction
from registry.withdrawals import AcceptedList, Action, Withdrawal, Withdrawn
from schemas.errors import ModelWithdrawn, OutsideClosure, RollbackDetected

_SHOWN: Final = 3
_TAKEN: Final = "All else of the bundle was taken; ask its publisher for what follows"


@dataclass(frozen=True, slots=True)
class Applied:
    """What is known about withdrawals at one import.

    Attributes:
        source: Fingerprint of the publisher's pinned root.
        anchor: What this site calls the publisher.
        carried: The bundle's list; None where its publisher never withdrew anything.
        version: Of the role's metadata that signed it; 0 without.
        news: How many of its entries this site has not seen.
        found: Every wanted model of which something is withdrawn.
        installed: Models that are here already, of which the news speak.
    """

    source: Digest
    anchor: str
    carried: WithdrawnList | None
    version: int
    news: int
    found: Mapping[Reference, Withdrawal] = field(default_factory=dict, hash=False)
    installed: Mapping[Reference, Withdrawal] = field(default_factory=dict, hash=False)

    @property
    def refused(self) -> dict[Reference, Withdrawal]:
        """Models that must not be installed."""
        return {name: each for name, each in self.found.items() if each.action is Action.BLOCK}

    def document(self) -> dict[Digest, str]:
        """For the receipt: what was named of the bundle's models, and what holds."""
        named = (*self.found.values(), *self.installed.values())
        return {each.digest: each.action.word for each in named}

    def kept(self, wanted: Sequence[BundledModel]) -> tuple[BundledModel, ...]:
        """Those of the wanted models that may be installed."""
        refused = self.refused
        return tuple(model for model in wanted if model.reference not in refused)

    def commit(self, tx: Transaction, installed: Sequence[Digest]) -> None:
        """Accept the list, and note who brought which manifests.

        Raises:
            RollbackDetected: Another import was faster, with a longer list.
        """
        for manifest in installed:
            tx.withdrawals.vouch(manifest, self.source)
        if self.carried is not None and self.news:
            accepted = AcceptedList(self.version, len(self.carried.entries), self.carried.data)
            tx.withdrawals.accept(self.source, accepted, self.carried.last())

    def check(self, hint: str = _TAKEN) -> None:
        """See that nothing was refused.

        Args:
            hint: What next.

        Raises:
            ModelWithdrawn: Something was.
        """
        refused = self.refused
        if refused:
            lines = [f"{name.shortest} {each.line()}" for name, each in refused.items()]
            raise ModelWithdrawn(
                f"{len(refused)} of the bundle's models are not for use",
                why="; ".join(lines[:_SHOWN]),
                hint=hint,
            )


def apply(
    catalogue: Catalogue,
    trust: VerifiedTrust,
    carried: bytes | None,
    wanted: Sequence[tuple[BundledModel, Sequence[Descriptor]]],
) -> Applied:
    """Judge the models of a bundle; nothing is written.

    Args:
        catalogue: Of this site.
        trust: The bundle's, verified.
        carried: Bytes of the bundle's list, compared with what was signed; None where nothing was.
        wanted: The models asked for, each with all that it consists of.

    Raises:
        MalformedDocument: The list is not in its one form.
        RollbackDetected: It leaves something out, or tells the past otherwise.
    """
    state = trust.new_state
    version = trust.versions.get(ADVISORIES, 0)
    new = None if carried is None else WithdrawnList.parse(carried)
    known = catalogue.withdrawals.accepted(state.fingerprint)
    old = None if known is None else WithdrawnList.parse(known.document)
    _check_history(state.anchor, old, new, 0 if known is None else known.version, version)
    before = 0 if old is None else len(old.entries)
    news = 0 if new is None else max(0, len(new.entries) - before)
    said = new.last() if new is not None and news else {}
    last = {digest: each for digest, each in said.items() if each.number > before}
    found = {}
    for model, blobs in wanted:
        digests = {model.manifest.digest, *(blob.digest for blob in blobs)}
        judged = catalogue.withdrawals.of(
            model.manifest.digest,
            digests,
            voucher=state.fingerprint,
            news=[each for digest, each in last.items() if digest in digests],
        )
        if judged is not None:
            found[model.reference] = judged
    here = _installed(catalogue, state.fingerprint, last)
    return Applied(state.fingerprint, state.anchor, new, version, news, found, here)


def _installed(
    catalogue: Catalogue, source: Digest, last: Mapping[Digest, Withdrawn]
) -> dict[Reference, Withdrawal]:
    """Models in the store that a publisher's news are about."""
    found = {}
    for record in catalogue.models() if last else ():
        manifest = record.descriptor.digest
        digests = {manifest, *(blob.digest for blob in record.manifest.blobs)}
        if news := [each for digest, each in last.items() if digest in digests]:
            judged = catalogue.withdrawals.of(manifest, digests, about=source, news=news)
            if judged is not None:
                found[record.reference] = judged
    return found


def signed_list(trust: VerifiedTrust) -> tuple[Digest, int] | None:
    """Digest and size of the list that a bundle must carry; None if it must not carry any.

    Raises:
        OutsideClosure: Another role than the one for withdrawals signed one.
    """
    if not trust.has(WITHDRAWN_TARGET):
        return None
    target = trust.target(WITHDRAWN_TARGET)
    if target.role != ADVISORIES:
        raise OutsideClosure(
            "the list of withdrawals is signed by somebody who may not", why=f"by {target.role}"
        )
    return target.digest, target.size


def _check_history(
    anchor: str, old: WithdrawnList | None, new: WithdrawnList | None, had: int, has: int
) -> None:
    """A list never loses an entry; an older bundle's may be a beginning of what is known."""
    if old is None:
        return
    if new is None:
        if has > had:
            raise _rollback(anchor, f"there is no list, this site has {len(old.entries)} entries")
        return
    if new.continues(old) or (old.continues(new) and has <= had):
        return
    raise _rollback(
        anchor,
        f"its {len(new.entries)} entries do not continue the {len(old.entries)} that this site has",
    )


def _rollback(anchor: str, why: str) -> RollbackDetected:
    return RollbackDetected(
        f"{anchor}'s list of withdrawals leaves something out that it said before",
        why=why,
        hint="Ask the publisher: somebody may hold the key for withdrawals",
    )
