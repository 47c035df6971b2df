"""What is withdrawn is not served: over real sockets and a real store, with simulated workers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from registry.digest import Digest
from registry.reference import Reference
from registry.withdrawals import AcceptedList, Action, Withdrawn
from tests.support.http_server import NAME, Site, served

AT = datetime(2026, 12, 1, tzinfo=UTC)
ACME = Digest.of(b"acme")
REQUESTS = [
    ("/api/chat", {"messages": [{"role": "user", "content": "Hi"}]}),
    ("/api/generate", {"prompt": "Hi"}),
    ("/api/generate", {}),
    ("/api/embed", {"input": "Hi"}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
    ("/v1/completions", {"prompt": "Hi"}),
    ("/v1/embeddings", {"input": "Hi"}),
]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(tmp_path / "home") as found:
        yield found


def manifest(site: Site) -> Digest:
    record = site.store.catalogue.resolve(Reference.parse(NAME))
    assert record is not None
    return record.descriptor.digest


def publish(site: Site, action: Action, number: int = 1) -> None:
    """As an import leaves it."""
    digest = manifest(site)
    with site.store.catalogue.transaction() as tx:
        if number == 1:
            tx.add_anchor("acme", ACME)
        tx.withdrawals.vouch(digest, ACME)
        last = {digest: Withdrawn(digest, action, "it lies", number, AT)}
        tx.withdrawals.accept(ACME, AcceptedList(number, number, b"{}"), last)


def refusals(site: Site) -> list[str]:
    events = [entry.event for entry in site.store.catalogue.audit_events()]
    return [event["subject"] for event in events if event["action"] == "model.refuse"]


@pytest.mark.parametrize(("path", "body"), REQUESTS)
async def test_a_blocked_model_is_refused_in_every_dialect(
    site: Site, path: str, body: dict[str, Any]
) -> None:
    publish(site, Action.BLOCK)
    response = await site.post(path, {"model": "tiny", **body})
    assert response.status_code == 403
    error = response.json()["error"]
    text = error["message"] if path.startswith("/v1/") else error
    assert "model 'tiny' is not served: withdrawn by acme (advisory 1): it lies" in text
    assert site.machine.starts == 0


async def test_a_loaded_model_ends_with_the_next_request(site: Site) -> None:
    assert (await site.chat()).status_code == 200
    publish(site, Action.QUARANTINE)
    (entry,) = (await site.client.get("/api/ps")).json()["models"]
    assert entry["withdrawn"]["action"] == "quarantine"
    assert (await site.chat()).status_code == 403
    assert (await site.client.get("/api/ps")).json() == {"models": []}


async def test_a_withdrawn_model_can_be_unloaded_looked_at_and_removed(site: Site) -> None:
    publish(site, Action.BLOCK)
    unload = {"model": "tiny", "keep_alive": 0}
    assert (await site.post("/api/generate", unload)).status_code == 200
    shown = (await site.post("/api/show", {"model": "tiny"})).json()
    assert shown["withdrawn"]["reason"] == "it lies"
    (entry,) = (await site.client.get("/api/tags")).json()["models"]
    assert entry["withdrawn"]["by"] == "acme"
    removed = await site.client.request("DELETE", "/api/delete", json={"model": "tiny"})
    assert removed.status_code == 200


async def test_a_warning_is_served(site: Site) -> None:
    publish(site, Action.WARN)
    assert (await site.chat()).status_code == 200
    assert refusals(site) == []


async def test_a_release_and_a_denial_count_at_once(site: Site) -> None:
    publish(site, Action.QUARANTINE)
    assert (await site.chat()).status_code == 403
    site.store.release(Reference.parse(NAME), "looked at it")
    assert (await site.chat()).status_code == 200
    site.store.deny(manifest(site), NAME, "not here")
    assert "denied by this site: not here" in (await site.chat()).json()["error"]
    site.store.allow(manifest(site), "well")
    assert (await site.chat()).status_code == 200
    publish(site, Action.NONE, number=2)
    assert (await site.chat()).status_code == 200


async def test_a_copy_under_another_name_is_refused_too(site: Site) -> None:
    site.store.copy_model(Reference.parse(NAME), Reference.parse("library/innocent:1"))
    publish(site, Action.BLOCK)
    body = {"model": "innocent:1", "prompt": "Hi"}
    assert (await site.post("/api/generate", body)).status_code == 403


async def test_many_refusals_are_one_entry_of_the_audit_log(site: Site) -> None:
    publish(site, Action.BLOCK)
    for _ in range(5):
        assert (await site.chat()).status_code == 403
    assert refusals(site) == ["tiny:latest"]
