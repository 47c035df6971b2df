"""What persons decided about one import, for its receipt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bundler.approval.quorum import Approver
from bundler.policy.model import EMPTY, Decision
from bundler.trust.staleness import StaleRole
from registry.digest import Digest


@dataclass(frozen=True, slots=True)
class Overrides:
    """The policy that counted, and what was decided under it.

    Attributes:
        policy: Digest of its file; of no bytes without one.
        reason: What was given for ``--accept-stale``; empty without.
        stale: Expired metadata that counted all the same.
        confirmed: What the policy wanted somebody to confirm, and somebody did.
        request: Id of the request that was approved; empty without.
        requester: Who asked.
        approvers: Who agreed, each person once: name and fingerprint of the key.
    """

    policy: Digest = EMPTY
    reason: str = ""
    stale: tuple[StaleRole, ...] = ()
    confirmed: tuple[Decision, ...] = ()
    request: str = ""
    requester: str = ""
    approvers: tuple[Approver, ...] = ()

    def document(self) -> dict[str, Any]:
        """For receipts: the policy's digest, and whatever there is of the rest."""
        found: dict[str, Any] = {
            "reason": self.reason,
            "stale": [each.document() for each in self.stale],
            "confirmed": [each.document() for each in self.confirmed],
            "request": self.request,
            "requester": self.requester,
            "approvers": [each.name for each in self.approvers],
        }
        return {"policy": str(self.policy), **{k: v for k, v in found.items() if v}}


NONE = Overrides()
