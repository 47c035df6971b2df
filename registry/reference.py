"""Model references, parsed once.

::

    reference ::= [host [":" port] "/"] [namespace "/"] name [":" tag] ["@" digest]
    host      ::= a component with a "." or a port, or "localhost"
    namespace, name ::= [a-z0-9]+ (("." | "_" | "__" | "-"+) [a-z0-9]+)*, and no namespace is a host
    tag       ::= [a-z0-9_][a-z0-9._-]{0,127}

The components are those of the OCI distribution-spec 1.1, narrowed to lower case so that no two
names differ by case alone (a FAT or NTFS stick, a TUF glob and a URL must all tell them apart).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from registry.digest import Digest
from schemas import limits
from schemas.errors import InvalidName

DEFAULT_NAMESPACE: Final = "library"
DEFAULT_TAG: Final = "latest"

_COMPONENT: Final = re.compile(r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*")
_TAG: Final = re.compile(r"[a-z0-9_][a-z0-9._-]{0,127}")
_HOST: Final = re.compile(r"[a-z0-9]+(?:[.-]+[a-z0-9]+)*(?::[0-9]{1,5})?")
_HINT: Final = "Write it like library/smollm2:135m"


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A model's name: where it lives, what it is called, which version.

    Attributes:
        namespace: One component; decides which publisher may sign for it.
        name: One component.
        tag: The version's name.
        host: Registry host with optional port; None for the local store.
        digest: Of the manifest; when given it decides, and the tag is only a label.
    """

    namespace: str
    name: str
    tag: str = DEFAULT_TAG
    host: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        for part in (self.namespace, self.name):
            if not _COMPONENT.fullmatch(part):
                raise InvalidName("invalid model name", why=f"bad component {part!r}", hint=_HINT)
        if _is_host(self.namespace):
            # Without its host it would be read as one: two models, one printed name.
            raise InvalidName(
                "invalid model name", why=f"namespace {self.namespace!r} looks like a host"
            )
        if not _TAG.fullmatch(self.tag):
            raise InvalidName("invalid model name", why=f"bad tag {self.tag!r}", hint=_HINT)
        if self.host is not None and not _HOST.fullmatch(self.host):
            raise InvalidName("invalid model name", why=f"bad host {self.host!r}", hint=_HINT)
        if len(self.namespace) + len(self.name) + len(self.host or "") + 2 > limits.NAME_CHARS:
            raise InvalidName("invalid model name", why=f"over {limits.NAME_CHARS} characters")

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse a reference as it stands in a signed document or a URL.

        Raises:
            InvalidName: Anything outside the grammar; upper case too.
        """
        if len(text) > limits.NAME_CHARS + limits.TAG_CHARS + 140:
            raise InvalidName("invalid model name", why="too long", hint=_HINT)
        rest, at, digest = text.partition("@")
        head, slash, last = rest.rpartition("/")
        last, colon, tag = last.partition(":")
        parts = head.split("/") if slash else []
        host = parts.pop(0) if parts and _is_host(parts[0]) else None
        if len(parts) > 1:
            raise InvalidName("invalid model name", why=f"too many parts in {text!r}", hint=_HINT)
        return cls(
            namespace=parts[0] if parts else DEFAULT_NAMESPACE,
            name=last,
            tag=tag if colon else DEFAULT_TAG,
            host=host,
            digest=Digest.parse(digest) if at else None,
        )

    @classmethod
    def from_user(cls, text: str) -> Reference:
        """Parse what a person or a client typed: upper case is folded, as Ollama does."""
        return cls.parse(text.strip().lower())

    @property
    def repository(self) -> str:
        """``namespace/name``: the repository in the catalogue and in registry URLs."""
        return f"{self.namespace}/{self.name}"

    @property
    def local(self) -> Reference:
        """The same model in this store: without a host."""
        return replace(self, host=None)

    @property
    def shortest(self) -> str:
        """As Ollama prints it: without the default namespace, always with the tag."""
        prefix = f"{self.host}/{self.namespace}/" if self.host else ""
        if not prefix and self.namespace != DEFAULT_NAMESPACE:
            prefix = f"{self.namespace}/"
        return f"{prefix}{self.name}:{self.tag}"

    def __str__(self) -> str:
        prefix = f"{self.host}/" if self.host else ""
        suffix = f"@{self.digest}" if self.digest else ""
        return f"{prefix}{self.repository}:{self.tag}{suffix}"


def _is_host(part: str) -> bool:
    return "." in part or ":" in part or part == "localhost"
