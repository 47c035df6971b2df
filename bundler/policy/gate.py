"""What an import asks at its two doors: before the payload is stored, and before it is installed.

At the first door everything signed is known: who, which names, licences, sizes. At the second, what
the files themselves say, and what the scan found. A gate belongs to one import; to come again with
the next stick is to knock at the same gate again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from bundler.approval.documents import Asking
from bundler.approval.quorum import Agreement, agreed
from bundler.descriptor import BundledModel
from bundler.head import Head
from bundler.policy.evaluate import evaluate
from bundler.policy.facts import Claims, head_facts, with_headers
from bundler.policy.licences import normal
from bundler.policy.model import Acceptance, Action, Decision, Facts, Found, Policy, Verdict
from bundler.policy.overrides import Overrides
from bundler.policy.reading import load
from bundler.trust import site
from bundler.trust.dsse import PersonKey
from bundler.trust.names import BUNDLE_TARGET
from bundler.trust.staleness import ACCEPTED, Allowance
from registry.digest import Digest
from registry.reference import Reference
from registry.store import Store
from registry.transaction import Transaction
from schemas import strictjson
from schemas.errors import PolicyRefused

_SHOWN: Final = 5  # reasons in one message


@dataclass(frozen=True, slots=True)
class Consent:
    """What the operator at this command says yes to.

    Attributes:
        licences: Ids given with ``--accept-licence``.
        findings: Codes given with ``--accept-finding``.
        reason: Given with ``--accept-stale``; empty without.
        ask: Asks a person at the terminal; None where nobody is there.
    """

    licences: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    reason: str = ""
    ask: Callable[[Decision], bool] | None = field(default=None, compare=False)

    def covers(self, decision: Decision) -> bool:
        """Whether it says yes to something."""
        if decision.rule == "licence":
            given = {normal(each) if each != "unknown" else each for each in self.licences}
            named = set(decision.item.split(","))
        else:
            given, named = set(self.findings), {decision.item}
        return named <= given or (self.ask is not None and self.ask(decision))


@dataclass(frozen=True, slots=True)
class Persons:
    """The other operators' part.

    Attributes:
        approvals: Files of theirs.
        requester: Key of the one who asks for approvals now; None where nobody does.
    """

    approvals: tuple[bytes, ...] = field(default=(), repr=False)
    requester: PersonKey | None = None


class Gate:
    """The policy of a site, and what persons said, at one import.

    Args:
        policy: In force.
        consent: Of the operator.
        persons: The others.
        looking: Nothing will be installed: what is to be confirmed or approved is told, not asked.
    """

    def __init__(
        self,
        policy: Policy,
        consent: Consent | None = None,
        persons: Persons | None = None,
        *,
        looking: bool = False,
    ) -> None:
        self.policy = policy
        self._consent = consent or Consent()
        self._persons = persons or Persons()
        self._looking = looking
        self._confirmed: dict[Decision, None] = {}
        self._pending: dict[Decision, None] = {}
        self._claims = Claims()
        self._facts: Facts | None = None
        self._agreement: Agreement | None = None
        self._overrides = Overrides(policy.digest)
        self._fields: dict[str, Any] = {}
        self._undecided = self._read = False
        self._decisions: dict[Decision, None] = {}

    @classmethod
    def of(cls, store: Store, *, looking: bool = False) -> Gate:
        """The gate of a site where nobody says anything.

        Raises:
            PolicyRefused: Its policy cannot be used.
        """
        return cls(load(store.home), looking=looking)

    @property
    def requesting(self) -> bool:
        """Whether this run ends with a request instead of an installation."""
        return self._persons.requester is not None

    def waits(self, *, begun: bool) -> bool:
        """Whether it was closed for want of a yes that may still come: what was read can wait.

        Args:
            begun: Whether there was anything before this run.
        """
        return self._undecided and (begun or self._read)

    @property
    def pending(self) -> tuple[Decision, ...]:
        """What an import would have somebody confirm; filled only while looking."""
        return tuple(self._pending)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Everything so far that the policy did not allow without more ado."""
        return tuple(self._decisions)

    @property
    def overrides(self) -> Overrides:
        """What persons decided, complete after the second door."""
        return replace(self._overrides, confirmed=tuple(self._confirmed))

    def allowance(self) -> Allowance:
        """What may have expired.

        Raises:
            PolicyRefused: More was asked for than the policy lets anybody accept.
        """
        rules, asked = self.policy.stale, bool(self._consent.reason)
        if asked and rules.accept is Acceptance.NEVER:
            raise PolicyRefused(
                "this site's policy lets nobody accept stale metadata",
                why=f"stale.accept is never in {self.policy.source}",
                hint="Make a new bundle on the connected side",
            )
        return Allowance(rules.grace, asked, asked and rules.accept is Acceptance.ALL_BUT_ROOT)

    @property
    def claims(self) -> Claims:
        """Collects what configs say, while they are read."""
        return self._claims

    def first(self, store: Store, head: Head, wanted: Sequence[BundledModel]) -> None:
        """The first door: everything signed is known, no payload was read.

        Args:
            store: Of this site.
            head: Passed its checks.
            wanted: Its models that are to be installed.

        Raises:
            PolicyRefused: The policy says no; or somebody has yet to say yes.
        """
        trust = head.trusted.trust
        self._confirmed, self._pending, self._decisions = {}, {}, {}
        self._overrides = Overrides(
            self.policy.digest,
            self._consent.reason if any(s.how == ACCEPTED for s in trust.stale) else "",
            trust.stale,
        )
        self._facts = head_facts(head, wanted, self._claims, store.catalogue.namespaces())
        self._settle(evaluate(self.policy, self._facts))
        self._fields = _import_fields(head, self._facts, self._overrides)
        self._find_agreement(store, trust.reference_time)

    def second(
        self, headers: Mapping[Reference, Mapping[str, Any]], findings: Sequence[Found] = ()
    ) -> None:
        """The second door: all bytes are verified, nothing is installed.

        Args:
            headers: Model to the facts of its weight files.
            findings: Of the scan.

        Raises:
            PolicyRefused: As for :meth:`first`.
        """
        if self._facts is None:
            raise PolicyRefused("the policy was not asked at the first door")
        self._read = True
        self._facts = with_headers(self._facts, headers, findings)
        self._settle(evaluate(self.policy, self._facts))
        self._fields |= {
            "confirmed": [each.document() for each in self._confirmed],
            "findings": [
                {"code": f.code, "severity": f.severity, "where": f.where, "detail": f.detail}
                for f in self._facts.findings
            ],
        }
        if self._agreement is not None:
            _compare(self._agreement, self._fields)

    def request(self, store: Store, now: datetime) -> bytes:
        """The request that others are to approve, after the second door."""
        asking = asking_person(self.policy, self._persons.requester, store, now)
        request = asking.request(Action.IMPORT, self._overrides.reason, self._fields)
        detail = {"request": str(Digest.of(request)), "requester": asking.name}
        event = store.audit_event("approval.request", self._fields["bundle"]["id"], detail)
        with store.catalogue.transaction() as tx:
            tx.add_audit_event(event)
        return request

    def claim(self, tx: Transaction, namespaces: Iterable[str], fingerprint: Digest) -> None:
        """Note whose namespaces these are, in the transaction that installs models of them.

        Raises:
            PolicyRefused: Somebody else was faster, and the policy does not say who may.
        """
        for namespace in sorted(set(namespaces)):
            owner = tx.claim_namespace(namespace, fingerprint)
            if owner != fingerprint and not self.policy.publishers:
                raise PolicyRefused(
                    f"namespace {namespace} belongs to another publisher by now",
                    why=f"the one with root {owner.short}",
                    hint="Say in the site's policy who may bring it",
                )

    def _settle(self, decisions: Sequence[Decision]) -> None:
        self._undecided = False
        self._decisions |= dict.fromkeys(decisions)
        refused = [each for each in decisions if each.verdict is Verdict.REFUSE]
        if refused:
            raise PolicyRefused(
                "this site's policy refuses the bundle",
                why=_reasons(refused),
                hint="See `sealift policy show`; or import other models of it, with --only",
            )
        new = [each for each in decisions if each not in self._confirmed]
        if self._looking:
            self._pending |= dict.fromkeys(new)
            return
        open_ = [each for each in new if not self._consent.covers(each)]
        if open_:
            self._undecided = True
            raise PolicyRefused(
                "this site's policy wants somebody to confirm",
                why=_reasons(open_),
                hint=f"Say so with {_options(open_)}",
            )
        self._confirmed |= dict.fromkeys(new)

    def _find_agreement(self, store: Store, now: datetime) -> None:
        rules = self.policy.approval
        needed = rules.needed(Action.IMPORT)
        if self._overrides.reason:
            needed = max(needed, rules.needed(Action.ACCEPT_STALE))
        if self._looking:
            return
        if self.requesting:
            asking_person(self.policy, self._persons.requester, store, now)
            return
        if not needed and not self._persons.approvals:
            return
        self._undecided = True
        if not self._persons.approvals:
            raise PolicyRefused(
                f"{needed} other operator{'s' if needed > 1 else ''} must approve this",
                why=f"so says {self.policy.source}",
                hint="Run it with --request FILE --key YOURKEY, and have that file approved",
            )
        self._agreement = agreed(
            self.policy,
            self._persons.approvals,
            action=Action.IMPORT,
            needed=max(needed, 1),
            site=site_of(store),
            now=now,
        )
        _compare(self._agreement, self._fields)
        self._undecided = False
        self._overrides = replace(
            self._overrides,
            request=self._agreement.request.id,
            requester=self._agreement.requester,
            approvers=self._agreement.approvers,
        )


def site_of(store: Store) -> Digest:
    """What a site is known by."""
    return site.site_key(store.home).fingerprint


def asking_person(policy: Policy, key: PersonKey | None, store: Store, now: datetime) -> Asking:
    """Who asks, as the policy knows them.

    Raises:
        PolicyRefused: It does not.
    """
    name = policy.approval.person(key.public) if key is not None else None
    if key is None or name is None:
        raise PolicyRefused(
            "only an operator of the policy may ask for approvals",
            why="the policy does not name this key",
            hint=f"Have its public part entered into {policy.source}",
        )
    return Asking(key, name, site_of(store), policy.digest, now, policy.approval.valid)


def _import_fields(head: Head, facts: Facts, overrides: Overrides) -> dict[str, Any]:
    descriptor = head.trusted.descriptor
    return {
        "bundle": {
            "id": descriptor.id,
            "sequence": descriptor.sequence,
            "publisher": descriptor.publisher,
            "issuedAt": descriptor.issued_at,
            "descriptor": str(head.trusted.trust.target(BUNDLE_TARGET).digest),
            "anchor": facts.anchor,
            "root": str(facts.fingerprint),
        },
        "models": [
            {
                "name": str(model.name),
                "manifest": str(model.manifest),
                "bytes": model.size,
                "licences": list(model.licences),
            }
            for model in facts.models
        ],
        "stale": [each.document() for each in overrides.stale],
        "confirmed": [],
        "findings": [],
    }


def _compare(agreement: Agreement, fields: dict[str, Any]) -> None:
    """See that what is about to be done is what was approved.

    Raises:
        PolicyRefused: It is another bundle, or more than was approved.
    """
    approved = agreement.request.document
    hint = "Write a new request, and have that approved"
    if approved["bundle"] != fields["bundle"]:
        raise PolicyRefused(
            "the approvals are for another bundle",
            why=f"for {approved['bundle']['id'][:12]}, this is {fields['bundle']['id'][:12]}"
            if approved["bundle"]["id"] != fields["bundle"]["id"]
            else "under the same id, with another descriptor or publisher",
            hint=hint,
        )
    for part in ("models", "stale", "confirmed", "findings"):
        known = set(map(strictjson.dumps, approved[part]))
        more = [each for each in fields[part] if strictjson.dumps(each) not in known]
        if more:
            raise PolicyRefused(
                "more is about to be done than was approved",
                why=f"{part}: {', '.join(str(v) for v in more[0].values())}",
                hint=hint,
            )


def _reasons(decisions: Sequence[Decision]) -> str:
    texts = [f"{each.subject}: {each.detail}" for each in decisions[:_SHOWN]]
    more = len(decisions) - len(texts)
    return "; ".join(texts) + (f"; and {more} more" if more else "")


def _options(decisions: Sequence[Decision]) -> str:
    options = []
    for each in decisions:
        word = "--accept-licence" if each.rule == "licence" else "--accept-finding"
        options += [f"{word} {item}" for item in each.item.split(",")]
    return " ".join(dict.fromkeys(options))
