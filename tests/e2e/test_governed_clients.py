"""The SDKs, unmodified, against a server on a real address: TLS by a throw-away CA, API keys."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import ollama
import openai
import pytest

from tests.serving import MAIN, Server, install, serving
from tests.support.certificates import Certificates, make

pytestmark = pytest.mark.model
NAME = "smollm2:135m"
ASK: Any = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


@dataclass
class Site:
    """A server that others can reach.

    Attributes:
        server: On every address.
        files: What it shows itself by.
        context: Of clients, who trust the throw-away authority alone.
        home: Of the server.
        key: May ask models.
    """

    server: Server
    files: Certificates
    context: ssl.SSLContext
    home: Path
    key: str

    @property
    def http(self) -> httpx2.Client:
        return httpx2.Client(verify=self.context, trust_env=False, timeout=60)


def sealift(home: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", MAIN, *words],
        env={**os.environ, "SEALIFT_HOME": str(home), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def new_key(home: Path, name: str, *words: str) -> str:
    return sealift(home, "apikey", "create", name, *words).stdout.strip()


@pytest.fixture(scope="module")
def site(model_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("governed")
    home = folder / "home"
    install(home, model_gguf, "library/smollm2:135m")
    files = make(folder / "tls", "models.example")
    key = new_key(home, "alice")
    with serving(
        home,
        host="0.0.0.0:0",
        tls_cert=str(files.cert),
        tls_key=str(files.key),
        context_length="512",
        num_threads="1",
        log_format="json",
        ready_model=NAME,
    ) as server:
        context = ssl.create_default_context(cafile=files.ca)
        yield Site(server, files, context, home, key)


def test_openai(site: Site) -> None:
    with openai.OpenAI(
        base_url=f"{site.server.url}/v1", api_key=site.key, max_retries=0, http_client=site.http
    ) as client:
        answer = client.chat.completions.create(
            model=NAME, messages=ASK, temperature=0, max_tokens=12
        )
        assert "Paris" in (answer.choices[0].message.content or "")
        assert answer._request_id
    with (
        openai.OpenAI(
            base_url=f"{site.server.url}/v1", api_key="none", max_retries=0, http_client=site.http
        ) as client,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        client.models.list()
    assert refused.value.code == "invalid_api_key"


def test_ollama(site: Site) -> None:
    headers = {"Authorization": f"Bearer {site.key}"}
    options = {"temperature": 0, "num_predict": 12}
    with ollama.Client(
        site.server.url, headers=headers, verify=site.context, trust_env=False
    ) as client:
        pieces = client.chat(NAME, ASK, options=options, stream=True)
        assert "Paris" in "".join(piece.message.content or "" for piece in pieces)
        with pytest.raises(ollama.ResponseError) as forbidden:
            client.delete(NAME)
    assert forbidden.value.status_code == 403
    with (
        ollama.Client(site.server.url, verify=site.context, trust_env=False) as stranger,
        pytest.raises(ollama.ResponseError) as refused,
    ):
        stranger.list()
    assert refused.value.status_code == 401


def test_anthropic(site: Site) -> None:
    fields: Any = {"model": NAME, "messages": ASK, "max_tokens": 12}
    with anthropic.Anthropic(
        base_url=site.server.url, api_key=site.key, max_retries=0, http_client=site.http
    ) as client:
        answer = client.messages.create(**fields)
    assert answer.content
    assert answer._request_id
    with (
        anthropic.Anthropic(
            base_url=site.server.url, api_key="x", max_retries=0, http_client=site.http
        ) as client,
        pytest.raises(anthropic.AuthenticationError),
    ):
        client.messages.create(**fields)


def test_limits_reach_the_sdks_as_theirs(site: Site) -> None:
    key = new_key(site.home, "hasty", "--requests-per-minute", "1")
    time.sleep(1.5)  # a running server takes note within a second
    with openai.OpenAI(
        base_url=f"{site.server.url}/v1", api_key=key, max_retries=0, http_client=site.http
    ) as client:
        client.embeddings.create(model=NAME, input="x")
        with pytest.raises(openai.RateLimitError) as hasty:
            client.embeddings.create(model=NAME, input="x")
    assert hasty.value.code == "rate_limit_exceeded"
    assert int(hasty.value.response.headers["retry-after"]) <= 60
    with (
        anthropic.Anthropic(
            base_url=site.server.url, api_key=key, max_retries=0, http_client=site.http
        ) as other,
        pytest.raises(anthropic.RateLimitError),
    ):
        other.messages.create(model=NAME, messages=ASK, max_tokens=1)


def test_a_revoked_key_ends_at_once(site: Site) -> None:
    key = new_key(site.home, "leaver")
    time.sleep(1.5)
    with site.http as http:
        headers = {"x-api-key": key}
        url = f"{site.server.url}/v1/models"
        assert http.get(url, headers=headers).status_code == 200
        assert sealift(site.home, "apikey", "revoke", "leaver").returncode == 0
        time.sleep(1.5)
        assert http.get(url, headers=headers).status_code == 401


def test_the_commands_know_their_own_server(site: Site) -> None:
    variables = {
        "SEALIFT_HOST": f"0.0.0.0:{site.server.port}",
        "SEALIFT_TLS_CERT": str(site.files.cert),
        "SEALIFT_TLS_KEY": str(site.files.key),
    }
    refused = sealift(site.home, "ps", **variables)
    assert refused.returncode == 8
    assert "an API key is required" in refused.stderr
    shown = sealift(site.home, "ps", "--json", SEALIFT_API_KEY=site.key, **variables)
    assert shown.returncode == 0, shown.stderr
    other = {"SEALIFT_HOST": f"https://127.0.0.1:{site.server.port}"}
    untrusted = sealift(site.home, "ps", SEALIFT_API_KEY=site.key, **other)
    assert untrusted.returncode == 32
    assert "cannot be trusted" in untrusted.stderr
    trusted = sealift(
        site.home, "ps", SEALIFT_API_KEY=site.key, SSL_CERT_FILE=str(site.files.ca), **other
    )
    assert trusted.returncode == 0, trusted.stderr


def test_what_old_or_plain_clients_get(site: Site) -> None:
    address = ("127.0.0.1", site.server.port)
    old = ssl.create_default_context(cafile=site.files.ca)
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(address) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain, server_hostname="models.example")
    with (
        socket.create_connection(address) as plain,
        site.context.wrap_socket(plain, server_hostname="models.example") as secure,
    ):
        assert secure.version() == "TLSv1.3"
    with socket.create_connection(address, timeout=10) as plain:
        plain.sendall(b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" not in plain.recv(1000)


def test_names_of_the_certificate_are_served_and_others_not(site: Site) -> None:
    with site.http as http:
        for host, status in (("models.example", 200), ("evil.example", 403)):
            headers = {"Host": host, "Authorization": f"Bearer {site.key}"}
            assert http.get(f"{site.server.url}/v1/models", headers=headers).status_code == status


def test_readiness_proves_that_the_model_generates(site: Site) -> None:
    with site.http as http:
        deadline = time.monotonic() + 60
        while (answer := http.get(f"{site.server.url}/readyz")).status_code != 200:
            assert time.monotonic() < deadline, answer.text
    assert answer.json()["generates"] is True


def test_a_model_that_rots_while_loaded_answers_no_more(site: Site) -> None:
    (blob,) = (p for p in (site.home / "blobs" / "sha256").iterdir() if p.stat().st_size > 10**7)
    body = {"model": NAME, "prompt": "Hi", "stream": False, "options": {"num_predict": 2}}
    headers = {"Authorization": f"Bearer {site.key}"}

    def flip() -> None:
        with blob.open("r+b") as file:
            file.seek(50_000_000)
            byte = file.read(1)
            file.seek(50_000_000)
            file.write(bytes([byte[0] ^ 1]))

    with site.http as http:
        url = f"{site.server.url}/api/generate"
        assert http.post(url, json=body, headers=headers).status_code == 200
        blob.chmod(0o644)
        flip()
        refused = http.post(url, json=body, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (500, "store-damaged")
        flip()
        assert http.post(url, json=body, headers=headers).status_code == 200


def test_logs_are_json_and_the_sandboxed_log_of_requests_is_kept(site: Site) -> None:
    with site.http as http:
        http.post(f"{site.server.url}/api/chat", json={"model": NAME, "messages": ASK})
        metrics = new_key(site.home, "prometheus", "--role", "metrics")
        time.sleep(1.5)
        text = http.get(
            f"{site.server.url}/metrics", headers={"Authorization": f"Bearer {metrics}"}
        ).text
    assert 'sealift_tokens_total{kind="output",model="smollm2:135m"}' in text
    lines = [json.loads(line) for line in list(site.server.lines)]
    assert lines[0]["message"].startswith("listening on https://0.0.0.0:")
    assert any(line.get("route") == "/api/chat" and line.get("status") == 401 for line in lines)
    kept = (site.home / "requests" / "requests.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in kept]
    assert {"alice", "hasty", None} <= {line["key"] for line in found}
    good = next(line for line in found if line["outcome"] == "ok" and line["output_tokens"])
    assert good["model"] == NAME
    assert site.key not in "".join(kept) + "".join(site.server.lines)
