"""The ollama SDK makes, pushes, removes and pulls: a confined server, a real registry, all on loopback."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from registry import oci
from registry.oci import Descriptor, Manifest
from tests.gguf_files import tiny_gguf
from tests.serving import MAIN, Server, install, serving
from tests.support.certificates import make
from tests.support.registry import Registry, registry
from tests.support.simulated_registry import SimulatedRegistry, simulated_registry

ACCEPT = f"{oci.IMAGE_MANIFEST}, {oci.DOCKER_MANIFEST}"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("mirror")) as found:
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    install(folder / "home", tiny_gguf(folder / "tiny.gguf"), "library/tiny:latest")
    return folder / "home"


@pytest.fixture(scope="module")
def server(home: Path, mirror: Registry) -> Iterator[Server]:
    with serving(home, mirror=mirror.url) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[ollama.Client]:
    with ollama.Client(server.url) as found:
        yield found


def names(client: ollama.Client) -> set[str]:
    return {model.model or "" for model in client.list().models}


def run(home: Path, server: Server, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *arguments],
        env={
            **os.environ,
            "SEALIFT_HOME": str(home),
            "SEALIFT_HOST": f"{server.host}:{server.port}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_made_pushed_removed_and_pulled(client: ollama.Client, mirror: Registry) -> None:
    made = client.create("me/mine", from_="tiny", system="Be brief.", parameters={"seed": 7})
    assert made.status == "success"
    assert client.show("me/mine").parameters == "seed                           7"
    statuses = [line.status or "" for line in client.push("me/mine", insecure=True, stream=True)]
    assert (statuses[0], statuses[-2:]) == ("retrieving manifest", ["pushing manifest", "success"])
    assert any(status.startswith("pushing ") and len(status) == 20 for status in statuses)
    manifest = mirror.get("/v2/me/mine/manifests/latest", ACCEPT)
    assert manifest["artifactType"] == oci.MODEL_ARTIFACT
    assert manifest["annotations"][oci.BASE_NAME] == "tiny:latest"
    assert client.delete("me/mine").status == "success"
    assert names(client) == {"tiny:latest"}
    lines = list(client.pull("me/mine", stream=True))
    assert (lines[0].status, lines[-1].status) == ("pulling manifest", "success")
    sizes = [(line.digest, line.total) for line in lines if line.total]
    assert dict(sizes).keys() == {
        blob["digest"] for blob in (*manifest["layers"], manifest["config"])
    }
    shown = client.show("me/mine")
    assert shown.modelfile is not None
    assert "SYSTEM Be brief." in shown.modelfile
    assert client.push("me/mine").status == "success", "all is there already"
    client.delete("me/mine")
    statuses = [
        line.status or "" for line in client.create("me/more", from_="me/mine", stream=True)
    ]
    assert statuses[0] == "pulling manifest", "a base that is not here is pulled"
    assert statuses.count("success") == 1
    assert names(client) == {"tiny:latest", "me/mine:latest", "me/more:latest"}
    client.delete("me/more")
    with pytest.raises(ollama.ResponseError, match="file does not exist"):
        client.create("me/more", from_="me/nothing")
    assert client.pull("me/mine").status == "success"


def test_a_file_is_uploaded_and_made_a_model(client: ollama.Client, tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "new.gguf", name="New")
    digest = client.create_blob(path)
    assert client.create_blob(path) == digest
    progress = [
        line.status for line in client.create("new", files={"new.gguf": digest}, stream=True)
    ]
    assert (progress[0], progress[-1]) == ("parsing GGUF", "success")
    assert "new:latest" in names(client)
    assert client.delete("new").status == "success"


def test_errors(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="pull model manifest: file does not exist"):
        client.pull("nope")
    with pytest.raises(ollama.ResponseError, match="pull model manifest: file does not exist"):
        list(client.pull("nope", stream=True))
    with pytest.raises(ollama.ResponseError, match="model 'nope:latest' not found"):
        client.push("nope")
    with pytest.raises(ollama.ResponseError, match=r"evil\.example is not the mirror"):
        client.pull("evil.example/library/x")


def test_another_site_pulls(client: ollama.Client, mirror: Registry, tmp_path: Path) -> None:
    client.create("me/shared", from_="tiny", system="Be kind.")
    client.push("me/shared")
    with (
        serving(tmp_path / "home", mirror=mirror.url) as there,
        ollama.Client(there.url) as other,
    ):
        assert other.list().models == []
        other.pull("me/shared")
        document = there.post("/api/show", {"model": "me/shared"})
    assert document["system"] == "Be kind."
    assert document["made"]["how"] == "pulled"
    assert document["made"]["source"] == mirror.url


def test_egress_is_the_mirror_and_nothing_else(
    home: Path, server: Server, mirror: Registry
) -> None:
    assert f"egress to {mirror.url} only" in server.lines[0]
    code, out, _ = run(home, server, "doctor", "--egress", "--json")
    found: dict[str, Any] = json.loads(out)
    assert (code, found["good"]) == (0, True)
    assert found["mirror"]["address"] == mirror.url
    assert {a["outcome"] for a in found["mirror"]["attempts"]} == {"refused"}
    kinds = {a["kind"] for a in found["mirror"]["attempts"]}
    assert {"udp", "dns", "raw", "unix", "packet"} <= kinds
    for process in found["processes"]:
        if process["process"] == "front-end":
            assert {a["outcome"] for a in process["attempts"]} == {"refused"}
    assert server.get("/api/sealift/egress")["egress"] == "mirror only"
    code, out, _ = run(home, server, "doctor", "--egress")
    assert code == 0
    assert out.endswith(f"Nothing gets out, but to the mirror at {mirror.url}.\n")
    assert "COURIER" in out


def test_the_commands(home: Path, server: Server, mirror: Registry, tmp_path: Path) -> None:
    gguf = tiny_gguf(tmp_path / "own.gguf", name="Own")
    modelfile = tmp_path / "Modelfile"
    modelfile.write_text(
        f'FROM ./{gguf.name}\nPARAMETER stop "</s>"\nSYSTEM """\nBe\nbrief\n"""\n'
        "PARAMETER mirostat 1\nMESSAGE user Hi\n"
    )
    code, out, err = run(home, server, "create", "me/own", "-f", str(modelfile))
    assert (code, out) == (0, "")
    assert "parameter mirostat is deprecated" in err
    assert err.endswith("writing manifest\nsuccess\n")
    code, out, _ = run(home, server, "show", "me/own")
    assert "made here from the file own.gguf, signed by nobody" in out
    code, out, _ = run(home, server, "show", "me/own", "--modelfile")
    again = tmp_path / "again"
    again.write_text(out)
    assert run(home, server, "create", "me/again", "-f", str(again))[0] == 0
    first = run(home, server, "show", "me/own", "--system")[1]
    assert first == run(home, server, "show", "me/again", "--system")[1] == "\nBe\nbrief\n"
    assert "me/own:latest was made here from the file own.gguf" in run(home, server, "list")[1]
    code, out, err = run(home, server, "push", "me/own")
    assert (code, out, err.splitlines()[-1]) == (0, "", "success")
    assert run(home, server, "rm", "me/own", "me/again")[0] == 0
    assert json.loads(run(home, server, "pull", "me/own", "--json")[1])["status"] == "success"
    assert "pulled from" in run(home, server, "show", "me/own")[1]
    code, _, err = run(home, server, "pull", "me/nothing")
    assert (code, err.splitlines()[-1].split(":")[0]) == (4, "error[not-found]")
    assert run(home, server, "rm", "me/own")[0] == 0


def test_a_client_that_leaves_ends_its_pull(tmp_path: Path) -> None:
    with simulated_registry() as there:
        data = tiny_gguf(tmp_path / "slow.gguf").read_bytes()
        offer(there, data)
        url = f"http://127.0.0.1:{there.port}"
        with serving(tmp_path / "home", mirror=url) as server, ollama.Client(server.url) as client:
            there.hang = threading.Event()
            for _ in range(3):  # more than may be under way at once
                asked = len(there.asked)
                wanted = {"model": "slow"}
                with httpx.stream("POST", f"{server.url}/api/pull", json=wanted) as lines:
                    told = lines.iter_lines()  # dropped, it would end the answer
                    assert "pulling manifest" in next(told)
                    wait_for(there, asked + 2)  # the manifest, then a blob
                time.sleep(0.2)  # for the server to hear of it
            there.hang.set()
            there.hang = None
            assert client.pull("slow").status == "success"


def wait_for(there: SimulatedRegistry, requests: int) -> None:
    deadline = time.monotonic() + 20
    while len(there.asked) < requests:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def offer(there: SimulatedRegistry, data: bytes) -> None:
    """A model of these weights, at the mirror."""
    config = there.put(b"{}")
    manifest = Manifest(
        config=Descriptor(oci.MODEL_CONFIG, config, 2),
        layers=(Descriptor(oci.WEIGHT_RAW, there.put(data), len(data)),),
        artifact_type=oci.MODEL_ARTIFACT,
    )
    there.manifests["latest"] = (manifest.to_bytes(), oci.IMAGE_MANIFEST)


def test_a_confined_server_pulls_over_tls(tmp_path: Path) -> None:
    own = make(tmp_path / "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.cert, own.key)
    with simulated_registry(context) as there:
        offer(there, tiny_gguf(tmp_path / "tls.gguf").read_bytes())
        url = f"https://127.0.0.1:{there.port}"
        with (
            serving(tmp_path / "home", mirror=url, mirror_ca=str(own.ca)) as server,
            ollama.Client(server.url) as client,
        ):
            assert client.pull("me/tls").status == "success"


def test_a_mirror_that_is_gone(home: Path, tmp_path: Path) -> None:
    install(tmp_path / "home", tiny_gguf(tmp_path / "tiny.gguf"), "library/tiny:latest")
    with (
        serving(tmp_path / "home", mirror="http://127.0.0.1:1") as there,
        ollama.Client(there.url) as client,
    ):
        with pytest.raises(ollama.ResponseError, match="the mirror does not answer"):
            client.pull("x")
        assert client.show("tiny").details is not None


def test_a_wrong_setting_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "serve"],
        env={
            **os.environ,
            "SEALIFT_HOME": str(tmp_path / "home"),
            "SEALIFT_HOST": "127.0.0.1:0",
            "SEALIFT_MIRROR": "ftp://x",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "'ftp://x' is no address of a mirror" in done.stderr
