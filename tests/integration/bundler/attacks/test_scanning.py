"""Models that are signed and well-formed, and would do harm: one attack per test."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import MalformedModel, PolicyRefused
from tests.gguf_files import Pieces, string
from tests.support.bundle_simulator import DOC, Forgery, describe, digest, forge, twin
from tests.support.chat_templates import CHATML, POISONED, USUAL
from tests.support.publisher_simulator import Simulator
from tests.support.site import Site, check_refused, new_site

Stick = Callable[[bytes], Path]


class Evil:
    """Runs a command when it is unpickled; nobody here does."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("true",)


def model(*metadata: tuple[str, bytes]) -> Forgery:
    pieces = Pieces()
    both = tuple((dict(pieces.metadata) | dict(metadata)).items())
    return Forgery(weights=replace(pieces, metadata=both).build())


def templated(source: str, key: str = "tokenizer.chat_template") -> Forgery:
    return model((key, string(source)))


def with_file(publisher: Simulator, name: str, data: bytes) -> bytes:
    """A bundle whose model has one more file."""
    layer = describe(DOC, data, **{"org.cncf.model.filepath": name})
    forgery = Forgery(manifest=lambda document: document["layers"].append(layer))
    return forge(twin(publisher), forgery, blobs={digest(data): data})


def zipped(name: str, data: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr(name, data)
    return sink.getvalue()


@pytest.fixture
def home(tmp_path: Path, publisher: Simulator) -> Site:
    return new_site(tmp_path / "home", publisher)


@pytest.mark.parametrize("what", [w for w in POISONED if w != "is too long"])
def test_a_poisoned_template_needs_somebodys_yes(
    home: Site, publisher: Simulator, stick: Stick, what: str
) -> None:
    source, code = POISONED[what]
    before = home.snapshot()
    outcome = home.bundle("import", stick(forge(twin(publisher), templated(source))), "--json")
    assert outcome.code == PolicyRefused.exit_code
    assert code in outcome.error["why"] + outcome.error["hint"]
    assert home.snapshot().installed[0] == before.installed[0] or not home.models()


@pytest.mark.parametrize("name", USUAL)
def test_a_usual_template_needs_none(
    home: Site, publisher: Simulator, stick: Stick, name: str
) -> None:
    outcome = home.bundle("import", stick(forge(twin(publisher), templated(USUAL[name]))))
    assert outcome.code == 0, outcome


def test_a_poisoned_template_under_another_name(
    home: Site, publisher: Simulator, stick: Stick
) -> None:
    source, code = POISONED["waits for a word"]
    hidden = model(
        ("tokenizer.chat_template", string(CHATML)),
        ("tokenizer.chat_template.tool_use", string(source)),
    )
    outcome = home.bundle("import", stick(forge(twin(publisher), hidden)), "--json")
    assert outcome.code == PolicyRefused.exit_code
    assert "chat template tool_use" in outcome.error["why"]
    assert code in outcome.error["why"]


def test_a_poisoned_template_in_a_tokenizers_config(
    home: Site, publisher: Simulator, stick: Stick
) -> None:
    source, code = POISONED["tells to ignore"]
    config = json.dumps({"chat_template": source}).encode()
    bundle = with_file(publisher, "tokenizer_config.json", config)
    outcome = home.bundle("import", stick(bundle), "--json")
    assert outcome.code == PolicyRefused.exit_code
    assert code in outcome.error["why"]


def test_what_was_found_is_told_and_recorded(
    home: Site, publisher: Simulator, stick: Stick
) -> None:
    source, code = POISONED["waits for a word"]
    path = stick(forge(twin(publisher), templated(source)))
    outcome = home.bundle("import", path, "--accept-finding", code, "--json")
    assert outcome.code == 0, outcome
    document = json.loads(outcome.out)
    found = {each["code"]: each for each in document["findings"]}
    assert found[code]["severity"] == "danger"
    assert found[code]["model"] == "library/tiny:1"
    assert code in json.dumps(document["receipt"])


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_beside_the_weights(
    site: Site, publisher: Simulator, stick: Stick, protocol: int
) -> None:
    bundle = with_file(publisher, "notes.txt", pickle.dumps(Evil(), protocol))
    error = check_refused(site, stick(bundle), MalformedModel)
    assert "pickle" in error["why"]
    assert "system" in error["why"]


def test_a_pickle_in_a_zip(site: Site, publisher: Simulator, stick: Stick) -> None:
    data = zipped("archive/data.pkl", pickle.dumps(Evil(), 2))
    check_refused(site, stick(with_file(publisher, "pytorch_model.bin", data)), MalformedModel)


def test_a_zip_that_looks_like_a_text(site: Site, publisher: Simulator, stick: Stick) -> None:
    data = b"A harmless text.\n" + zipped("data.pkl", pickle.dumps(Evil(), 2))
    check_refused(site, stick(with_file(publisher, "README.md", data)), MalformedModel)


def test_a_program_beside_the_weights(site: Site, publisher: Simulator, stick: Stick) -> None:
    data = b"\x7fELF\x02\x01\x01" + bytes(100)
    check_refused(site, stick(with_file(publisher, "libfast.so", data)), MalformedModel)


def test_a_pickle_in_place_of_the_weights(site: Site, publisher: Simulator, stick: Stick) -> None:
    bundle = forge(twin(publisher), Forgery(weights=pickle.dumps(Evil(), 4)))
    check_refused(site, stick(bundle), MalformedModel)


def test_an_archive_that_hides_what_it_holds(
    home: Site, publisher: Simulator, stick: Stick
) -> None:
    data = b"7z\xbc\xaf\x27\x1c" + bytes(100)
    outcome = home.bundle("import", stick(with_file(publisher, "extra.7z", data)), "--json")
    assert outcome.code == PolicyRefused.exit_code
    assert "file-archive" in outcome.error["why"]


def test_python_files_and_their_names_in_configs_are_told(
    home: Site, publisher: Simulator, stick: Stick
) -> None:
    config = json.dumps({"auto_map": {"AutoModel": "modeling_evil.Evil"}}).encode()
    outcome = home.bundle("import", stick(with_file(publisher, "config.json", config)), "--json")
    assert outcome.code == 0, outcome
    findings = json.loads(outcome.out)["findings"]
    assert [f["code"] for f in findings if f["severity"] == "warn"] == ["file-remote-code"]
