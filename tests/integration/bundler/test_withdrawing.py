"""bundle withdraw, scan, create --advisories-only and --strict: from one side to the other."""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bundler.trust.publisher import Publisher
from schemas.errors import (
    InvalidName,
    MalformedModel,
    ModelWithdrawn,
    NotFound,
    UsageError,
)
from tests.gguf_files import tiny_gguf
from tests.support.chat_templates import CHATML, POISONED
from tests.support.second_reader import read_bundle
from tests.support.site import Outcome, Site, environment

Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys that open quickly, and two models; copied for each test."""
    folder = tmp_path_factory.mktemp("signed")
    Publisher.init(
        folder / "maker" / "publisher",
        name="acme",
        namespaces=["library"],
        passphrase=b"correct horse",
        kdf_rounds=1000,
    )
    (folder / "passphrase").write_text("correct horse\n")
    for name in ("good", "bad"):
        tiny_gguf(folder / f"{name}.gguf", name=name, chat_template=CHATML)
    with environment(SEALIFT_PASSPHRASE_FILE=str(folder / "passphrase")):
        both(Site(folder / "maker"), folder)
    return folder


@pytest.fixture
def maker(signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A connected host that signed for two models."""
    shutil.copytree(signed, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("SEALIFT_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    return Site(tmp_path / "maker")


def create(maker: Site, output: Path, *words: object) -> Outcome:
    return maker.bundle("create", "-o", output, "--force", "--json", *words)


def both(maker: Site, folder: Path) -> Path:
    output = folder / "models.tar"
    files = [folder / "good.gguf", folder / "bad.gguf"]
    assert create(maker, output, *files, "-n", "good:1", "-n", "bad:1").code == 0
    return output


def arrived(maker: Site, folder: Path) -> Site:
    """A site that trusts the maker and has both models."""
    site = Site(folder / "site")
    root = folder / "root.json"
    assert maker.bundle("keys", "root", "-o", root).code == 0
    shown = maker.bundle("keys", "show", "--json").document["rootFingerprint"]
    assert site.bundle("trust", "init", "--root", root, "--fingerprint", shown).code == 0
    assert site.bundle("import", folder / "models.tar").code == 0
    return site


def test_a_model_is_taken_back_by_a_bundle_without_models(maker: Site, tmp_path: Path) -> None:
    site = arrived(maker, tmp_path)
    done = maker.bundle("withdraw", "bad:1", "--reason", "it lies", "--json").document
    assert (done["number"], done["action"], len(done["digests"])) == (1, "block", 2)
    advisory = tmp_path / "advisory.tar"
    made = create(maker, advisory, "--advisories-only")
    assert made.code == 0, made
    assert made.document["models"] == []
    assert advisory.stat().st_size <= 32 * 1024
    assert len(gzip.compress(advisory.read_bytes())) <= 8 * 1024
    inspected = site.bundle("inspect", advisory, "--json").document
    assert [entry["reason"] for entry in inspected["withdrawals"]] == ["it lies"]
    imported = site.bundle("import", advisory, "--json")
    assert imported.code == 0, imported
    assert made.document["expires"] == min(imported.document["expires"].values())
    withdrawals = imported.document["withdrawals"]
    assert withdrawals["new"] == 1
    assert [each["name"] for each in withdrawals["installed"]] == ["library/bad:1"]
    again = site.bundle("import", both(maker, tmp_path))
    assert again.code == ModelWithdrawn.exit_code
    assert "REFUSED     library/bad:1" in again.out


def test_a_withdrawal_is_taken_back(maker: Site, tmp_path: Path) -> None:
    assert maker.bundle("withdraw", "bad:1", "--reason", "it lies").code == 0
    assert maker.bundle("withdraw", "bad:1", "--undo", "--reason", "it does not").code == 0
    listed = maker.bundle("withdraw", "--list", "--json").document
    assert [(e["number"], e["action"]) for e in listed] == [(1, "block"), (2, "none")]


def test_only_the_manifest(maker: Site, tmp_path: Path) -> None:
    words = ("withdraw", "bad:1", "--manifest-only", "--reason", "wrong licence", "--json")
    assert len(maker.bundle(*words).document["digests"]) == 1


def test_a_dry_run_signs_nothing(maker: Site, tmp_path: Path) -> None:
    done = maker.bundle("withdraw", "bad:1", "--reason", "x", "--dry-run", "--json").document
    assert not done["signed"]
    assert maker.bundle("withdraw", "--list", "--json").document == []


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["withdraw"], UsageError),
        (["withdraw", "bad:1"], UsageError),
        (["withdraw", "bad:1", "--reason", "a\nb"], UsageError),
        (["withdraw", "bad:1", "--reason", "x", "--action", "explode"], InvalidName),
        (["withdraw", "bad:1", "--reason", "x", "--action", "none"], UsageError),
        (["withdraw", "bad:1", "--reason", "x", "--undo"], NotFound),
        (["withdraw", "nobody:1", "--reason", "x"], NotFound),
        (["withdraw", "sha256:12", "--reason", "x"], InvalidName),
        (["create", "-o", "x.tar", "--advisories-only"], NotFound),
        (["create", "-o", "x.tar", "x.gguf", "--advisories-only"], UsageError),
        (["create", "-o", "x.tar", "--advisories-only", "--volume-size", "8M"], UsageError),
    ],
)
def test_wrong_words(
    maker: Site, tmp_path: Path, words: list[str], error: type[UsageError]
) -> None:
    outcome = maker.bundle(*words, "--json")
    assert outcome.code == error.exit_code, outcome
    assert maker.bundle("withdraw", "--list", "--json").document == []


def test_a_bundle_begun_before_a_withdrawal_carries_it(maker: Site, tmp_path: Path) -> None:
    """What an interrupted attempt signed is not taken over; here it was interrupted at the end."""
    first = tmp_path / "models.tar"
    before = first.read_bytes()
    assert maker.bundle("withdraw", "bad:1", "--reason", "it lies").code == 0
    assert both(maker, tmp_path).read_bytes() != before
    inspected = maker.bundle("inspect", first, "--json").document
    assert len(inspected["withdrawals"]) == 1
    assert len(read_bundle(first)[0]["models"]) == 2  # who knows only the format reads it too


def test_what_the_scan_found_is_shown_and_strict_refuses_it(maker: Site, tmp_path: Path) -> None:
    source, code = POISONED["waits for a word"]
    model = tiny_gguf(tmp_path / "odd.gguf", chat_template=source)
    refused = create(maker, tmp_path / "odd.tar", model, "-n", "odd:1", "--strict")
    assert refused.code == MalformedModel.exit_code
    assert not (tmp_path / "odd.tar").exists()
    made = create(maker, tmp_path / "odd.tar", model, "-n", "odd:1")
    assert made.code == 0
    assert code in [each["code"] for each in made.document["findings"]]


def test_a_pickle_is_refused_with_a_reason(maker: Site, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(pickle.dumps({"weights": print}))
    outcome = create(maker, tmp_path / "x.tar", path, "-n", "x:1")
    assert outcome.code == MalformedModel.exit_code
    assert "builtins.print" in outcome.error["why"]


def test_scan(maker: Site, tmp_path: Path) -> None:
    (tmp_path / "evil.bin").write_bytes(pickle.dumps(print))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    with environment():
        outcome = maker.bundle("scan", tmp_path / "evil.bin", tmp_path / "good.gguf", "--json")
    files = {Path(f["path"]).name: f["findings"] for f in json.loads(outcome.out)["files"]}
    assert [each["code"] for each in files["evil.bin"]] == ["file-pickle"]
    assert {each["severity"] for each in files["good.gguf"]} <= {"info"}
    assert maker.bundle("scan", tmp_path / "good.gguf", "--strict").code == 0
    assert maker.bundle("scan", tmp_path, "--strict").code == MalformedModel.exit_code
    assert "gguf-malformed" in maker.bundle("scan", tmp_path / "broken.gguf", "--json").out
