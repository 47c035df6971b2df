"""LoRA adapters: made with a Modelfile, told, and in force in a confined worker."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.gguf import read_header_file
from schemas.errors import MalformedModel
from tests.serving import Server, install, serving
from tests.support.adapters import write_adapter
from tests.support.terminal import SEALIFT
from tests.support.vision import write_text

ASK = {"prompt": "Tell me.", "stream": False, "options": {"temperature": 0, "num_predict": 16}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("adapters")
    install(folder / "home", write_text(folder / "model.gguf"), "library/tiny:latest")
    with serving(folder / "home", context_length="256", num_threads="1") as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as found:
        yield found


def create(
    server: Server, folder: Path, name: str, modelfile: str
) -> subprocess.CompletedProcess[str]:
    (folder / "Modelfile").write_text(modelfile)
    address = {"SEALIFT_HOST": f"{server.host}:{server.port}"}
    return subprocess.run(
        [SEALIFT, "create", name, "-f", folder / "Modelfile"],
        env={**os.environ, **address},
        capture_output=True,
        text=True,
        check=False,
    )


def answer(client: httpx.Client, model: str) -> tuple[list[int], str]:
    response = client.post("/api/generate", json={**ASK, "model": model})
    assert response.status_code == 200, response.text
    found = response.json()
    return found["context"], found["response"]


def test_an_adapter_changes_the_answer(
    server: Server, client: httpx.Client, tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "lora.gguf")
    done = create(server, tmp_path, "tuned", "FROM tiny\nADAPTER ./lora.gguf\n")
    assert done.returncode == 0, done.stderr
    plain = answer(client, "tiny")
    assert answer(client, "tuned") != plain
    assert answer(client, "tuned") == answer(client, "tuned")
    assert answer(client, "tiny") == plain, "the base is as it was"
    show = client.post("/api/show", json={"model": "tuned"}).json()
    digest = hashlib.sha256(adapter.read_bytes()).hexdigest()
    assert any(
        line.startswith("ADAPTER ") and line.endswith(digest)
        for line in show["modelfile"].split("\n")
    )
    again = create(server, tmp_path, "child", "FROM tuned\nSYSTEM Be brief.\n")
    assert again.returncode == 0, again.stderr
    assert "\nADAPTER " in client.post("/api/show", json={"model": "child"}).json()["modelfile"]
    assert "\nFROM " in show["modelfile"]
    assert show["modelfile"].count("\nFROM ") == 1


def test_one_of_another_size_is_refused_by_the_engine(
    server: Server, client: httpx.Client, tmp_path: Path
) -> None:
    write_adapter(tmp_path / "lora.gguf", width=32)
    assert create(server, tmp_path, "odd", "FROM tiny\nADAPTER ./lora.gguf\n").returncode == 0
    response = client.post("/api/generate", json={**ASK, "model": "odd"})
    assert response.status_code >= 400
    assert "the engine refuses the adapter" in response.json()["error"]
    assert answer(client, "tiny")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"architecture": "qwen2"}, "does not fit the model"),
        ({"architecture": "nonsense"}, "does not know the adapter's architecture"),
        ({"type": "model"}, "it is no adapter"),
        ({"kind": "control"}, "but no LoRA"),
        ({"alpha": 8}, "adapter.lora.alpha is not a finite FLOAT32"),
        ({"alpha": float("inf")}, "adapter.lora.alpha is not a finite FLOAT32"),
        ({"keys": ["adapter.alora.invocation_tokens"]}, "aLoRA"),
        ({"names": ["ffn_down_exps.weight"]}, "none that an adapter for this engine has"),
        ({"lone": True}, "has no other half"),
        ({"rank": 5}, "does not fit its other half"),
    ],
)
def test_bad_adapters(
    server: Server, client: httpx.Client, tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    write_adapter(tmp_path / "lora.gguf", **changes)
    done = create(server, tmp_path, "bad", "FROM tiny\nADAPTER ./lora.gguf\n")
    assert done.returncode != 0
    assert why in done.stderr


def test_what_is_no_gguf_and_more_than_one(client: httpx.Client) -> None:
    def said(adapters: dict[str, str]) -> str:
        body = {"model": "m", "from": "tiny", "adapters": adapters, "stream": False}
        response = client.post("/api/create", json=body)
        assert response.status_code == 400
        return str(response.json()["error"])

    digest, other = (f"sha256:{hashlib.sha256(data).hexdigest()}" for data in (b"x", b"y"))
    assert client.post(f"/api/blobs/{digest}", content=b"x").status_code == 201
    assert "GGUF" in said({"a": digest})
    assert "only one adapter" in said({"a": digest, "b": digest})
    assert "blob not found" in said({"a": other})


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(MalformedModel, match="an adapter"):
        read_header_file(write_adapter(tmp_path / "lora.gguf"))
