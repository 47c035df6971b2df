"""Where a model says that it comes from: the ``general.*`` keys of its header.

Keys are those of the GGUF specification (ggml ``docs/gguf.md``, "General metadata"). All of it is
free text by whoever made the file; it comes out as bounded lines of printable characters, and what
is no web address is dropped. What the file does not say stays empty.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from registry.gguf.facts import one_line
from registry.gguf.types import GGUFHeader

_ADDRESS: Final = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9._~:/?#@!$&'()*+,;=%-]{2,500}")
_MOST: Final = 16  # base models and data sets; merges of more are not heard of


@dataclass(frozen=True, slots=True)
class Upstream:
    """A model or data set that this one was made from.

    Attributes:
        name: Never empty.
        organization: Who published it.
        version: Theirs.
        address: Web address of it; its repository's where both are given.
    """

    name: str
    organization: str = ""
    version: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a file says of its origin.

    Attributes:
        author: ``general.author``.
        organization: ``general.organization``.
        version: ``general.version``.
        finetune: ``general.finetune``: what it was tuned for.
        quantized_by: ``general.quantized_by``.
        license_name: ``general.license.name``.
        license_address: ``general.license.link``.
        addresses: Of the model itself: ``general.url``, ``general.repo_url``, ``general.source.*``.
        base_models: ``general.base_model.*``.
        datasets: ``general.dataset.*``.
    """

    author: str = ""
    organization: str = ""
    version: str = ""
    finetune: str = ""
    quantized_by: str = ""
    license_name: str = ""
    license_address: str = ""
    addresses: tuple[str, ...] = ()
    base_models: tuple[Upstream, ...] = ()
    datasets: tuple[Upstream, ...] = ()


def model_provenance(header: GGUFHeader) -> Provenance:
    """Gather what a header says of the model's origin."""

    def line(key: str) -> str:
        return one_line(header.text(f"general.{key}"))

    found = (_address(header, key) for key in ("source.repo_url", "source.url", "repo_url", "url"))
    return Provenance(
        author=line("author"),
        organization=line("organization"),
        version=line("version"),
        finetune=line("finetune"),
        quantized_by=line("quantized_by"),
        license_name=line("license.name"),
        license_address=_address(header, "license.link"),
        addresses=tuple(dict.fromkeys(filter(None, found))),
        base_models=_upstreams(header, "base_model"),
        datasets=_upstreams(header, "dataset"),
    )


def _upstreams(header: GGUFHeader, kind: str) -> tuple[Upstream, ...]:
    count = min(header.integer(f"general.{kind}.count") or 0, _MOST)
    found = []
    for number in range(count):
        place = f"{kind}.{number}"
        name = one_line(header.text(f"general.{place}.name"))
        if name:
            found.append(
                Upstream(
                    name,
                    one_line(header.text(f"general.{place}.organization")),
                    one_line(header.text(f"general.{place}.version")),
                    _address(header, f"{place}.repo_url") or _address(header, f"{place}.url"),
                )
            )
    return tuple(found)


def _address(header: GGUFHeader, key: str) -> str:
    text = header.text(f"general.{key}") or ""
    return text if _ADDRESS.fullmatch(text) else ""
