"""A model that sees, across a gap and behind every API: a folder with a projector beside a model."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.parts import weights_of
from registry.reference import Reference
from registry.store import Store
from tests.gguf_files import tiny_gguf
from tests.serving import Server, serving
from tests.support.site import Site
from tests.support.terminal import SEALIFT
from tests.support.trip import Trip
from tests.support.vision import BLUE, IMAGE_TOKENS, RED, write_projector, write_text

EYES = "library/eyes:1"
BLIND = "library/blind:1"
WORDS = "What is it?"


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory) -> Trip:
    return Trip(tmp_path_factory.mktemp("vision"))


@pytest.fixture(scope="module")
def site(trip: Trip) -> Site:
    folder = trip.folder / "eyes"
    folder.mkdir()
    write_text(folder / "model.gguf")
    write_projector(folder / "a-mmproj.gguf")  # before the model, by name
    blind = write_text(trip.folder / "blind.gguf", seed=3, name="Blind")
    bundle = trip.create(folder, "-n", EYES, blind, "-n", BLIND)
    site = trip.site("far")
    verified = site.bundle("verify", bundle)
    assert verified.code == 0, verified
    imported = site.bundle("import", bundle)
    assert imported.code == 0, imported
    return site


@pytest.fixture(scope="module")
def server(site: Site) -> Iterator[Server]:
    with serving(site.home, context_length="512", num_threads="1", num_parallel="2") as started:
        yield started


def test_the_manifest_carries_both_and_the_facts_tell_them_apart(site: Site) -> None:
    with Store.open(site.home) as store:
        record = store.catalogue.resolve(Reference.parse(EYES))
        assert record is not None
        config = json.loads(store.blobs.read(record.manifest.config.digest, 10**6))
        assert config["config"]["capabilities"]["inputTypes"] == ["text", "image"]
        found = weights_of(record.manifest.layers, record.facts)
        assert found is not None
        names = [layer.annotations["org.cncf.model.filepath"] for layer in found if layer]
    assert names == ["model.gguf", "a-mmproj.gguf"]
    assert record.facts["projector"]["kind"] == "mlp"
    assert record.facts["architecture"] == "llama"


def test_projectors_alone_do_not_travel(trip: Trip, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for source in (write_projector(folder / "mmproj.gguf"), folder):
        output = ("-n", "library/alone:1", "-o", tmp_path / "x")
        done = trip.near.bundle("create", source, *output, *trip.secret)
        assert done.code != 0
        assert "no model of its own" in done.err


def test_two_projectors_travel_and_are_not_guessed_among(trip: Trip, tmp_path: Path) -> None:
    tiny_gguf(tmp_path / "model.gguf")
    write_projector(tmp_path / "a.gguf")
    write_projector(tmp_path / "b.gguf", seed=9)
    bundle = trip.create(tmp_path, "-n", "library/many:1", name="many.tar")
    far = trip.site("many")
    assert far.bundle("import", bundle).code == 0
    with Store.open(far.home) as store:
        record = store.catalogue.resolve(Reference.parse("library/many:1"))
        assert record is not None
        assert "projector" not in record.facts
        assert weights_of(record.manifest.layers, record.facts) is None


def test_show_and_tags(server: Server) -> None:
    shown = server.post("/api/show", {"model": "eyes:1"})
    assert "vision" in shown["capabilities"]
    assert shown["projector_info"]["clip.projector_type"] == "mlp"
    assert shown["model_info"]["general.architecture"] == "llama"
    assert shown["details"]["families"] == ["llama", "clip"]
    listed = {m["name"]: m["capabilities"] for m in server.get("/api/tags")["models"]}
    assert "vision" in listed["eyes:1"]
    assert "vision" not in listed["blind:1"]
    assert "projector_info" not in server.post("/api/show", {"model": "blind:1"})


def generate(server: Server, data: str, model: str) -> tuple[int, str]:
    body = {"model": model, "prompt": WORDS, "images": [data], "stream": False}
    options = {"temperature": 0, "num_predict": 8}
    answer = server.post("/api/generate", {**body, "options": options})
    return answer["prompt_eval_count"], answer["response"]


def chat(server: Server, data: str, model: str) -> tuple[int, str]:
    message = {"role": "user", "content": WORDS, "images": [data]}
    body = {"model": model, "messages": [message], "stream": False}
    options = {"temperature": 0, "num_predict": 8}
    answer = server.post("/api/chat", {**body, "options": options})
    return answer["prompt_eval_count"], answer["message"]["content"]


def openai(server: Server, data: str, model: str) -> tuple[int, str]:
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "text", "text": WORDS},
    ]
    body = {"model": model, "messages": [{"role": "user", "content": parts}]}
    answer = server.post("/v1/chat/completions", {**body, "temperature": 0, "max_tokens": 8})
    return answer["usage"]["prompt_tokens"], answer["choices"][0]["message"]["content"]


def responses(server: Server, data: str, model: str) -> tuple[int, str]:
    parts = [
        {"type": "input_image", "image_url": f"data:image/png;base64,{data}"},
        {"type": "input_text", "text": WORDS},
    ]
    body = {"model": model, "input": [{"role": "user", "content": parts}]}
    answer = server.post("/v1/responses", {**body, "temperature": 0, "max_output_tokens": 8})
    return answer["usage"]["input_tokens"], answer["output"][-1]["content"][0]["text"]


def anthropic(server: Server, data: str, model: str) -> tuple[int, str]:
    source = {"type": "base64", "media_type": "image/png", "data": data}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": WORDS}]
    body = {"model": model, "messages": [{"role": "user", "content": parts}]}
    answer = server.post("/v1/messages", {**body, "temperature": 0, "max_tokens": 8})
    return answer["usage"]["input_tokens"], answer["content"][0]["text"]


DIALECTS = [generate, chat, openai, responses, anthropic]


def test_every_dialect_shows_the_same_picture(server: Server) -> None:
    red = {dialect.__name__: dialect(server, RED, "eyes:1") for dialect in DIALECTS}
    blue = {dialect.__name__: dialect(server, BLUE, "eyes:1") for dialect in DIALECTS}
    assert len(set(red.values())) == len(set(blue.values())) == 1
    count, text = red["chat"]
    assert blue["chat"][0] == count > IMAGE_TOKENS
    assert blue["chat"][1] != text


def test_tokens_of_pictures_are_counted(server: Server) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": RED}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": WORDS}]
    body = {"model": "eyes:1", "messages": [{"role": "user", "content": parts}]}
    counted = server.post("/v1/messages/count_tokens", body)["input_tokens"]
    assert counted == anthropic(server, RED, "eyes:1")[0]


def ask(server: Server, model: str, *images: str) -> tuple[int, str]:
    message = {"role": "user", "content": WORDS, "images": images}
    body = {"model": model, "messages": [message], "stream": False, "truncate": False}
    status, _, content = server.request("POST", "/api/chat", body)
    return status, str(json.loads(content).get("error"))


def test_errors(server: Server) -> None:
    damaged = base64.b64encode(base64.b64decode(RED)[:70]).decode()
    assert ask(server, "blind:1", RED) == (
        400,
        "this model is missing data required for image input",
    )
    status, text = ask(server, "eyes:1", damaged)
    assert (status, "invalid image input" in text) == (400, True)
    status, text = ask(server, "eyes:1", *[RED] * 40)
    assert (status, "context length" in text or "longer than" in text) == (400, True)
    assert ask(server, "eyes:1", RED)[0] == 200


def sealift(site: Site, server: Server, *arguments: str) -> Any:
    ours = {"SEALIFT_HOME": str(site.home), "SEALIFT_HOST": f"{server.host}:{server.port}"}
    done = subprocess.run(
        [SEALIFT, *arguments, "--json"],
        env={**os.environ, **ours, "SEALIFT_NOHISTORY": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def test_the_command_takes_pictures_by_their_paths(
    site: Site, server: Server, tmp_path: Path
) -> None:
    picture = tmp_path / "red.png"
    picture.write_bytes(base64.b64decode(RED))
    seen = sealift(site, server, "run", "eyes:1", f"{WORDS} {picture}")
    plain = sealift(site, server, "run", "eyes:1", WORDS)
    assert seen["prompt_eval_count"] > plain["prompt_eval_count"] + IMAGE_TOKENS - 2
    assert sealift(site, server, "show", "eyes:1")["projector_info"]
    done = subprocess.run(
        [SEALIFT, "show", "eyes:1"],
        env={**os.environ, "SEALIFT_HOME": str(site.home)},
        capture_output=True,
        check=True,
        text=True,
    )
    assert ["image", "size", "56"] in [line.split() for line in done.stdout.splitlines()]


def test_memory_of_the_projector_is_counted(site: Site, server: Server) -> None:
    eyes = sealift(site, server, "fit", "eyes:1", "--ctx", "256")["need"]
    blind = sealift(site, server, "fit", "blind:1", "--ctx", "256")["need"]
    assert eyes["projector"] > 0 == blind["projector"]
    assert eyes["total"] == blind["total"] + eyes["projector"]


def test_what_is_made_of_it_sees_too(server: Server) -> None:
    body = {"model": "sharp", "from": "eyes:1", "system": "Look.", "stream": False}
    server.post("/api/create", body)
    template = "{{ messages[0].content }}{{ messages[1].content }}:"
    body |= {"model": "sharper", "from": "sharp", "template": template}
    server.post("/api/create", body)
    for name in ("sharp", "sharper"):
        shown = server.post("/api/show", {"model": name})
        assert "vision" in shown["capabilities"]
        assert shown["projector_info"]["general.architecture"] == "clip"
        red, blue = (chat(server, data, name) for data in (RED, BLUE))
        assert red[0] == blue[0] > IMAGE_TOKENS
        assert red[1] != blue[1]


def test_it_is_made_of_two_files(site: Site, server: Server, tmp_path: Path, trip: Trip) -> None:
    folder = trip.folder / "eyes"
    modelfile = tmp_path / "Modelfile"
    modelfile.write_text(f"FROM {folder / 'model.gguf'}\nFROM {folder / 'a-mmproj.gguf'}\n")
    sealift(site, server, "create", "two", "-f", str(modelfile))
    assert chat(server, RED, "two") == chat(server, RED, "eyes:1")
    modelfile.write_text(f"FROM {folder}\n")
    sealift(site, server, "create", "folder", "-f", str(modelfile))
    shown = server.post("/api/show", {"model": "folder"})
    assert "vision" in shown["capabilities"]
    again = tmp_path / "again"
    again.write_text(shown["modelfile"])
    sealift(site, server, "create", "again", "-f", str(again))
    assert chat(server, RED, "again") == chat(server, RED, "eyes:1")


def test_two_files_that_are_no_model_and_projector(site: Site, server: Server, trip: Trip) -> None:
    digests = {}
    for path in (trip.folder / "eyes/model.gguf", trip.folder / "blind.gguf", *(trip.folder / "eyes").glob("a-*")):  # fmt: skip
        name = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        status, _, _ = server.request("POST", f"/api/blobs/{name}", path.read_bytes())
        assert status in (200, 201)
        digests[path.name] = name

    def error(**files: str) -> str:
        status, _, content = server.request(
            "POST", "/api/create", {"model": "no", "files": files, "stream": False}
        )
        assert status == 400
        return str(json.loads(content)["error"])

    model, blind, eyes = digests.values()
    assert "can be served" in error(**{"a.gguf": model, "b.gguf": blind})
    assert "can be served" in error(**{"a.gguf": model, "b.gguf": blind, "c.gguf": eyes})
    assert "no model" in error(**{"a.gguf": eyes})
    assert "one name" in error(**{"a/x.gguf": model, "b/x.gguf": eyes})


def projector_of(site: Site) -> Path:
    with Store.open(site.home) as store:
        record = store.catalogue.resolve(Reference.parse(EYES))
        assert record is not None
        found = weights_of(record.manifest.layers, record.facts)
        assert found is not None
        assert found[1] is not None
        return store.blobs.path(found[1].digest)


def test_what_is_said_of_the_projector_holds_for_the_model(site: Site, server: Server) -> None:
    digest = f"sha256:{projector_of(site).name}"
    sealift(site, server, "deny", "add", digest, "--reason", "trained on stolen pictures")
    assert ask(server, "eyes:1", RED)[0] == 403
    assert ask(server, "blind:1")[0] == 200
    sealift(site, server, "deny", "remove", digest, "--reason", "they were bought")
    assert ask(server, "eyes:1", RED)[0] == 200


def test_a_projector_that_rotted_is_not_served(site: Site, server: Server) -> None:
    path = projector_of(site)
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    status, text = ask(server, "eyes:1", RED)
    assert status >= 500
    assert path.name[:12] in text
    path.write_bytes(good)
    assert ask(server, "eyes:1", RED)[0] == 200
