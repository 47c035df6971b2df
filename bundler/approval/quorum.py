"""Do these approvals suffice?

The checks, in order:

1. every file is an approval, signed by the key that it names, of a request likewise
2. all are of one and the same request
3. the request is for this site, under the policy that is in force, for this action
4. its time is now: not from the future, not over, and no longer than the policy lets it be
5. the one who asked is one of the policy's operators
6. enough other persons approved: by the policy's names, so that nobody counts twice
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from bundler.approval.documents import Approval, Request
from bundler.clock import rfc3339
from bundler.policy.model import Action, Policy
from registry.digest import Digest
from schemas import limits
from schemas.errors import PolicyRefused

_AGAIN = "Write a new request, and have that approved"


@dataclass(frozen=True, slots=True)
class Approver:
    """Somebody who agreed.

    Attributes:
        name: As the policy calls them.
        key: Fingerprint of the key that they signed with.
    """

    name: str
    key: Digest


@dataclass(frozen=True, slots=True)
class Agreement:
    """Enough persons agreed.

    Attributes:
        request: To what.
        requester: Who asked.
        approvers: Who agreed, each person once.
    """

    request: Request
    requester: str
    approvers: tuple[Approver, ...]


def agreed(
    policy: Policy,
    approvals: Sequence[bytes],
    *,
    action: Action,
    needed: int,
    site: Digest,
    now: datetime,
) -> Agreement:
    """Check approvals against the policy; what exactly was approved is for the caller to compare.

    Args:
        policy: In force now.
        approvals: The files.
        action: What is to be done.
        needed: How many persons must have approved.
        site: Fingerprint of this site's key.
        now: The reference time.

    Raises:
        MalformedDocument, BadSignature: A file is no approval, or a forged one.
        PolicyRefused: They do not suffice.
    """
    if not 0 < len(approvals) <= limits.APPROVALS:
        raise _refused(f"{len(approvals)} approvals were given", "Give --approval FILE")
    read = [Approval.read(data) for data in approvals]
    request = read[0].request
    if any(each.request.data != request.data for each in read):
        raise _refused("they are of different requests", "Give those of one request")
    _check_request(policy, request, action, site, now)
    requester = policy.approval.person(request.key)
    if requester is None:
        raise _refused("the one who asked is no operator of the policy", _AGAIN)
    persons = [policy.approval.person(each.key) for each in read]
    others: dict[str, Approver] = {}
    for name, approval in zip(persons, read, strict=True):
        if name is not None and name != requester:
            others.setdefault(name, Approver(name, Digest.of(approval.key)))
    if len(others) < needed:
        raise _refused(_lack(needed, len(others), persons, requester), "Have others approve it too")
    return Agreement(request, requester, tuple(others.values()))


def _check_request(
    policy: Policy, request: Request, action: Action, site: Digest, now: datetime
) -> None:
    """Checks 3 and 4."""
    if request.action is not action:
        raise _refused(f"they are for another thing: {request.action.value}", _AGAIN)
    if request.site != site:
        raise _refused("they are for another site", _AGAIN)
    if request.policy != policy.digest:
        raise _refused("the site's policy has changed since", _AGAIN)
    if now >= request.expires:
        raise _refused(f"they expired on {rfc3339(request.expires)}", _AGAIN)
    if request.requested > now:
        raise _refused(f"they are from the future, {rfc3339(request.requested)}", _AGAIN)
    if request.expires - request.requested > policy.approval.valid:
        raise _refused(f"more than {policy.approval.valid.days} days were asked for", _AGAIN)


def _lack(needed: int, approvers: int, persons: Sequence[str | None], requester: str) -> str:
    found = [f"{approvers} of {needed} other persons approved"]
    if strangers := persons.count(None):
        found.append(f"{strangers} by keys that the policy does not name")
    if own := persons.count(requester):
        found.append(f"{own} by {requester}, who asked")
    return ", ".join(found)


def _refused(why: str, hint: str) -> PolicyRefused:
    return PolicyRefused("the approvals do not count", why=why, hint=hint)
