"""What hostile text becomes before a person sees it: names, messages, results."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bundler.trust.publisher import Publisher
from tests.gguf_files import Pieces, string
from tests.support.bundle_simulator import WEIGHTS, Forgery, Member, forge, members, tar, twin
from tests.support.publisher_simulator import Simulator
from tests.support.site import Outcome, Site

Stick = Callable[[bytes], Path]

# Set the window's title, erase the line, colour; C1's CSI; overrides of direction; a new line.
EVIL = "\x1b]0;owned\x07\x1b[2K\x1b[31m\x9b31m\u202egnp\u2066\r\nfaked: all is well\x7f"


def check_harmless(outcome: Outcome) -> None:
    """One line per line of ours, and nothing in it that drives a terminal."""
    for text in (outcome.out, outcome.err):
        assert "Traceback" not in text
        for line in text.splitlines():
            assert line.isprintable(), line
            assert not line.startswith("faked")


def check_both(site: Site, verb: str, *argv: object) -> Outcome:
    """For people and for scripts."""
    plain = site.bundle(verb, *argv)
    check_harmless(plain)
    scripted = site.bundle(verb, *argv, "--json")
    check_harmless(scripted)
    assert (scripted.out + scripted.err).isascii()
    assert plain.code == scripted.code
    return plain


def test_publisher_who_calls_himself_by_an_escape_sequence(
    site: Site, publisher: Simulator, stick: Stick, tmp_path: Path
) -> None:
    target = site.copy(tmp_path / "home")
    bundle = forge(twin(publisher), descriptor=lambda t: t.update(publisher=EVIL))
    path = stick(bundle)
    assert check_both(site, "verify", path).code == 0
    assert check_both(target, "import", path).code == 0


@pytest.mark.parametrize("name", ["evil\x1b[31m", "\x07", "a\nb", "\u202e", EVIL[:90]])
def test_member_with_an_escape_sequence_for_a_name(
    name: str, site: Site, good: bytes, stick: Stick
) -> None:
    for index in (1, 9, len(members(good))):
        whole = members(good)
        whole.insert(index, Member.of(name[:80], b"x"))
        outcome = check_both(site, "import", stick(tar(whole)))
        assert 10 <= outcome.code < 30
        (line,) = outcome.err.splitlines()
        assert line.startswith("error[")


@pytest.mark.parametrize(
    "forged",
    [
        Forgery(entry=lambda e: e.update(name=EVIL)),
        Forgery(entry=lambda e: e.update(target=EVIL)),
        Forgery(manifest=lambda m: m.update(mediaType=EVIL)),
        Forgery(manifest=lambda m: m["config"].update(mediaType=EVIL)),
        Forgery(manifest=lambda m: m["layers"][0].update(digest=EVIL)),
        Forgery(file=EVIL),
        Forgery(config=lambda c: c.update({EVIL: 1})),
        Forgery(custom=lambda c: c.update(artifactType=EVIL)),
        Forgery(weights=Pieces().with_value("general.architecture", string(EVIL)).build()),
    ],
)
def test_signed_document_with_escape_sequences(
    forged: Forgery, site: Site, publisher: Simulator, stick: Stick
) -> None:
    outcome = check_both(site, "import", stick(forge(twin(publisher), forged)))
    assert 10 <= outcome.code < 30
    (line,) = outcome.err.splitlines()
    assert line.startswith("error[")
    assert len(line) < 2000


def test_model_with_escape_sequences_in_its_metadata(
    site: Site, publisher: Simulator, stick: Stick
) -> None:
    """Free text is the model maker's own; the model is not refused for it."""
    pieces = Pieces().with_value("general.name", string(EVIL))
    pieces = pieces.with_value("general.license", string(EVIL))
    bundle = forge(twin(publisher), Forgery(weights=pieces.build()))
    assert check_both(site, "verify", stick(bundle)).code == 0


def test_endless_text_is_cut(site: Site, publisher: Simulator, stick: Stick) -> None:
    bundle = forge(twin(publisher), Forgery(config=lambda c: c.update(descriptor="x" * 100_000)))
    outcome = check_both(site, "import", stick(bundle))
    assert len(outcome.err) < 2000


def test_file_of_an_evil_name(site: Site, good: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    folder.mkdir()
    for number, name in enumerate((EVIL, os.fsdecode(b"\xff\xfe\x1b[31m"), "\u202egnp.gguf")):
        path = folder / name
        path.write_bytes(good if number else b"x")
        outcome = check_both(site, "verify", path)
        assert outcome.code == (0 if number else 12)
        assert check_both(site, "verify", path.with_name(path.name + "x")).code == 4


def test_bundling_a_model_of_an_evil_name(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Publisher.init(
        home / "publisher",
        name="harmless",
        namespaces=["library"],
        passphrase=b"correct horse",
        kdf_rounds=1000,
    )
    (home / "pass").write_text("correct horse\n")
    site = Site(home)
    evil = tmp_path / EVIL
    evil.write_bytes(WEIGHTS)
    options = ("-o", tmp_path / "out.tar", "--passphrase-file", home / "pass")
    assert check_both(site, "create", evil, *options).code == 3
    named = tmp_path / "tiny.gguf"
    shutil.copy(evil, named)
    assert check_both(site, "create", named, "--name", EVIL, *options).code == 3
    named.write_bytes(Pieces().with_value("general.name", string(EVIL)).build())
    outcome = site.bundle("create", named, "--name", "library/x:1", *options)
    check_harmless(outcome)
    assert outcome.code == 0


def test_option_with_an_escape_sequence(site: Site, good: bytes, stick: Stick) -> None:
    path = stick(good)
    assert check_both(site, "import", path, "--publisher", EVIL).code == 21
    assert check_both(site, "import", path, f"--{EVIL}").code == 2
    assert check_both(site, f"im{EVIL}", path).code == 2
