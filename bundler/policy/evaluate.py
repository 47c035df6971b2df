"""The policy's answer to what is known of a bundle. Pure.

Rules are asked one by one, each gives at most one decision per model and item; what is allowed
without more ado gives none.
"""

from __future__ import annotations

from collections.abc import Iterator

from bundler.policy import licences
from bundler.policy.model import Decision, Facts, ModelFacts, Policy, Verdict

BUNDLE = "the bundle"


def evaluate(policy: Policy, facts: Facts) -> list[Decision]:
    """Every decision that is not plain allowance, in the order of the rules.

    Args:
        policy: Of the site.
        facts: What is known so far; asking again later with more is the way to go.
    """
    return [decision for decision in _all(policy, facts) if decision.verdict is not Verdict.ALLOW]


def _all(policy: Policy, facts: Facts) -> Iterator[Decision]:
    for model in facts.models:
        yield _publisher(policy, facts, model)
        for expression in dict.fromkeys(model.licences or ("",)):
            yield _licence(policy, model, expression)
        yield from _kind(policy, model)
    yield _total(policy, facts)
    for found in facts.findings:
        verdict = policy.scan.verdict(found.code, found.severity)
        yield Decision(verdict, "scan", found.where, found.code, f"{found.code}: {found.detail}")


def _publisher(policy: Policy, facts: Facts, model: ModelFacts) -> Decision:
    def refused(why: str) -> Decision:
        return Decision(Verdict.REFUSE, "publisher", str(model.name), "", why)

    if not policy.publishers:
        owner = facts.owners.get(model.name.namespace, facts.fingerprint)
        if owner != facts.fingerprint:
            return refused(
                f"namespace {model.name.namespace} belongs to the publisher with root"
                f" {owner.short}, who brought it first; this bundle is from {facts.anchor}"
            )
        return Decision(Verdict.ALLOW, "publisher", str(model.name), "", "")
    rules = [rule for rule in policy.publishers if rule.covers(model.name)]
    own = [rule for rule in rules if rule.anchor == facts.anchor]
    if not own:
        names = ", ".join(rule.anchor for rule in rules) or "nobody"
        return refused(f"{names} may bring this name here, not {facts.anchor}")
    pins = {rule.fingerprint for rule in own if rule.fingerprint is not None}
    if pins and facts.fingerprint not in pins:
        return refused(
            f"the root pinned as {facts.anchor} is {facts.fingerprint.short}, the policy wants"
            f" {min(pins).short}"
        )
    return Decision(Verdict.ALLOW, "publisher", str(model.name), "", "")


def _licence(policy: Policy, model: ModelFacts, expression: str) -> Decision:
    verdict, ids = licences.judge(expression, policy.licences)
    named = expression or "no licence named"
    return Decision(
        verdict, "licence", str(model.name), ",".join(ids), f"its licence is {named[:200]}"
    )


def _kind(policy: Policy, model: ModelFacts) -> Iterator[Decision]:
    rules, name = policy.models, str(model.name)
    for text in dict.fromkeys(model.formats):
        if text not in rules.formats:
            yield Decision(Verdict.REFUSE, "format", name, text, f"its format is {text[:64]}")
    if rules.architectures is not None:
        for text in dict.fromkeys(model.architectures):
            if text not in rules.architectures:
                why = f"its architecture is {text[:64]}"
                yield Decision(Verdict.REFUSE, "architecture", name, text, why)
    if rules.max_bytes is not None and model.size > rules.max_bytes:
        why = f"it has {model.size} bytes, {rules.max_bytes} are allowed"
        yield Decision(Verdict.REFUSE, "size", name, "", why)


def _total(policy: Policy, facts: Facts) -> Decision:
    most = policy.models.max_bundle_bytes
    if most is not None and facts.size > most:
        why = f"its models have {facts.size} bytes together, {most} are allowed"
        return Decision(Verdict.REFUSE, "size", BUNDLE, "", why)
    return Decision(Verdict.ALLOW, "size", BUNDLE, "", "")
