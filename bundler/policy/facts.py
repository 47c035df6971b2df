"""What the policy is asked about, gathered from what is signed, then from the files themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from bundler.descriptor import BundledModel
from bundler.head import Head
from bundler.policy.model import Facts, Found, ModelFacts
from registry.digest import Digest
from registry.reference import Reference
from schemas import limits, strictjson

_UNKNOWN: Final = "unknown"
_NO_KIND: Final = "transformer"  # what ModelPack's own examples write: says nothing


class Claims:
    """What model configs claim, by digest; each was checked against its schema before."""

    def __init__(self) -> None:
        self._found: dict[Digest, dict[str, Any]] = {}

    def watch(self, take: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """Note what goes by on its way to ``take``."""

        def noting(data: bytes) -> None:
            self._note(data)
            take(data)

        return noting

    def _note(self, data: bytes) -> None:
        if b'"modelfs"' not in data:  # no config, so not worth parsing
            return
        document = strictjson.parse_object(
            data, what="a small blob of the bundle", max_bytes=limits.MANIFEST_BYTES
        )
        if not {"modelfs", "descriptor", "config"} <= document.keys():
            return
        about, config = document["descriptor"], document["config"]
        architecture = config.get("architecture", "")
        self._found[Digest.of(data)] = {
            "licences": tuple(about.get("licenses", ())),
            "format": config.get("format", ""),
            "architecture": about.get("family", "") if architecture == _NO_KIND else architecture,
        }

    def of(self, config: Digest) -> Mapping[str, Any]:
        """What a config claims."""
        return self._found.get(config, {})


def head_facts(
    head: Head, wanted: Sequence[BundledModel], claims: Claims, owners: Mapping[str, Digest]
) -> Facts:
    """What is known before any payload is read.

    Args:
        head: Passed its checks.
        wanted: Its models that are to be installed.
        claims: Of their configs.
        owners: Namespace to whoever brought it first.
    """
    sizes = {blob.digest: blob.size for model in wanted for blob in head.blobs_of(model)}
    before = head.trusted.trusted_before
    return Facts(
        before.anchor,
        before.fingerprint,
        tuple(_claimed(head, model, claims) for model in wanted),
        sum(sizes.values()),
        owners,
    )


def _claimed(head: Head, model: BundledModel, claims: Claims) -> ModelFacts:
    said = claims.of(head.manifest_of(model).config.digest)
    signed = str(head.trusted.trust.target(model.target).custom.get("licence", ""))
    sizes = {blob.digest: blob.size for blob in head.blobs_of(model)}
    return ModelFacts(
        model.reference,
        _present(signed, *said.get("licences", ())),
        _present(said.get("format", "")),
        _present(said.get("architecture", "")),
        sum(sizes.values()),
        model.manifest.digest,
    )


def with_headers(
    facts: Facts, headers: Mapping[Reference, Mapping[str, Any]], findings: Sequence[Found]
) -> Facts:
    """The same, with what the models' files say.

    Args:
        facts: Of :func:`head_facts`.
        headers: Model to the facts of its weight files; of models not in it, the payload has yet
            to come, and they are left out.
        findings: Of the scan.
    """
    models = tuple(
        replace(
            model,
            licences=_present(*model.licences, str(said.get("license") or "")),
            formats=_present(*model.formats, str(said.get("format") or "gguf")),
            # The header is what an engine goes by; a config only claims.
            architectures=(str(said.get("architecture") or _UNKNOWN),),
        )
        for model in facts.models
        if (said := headers.get(model.name)) is not None
    )
    return replace(facts, models=models, findings=tuple(findings))


def _present(*texts: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text.strip()))
