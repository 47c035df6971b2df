from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuf.api.metadata import DelegatedRole

from bundler.trust import model_target, names, publisher_role
from registry.reference import Reference
from schemas.errors import InvalidName, MalformedArchive

COMPONENT = st.from_regex(r"[a-z0-9]{1,9}(?:(?:__?|-{1,3})[a-z0-9]{1,9}){0,3}", fullmatch=True)
TAG = st.from_regex(r"[a-z0-9_][a-z0-9._-]{0,30}", fullmatch=True)
TARGET = re.compile(r"[a-z0-9_][a-z0-9._-]*(?:/[a-z0-9_][a-z0-9._-]*)*")


def test_model_target() -> None:
    assert model_target(Reference("library", "smollm2", "135m")) == (
        "models/library/smollm2/135m/manifest.json"
    )


@given(COMPONENT, COMPONENT, TAG)
def test_every_reference_has_a_target_that_its_role_alone_may_sign(
    namespace: str, name: str, tag: str
) -> None:
    target = model_target(Reference(namespace, name, tag))
    assert TARGET.fullmatch(target)

    def may_sign(space: str) -> bool:
        return DelegatedRole(
            publisher_role(space), [], 1, terminating=True, paths=[*names.publisher_paths(space)]
        ).is_delegated_path(target)

    assert may_sign(namespace)
    assert not may_sign(f"{namespace}x")
    assert not may_sign(f"x{namespace}")
    bundle = DelegatedRole("bundle", [], 1, terminating=True, paths=[*names.BUNDLE_PATHS])
    assert not bundle.is_delegated_path(target)
    assert bundle.is_delegated_path(names.BUNDLE_TARGET)


@given(COMPONENT, st.integers(1, 9_999_999_999))
def test_member_names_come_back(namespace: str, version: int) -> None:
    role = publisher_role(namespace)
    assert names.is_role(role)
    assert names.parse_member(names.member_name(role, version)) == (role, version)
    assert names.namespace_of(role) == namespace


@given(st.text(max_size=40))
def test_no_other_text_is_a_member_name(name: str) -> None:
    try:
        role, version = names.parse_member(name)
    except MalformedArchive:
        return
    assert names.member_name(role, version or 0) == name


@pytest.mark.parametrize("namespace", ["", "A", "a/b", "..", "a..b", "-a", "a-", "é", "a" * 300])
def test_bad_namespace_has_no_role(namespace: str) -> None:
    with pytest.raises(InvalidName):
        publisher_role(namespace)


def test_top_level_roles_are_nobodys_namespace() -> None:
    assert all(names.namespace_of(role) is None for role in (*names.TOP_LEVEL, "bundle"))
