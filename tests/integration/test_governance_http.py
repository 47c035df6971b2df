"""Keys, roles, limits, metrics, the log of requests, readiness: over real sockets, real store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from registry.digest import Digest
from registry.reference import Reference
from registry.store import Store
from runtime.access import keyfile
from runtime.access.keys import new_key
from runtime.access.roles import Role
from schemas import limits
from schemas.settings import Serve
from tests.support.http_server import NAME, Site, served

CHAT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "one two"}]}
DIALECTS = [
    ("/api/chat", CHAT),
    ("/v1/chat/completions", CHAT),
    ("/v1/messages", {**CHAT, "max_tokens": 10}),
]


def make_key(home: Path, name: str, *roles: Role, **fields: Any) -> str:
    key, record = new_key(name, roles, now=datetime.now(UTC), **fields)
    with Store.open(home) as store:
        keyfile.add(store, record)
    return key


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - states of others, which have no event
            await asyncio.sleep(0.005)


def lines(home: Path) -> list[dict[str, Any]]:
    text = (home / "requests" / "requests.jsonl").read_text()
    return [json.loads(line) for line in text.split("\n")[:-1]]


async def metrics(site: Site, **headers: str) -> dict[str, float]:
    response = await site.client.get("/metrics", headers=headers)
    assert response.status_code == 200
    return {
        ",".join((sample.name, *(v for _, v in sorted(sample.labels.items())))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def message(response: httpx.Response) -> str:
    error = response.json()["error"]
    return str(error if isinstance(error, str) else error["message"])


# -- keys and roles -------------------------------------------------------------------------------


@pytest.fixture
async def locked(home: Path) -> AsyncIterator[Site]:
    make_key(home, "somebody", Role.INFER)
    async with served(home, Serve(require_keys=True)) as site:
        yield site


@pytest.mark.parametrize(("path", "body"), DIALECTS)
async def test_without_a_key_nothing_is_answered(
    locked: Site, path: str, body: dict[str, Any]
) -> None:
    for headers in ({}, bearer("sk-none"), {"x-api-key": "x"}, {"Authorization": "Basic eDp5"}):
        response = await locked.client.post(path, json=body, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert message(response).startswith("an API key is required")
    assert locked.machine.starts == 0


async def test_errors_about_keys_are_in_each_dialect(locked: Site) -> None:
    native, openai, anthropic = [
        (await locked.client.post(path, json=body)).json() for path, body in DIALECTS
    ]
    assert native["code"] == "key-required"
    assert openai["error"]["code"] == "invalid_api_key"
    assert openai["error"]["type"] == "invalid_request_error"
    assert anthropic["error"]["type"] == "authentication_error"


async def test_what_is_open_without_a_key(locked: Site) -> None:
    for path in ("/", "/healthz", "/readyz"):
        assert (await locked.client.get(path)).status_code == 200
    for path in ("/api/tags", "/metrics", "/api/sealift/egress", "/nope", "/readyz?generate=tiny"):
        assert (await locked.client.get(path)).status_code == 401


@pytest.mark.parametrize(("path", "body"), DIALECTS)
async def test_either_header_is_read(
    home: Path, locked: Site, path: str, body: dict[str, Any]
) -> None:
    key = make_key(home, "new", Role.INFER)
    await until_known(locked, key)
    for headers in ({"Authorization": f"bearer  {key}"}, {"X-API-Key": key}):
        response = await locked.client.post(path, json=body, headers=headers)
        assert response.status_code == 200
        assert response.headers["x-request-id"]


async def until_known(site: Site, key: str, *, known: bool = True) -> None:
    async with asyncio.timeout(10):
        while (  # noqa: ASYNC110 - the server looks at a file
            (await site.client.get("/v1/models", headers=bearer(key))).status_code == 401
        ) is known:
            await asyncio.sleep(0.05)  # another process told the server nothing


async def test_keys_come_and_go_while_the_server_runs(home: Path, locked: Site) -> None:
    key = make_key(home, "guest", Role.INFER)
    await until_known(locked, key)
    with Store.open(home) as store:
        keyfile.revoke(store, "guest")
    await until_known(locked, key, known=False)


async def test_roles(home: Path, locked: Site) -> None:
    infer, models, reader, admin = (
        make_key(home, role.value, role)
        for role in (Role.INFER, Role.MODELS, Role.METRICS, Role.ADMIN)
    )
    await until_known(locked, admin)

    async def status(method: str, path: str, key: str, body: Any = None) -> int:
        response = await locked.client.request(method, path, json=body, headers=bearer(key))
        return response.status_code

    copy = {"source": "tiny", "destination": "copy"}
    assert await status("POST", "/api/copy", infer, copy) == 403
    assert await status("POST", "/api/%63opy", infer, copy) == 403
    assert await status("POST", "/api/copy", models, copy) == 200
    assert await status("DELETE", "/api/delete", admin, {"model": "copy"}) == 200
    assert await status("POST", "/api/chat", models, CHAT) == 403
    for key in (infer, models, reader, admin):
        assert await status("GET", "/api/tags", key) == 200
        assert await status("POST", "/api/show", key, {"model": "tiny"}) == 200
    assert await status("POST", "/api/chat", admin, CHAT) == 200
    assert await status("GET", "/metrics", infer) == 403
    assert await status("GET", "/metrics", reader) == 200
    assert await status("GET", "/api/sealift/egress", reader) == 403
    refused = await locked.client.post("/v1/chat/completions", json=CHAT, headers=bearer(models))
    assert refused.json()["error"]["type"] == "permission_error"
    assert refused.json()["error"]["code"] == "role-missing"


async def test_expired_keys(home: Path, locked: Site) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2)
    key = make_key(home, "short", Role.INFER, expires=soon)
    await until_known(locked, key)
    await until_known(locked, key, known=False)


async def test_on_loopback_any_key_will_do_unless_told_otherwise(home: Path) -> None:
    key = make_key(home, "me", Role.METRICS)
    async with served(home) as site:
        for headers in ({}, bearer("none"), bearer(key)):
            response = await site.client.post("/api/chat", json=CHAT, headers=headers)
            assert response.status_code == 200


async def test_a_preflight_needs_no_key(home: Path) -> None:
    async with served(home, Serve(require_keys=True, origins=("app://mine",))) as site:
        headers = {"Origin": "app://mine", "Access-Control-Request-Method": "POST"}
        assert (await site.client.options("/api/chat", headers=headers)).status_code == 204
        refused = await site.client.post("/api/chat", json=CHAT, headers={"Origin": "app://mine"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "app://mine"


# -- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "body"), DIALECTS)
async def test_too_many_requests(home: Path, path: str, body: dict[str, Any]) -> None:
    async with served(home, Serve(requests_per_minute=2)) as site:
        for _ in range(2):
            assert (await site.post(path, body)).status_code == 200
        refused = await site.post(path, body)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert "2 requests per minute" in message(refused)
        error = refused.json()["error"]
        if path == "/v1/chat/completions":
            assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
        elif path == "/v1/messages":
            assert error["type"] == "rate_limit_error"
        assert (await site.client.get("/api/tags")).status_code == 200, "only asking is counted"
        assert (await metrics(site))["sealift_rejected_total,rate"] == 1


async def test_each_key_has_its_own(home: Path) -> None:
    one = make_key(home, "one", Role.INFER)
    two = make_key(home, "two", Role.INFER, requests_per_minute=1)
    async with served(home, Serve(require_keys=True, requests_per_minute=2)) as site:

        async def status(key: str) -> int:
            response = await site.client.post("/api/chat", json=CHAT, headers=bearer(key))
            return response.status_code

        assert [await status(one) for _ in range(3)] == [200, 200, 429]
        assert [await status(two) for _ in range(2)] == [200, 429]


async def test_tokens_count_for_key_and_model(home: Path) -> None:
    async with served(home, Serve(tokens_per_minute=6)) as site:
        statuses = [(await site.post("/api/chat", CHAT)).status_code for _ in range(3)]
        assert statuses == [200, 200, 429], "four tokens each"
    async with served(home, Serve(model_tokens_per_minute=3)) as site:
        assert (await site.post("/api/chat", CHAT)).status_code == 200
        refused = await site.post("/v1/completions", {"model": NAME, "prompt": "x"})
        assert refused.status_code == 429
        assert refused.json()["error"]["type"] == "tokens"
        assert "model tiny:latest: 3 tokens per minute" in message(refused)
        site.store.copy_model(Reference.parse(NAME), Reference.parse("library/other"))
        assert (await site.post("/api/chat", {**CHAT, "model": "other"})).status_code == 429


async def test_requests_for_one_model(home: Path) -> None:
    async with served(home, Serve(model_requests_per_minute=1)) as site:
        body = {"model": "tiny", "input": "x"}
        assert [(await site.post("/api/embed", body)).status_code for _ in range(2)] == [200, 429]


# -- the log of requests --------------------------------------------------------------------------


async def test_who_asked_what_and_what_came_of_it(home: Path) -> None:
    key = make_key(home, "alice", Role.INFER)
    async with served(home, Serve(require_keys=True)) as site:
        answer = await site.client.post("/api/chat", json=CHAT, headers=bearer(key))
        missing = {"model": "no", "prompt": "x"}
        await site.client.post("/v1/completions", json=missing, headers=bearer(key))
        await site.client.post("/api/chat", json=CHAT)
        await site.client.get("/api/tags", headers=bearer(key))
        await site.client.get("/healthz")
    found = lines(home)
    assert [(each["route"], each["status"], each["outcome"]) for each in found] == [
        ("/api/chat", 200, "ok"),
        ("/v1/completions", 404, "failed"),
        ("/api/chat", 401, "refused"),
    ]
    good, wrong, stranger = found
    assert good["request"] == answer.headers["x-request-id"]
    assert (good["key"], good["client"], good["model"]) == ("alice", "127.0.0.1", "tiny:latest")
    assert good["manifest"].startswith("sha256:")
    assert (good["prompt_tokens"], good["output_tokens"]) == (2, 2)
    assert good["ms"] >= good["first_token_ms"] >= good["queue_ms"] >= 0
    assert "prompt" not in good
    assert (wrong["code"], wrong["asked"]) == ("not-found", "no")
    assert (stranger["key"], stranger["code"]) == (None, "key-required")
    assert key.split("_", 2)[2] not in (home / "requests" / "requests.jsonl").read_text()


async def test_who_changed_which_model(home: Path) -> None:
    key = make_key(home, "ops", Role.MODELS)
    async with served(home, Serve(require_keys=True)) as site:
        for method, path, body in (
            ("POST", "/api/copy", {"source": "tiny", "destination": "twin"}),
            ("DELETE", "/api/delete", {"model": "twin"}),
            ("DELETE", "/api/delete", {"name": "x" * 9999}),
        ):
            await site.client.request(method, path, json=body, headers=bearer(key))
    found = [(line["key"], line["route"], line["asked"], line["status"]) for line in lines(home)]
    assert found == [
        ("ops", "/api/copy", "tiny -> twin", 200),
        ("ops", "/api/delete", "twin", 200),
        ("ops", "/api/delete", "x" * 255, 400),
    ]


async def test_prompts_are_kept_where_that_is_asked_for(home: Path) -> None:
    settings = Serve(audit="prompts", audit_redact=(r"\d{3}-\d{4}",))
    async with served(home, settings) as site:
        await site.chat("call\n555-1234 now", stream=False)
        await site.post("/api/embed", {"model": "tiny", "input": ["a", "555-9876"]})
        await site.post("/v1/completions", {"model": "tiny", "prompt": "plain"})
    chat, embed, completion = lines(home)
    assert chat["prompt"] == "user: call\n[redacted] now"
    assert chat["answer"] == "call [redacted] now "
    assert embed["prompt"] == "a\n[redacted]"
    assert completion["prompt"] == "plain"


async def test_no_log_where_none_is_wanted(home: Path) -> None:
    async with served(home, Serve(audit="off")) as site:
        assert (await site.chat()).status_code == 200
    assert not (home / "requests").exists()


async def test_a_client_that_goes_away_is_in_the_log(home: Path) -> None:
    async with served(home) as site:
        await site.chat()
        site.machine.pace.clear()
        for stream in (True, False):
            body = json.dumps({**CHAT, "stream": stream}).encode()
            _, writer = await asyncio.open_connection("127.0.0.1", site.port)
            head = (
                f"POST /api/chat HTTP/1.1\r\nHost: x.localhost\r\nContent-Length: {len(body)}\r\n"
            )
            writer.write(head.encode() + b"\r\n" + body)
            await until(lambda: site.machine.workers[0].running == 1)
            writer.close()
            await until(lambda: site.machine.workers[0].running == 0)
        found = await metrics(site)
    assert [each["outcome"] for each in lines(home)] == ["ok", "cancelled", "cancelled"]
    assert found["sealift_errors_total,cancelled"] == 2


async def test_strangers_are_counted(home: Path) -> None:
    async with served(home) as site:
        await site.client.get("/api/tags", headers={"Host": "evil.example"})
        await site.client.get("/api/tags", headers={"Origin": "http://evil.example"})
        found = await metrics(site)
    assert found["sealift_rejected_total,host"] == found["sealift_rejected_total,origin"] == 1
    assert [each["outcome"] for each in lines(home)] == ["refused", "refused"]


async def test_strangers_cannot_wash_the_log_out(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "AUDIT_STRANGERS", 3)
    make_key(home, "a", Role.INFER)
    async with served(home, Serve(require_keys=True)) as site:
        for _ in range(10):
            assert (await site.post("/api/chat", CHAT)).status_code == 401
    assert len(lines(home)) == 3


# -- metrics --------------------------------------------------------------------------------------


async def test_metrics(home: Path) -> None:
    async with served(home) as site:
        await site.chat()
        await site.chat(stream=False)
        await site.client.get("/no/such/path")
        found = await metrics(site)
    assert found["sealift_requests_total,/api/chat,200"] == 2
    assert found["sealift_requests_total,unmatched,404"] == 1
    assert found["sealift_tokens_total,output,tiny:latest"] == 4
    assert found["sealift_first_token_seconds_count,tiny:latest"] == 2
    assert found["sealift_inter_token_seconds_count,tiny:latest"] == 2
    assert found["sealift_queue_seconds_count,tiny:latest"] == 2
    assert found["sealift_model_loads_total,ok"] == 1
    assert found["sealift_model_memory_bytes,weights,tiny:latest"] == 1000
    assert found["sealift_models_loaded"] == 1
    assert found["sealift_queue_waiting"] == 0


async def test_a_path_cannot_forge_a_line_of_the_logs(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sealift.access")
    async with served(home) as site:
        await site.client.get("/a%0Aforged%20line%1b[2J")
    assert "GET /a%0Aforged" in caplog.text
    assert "\nforged" not in caplog.text


async def test_metrics_tell_no_paths_and_no_names_that_clients_make_up(home: Path) -> None:
    async with served(home) as site:
        await site.client.get("/secret/path")
        await site.chat(model="secret/model")
        text = (await site.client.get("/metrics")).text
    assert "secret" not in text


# -- names of the server --------------------------------------------------------------------------


async def test_configured_hosts(home: Path) -> None:
    async with served(home, Serve(hosts=("models.example", "*.lab.example"))) as site:
        for host, status in (
            ("Models.Example:11434", 200),
            ("a.lab.example", 200),
            ("lab.example", 403),
            ("models.example.evil.example", 403),
            ("192.0.2.1", 403),
        ):
            response = await site.client.get("/api/tags", headers={"Host": host})
            assert response.status_code == status, host
        own = {"Host": "models.example", "Origin": "https://models.example"}
        assert (await site.client.post("/api/chat", json=CHAT, headers=own)).status_code == 200
        other = {"Host": "models.example", "Origin": "https://a.lab.example"}
        assert (await site.client.post("/api/chat", json=CHAT, headers=other)).status_code == 403


# -- readiness ------------------------------------------------------------------------------------


async def test_readiness_that_generates(home: Path) -> None:
    async with served(home) as site:
        ready = await site.client.get("/readyz?generate=tiny")
        assert ready.status_code == 200
        assert ready.json()["generates"] is True
        jobs = site.machine.workers[0].jobs
        assert [job.sampling.num_predict for job in jobs] == [1]
        for _ in range(5):
            assert (await site.client.get("/readyz?generate=tiny")).status_code == 200
        assert len(jobs) == 1, "a token that came just now is proof enough"
        missing = await site.client.get("/readyz?generate=nope")
        assert missing.status_code == 503
        assert missing.json()["why"] == "model 'nope' not found"


async def test_readiness_of_the_configured_model(home: Path) -> None:
    async with served(home, Serve(ready_model="tiny")) as site:
        site.machine.broken.add(str(site.store.blobs.path(weights(site))))
        bad = await site.client.get("/readyz")
        assert bad.status_code == 503
        assert bad.json()["why"] == "the engine refused the model"
        assert (await site.client.get("/healthz")).status_code == 200
        site.machine.broken.clear()
        assert (await site.client.get("/readyz")).status_code == 200


async def test_readiness_does_not_wait_for_ever(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "READY_WAIT_SECONDS", 0.05)
    async with served(home, Serve(ready_model="tiny")) as site:
        site.machine.load.clear()
        for _ in range(3):
            response = await site.client.get("/readyz")
            assert (response.status_code, response.json()["why"]) == (503, "no token yet")
        assert site.machine.starts == 1
        site.machine.load.set()
        await until(lambda: bool(site.machine.workers and site.machine.workers[0].jobs))
        assert (await site.client.get("/readyz")).status_code == 200


async def test_a_users_answer_is_proof_too(home: Path) -> None:
    async with served(home, Serve(ready_model="tiny")) as site:
        await site.chat()
        assert (await site.client.get("/readyz")).status_code == 200
        assert len(site.machine.workers[0].jobs) == 1


# -- what is served -------------------------------------------------------------------------------


def weights(site: Site) -> Digest:
    record = site.store.catalogue.resolve(Reference.parse(NAME))
    assert record is not None
    return record.manifest.layers[0].digest


def damage(site: Site) -> None:
    path = site.store.blobs.path(weights(site))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def refusals(site: Site) -> list[str]:
    events = [entry.event for entry in site.store.catalogue.audit_events()]
    return [event["subject"] for event in events if event["action"] == "blob.refuse"]


async def test_a_model_that_rotted_is_not_loaded(home: Path) -> None:
    async with served(home) as site:
        damage(site)
        for _ in range(2):
            response = await site.chat()
            assert response.status_code == 500
            assert response.json()["code"] == "store-damaged"
            assert "sealift doctor --scrub" in response.json()["error"]
        assert site.machine.alive == []
        assert str(weights(site)) in refusals(site)
        assert (await metrics(site))["sealift_model_loads_total,failed"] == 2


async def test_a_model_that_rots_while_loaded_ends_with_the_next_request(home: Path) -> None:
    async with served(home) as site:
        assert (await site.chat()).status_code == 200
        damage(site)
        assert (await site.chat()).json()["code"] == "store-damaged"
        assert site.machine.alive == []
        damage(site)  # as it was
        assert (await site.chat()).status_code == 200


async def test_a_file_that_was_only_touched_is_checked_and_served(home: Path) -> None:
    async with served(home) as site:
        assert (await site.chat()).status_code == 200
        site.store.blobs.path(weights(site)).touch()
        assert (await site.chat()).status_code == 200
        assert site.machine.starts == 2


async def test_only_signed_models_where_the_site_says_so(home: Path) -> None:
    async with served(home, Serve(signed_only=True)) as site:
        refused = await site.chat()
        assert (refused.status_code, refused.json()["code"]) == (403, "policy-refused")
        record = site.store.catalogue.resolve(Reference.parse(NAME))
        assert record is not None
        acme = Digest.of(b"acme")
        with site.store.catalogue.transaction() as tx:
            tx.add_anchor("acme", acme)
            tx.withdrawals.vouch(record.descriptor.digest, acme)
        assert (await site.chat()).status_code == 200
        with site.store.catalogue.transaction() as tx:
            tx.remove_anchor("acme")
        assert (await site.chat()).status_code == 403
