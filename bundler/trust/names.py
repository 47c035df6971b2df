"""Names of roles, targets and metadata files: one lower-case ASCII grammar.

::

    role    ::= [a-z0-9]+ (("." | "_" | "__" | "-"+) [a-z0-9]+)*
    member  ::= "timestamp.json" | version "." role ".json"
    version ::= [1-9][0-9]{0,9}
    target  ::= segment ("/" segment)*
    segment ::= [a-z0-9_][a-z0-9._-]*

TUF itself matches paths by glob and would let ``models/acme/../evil/manifest.json`` through; a
segment cannot begin with a dot here, so there is no ``..`` to match. The same grammar stands in
``tuf-metadata.v1.schema.json``, where signed documents are held to it.
"""

from __future__ import annotations

import re
from typing import Final

from registry.reference import Reference
from schemas.errors import InvalidName, MalformedArchive

ROOT: Final = "root"
TIMESTAMP: Final = "timestamp"
SNAPSHOT: Final = "snapshot"
TARGETS: Final = "targets"
TOP_LEVEL: Final = (ROOT, TIMESTAMP, SNAPSHOT, TARGETS)

BUNDLE_ROLE: Final = "bundle"
BUNDLE_PATHS: Final = ("bundle/*",)
BUNDLE_TARGET: Final = "bundle/bundle.json"
_PUBLISHER_PREFIX: Final = "publisher-"

# First among the delegations, so that nobody else can ever sign for its paths.
ADVISORIES: Final = "advisories"
ADVISORIES_PATHS: Final = ("advisories/*",)
WITHDRAWN_TARGET: Final = "advisories/withdrawn.json"

_ROLE: Final = re.compile(r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*")
_MEMBER: Final = re.compile(rf"([1-9][0-9]{{0,9}})\.({_ROLE.pattern})\.json")


def model_target(reference: Reference) -> str:
    """The target path under which a publisher signs a model's manifest."""
    return f"models/{reference.namespace}/{reference.name}/{reference.tag}/manifest.json"


def publisher_role(namespace: str) -> str:
    """The role that signs for a namespace.

    Raises:
        InvalidName: The namespace does not follow the grammar of references.
    """
    Reference(namespace=namespace, name="x")
    return f"{_PUBLISHER_PREFIX}{namespace}"


def publisher_paths(namespace: str) -> tuple[str, ...]:
    """The paths delegated to it: of fixed depth, since globs do not cross ``/``."""
    return (f"models/{namespace}/*/*/manifest.json",)


def retired_paths(role: str) -> tuple[str, ...]:
    """The paths of a publisher's role that was shut down: no model has such a path."""
    return (f"retired/{namespace_of(role) or role}",)


def role_paths(role: str) -> tuple[str, ...]:
    """The paths delegated to a role.

    Raises:
        InvalidName: Nothing is ever delegated to a role of that name.
    """
    fixed = {ADVISORIES: ADVISORIES_PATHS, BUNDLE_ROLE: BUNDLE_PATHS}
    if role in fixed:
        return fixed[role]
    namespace = namespace_of(role)
    if namespace is None:
        raise InvalidName(f"{role[:80]!r} is no role that could be delegated to")
    Reference(namespace=namespace, name="x")
    return publisher_paths(namespace)


def namespace_of(role: str) -> str | None:
    """The namespace that a publisher role signs for; None for any other role."""
    return role.removeprefix(_PUBLISHER_PREFIX) if role.startswith(_PUBLISHER_PREFIX) else None


def is_role(name: str) -> bool:
    """Whether a name follows the grammar of roles."""
    return len(name) <= 255 and _ROLE.fullmatch(name) is not None


def member_name(role: str, version: int) -> str:
    """The file name of one version of a role's metadata in a bundle and in the workspace."""
    return f"{TIMESTAMP}.json" if role == TIMESTAMP else f"{version}.{role}.json"


def parse_member(name: str) -> tuple[str, int | None]:
    """Role and version of a file name; only the timestamp's name has no version.

    Raises:
        MalformedArchive: Anything outside the grammar.
    """
    if name == f"{TIMESTAMP}.json":
        return TIMESTAMP, None
    match = _MEMBER.fullmatch(name) if len(name) <= 300 else None
    if match is None or match[2] == TIMESTAMP:
        raise MalformedArchive("trust metadata has a file of no known name", why=name[:80])
    return match[2], int(match[1])
