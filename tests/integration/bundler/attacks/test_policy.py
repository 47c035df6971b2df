"""Bundles that are signed and sound, and that this site's policy keeps out; one case per test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bundler.importer import Wishes
from bundler.policy.gate import Consent
from bundler.policy.model import Policy
from bundler.policy.reading import find, load
from schemas.errors import ContentMismatch, PolicyRefused, UsageError
from tests.gguf_files import Pieces, string
from tests.support.bundle_simulator import Forgery, forge, twin
from tests.support.governed import START, Desk, desk
from tests.support.publisher_simulator import Simulator
from tests.support.site import Site, environment

MIT = '[licences]\nallow = ["MIT"]\n'
ASK = '[licences]\nallow = ["MIT"]\nconfirm = ["LicenseRef-llama3"]\n'


@pytest.fixture(scope="module")
def publisher() -> Simulator:
    return Simulator(now=START)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, publisher: Simulator) -> Desk:
    return desk(tmp_path_factory.mktemp("policy") / "home", publisher)


@pytest.fixture
def site(bare: Desk, tmp_path: Path) -> Desk:
    shutil.copytree(bare.home, tmp_path / "home")
    return Desk(tmp_path / "home")


def licensed(licence: str) -> Callable[[Any], object]:
    return lambda custom: custom.__setitem__("licence", licence)


def padded(text: str) -> bytes:
    """A model file of some size."""
    return Pieces().with_value("general.description", string(text)).build()


def refused(site: Desk, bundle: bytes, **how: Any) -> PolicyRefused:
    with pytest.raises(PolicyRefused) as caught:
        site.bring(bundle, **how)
    assert type(caught.value) is PolicyRefused
    assert caught.value.hint
    assert (site.models(), site.floor()) == ([], None)
    assert list((site.home / "staging").iterdir()) == []
    assert not [p for p in (site.home / "blobs").rglob("*") if p.is_file()]
    return caught.value


# -- licences ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "licence", ["GPL-3.0-only", "MIT AND GPL-3.0-only", "llama3", "MIT OR", "((MIT", "M" * 100]
)
def test_licence_that_is_not_allowed(licence: str, site: Desk, publisher: Simulator) -> None:
    site.rule(MIT)
    error = refused(site, forge(twin(publisher), Forgery(custom=licensed(licence))))
    assert "its licence is" in error.why


@pytest.mark.parametrize("licence", ["MIT", "mit", "MIT OR GPL-3.0-only", "(MIT AND MIT)"])
def test_licence_that_is_allowed(licence: str, site: Desk, publisher: Simulator) -> None:
    site.rule(MIT)
    site.bring(forge(twin(publisher), Forgery(custom=licensed(licence))))
    assert site.models()


def test_no_licence_where_one_must_be_named(site: Desk, publisher: Simulator) -> None:
    site.rule('[licences]\nunknown = "refuse"\n')
    assert "no licence named" in refused(site, forge(twin(publisher))).why


def test_licence_that_only_the_config_admits(site: Desk, publisher: Simulator) -> None:
    """The signed entry says MIT, the config something else: each has to pass."""
    site.rule(MIT)
    model = Forgery(
        custom=licensed("MIT"),
        config=lambda d: d["descriptor"].__setitem__("licenses", ["CC-BY-NC-4.0"]),
    )
    assert "CC-BY-NC-4.0" in refused(site, forge(twin(publisher), model)).why


def test_licence_that_only_the_file_admits(site: Desk, publisher: Simulator) -> None:
    site.rule(MIT)
    weights = Pieces().with_value("general.license", string("cc-by-nc-4.0")).build()
    model = Forgery(custom=licensed("MIT"), weights=weights)
    assert "cc-by-nc-4.0" in refused(site, forge(twin(publisher), model)).why


def test_licence_to_be_confirmed_is_not_taken_silently(site: Desk, publisher: Simulator) -> None:
    site.rule(ASK)
    bundle = forge(twin(publisher), Forgery(custom=licensed("llama3")))
    error = refused(site, bundle)
    assert "--accept-licence LicenseRef-llama3" in error.hint
    refused(site, bundle, consent=Consent(licences=("MIT",)))
    done = site.bring(bundle, consent=Consent(licences=("llama3",)))
    (confirmed,) = done.verified.overrides.confirmed
    assert (confirmed.rule, confirmed.item) == ("licence", "LicenseRef-llama3")


def test_person_at_the_terminal_says_no(site: Desk, publisher: Simulator) -> None:
    site.rule(ASK)
    asked: list[str] = []

    def ask(decision: Any) -> bool:
        asked.append(decision.item)
        return False

    refused(
        site,
        forge(twin(publisher), Forgery(custom=licensed("llama3"))),
        consent=Consent(ask=ask),
    )
    assert asked == ["LicenseRef-llama3"]


def test_looking_asks_nobody_but_tells(site: Desk, publisher: Simulator) -> None:
    site.rule(ASK)
    bundle = forge(twin(publisher), Forgery(custom=licensed("llama3")))
    _, gate = site.look(bundle)
    assert [each.item for each in gate.pending] == ["LicenseRef-llama3"]
    site.rule(MIT)
    with pytest.raises(PolicyRefused):
        site.look(bundle)


# -- formats, architectures, sizes ---------------------------------------------------------------


def test_architecture_that_the_config_names(site: Desk, publisher: Simulator) -> None:
    site.rule('[models]\narchitectures = ["qwen2"]\n')
    assert "llama" in refused(site, forge(twin(publisher))).why


def test_architecture_that_the_config_lies_about(site: Desk, publisher: Simulator) -> None:
    site.rule('[models]\narchitectures = ["qwen2"]\n')
    lie = Forgery(config=lambda d: d["config"].__setitem__("architecture", "qwen2"))
    assert "llama" in refused(site, forge(twin(publisher), lie)).why


def test_architecture_that_the_config_keeps_silent_about(site: Desk, publisher: Simulator) -> None:
    site.rule('[models]\narchitectures = ["qwen2"]\n')
    silent = Forgery(config=lambda d: (d["config"].clear(), d["descriptor"].clear()))
    assert "llama" in refused(site, forge(twin(publisher), silent)).why


def test_format_that_is_not_allowed(site: Desk, publisher: Simulator) -> None:
    site.rule('[models]\nformats = ["safetensors"]\n')
    assert "gguf" in refused(site, forge(twin(publisher))).why


def test_format_that_the_config_lies_about(site: Desk, publisher: Simulator) -> None:
    site.rule('[models]\nformats = ["safetensors"]\n')
    lie = Forgery(config=lambda d: d["config"].__setitem__("format", "safetensors"))
    assert "gguf" in refused(site, forge(twin(publisher), lie)).why


def test_model_that_is_too_large(site: Desk, publisher: Simulator) -> None:
    site.rule("[models]\nmax_bytes = 100\n")
    assert "100 are allowed" in refused(site, forge(twin(publisher))).why


def test_bundle_that_is_too_large_though_each_model_is_not(
    site: Desk, publisher: Simulator
) -> None:
    one = Forgery(weights=padded("1" * 4000))
    two = replace(one, name="library/two:1", weights=padded("2" * 4000))
    both = forge(twin(publisher), one, two)
    site.rule("[models]\nmax_bundle_bytes = 8000\n")
    assert "together" in refused(site, both).why
    site.bring(both, wishes=Wishes(only=("library/two:1",)))
    assert site.models() == ["library/two:1"]


def test_one_model_of_many_that_is_refused_refuses_all(site: Desk, publisher: Simulator) -> None:
    site.rule(MIT)
    good = Forgery(custom=licensed("MIT"))
    bad = replace(good, name="library/two:1", custom=licensed("GPL-3.0-only"))
    error = refused(site, forge(twin(publisher), good, bad))
    assert "library/two:1" in error.why
    assert "--only" in error.hint


# -- names -----------------------------------------------------------------------------------------


def test_name_that_no_publisher_may_bring(site: Desk, publisher: Simulator) -> None:
    site.rule('[[publisher]]\nanchor = "simulated"\nnames = ["acme/*"]\n')
    assert "not simulated" in refused(site, forge(twin(publisher))).why


def test_name_of_another_publisher(site: Desk, publisher: Simulator) -> None:
    site.rule(
        '[[publisher]]\nanchor = "simulated"\nnames = ["acme/*"]\n'
        '[[publisher]]\nanchor = "other"\nnames = ["library/*"]\n'
    )
    assert "other may bring this name" in refused(site, forge(twin(publisher))).why


def test_publisher_under_a_known_name_with_another_root(site: Desk, publisher: Simulator) -> None:
    site.rule(
        f'[[publisher]]\nanchor = "simulated"\nnames = ["library/*"]\nfingerprint = "{"0" * 64}"\n'
    )
    assert "the policy wants" in refused(site, forge(twin(publisher))).why


# -- the policy itself -----------------------------------------------------------------------------

DAMAGED = {
    "no TOML": b"schema_version = ",
    "cut": b'schema_version = 1\n[licences]\nallow = ["MI',
    "not UTF-8": b"schema_version = 1 # \xff",
    "zeros": bytes(100),
    "no version": b"[licences]\n",
    "another version": b"schema_version = 2\n",
    "unknown table": b"schema_version = 1\n[licenses]\n",
    "unknown field": b'schema_version = 1\n[licences]\nalow = ["MIT"]\n',
    "unknown verdict": b'schema_version = 1\n[licences]\nothers = "deny"\n',
    "wrong type": b'schema_version = 1\n[stale]\ngrace_days = "ten"\n',
    "negative": b"schema_version = 1\n[stale]\ngrace_days = -1\n",
    "a date": b"schema_version = 1\n[stale]\ngrace_days = 2027-01-01\n",
    "duplicate key": b"schema_version = 1\nschema_version = 1\n",
    "too large": b"schema_version = 1\n#" + b"x" * 2_000_000,
    "deep": b"schema_version = 1\nx = " + b"[" * 5000,
    "licence in two lists": b'schema_version = 1\n[licences]\nallow=["MIT"]\nrefuse=["mit"]\n',
    "too few operators": b"schema_version = 1\n[approval]\nrequired = 1\n",
    "no key": b'schema_version = 1\n[[operator]]\nname = "a"\nkey = "AAAA"\n',
    "size": b'schema_version = 1\n[models]\nmax_bytes = "ten"\n',
    "sizes": b'schema_version = 1\n[models]\nmax_bytes = "2G"\nmax_bundle_bytes = "1G"\n',
}


@pytest.mark.parametrize("flaw", list(DAMAGED))
def test_damaged_policy_lets_nothing_in(flaw: str, site: Desk, publisher: Simulator) -> None:
    (site.home / "policy.toml").write_bytes(DAMAGED[flaw])
    error = refused(site, forge(twin(publisher)))
    assert str(site.home / "policy.toml") in error.why or "policy" in error.what
    outcome = Site(site.home).bundle("policy", "check", "--json")
    assert outcome.code == PolicyRefused.exit_code
    assert outcome.error["hint"]


def test_policy_that_anybody_may_write_lets_nothing_in(site: Desk, publisher: Simulator) -> None:
    site.rule("")
    (site.home / "policy.toml").chmod(0o666)
    assert "anybody may write" in refused(site, forge(twin(publisher))).why


def test_policy_that_is_a_folder_lets_nothing_in(site: Desk, publisher: Simulator) -> None:
    (site.home / "policy.toml").mkdir()
    refused(site, forge(twin(publisher)))


def test_policy_that_leads_nowhere_lets_nothing_in(site: Desk, publisher: Simulator) -> None:
    (site.home / "policy.toml").symlink_to("nowhere.toml")
    refused(site, forge(twin(publisher)))


def test_policy_that_the_environment_names_and_is_not_there(
    site: Desk, publisher: Simulator
) -> None:
    with environment(SEALIFT_POLICY=str(site.home / "nowhere.toml")):
        refused(site, forge(twin(publisher)))


def test_policy_of_the_machine_binds_everybody(tmp_path: Path) -> None:
    machine, own, named = (tmp_path / name for name in ("etc.toml", "policy.toml", "mine.toml"))
    variables = {"SEALIFT_POLICY": str(named)}
    assert find(tmp_path, {}, system=machine) is None
    assert load(tmp_path, {}, system=machine) == Policy()
    own.write_text("schema_version = 1\n")
    assert find(tmp_path, {}, system=machine) == own
    named.write_text("schema_version = 1\n")
    assert find(tmp_path, variables, system=machine) == named
    machine.write_text('schema_version = 1\n[licences]\nothers = "refuse"\n')
    assert find(tmp_path, variables, system=machine) == machine
    machine.unlink()
    machine.symlink_to("nowhere")
    assert find(tmp_path, variables, system=machine) == machine


# -- when it is asked --------------------------------------------------------------------------------


def test_refused_before_any_payload_is_read(site: Desk, publisher: Simulator) -> None:
    """The payload is damaged; the policy speaks before anybody sees that."""
    weights = padded("x" * 100_000)
    bundle = forge(twin(publisher), Forgery(weights=weights, custom=licensed("GPL-3.0-only")))
    damaged = bundle[:-50_000].replace(b"x" * 1000, b"y" * 1000, 1) + bundle[-50_000:]
    with pytest.raises(ContentMismatch):
        site.bring(damaged)
    site.rule(MIT)
    refused(site, damaged)


def test_refused_bundle_does_not_spoil_the_next(site: Desk, publisher: Simulator) -> None:
    site.rule(MIT)
    newer = twin(publisher)
    newer.bump()
    refused(site, forge(newer, sequence=2))
    site.bring(forge(twin(publisher), Forgery(custom=licensed("MIT"))))
    assert site.models()


def test_stale_and_reason_go_together(site: Desk) -> None:
    desk_site = Site(site.home)
    for words in (("--accept-stale",), ("--reason", "because")):
        outcome = desk_site.bundle("import", "nowhere", *words)
        assert outcome.code == UsageError.exit_code
        assert "go together" in outcome.err
