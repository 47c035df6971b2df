"""The way out for a site whose clock was far ahead once: its floor is lowered, by persons.

The floor is the latest time that the site acted at. An import while the clock was wrong leaves a
floor in the future, and from then on everything seems expired. Lowering it gives an attacker who
has the clock some of the past back: what expired between the new floor and the old one. So it is
bounded by what is certain (this release's date, the latest time that an accepted bundle signed),
needs a reason, a second person where the policy says so, and is written into the audit log.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bundler.approval.documents import Approval
from bundler.approval.quorum import Agreement, agreed
from bundler.clock import now, parse_rfc3339, rfc3339
from bundler.policy import reading
from bundler.policy.gate import Persons, asking_person, site_of
from bundler.policy.model import Action, Policy
from bundler.trust.clock import BUILD_DATE, reference_time
from registry.store import Store
from schemas.errors import PolicyRefused, UsageError


@dataclass(frozen=True, slots=True)
class SetTime:
    """What was, or would be, done.

    Attributes:
        clock: What the host's clock says, UTC.
        before: The floor as it was.
        after: The floor as it is, or shall be.
        lowest: What no person can go below: proven by signatures, or by this release.
        done: Whether it was.
        request: For other operators, where that was asked for.
    """

    clock: datetime
    before: datetime
    after: datetime
    lowest: datetime
    done: bool
    request: bytes = b""


def parse_time(text: str) -> datetime:
    """A time as people type it: a day, or RFC 3339 in UTC.

    Raises:
        UsageError: Anything else.
    """
    try:
        return parse_rfc3339(text if "T" in text else f"{text}T00:00:00Z")
    except ValueError:
        raise UsageError(
            f"{text[:40]!r} is no time", hint="Write 2027-03-01 or 2027-03-01T12:00:00Z"
        ) from None


def set_time(
    home: Path,
    to: datetime | None,
    reason: str,
    persons: Persons,
    *,
    dry_run: bool = False,
    clock: datetime | None = None,
) -> SetTime:
    """Lower the clock's floor; or ask others to approve that.

    Args:
        home: The store.
        to: The new floor, UTC; None takes the clock, or the lowest that may be if that is later.
        reason: Why, in words.
        persons: Approvals; or the key of the one who asks for them.
        dry_run: Change nothing.
        clock: What the host's clock says; None reads it.

    Raises:
        UsageError: There is nothing to lower, it is too low, or the reason is missing.
        PolicyRefused: The policy wants others to approve; or the approvals are for another thing.
        AlreadyExists: These approvals were used before.
    """
    if not reason.strip():
        raise UsageError("no reason was given", hint='Give --reason "…": it is kept in the log')
    if to is None and persons.approvals:
        approved = Approval.read(persons.approvals[0]).request.document
        to = parse_rfc3339(approved["time"]["to"]) if "time" in approved else None
    with Store.open(home, create=False) as store, store.lock():
        plan = _plan(store, to, clock or now())
        policy = reading.load(home)
        reference = reference_time(plan.clock, plan.before).time
        if persons.requester is not None:
            asking = asking_person(policy, persons.requester, store, reference)
            fields = {"time": {"from": rfc3339(plan.before), "to": rfc3339(plan.after)}}
            request = asking.request(Action.SET_TIME, reason, fields)
            return SetTime(plan.clock, plan.before, plan.after, plan.lowest, False, request)
        agreement = _agreement(policy, persons, store, plan, reason, reference)
        if dry_run:
            return plan
        _lower(store, plan, reason, agreement)
        return SetTime(plan.clock, plan.before, plan.after, plan.lowest, done=True)


def _plan(store: Store, to: datetime | None, clock: datetime) -> SetTime:
    before = store.catalogue.clock_floor()
    if before is None:
        raise UsageError("this site has no floor for its clock yet", hint="There is nothing to do")
    signed = store.catalogue.signed_time()
    lowest = max(BUILD_DATE, signed) if signed is not None else BUILD_DATE
    after = max(clock, lowest) if to is None else to
    if after < lowest:
        raise UsageError(
            f"the time cannot be before {rfc3339(lowest)}",
            why="a bundle that this site accepted was signed then"
            if lowest == signed
            else "this release was made then",
            hint="Set this machine's clock, and leave --to out",
        )
    if after >= before:
        raise UsageError(
            f"the floor is {rfc3339(before)} already",
            why=f"that is not after {rfc3339(after)}",
            hint="Set this machine's clock first; a clock that is right needs nothing else",
        )
    return SetTime(clock, before, after, lowest, done=False)


def _agreement(
    policy: Policy, persons: Persons, store: Store, plan: SetTime, reason: str, time: datetime
) -> Agreement | None:
    needed = policy.approval.needed(Action.SET_TIME)
    if not needed:
        return None
    if not persons.approvals:
        raise PolicyRefused(
            f"{needed} other operator{'s' if needed > 1 else ''} must approve this",
            why=f"so says {policy.source}",
            hint="Run it with --request FILE --key YOURKEY, and have that file approved",
        )
    agreement = agreed(
        policy,
        persons.approvals,
        action=Action.SET_TIME,
        needed=needed,
        site=site_of(store),
        now=time,
    )
    approved = agreement.request.document
    if (approved["time"]["from"], approved["reason"]) != (rfc3339(plan.before), reason):
        raise PolicyRefused(
            "the approvals are for another change of time",
            why=f"from {approved['time']['from']}, because {approved['reason']!r}",
            hint="Give the same --reason; or write a new request",
        )
    if approved["time"]["to"] != rfc3339(plan.after):
        raise PolicyRefused(
            "the approvals are for another change of time",
            why=f"to {approved['time']['to']}",
            hint=f"Give --to {approved['time']['to']}",
        )
    return agreement


def _lower(store: Store, plan: SetTime, reason: str, agreement: Agreement | None) -> None:
    approvers = agreement.approvers if agreement is not None else ()
    detail = {
        "reason": reason[:1000],
        "from": rfc3339(plan.before),
        "to": rfc3339(plan.after),
        "clock": rfc3339(plan.clock),
        "requester": agreement.requester if agreement is not None else "",
        "approvers": " ".join(f"{each.name}:{each.key.short}" for each in approvers)[:1000],
    }
    event = store.audit_event("trust.set-time", "clock", {k: v for k, v in detail.items() if v})
    with store.catalogue.transaction() as tx:
        if agreement is not None:
            tx.use_request(agreement.request.id)
        tx.add_audit_event(event)  # before the floor sinks, so that its reference time is the old
        tx.lower_clock_floor(plan.after)
