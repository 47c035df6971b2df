"""What is signed about a model: one target, computed from its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from tuf.api.metadata import TargetFile

from bundler.trust.names import model_target
from bundler.trust.repository import Repository, model_target_file
from registry.oci import Manifest
from registry.reference import Reference

_NO_CUSTOM: Final[Mapping[str, str | int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SignedModel:
    """A model to be signed for.

    Attributes:
        reference: Its name; the namespace decides which role signs.
        manifest: The manifest's exact bytes.
        licence: SPDX id, empty where unknown.
        custom: More fields for the signed entry. Those of :func:`manifest_custom` and ``seq``,
            the sequence of the bundle that first carried it, are filled in and win.
    """

    reference: Reference
    manifest: bytes = field(repr=False)
    licence: str = ""
    custom: Mapping[str, str | int] = field(default_factory=lambda: _NO_CUSTOM, hash=False)

    @property
    def target(self) -> str:
        """The path under which it is signed."""
        return model_target(self.reference)


def manifest_custom(manifest: bytes) -> dict[str, str | int]:
    """What a signed entry says about a model, computed from the manifest alone.

    The importer computes it again and compares: name, digest, type and size must agree.

    Returns:
        ``mediaType``, ``artifactType``, ``blob_count`` (distinct blobs) and ``closure_bytes`` (they
        and the manifest).

    Raises:
        MalformedDocument: It is no image manifest.
    """
    parsed = Manifest.parse(manifest)
    sizes = {blob.digest: blob.size for blob in parsed.blobs}
    return {
        "mediaType": parsed.media_type,
        "artifactType": parsed.artifact_type or "",
        "closure_bytes": len(manifest) + sum(sizes.values()),
        "blob_count": len(sizes),
    }


def targets_with(
    repository: Repository, role: str, models: Sequence[SignedModel], sequence: int
) -> dict[str, TargetFile]:
    """All that a role signs for, these models included.

    Args:
        repository: What is signed so far.
        role: A publisher's.
        models: To be added, or to replace what their names stood for.
        sequence: Of the bundle that carries them first.
    """
    before = repository.targets_of(role)
    return before | {model.target: _model_entry(model, sequence, before) for model in models}


def _model_entry(model: SignedModel, sequence: int, before: Mapping[str, TargetFile]) -> TargetFile:
    """The signed entry; an unchanged model keeps the one it has."""
    custom = {"licence": model.licence, **model.custom, **manifest_custom(model.manifest)}
    known = before.get(model.target)
    if known is not None:
        same = model_target_file(
            model.target, model.manifest, {**custom, "seq": (known.custom or {}).get("seq", 0)}
        )
        if same == known:
            return known
    return model_target_file(model.target, model.manifest, {**custom, "seq": sequence})
