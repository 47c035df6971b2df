"""A policy in words, for whoever has to sign for it."""

from __future__ import annotations

from bundler.policy.model import Acceptance, Policy, Verdict
from schemas.render import bytes_text

_ACCEPT = {
    Acceptance.NEVER: "Nobody may accept older ones.",
    Acceptance.FRESHNESS: "Older ones of these two a person may accept, with --accept-stale and a"
    " reason; nothing else that expired.",
    Acceptance.ALL_BUT_ROOT: "Whatever else expired, but the root, a person may accept, with"
    " --accept-stale and a reason.",
}
_DONE = {
    Verdict.ALLOW: "come in",
    Verdict.CONFIRM: "come in once a person confirms",
    Verdict.REFUSE: "stay out",
}


def words(policy: Policy) -> list[str]:
    """One sentence per rule."""
    return [
        *_publishers(policy),
        *_licences(policy),
        *_models(policy),
        *_stale(policy),
        *_approval(policy),
        *_scan(policy),
    ]


def _publishers(policy: Policy) -> list[str]:
    if not policy.publishers:
        return ["A namespace belongs to the pinned publisher who brought a model of it first."]
    lines = []
    for rule in policy.publishers:
        pin = f" (only with root {rule.fingerprint.short})" if rule.fingerprint else ""
        lines.append(f"Publisher {rule.anchor}{pin} may bring {', '.join(rule.names)}.")
    return [*lines, "Nobody may bring any other name."]


def _licences(policy: Policy) -> list[str]:
    rules, lines = policy.licences, []
    for verdict in Verdict:
        ids = [name for name, listed in rules.listed.items() if listed is verdict]
        if ids:
            lines.append(f"Models under {', '.join(ids)} {_DONE[verdict]}.")
    if own := [name for name in rules.listed if name.startswith("LicenseRef-")]:
        lines.append(f"SPDX does not know {', '.join(own)}: only these very names are meant.")
    other = "other licences" if lines else "any licence"
    return [
        *lines,
        f"Models under {other} {_DONE[rules.others]}.",
        f"Models that name no licence {_DONE[rules.unknown]}.",
    ]


def _models(policy: Policy) -> list[str]:
    rules = policy.models
    lines = [f"Weights may be {' or '.join(rules.formats)}."]
    if rules.architectures is not None:
        lines.append(f"Architectures may be {', '.join(rules.architectures)}.")
    if rules.max_bytes is not None:
        lines.append(f"One model may have {bytes_text(rules.max_bytes)}.")
    if rules.max_bundle_bytes is not None:
        lines.append(f"All of one bundle may have {bytes_text(rules.max_bundle_bytes)}.")
    return lines


def _stale(policy: Policy) -> list[str]:
    days = policy.stale.grace.days
    grace = f"count {days} days longer than they say" if days else "count as long as they say"
    return [f"Timestamp and snapshot {grace}. {_ACCEPT[policy.stale.accept]}"]


def _approval(policy: Policy) -> list[str]:
    rules = policy.approval
    if not rules.required:
        return ["One operator alone decides."]
    people = f"{rules.required} other operator" + ("s" if rules.required > 1 else "")
    for_what = ", ".join(sorted(action.value for action in rules.actions))
    names = ", ".join(sorted({operator.name for operator in rules.operators}))
    return [
        f"Besides the one who asks, {people} must approve: {for_what}.",
        f"Operators are {names}. Requests count for {rules.valid.days} days.",
    ]


def _scan(policy: Policy) -> list[str]:
    rules = policy.scan
    lines = [
        f"Models in which the scan finds something of severity {name} {_DONE[verdict]}."
        for name, verdict in rules.severities.items()
    ]
    return lines + [
        f"Models in which it finds {code} {_DONE[verdict]}."
        for code, verdict in rules.codes.items()
    ]
