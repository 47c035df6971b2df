"""The rules of a site: read, said in words, asked."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.policy.evaluate import evaluate
from bundler.policy.licences import judge
from bundler.policy.model import (
    Acceptance,
    Action,
    Facts,
    Found,
    LicenceRules,
    ModelFacts,
    Policy,
    Verdict,
)
from bundler.policy.reading import parse, read
from bundler.policy.words import words
from registry.digest import Digest
from registry.reference import Reference

A, C, R = Verdict.ALLOW, Verdict.CONFIRM, Verdict.REFUSE
RULES = LicenceRules({"MIT": A, "LicenseRef-llama3": C, "GPL-3.0-only": R}, others=R, unknown=C)
PIN = Digest.of(b"root")
MODEL = ModelFacts(
    Reference.parse("acme/x:1"), ("MIT",), ("gguf",), ("llama",), 1000, Digest.of(b"m")
)
FACTS = Facts("acme", PIN, (MODEL,), 1000)


@pytest.mark.parametrize(
    ("expression", "verdict", "ids"),
    [
        ("MIT", A, ("MIT",)),
        ("mit", A, ("MIT",)),
        ("", C, ("unknown",)),
        ("  ", C, ("unknown",)),
        ("llama3", C, ("LicenseRef-llama3",)),
        ("BSD-3-Clause", R, ("BSD-3-Clause",)),
        ("MIT OR GPL-3.0-only", A, ("MIT",)),
        ("GPL-3.0-only OR MIT", A, ("MIT",)),
        ("MIT AND GPL-3.0-only", R, ("GPL-3.0-only",)),
        ("MIT AND LicenseRef-llama3", C, ("LicenseRef-llama3",)),
        ("MIT OR GPL-3.0-only AND BSD-3-Clause", A, ("MIT",)),
        ("(MIT OR GPL-3.0-only) AND BSD-3-Clause", R, ("BSD-3-Clause",)),
        ("GPL-3.0-only WITH Classpath-exception-2.0", R, None),
        ("MIT OR", R, ("LicenseRef-MIT-OR",)),
        ("not a licence", R, ("LicenseRef-not-a-licence",)),
        ("(" * 500 + "MIT" + ")" * 500, R, None),
        ("MIT" * 1000, R, None),
    ],
)
def test_licences(expression: str, verdict: Verdict, ids: tuple[str, ...] | None) -> None:
    found, named = judge(expression, RULES)
    assert found is verdict
    assert ids in (None, named)


def test_exception_may_be_listed_by_itself() -> None:
    whole = "GPL-3.0-only WITH Classpath-exception-2.0"
    rules = LicenceRules({"GPL-3.0-only": R, whole: A})
    assert judge(whole, rules)[0] is A


@given(st.text(max_size=60) | st.text("()MIT ORANDWITHGPL-3.0only+", max_size=60))
def test_no_text_breaks_it_or_is_allowed_by_accident(text: str) -> None:
    verdict, ids = judge(text, RULES)
    assert ids
    if "MIT" not in text.upper():
        assert verdict is not A


def test_no_rule_says_nothing() -> None:
    assert evaluate(Policy(), FACTS) == []


def test_every_rule_speaks_once() -> None:
    policy = parse(
        b"schema_version = 1\n"
        b'[licences]\nrefuse = ["MIT"]\n'
        b'[models]\nformats = ["safetensors"]\narchitectures = ["qwen2"]\n'
        b"max_bytes = 10\nmax_bundle_bytes = 20\n"
        b'[[publisher]]\nanchor = "other"\nnames = ["*"]\n'
        b'[scan]\ncode = { x-y = "refuse" }\n',
        "test",
    )
    facts = Facts("acme", PIN, (MODEL,), 1000, {}, (Found("x-y", "info", "acme/x:1", "odd"),))
    rules = [decision.rule for decision in evaluate(policy, facts)]
    assert rules == ["publisher", "licence", "format", "architecture", "size", "size", "scan"]


@pytest.mark.parametrize(
    ("severity", "verdict"), [("info", A), ("warn", A), ("danger", C), ("unheard-of", R)]
)
def test_findings_without_a_policy(severity: str, verdict: Verdict) -> None:
    assert Policy().scan.verdict("template-call", severity) is verdict


def test_namespace_of_another_root() -> None:
    owned = Facts("acme", PIN, (MODEL,), 1000, {"acme": Digest.of(b"another")})
    (decision,) = evaluate(Policy(), owned)
    assert (decision.rule, decision.verdict) == ("publisher", R)


def test_example_is_what_the_documents_say(repository: Path) -> None:
    policy = read(repository / "examples/airgap/policy.toml")
    assert [rule.anchor for rule in policy.publishers] == ["acme", "university"]
    assert policy.models.max_bytes == 70_000_000_000
    assert policy.stale.grace == timedelta(days=14)
    assert policy.stale.accept is Acceptance.FRESHNESS
    assert policy.approval.required == 1
    assert policy.approval.actions == frozenset(Action)
    assert [operator.name for operator in policy.approval.operators] == ["anna", "bert"]
    assert policy.scan.verdict("any", "danger") is R
    assert judge("Apache-2.0", policy.licences)[0] is A
    assert judge("Artistic-2.0", policy.licences)[0] is R
    said = " ".join(words(policy))
    for part in ("acme/*", "70 GB", "14 days", "anna, bert", "CC-BY-NC-4.0 stay out"):
        assert part in said


def test_a_slip_in_a_licence_is_seen() -> None:
    """It would refuse nothing; makers do name licences that SPDX does not have, so it is no error."""
    policy = parse(
        b'schema_version = 1\n[licences]\nrefuse = ["CC-BY-NC4.0", "mit"]\nothers = "allow"\n',
        "test",
    )
    (said,) = [line for line in words(policy) if "SPDX does not know" in line]
    assert "LicenseRef-CC-BY-NC4.0" in said
    assert "MIT" not in said


def test_an_empty_policy_is_the_defaults() -> None:
    policy = parse(b"schema_version = 1\n", "test")
    assert words(policy) == words(Policy())


def test_listed_licences_close_the_door_for_others() -> None:
    policy = parse(b'schema_version = 1\n[licences]\nallow = ["MIT"]\n', "test")
    assert policy.licences.others is policy.licences.unknown is R
