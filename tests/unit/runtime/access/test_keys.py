"""API keys: drawn, looked up, kept in a file that people and servers share."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.store import Store
from runtime.access import keyfile
from runtime.access.keyfile import KeyRing
from runtime.access.keys import ApiKey, KeySet, new_key
from runtime.access.roles import Role, roles_for
from schemas import limits
from schemas.errors import AlreadyExists, InvalidName, MalformedDocument, NotFound, UsageError

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


def drawn(name: str = "ci", *roles: Role) -> tuple[str, ApiKey]:
    return new_key(name, roles or (Role.INFER,), now=NOW)


# -- keys -----------------------------------------------------------------------------------------


def test_a_key_is_found_by_itself_and_by_nothing_else() -> None:
    key, record = drawn()
    other, _ = drawn("other")
    keys = KeySet([record])
    assert keys.find(key, NOW) == record
    assert keys.find(other, NOW) is None
    assert keys.find(key[:-1] + ("A" if key[-1] != "A" else "B"), NOW) is None
    assert keys.find(key + "A", NOW) is None
    assert keys.find(record.id, NOW) is None
    assert keys.find(record.hash, NOW) is None


def test_the_record_does_not_tell_the_key() -> None:
    key, record = drawn()
    secret = key.rsplit("_", 1)[-1] if key.count("_") == 2 else key.split("_", 2)[2]
    assert len(key) == len("sealift_") + 12 + 1 + 43
    assert secret not in json.dumps(record.document())
    assert secret not in repr(record)


@given(st.text(max_size=300))
def test_any_text_can_be_presented(text: str) -> None:
    _, record = drawn()
    assert KeySet([record]).find(text, NOW) is None


def test_expired_and_revoked_keys_do_not_count() -> None:
    key, record = drawn()
    assert KeySet([replace(record, expires=NOW + timedelta(seconds=1))]).find(key, NOW)
    assert not KeySet([replace(record, expires=NOW)]).find(key, NOW)
    assert not KeySet([replace(record, revoked=NOW)]).find(key, NOW)
    assert KeySet([record]).usable(NOW)
    assert not KeySet([replace(record, revoked=NOW)]).usable(NOW)


@pytest.mark.parametrize("name", ["", "-x", "a b", "a\nb", "x" * 65, "é"])
def test_names_are_for_logs(name: str) -> None:
    with pytest.raises(InvalidName):
        drawn(name)


def test_documents_there_and_back() -> None:
    _, record = new_key(
        "a@b",
        (Role.METRICS, Role.MODELS),
        now=NOW,
        expires=NOW + timedelta(days=1),
        requests_per_minute=3,
        tokens_per_minute=4,
    )
    assert ApiKey.from_document(record.document()) == record
    assert record.document()["created"] == "2026-12-01T12:00:00Z"


@pytest.mark.parametrize(
    ("route", "roles"),
    [
        ("/", ""),
        ("/healthz", ""),
        ("/ui/{name}", ""),
        ("/api/chat", "infer"),
        ("/v1/models", "infer models metrics"),
        ("/nobody/knows", "infer"),
        ("/uix", "infer"),
        ("/api/delete", "models"),
        ("/api/blobs/{digest}", "models"),
        ("unmatched", "infer"),
        ("/metrics", "metrics"),
        ("/api/sealift/egress", "admin"),
    ],
)
def test_what_routes_ask_for(route: str, roles: str) -> None:
    wanted = {Role(name) for name in roles.split()}
    assert roles_for(route) == (wanted | {Role.ADMIN} if wanted else set())


# -- the file -------------------------------------------------------------------------------------


def test_keys_are_added_listed_and_revoked(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Store.open(home) as store:
        now = datetime.now(UTC).replace(microsecond=0)
        _, first = new_key("a", (Role.INFER,), now=now)
        _, second = new_key("b", (Role.ADMIN,), now=now)
        keyfile.add(store, first)
        keyfile.add(store, second)
        assert keyfile.read(home) == [first, second]
        with pytest.raises(AlreadyExists):
            keyfile.add(store, new_key("a", (Role.INFER,), now=now)[1])
        assert keyfile.revoke(store, "a", dry_run=True) == first
        assert keyfile.revoke(store, first.id) == first
        with pytest.raises(NotFound):
            keyfile.revoke(store, "a")
        keyfile.add(store, new_key("a", (Role.INFER,), now=now)[1])  # the name is free again
        actions = [entry.event["action"] for entry in store.catalogue.audit_events()]
    assert actions == ["apikey.create", "apikey.create", "apikey.revoke", "apikey.create"]
    path = keyfile.path_of(home)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"schemaVersion":1,"keys":[{"id":"x"}]}', "\x00" * 10]
)
def test_a_file_that_is_none_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "access").mkdir()
    keyfile.path_of(tmp_path).write_text(text)
    keyfile.path_of(tmp_path).chmod(0o600)
    with pytest.raises(MalformedDocument):
        keyfile.read(tmp_path)


def test_a_time_that_python_does_not_know(tmp_path: Path) -> None:
    _, record = drawn()
    document = record.document() | {"created": "2016-12-31T23:59:60Z"}
    (tmp_path / "access").mkdir()
    path = keyfile.path_of(tmp_path)
    path.write_text(json.dumps({"schemaVersion": 1, "keys": [document]}))
    path.chmod(0o600)
    with pytest.raises(MalformedDocument, match="is none"):
        keyfile.read(tmp_path)


def test_a_file_that_others_could_write_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "access").mkdir()
    path = keyfile.path_of(tmp_path)
    path.write_text('{"schemaVersion":1,"keys":[]}')
    path.chmod(0o666)
    with pytest.raises(UsageError, match="others could write it"):
        keyfile.read(tmp_path)
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(UsageError, match="no file"):
        keyfile.read(tmp_path)


def test_no_file_is_no_keys(tmp_path: Path) -> None:
    assert keyfile.read(tmp_path) == []


# -- while a server runs --------------------------------------------------------------------------


def test_a_ring_follows_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ring = KeyRing(tmp_path / "home")
    assert not ring.refresh()
    with Store.open(tmp_path / "home") as store:
        key, record = new_key("a", (Role.INFER,), now=datetime.now(UTC))
        keyfile.add(store, record)
        assert ring.refresh()
        assert not ring.refresh()
        assert ring.keys.find(key, datetime.now(UTC))
        keyfile.revoke(store, "a")
        assert ring.refresh()
        assert not ring.keys.find(key, datetime.now(UTC))
        keyfile.add(store, record)
        assert ring.refresh()
    keyfile.path_of(tmp_path / "home").write_text("nonsense")
    assert ring.refresh()
    assert len(ring.keys) == 0, "what cannot be read lets nobody in"
    assert "no API key counts" in caplog.text
    assert not ring.refresh(), "it is told once"
    keyfile.path_of(tmp_path / "home").unlink()
    assert ring.refresh()


def test_there_is_an_end_to_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "API_KEYS", 2)
    with Store.open(tmp_path / "home") as store:
        for name in ("a", "b"):
            keyfile.add(store, new_key(name, (Role.INFER,), now=datetime.now(UTC))[1])
        with pytest.raises(UsageError):
            keyfile.add(store, new_key("c", (Role.INFER,), now=datetime.now(UTC))[1])
        keyfile.revoke(store, "a")
        keyfile.add(store, new_key("c", (Role.INFER,), now=datetime.now(UTC))[1])
        assert [key.name for key in keyfile.read(tmp_path / "home")] == ["b", "c"]
