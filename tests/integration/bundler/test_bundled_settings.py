"""What stands under ``modelfile/`` in a model's folder travels signed, and is in force over there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.reference import Reference
from registry.store import Store
from runtime.models import Model, Models
from runtime.options import Options
from tests.gguf_files import tiny_gguf
from tests.support.site import Site
from tests.support.trip import Trip

NAME = "library/kind:1"
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


def folder(path: Path, template: str = TEMPLATE) -> Path:
    (path / "modelfile").mkdir(parents=True)
    tiny_gguf(path / "tiny.gguf")
    settings = path / "modelfile"
    (settings / "system.txt").write_text("Be kind.")
    (settings / "template.jinja").write_text(template)
    (settings / "params.json").write_text('{"temperature": 0.5, "stop": ["x"]}')
    (settings / "messages.json").write_text('[{"role": "user", "content": "Hi"}]')
    (settings / "license.txt").write_text("MIT")
    (settings / "license-2.txt").write_text("BSD")
    (path / "README.md").write_text("# A model\n")
    return path


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory) -> Trip:
    return Trip(tmp_path_factory.mktemp("settings"))


@pytest.fixture(scope="module")
def site(trip: Trip, tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = trip.site("holding")
    source = folder(tmp_path_factory.mktemp("kind") / "kind")
    done = site.bundle("import", trip.create(source, "-n", NAME, name="kind.tar"))
    assert done.code == 0, done
    return site


def model(site: Site) -> Model:
    with Store.open(site.home) as store:
        return Models(store).get(Reference.parse(NAME))


def test_a_publishers_settings_are_in_force(site: Site) -> None:
    found = model(site)
    assert found.system == "Be kind."
    assert found.template == TEMPLATE
    assert found.options == Options({"temperature": 0.5, "stop": ("x",)})
    assert [(m.role, m.content) for m in found.messages] == [("user", "Hi")]
    assert found.license == "BSD\n\nMIT"
    assert found.made is None, "it came signed"


def test_a_template_beside_the_weights_is_scanned(trip: Trip, tmp_path: Path) -> None:
    bad = "{% if 'secret' in messages[-1].content %}{{ ().__class__.__base__ }}{% endif %}"
    source = folder(tmp_path / "bad", bad)
    site = trip.site("careful")
    done = site.bundle("import", trip.create(source, "-n", "library/bad:1", name="bad.tar"))
    text = json.dumps([done.out, done.err])
    assert "modelfile/template.jinja" in text


def test_a_go_template_travels_and_is_scanned(trip: Trip, tmp_path: Path) -> None:
    go = '{{ range .Messages }}{{ if eq .Content "payday" }}x{{ end }}{{ .Content }}{{ end }}'
    source = folder(tmp_path / "go")
    (source / "modelfile" / "template.jinja").unlink()
    (source / "modelfile" / "template.gotmpl").write_text(go)
    site = trip.site("going")
    done = site.bundle("import", trip.create(source, "-n", NAME, name="go.tar"))
    assert done.code == 0, done
    assert "looks for 'payday' in messages" in json.dumps([done.out, done.err])
    found = model(site)
    assert found.template == go
    assert not found.foreign_template
