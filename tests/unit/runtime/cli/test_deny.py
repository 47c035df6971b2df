"""sealift deny, sealift quarantine, and how withdrawn models look; no server runs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from registry.digest import Digest
from registry.reference import Reference
from registry.store import Store
from registry.withdrawals import AcceptedList, Action, Withdrawn
from schemas.errors import ModelWithdrawn, NotFound, UsageError
from tests.unit.runtime.cli.conftest import Sealift

AT = datetime(2026, 12, 1, tzinfo=UTC)
ACME = Digest.of(b"acme")


def withdraw(home: Path, model: Reference, action: Action) -> None:
    with Store.open(home) as store:
        record = store.catalogue.resolve(model)
        assert record is not None
        digest = record.descriptor.digest
        with store.catalogue.transaction() as tx:
            tx.add_anchor("acme", ACME)
            tx.withdrawals.vouch(digest, ACME)
            last = {digest: Withdrawn(digest, action, "it lies", 1, AT)}
            tx.withdrawals.accept(ACME, AcceptedList(1, 1, b"{}"), last)


def test_deny_a_model_and_allow_it_again(sealift: Sealift, model: Reference) -> None:
    assert sealift("deny", "add", "tiny:1k", "--reason", "not here").code == 0
    (entry,) = json.loads(sealift("list", "--json").out)["models"]
    assert entry["withdrawn"]["by"] == "site"
    assert "tiny:1k is denied by this site: not here" in sealift("list").out
    listed = json.loads(sealift("deny", "list", "--json").out)["denied"]
    assert [each["reason"] for each in listed] == ["not here", "not here"]  # manifest and weights
    assert sealift("deny", "remove", "tiny:1k", "--reason", "was wrong").code == 0
    assert json.loads(sealift("deny", "list", "--json").out)["denied"] == []
    assert "withdrawn" not in sealift("list", "--json").out


def test_deny_what_is_not_here(sealift: Sealift, model: Reference) -> None:
    digest = str(Digest.of(b"never seen"))
    assert sealift("deny", "add", digest, "--reason", "known bad").code == 0
    assert "withdrawn" not in sealift("list", "--json").out
    assert digest.removeprefix("sha256:")[:12] in sealift("deny", "list").out
    assert sealift("deny", "add", "nobody/knows:1", "--reason", "x").code == NotFound.exit_code


def test_a_reason_is_asked_for(sealift: Sealift, model: Reference) -> None:
    for words in (("deny", "add", "tiny:1k"), ("quarantine", "release", "tiny:1k")):
        ended = sealift(*words)
        assert ended.code == UsageError.exit_code
        assert "--reason" in ended.err


def test_quarantine(sealift: Sealift, home: Path, model: Reference) -> None:
    withdraw(home, model, Action.QUARANTINE)
    assert "in quarantine by acme (advisory 1): it lies" in sealift("quarantine", "list").out
    assert "quarantine by acme: it lies" in sealift("show", "tiny:1k").out
    words = ("quarantine", "release", "tiny:1k", "--reason", "looked at it")
    assert sealift(*words, "--dry-run").out.startswith("would release tiny:1k")
    assert "in quarantine" in sealift("quarantine", "list").out
    assert sealift(*words).code == 0
    assert "tiny:1k is warned of by acme" in sealift("quarantine", "list").out
    assert sealift(*words).code == NotFound.exit_code


def test_a_block_cannot_be_released(sealift: Sealift, home: Path, model: Reference) -> None:
    withdraw(home, model, Action.BLOCK)
    ended = sealift("quarantine", "release", "tiny:1k", "--reason", "please")
    assert ended.code == ModelWithdrawn.exit_code
    assert "withdrawn by acme" in ended.err
