"""sealift apikey: made once, shown once."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runtime.access.keyfile import KeyRing
from schemas.errors import AlreadyExists, InvalidName, NotFound, UsageError
from tests.unit.runtime.cli.conftest import Sealift


def test_made_listed_revoked(sealift: Sealift, home: Path) -> None:
    made = json.loads(sealift("apikey", "create", "ci", "--role", "metrics", "--json").out)
    assert made["roles"] == ["metrics"]
    assert "hash" not in made
    plain = sealift("apikey", "create", "alice")
    assert plain.out.startswith("sealift_")
    assert len(plain.out.splitlines()) == 1, "for KEY=$(sealift apikey create alice)"
    ring = KeyRing(home)
    ring.refresh()
    for key in (made["key"], plain.out.strip()):
        assert ring.keys.find(key, datetime.now(UTC))
    listed = json.loads(sealift("apikey", "list", "--json").out)["keys"]
    assert [(key["name"], key["roles"]) for key in listed] == [
        ("ci", ["metrics"]),
        ("alice", ["infer"]),
    ]
    assert made["key"] not in sealift("apikey", "list").out
    assert sealift("apikey", "revoke", "ci", "--dry-run").out.startswith("would revoke ci")
    assert sealift("apikey", "revoke", made["id"]).out == f"revoked ci ({made['id']})\n"
    assert "revoked" in sealift("apikey", "list").out
    ring.refresh()
    assert not ring.keys.find(made["key"], datetime.now(UTC))


def test_bounds_and_times(sealift: Sealift) -> None:
    words = ("--expires", "90d", "--requests-per-minute", "5", "--tokens-per-minute", "1000")
    made = json.loads(sealift("apikey", "create", "x", *words, "--json").out)
    assert (made["requestsPerMinute"], made["tokensPerMinute"]) == (5, 1000)
    left = datetime.fromisoformat(made["expires"]) - datetime.now(UTC)
    assert 89 <= left.days <= 90


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("create", "a b"), InvalidName),
        (("create", "x", "--role", "god"), InvalidName),
        (("create", "x", "--expires", "soon"), UsageError),
        (("create", "x", "--expires", "-1"), UsageError),
        (("create", "x", "--expires", "0"), UsageError),
        (("create", "x", "--expires", "99999d"), None),
        (("create", "x", "--requests-per-minute", "0"), UsageError),
        (("revoke", "nobody"), NotFound),
    ],
)
def test_what_is_refused(
    sealift: Sealift, words: tuple[str, ...], error: type[UsageError] | None
) -> None:
    sealift("apikey", "create", "first")
    assert sealift("apikey", *words).code == (error.exit_code if error else 0)


def test_one_name_one_key(sealift: Sealift) -> None:
    assert sealift("apikey", "create", "x").code == 0
    assert sealift("apikey", "create", "x").code == AlreadyExists.exit_code


def test_no_keys_is_no_error(sealift: Sealift) -> None:
    assert json.loads(sealift("apikey", "list", "--json").out) == {"keys": []}
