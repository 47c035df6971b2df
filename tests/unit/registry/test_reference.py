"""Model references: one grammar, parsed once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.digest import Digest
from registry.reference import Reference
from schemas.errors import InvalidName

DIGEST = "sha256:" + "0123456789abcdef" * 4

COMPONENTS = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,8}){0,2}", fullmatch=True)
TAGS = st.from_regex(r"[a-z0-9_][a-z0-9._-]{0,20}", fullmatch=True)
HOSTS = st.from_regex(r"[a-z0-9]{1,8}(\.[a-z0-9]{1,8}){1,2}(:[0-9]{1,5})?", fullmatch=True)
REFERENCES = st.builds(
    Reference,
    namespace=COMPONENTS.filter(lambda text: "." not in text and text != "localhost"),
    name=COMPONENTS,
    tag=TAGS,
    host=st.none() | HOSTS,
    digest=st.none() | st.just(Digest.parse(DIGEST)),
)


@given(REFERENCES)
def test_printing_parses_back(reference: Reference) -> None:
    assert Reference.parse(str(reference)) == reference
    if reference.digest is None:
        assert Reference.parse(reference.shortest) == reference


@given(st.text(max_size=80))
def test_arbitrary_text_is_stable_or_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidName:
        return
    assert Reference.parse(str(reference)) == reference
    assert str(reference).isascii()
    assert str(reference) == str(reference).lower()


@pytest.mark.parametrize(
    ("text", "full", "shortest"),
    [
        ("smollm2", "library/smollm2:latest", "smollm2:latest"),
        ("smollm2:135m", "library/smollm2:135m", "smollm2:135m"),
        ("library/smollm2:135m", "library/smollm2:135m", "smollm2:135m"),
        ("acme/x", "acme/x:latest", "acme/x:latest"),
        ("localhost/acme/x:1", "localhost/acme/x:1", "localhost/acme/x:1"),
        (
            "mirror.example:5000/acme/x:1",
            "mirror.example:5000/acme/x:1",
            "mirror.example:5000/acme/x:1",
        ),
        (
            "registry.ollama.ai/library/x:1",
            "registry.ollama.ai/library/x:1",
            "registry.ollama.ai/library/x:1",
        ),
        ("mirror.example/x:1", "mirror.example/library/x:1", "mirror.example/library/x:1"),
        (f"acme/x@{DIGEST}", f"acme/x:latest@{DIGEST}", "acme/x:latest"),
        (f"acme/x:1@{DIGEST}", f"acme/x:1@{DIGEST}", "acme/x:1"),
        ("a__b/c---d.e:_t", "a__b/c---d.e:_t", "a__b/c---d.e:_t"),
    ],
)
def test_parts(text: str, full: str, shortest: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == full
    assert reference.shortest == shortest


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "x:",
        "x@",
        "/x",
        "x/",
        "acme//x",
        "a/b/c",
        "a/b/c/d",
        "../x",
        "acme/..",
        "acme/../evil",
        "./x",
        "acme/x:../..",
        "acme/x:.hidden",
        "acme/x:-t",
        "acme/x:a/b",
        "acme/x:" + "t" * 129,
        "-x",
        "x-",
        "x..y",
        "x___y",
        "x y",
        "x\ty",
        "x\x00y",
        "X",
        "acme/X",
        "acme/x:T",
        "ümlaut/x",
        "acme/х",  # noqa: RUF001 - a Cyrillic letter, on purpose
        "acme/x\n",
        "acme/x:1\n",
        "acme/x@sha256:123",
        "acme/x@md5:" + "0" * 32,
        "host.example:port/acme/x",
        "host.example:123456/acme/x",
        "host..example/acme/x" + "y" * 400,
        "a" * 300,
    ],
)
def test_outside_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        Reference.parse(text)


def test_users_may_write_upper_case_and_spaces() -> None:
    assert Reference.from_user("  Acme/SmolLM2:135M ") == Reference("acme", "smollm2", "135m")


def test_local_drops_the_host_only() -> None:
    reference = Reference.parse(f"mirror.example:5000/acme/x:1@{DIGEST}")
    assert str(reference.local) == f"acme/x:1@{DIGEST}"
    assert reference.repository == "acme/x"


@pytest.mark.parametrize("namespace", ["acme.example", "localhost"])
def test_a_namespace_is_never_taken_for_a_host(namespace: str) -> None:
    with pytest.raises(InvalidName):
        Reference.parse(f"mirror.example/{namespace}/x")
    with pytest.raises(InvalidName):
        Reference(namespace, "x")


def test_length_is_bounded_over_all_parts() -> None:
    with pytest.raises(InvalidName):
        Reference("n" * 128, "m" * 128)
