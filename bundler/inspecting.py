"""``bundle inspect``: what a bundle says that it holds. Nothing is believed, nothing verified.

It is parsed as strictly, and with the same bounds, as an import would; only nobody's keys are
asked. No store is touched, so it works on any machine, for any publisher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from bundler.advisories.lists import Entry as Advisory
from bundler.advisories.lists import WithdrawnList
from bundler.archive import layout
from bundler.attestations.artifacts import predicate_type
from bundler.contents import Entry, Part
from bundler.descriptor import BundleDescriptor, BundledModel
from bundler.files import open_regular
from bundler.finding import find_bundle
from bundler.head import advice, trust_front
from bundler.pipes import is_pipe, standard_input
from bundler.reading import (
    Front,
    read_body,
    read_front,
    read_withdrawn,
)
from bundler.trust.claims import Claims, claimed_withdrawn, read_claims
from bundler.volumes import Label, look
from registry.catalogue import Catalogue
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from registry.verify import storage_errors
from schemas import documents
from schemas.documents import Kind
from schemas.errors import TrustError

_MOST_CHARS: Final = 80  # of one field that is shown; a config may hold megabytes
_MOST_LICENSES: Final = 16

Volumes = Callable[[str], Mapping[int, Path]]
"""By a bundle's id, the files of its volumes by number; :meth:`bundler.volumes.Media.of`."""


@dataclass(frozen=True, slots=True)
class ModelClaim:
    """What a bundle says of one model.

    Attributes:
        bundled: Its name and manifest.
        blobs: All that it consists of, its manifest first.
        architecture: As the config says it; so the following. Empty where it says nothing.
        quantization: Such as ``Q4_1``.
        parameters: Such as ``135M``.
        licenses: Ids of its licences.
        attestations: What came for other tools: predicate types, or media types.
    """

    bundled: BundledModel
    blobs: tuple[Descriptor, ...]
    architecture: str
    quantization: str
    parameters: str
    licenses: tuple[str, ...]
    attestations: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all its blobs."""
        return sum(blob.size for blob in self.blobs)


@dataclass(frozen=True, slots=True)
class VolumeClaim:
    """One volume, as the descriptor has it.

    Attributes:
        number: From 1.
        parts: Runs of segments in it.
        size: Of its file, in bytes.
        path: Where it was found; None where it is not at hand.
        found: Bytes of that file.
    """

    number: int
    parts: int
    size: int
    path: Path | None
    found: int = 0


@dataclass(frozen=True, slots=True)
class Contents:
    """A bundle as it describes itself.

    Attributes:
        descriptor: What it holds.
        large: Its entries behind manifests and configs.
        models: In the descriptor's order.
        volumes: Empty where all lies in one file.
        withdrawn: What its publisher took back so far.
    """

    descriptor: BundleDescriptor
    large: tuple[Entry, ...]
    models: tuple[ModelClaim, ...]
    volumes: tuple[VolumeClaim, ...]
    withdrawn: tuple[Advisory, ...] = ()

    @property
    def stored_size(self) -> int:
        """Bytes of all that it carries, as it is stored."""
        return sum(entry.stored_size for entry in self.descriptor.contents)


@dataclass(frozen=True, slots=True)
class Inspected:
    """What ``bundle inspect`` tells.

    Attributes:
        contents: What the bundle says that it holds.
        claims: Whom it says it is from.
    """

    contents: Contents
    claims: Claims


def inspect_bundle(source: BinaryIO, volumes: Volumes) -> Inspected:
    """Read the front of a bundle without believing it.

    Args:
        source: The bundle or its head, opened unbuffered, at its start; a pipe will do.
        volumes: Finds the files of its volumes, as far as they are at hand.

    Raises:
        ContentError, OutsideClosure: It is no bundle, or contradicts itself.
        EnvironmentFault: It cannot be read.
    """
    with advice():
        front = read_front(source)
        claims = read_claims(front.trust_files)
        return Inspected(read_contents(front, volumes), claims)


def read_contents(front: Front, volumes: Volumes) -> Contents:
    """What lies behind the descriptor, as far as the large blobs; as :func:`inspect_bundle`."""
    descriptor = BundleDescriptor.from_bytes(front.descriptor_bytes)
    configs = Configs(descriptor)
    withdrawn = read_withdrawn(front.reader, claimed_withdrawn(front.trust_files))
    body = read_body(front.reader, descriptor, configs.take, lambda _: None, beside=lambda _: None)
    contents = describe(descriptor, body, configs, volumes)
    listed = None if withdrawn is None else WithdrawnList.parse(withdrawn)
    return replace(contents, withdrawn=() if listed is None else listed.entries)


def read_bom(front: Front) -> bytes:
    """The bundle's bill of materials as it claims it; empty where it has none."""
    descriptor = BundleDescriptor.from_bytes(front.descriptor_bytes)
    read_withdrawn(front.reader, claimed_withdrawn(front.trust_files))
    return read_body(front.reader, descriptor, lambda _: None, lambda _: None).bom


def describe(
    descriptor: BundleDescriptor, body: Read, configs: Configs, volumes: Volumes
) -> Contents:
    """Put together what was read.

    Raises:
        StorageFailure: A volume cannot be looked at.
    """
    models = []
    for model in descriptor.models:
        manifest = body.manifests[model.manifest.digest]
        blobs = (model.manifest, *manifest.blobs)
        about = configs.about(manifest.config.digest)
        attested = tuple(_attested(body.referrers[each.digest]) for each in model.referrers)
        models.append(ModelClaim(model, blobs, *about, attested))
    files = volumes(descriptor.id)
    claimed = (
        _volume(descriptor.id, number, parts, files.get(number))
        for number, parts in enumerate(descriptor.volumes, 1)
    )
    return Contents(descriptor, body.large, tuple(models), tuple(claimed))


def _attested(manifest: Manifest) -> str:
    said = predicate_type(manifest) or manifest.artifact_type or ""
    return said[:_MOST_CHARS]


class Read(Protocol):
    """What :class:`~bundler.reading.Body` and :class:`~bundler.head.Head` have in common."""

    @property
    def manifests(self) -> Mapping[Digest, Manifest]:
        """By digest."""

    @property
    def referrers(self) -> Mapping[Digest, Manifest]:
        """Of what other tools check, by digest."""

    @property
    def large(self) -> tuple[Entry, ...]:
        """The entries behind manifests and configs."""


class Configs:
    """Takes manifests and configs while they are read, and keeps what is shown of the latter."""

    def __init__(self, descriptor: BundleDescriptor) -> None:
        self._manifests = {model.manifest.digest for model in descriptor.models}
        self._about: dict[Digest, tuple[str, str, str, tuple[str, ...]]] = {}

    def take(self, data: bytes) -> None:
        """One of them, compared with its digest already."""
        digest = Digest.of(data)
        if digest in self._manifests:
            return
        document = documents.load(Kind.MODEL_CONFIG, data)
        config = document["config"]
        licenses = document["descriptor"].get("licenses", ())[:_MOST_LICENSES]
        self._about[digest] = (
            config.get("architecture", "")[:_MOST_CHARS],
            config.get("quantization", "")[:_MOST_CHARS],
            config.get("paramSize", "")[:_MOST_CHARS],
            tuple(license_[:_MOST_CHARS] for license_ in licenses),
        )

    def about(self, config: Digest) -> tuple[str, str, str, tuple[str, ...]]:
        """Architecture, quantisation, parameters and licences of a config."""
        return self._about.get(config, ("", "", "", ()))


def _volume(bundle: str, number: int, parts: tuple[Part, ...], path: Path | None) -> VolumeClaim:
    label = Label(bundle, number).to_bytes()
    size = layout.end_of_archive(layout.member_size(len(label)), (part.size for part in parts))
    if path is None:
        return VolumeClaim(number, len(parts), size, None)
    with storage_errors(f"cannot read {path}"):
        return VolumeClaim(number, len(parts), size, path, path.stat().st_size)


@dataclass(frozen=True, slots=True)
class Looked:
    """A bundle's contents, believed where this site can believe them.

    Attributes:
        contents: What it says that it holds.
        anchor: Name of the pinned publisher that it is from; None where nothing was verified.
        doubt: Why nothing was.
    """

    contents: Contents
    anchor: str | None
    doubt: str = ""


def look_into(
    catalogue: Catalogue | None,
    source: BinaryIO,
    volumes: Volumes,
    *,
    anchor: str | None,
    now: datetime,
) -> Looked:
    """Read a bundle's front, and settle trust if that is possible here.

    Args:
        catalogue: Of this site; None where there is no store.
        source: As for :func:`inspect_bundle`.
        volumes: Likewise.
        anchor: Name of the pinned root to use; None takes the one that fits.
        now: The clock.

    Raises:
        ContentError, OutsideClosure: It is no bundle, or contradicts itself.
        TrustError: The pinned root that was asked for does not vouch for it.
        EnvironmentFault: It cannot be read.
    """
    with advice():
        front = read_front(source)
        if catalogue is None:
            return Looked(read_contents(front, volumes), None, "there is no store here")
        try:
            trusted = trust_front(catalogue, front, anchor=anchor, now=now)
        except TrustError as error:
            if anchor is not None:
                raise
            doubt = f"{error.what}: {error.why}" if error.why else error.what
            return Looked(read_contents(front, volumes), None, doubt)
        configs = Configs(trusted.descriptor)
        head = trusted.read_rest(configs.take, beside=lambda _: None)
        contents = describe(trusted.descriptor, head, configs, volumes)
        return Looked(contents, trusted.trust.new_state.anchor)


def inspect_paths(paths: Sequence[Path]) -> Inspected:
    """See :func:`inspect_bundle`; the paths are as for :func:`bundler.isolated.import_paths`."""
    if is_pipe(paths):
        with standard_input() as pipe:
            return inspect_bundle(pipe, lambda _: {})
    media = look(paths)
    head, _ = find_bundle(media)
    with open_regular(head) as source:
        return inspect_bundle(source, media.of)
