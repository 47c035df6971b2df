"""A bundle put together by hand, and what may be done to it on its way.

Written against design and formats (POSIX ustar, OCI, the descriptor's schema), not with
``bundler.archive`` or ``bundler.descriptor``, so that a mistake there is not repeated here. Two kinds
of attacker: one who holds the publisher's keys edits documents before they are signed (:func:`forge`),
one who holds only the stick edits the members or bytes of a bundle that somebody else signed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tests.gguf_files import Pieces
from tests.support.publisher_simulator import DESCRIPTOR, Simulator

Edit = Callable[[Any], object]

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
MODEL: Final = "application/vnd.cncf.model.manifest.v1+json"
CONFIG: Final = "application/vnd.cncf.model.config.v1+json"
WEIGHT: Final = "application/vnd.cncf.model.weight.v1.raw"
DOC: Final = "application/vnd.cncf.model.doc.v1.raw"
LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
WEIGHTS: Final = Pieces().build()
BLOCK: Final = 512


def untouched(document: Any) -> None:
    """The edit that changes nothing."""


# -- tar ------------------------------------------------------------------------------------------


def ustar(
    name: bytes | str, size: int = 0, *, kind: bytes = b"0", **fields: bytes | int | str
) -> bytes:
    """One header block (POSIX.1-2017 pax, "ustar Interchange Format") with a right checksum.

    Args:
        name: At most 100 bytes.
        size: In octal, unless ``fields`` has ``size_field``.
        kind: The type flag.
        fields: Other fields, as they shall stand there: ``mode``, ``uid``, ``gid``, ``mtime`` as
            numbers; ``link``, ``user``, ``group``, ``prefix``, ``magic``, ``size_field``, ``tail``.
    """

    def octal(key: str, width: int, default: int = 0) -> bytes:
        return b"%0*o\0" % (width - 1, int(fields.get(key, default)))

    def text(key: str, width: int) -> bytes:
        return _raw(fields.get(key, b"")).ljust(width, b"\0")

    block = b"".join(
        (
            _raw(name).ljust(100, b"\0"),
            octal("mode", 8, 0o644),
            octal("uid", 8),
            octal("gid", 8),
            _raw(fields.get("size_field", b"%011o\0" % size)),
            octal("mtime", 12),
            b" " * 8,
            kind,
            text("link", 100),
            _raw(fields.get("magic", b"ustar\x0000")),
            text("user", 32),
            text("group", 32),
            octal("devmajor", 8),
            octal("devminor", 8),
            text("prefix", 155),
            text("tail", 12),
        )
    )
    if len(block) != BLOCK:
        raise ValueError(f"{len(block)} bytes make no header")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def header(name: str, size: int) -> bytes:
    """A regular file's header as a bundle has it: with a pax record for the size from 8 GiB on."""
    if size < 8**11:
        return ustar(name, size)
    record = f" size={size}\n"
    length = len(record) + 2  # of all such records: 10 to 99 characters
    data = f"{length}{record}".encode()
    return ustar("././@PaxHeader", length, kind=b"x") + data.ljust(BLOCK, b"\0") + ustar(name)


def _raw(value: bytes | int | str) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@dataclass(frozen=True)
class Member:
    """One member: header as it stands there, data, and what fills the last block."""

    name: str
    data: bytes
    header: bytes
    filling: bytes

    @classmethod
    def of(cls, name: str, data: bytes = b"", **fields: Any) -> Member:
        """A regular file, unless ``fields`` (see :func:`ustar`) say otherwise."""
        return cls(name, data, ustar(name, len(data), **fields), bytes(-len(data) % BLOCK))

    @property
    def raw(self) -> bytes:
        return self.header + self.data + self.filling

    def with_data(self, data: bytes) -> Member:
        """The same with other data, the header's size following."""
        return Member.of(self.name, data)

    def with_header(self, **fields: Any) -> Member:
        """The same with header fields set; ``name`` and ``size`` too."""
        name = fields.pop("name", self.name)
        size = fields.pop("size", len(self.data))
        return replace(self, header=ustar(name, size, **fields))


def tar(members: Sequence[Member]) -> bytes:
    """An archive in tar's default blocking: two zero blocks, then zeros to 10,240 bytes."""
    body = b"".join(member.raw for member in members) + bytes(2 * BLOCK)
    return body + bytes(-len(body) % (20 * BLOCK))


def members(bundle: bytes) -> list[Member]:
    """Take an archive apart again."""
    found, at = [], 0
    while (header := bundle[at : at + BLOCK]).strip(b"\0"):
        size = int(header[124:135], 8)
        data = bundle[at + BLOCK : at + BLOCK + size]
        filling = bundle[at + BLOCK + size :][: -size % BLOCK]
        found.append(Member(header[:100].rstrip(b"\0").decode(), data, header, filling))
        at += BLOCK + size + len(filling)
    return found


def boundaries(bundle: bytes) -> list[int]:
    """Where members, their data and their filling begin and end, the end mark's included."""
    places, at = [0], 0
    for member in members(bundle):
        for part in (member.header, member.data, member.filling):
            at += len(part)
            places.append(at)
    return sorted({*places, at + BLOCK, at + 2 * BLOCK, len(bundle)})


# -- documents ------------------------------------------------------------------------------------


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def blob_name(name: str) -> str:
    return "blobs/" + name.replace(":", "/")


def dump(document: object) -> bytes:
    """Canonical: sorted keys, no spaces."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def describe(media_type: str, data: bytes, **annotations: str) -> dict[str, Any]:
    """An OCI descriptor."""
    found: dict[str, Any] = {"mediaType": media_type, "digest": digest(data), "size": len(data)}
    return {**found, "annotations": annotations} if annotations else found


@dataclass(frozen=True)
class Artifact:
    """Something that refers to a model.

    Attributes:
        data: Its manifest.
        described: The descriptor of that, as the model's entry has it.
        document: The manifest, parsed.
        blobs: Config and layer.
    """

    data: bytes
    described: dict[str, Any]
    document: dict[str, Any]
    blobs: tuple[bytes, ...]


@dataclass(frozen=True)
class Forgery:
    """A model whose documents are edited before they are signed.

    Attributes:
        name: Its reference.
        weights: The model file.
        file: The model file's name.
        config: Edits the config document.
        manifest: Edits the manifest document.
        manifest_bytes: Edits the manifest's bytes.
        entry: Edits the model's entry in the descriptor.
        custom: Edits what the publisher's role signs beside the manifest's hash.
        role: Who signs.
        referrers: Make what refers to it, out of the model and its manifest's bytes.
    """

    name: str = "library/tiny:1"
    weights: bytes = WEIGHTS
    file: str = "tiny.gguf"
    config: Edit = untouched
    manifest: Edit = untouched
    manifest_bytes: Callable[[bytes], bytes] = field(default=lambda data: data)
    entry: Edit = untouched
    custom: Edit = untouched
    role: str = ""
    referrers: Sequence[Callable[[Forgery, bytes], Artifact]] = ()

    @property
    def target(self) -> str:
        return f"models/{self.name.replace(':', '/')}/manifest.json"

    @property
    def signer(self) -> str:
        return self.role or f"publisher-{self.name.partition('/')[0]}"

    def config_bytes(self) -> bytes:
        document = {
            "descriptor": {"name": "Tiny", "family": "llama"},
            "config": {"architecture": "llama", "format": "gguf"},
            "modelfs": {"type": "layers", "diffIds": [digest(self.weights)]},
        }
        self.config(document)
        return dump(document)

    def manifest_document(self) -> dict[str, Any]:
        title = {
            "org.cncf.model.filepath": self.file,
            "org.opencontainers.image.title": self.file,
        }
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": MODEL,
            "config": describe(CONFIG, self.config_bytes()),
            "layers": [describe(WEIGHT, self.weights, **title)],
        }
        self.manifest(document)
        return document


def forge(
    simulator: Simulator,
    *models: Forgery,
    descriptor: Edit = untouched,
    descriptor_bytes: Callable[[bytes], bytes] = lambda data: data,
    index: Edit = untouched,
    blobs: Mapping[str, bytes] | None = None,
    sequence: int = 1,
) -> bytes:
    """Sign a bundle with real keys and write it, whatever the edits made of it.

    Args:
        simulator: The publisher. Its metadata are issued at the versions that it has.
        models: At least :class:`Forgery` as it is, if none are given.
        descriptor: Edits the bundle descriptor, contents table included.
        descriptor_bytes: Edits its bytes.
        index: Edits ``index.json``.
        blobs: More blobs that edits may name, by digest.
        sequence: The bundle's.

    Returns:
        The archive. A blob of the contents table that nobody knows is left out.
    """
    wanted = models or (Forgery(),)
    known = dict(blobs or {})
    manifests = []
    for model in wanted:
        document = model.manifest_document()
        data = model.manifest_bytes(dump(document))
        for blob in (data, model.config_bytes(), model.weights):
            known[digest(blob)] = blob
        attached = [make(model, data) for make in model.referrers]
        for artifact in attached:
            known |= {digest(blob): blob for blob in (artifact.data, *artifact.blobs)}
        manifests.append((model, document, data, attached))
        _sign(simulator, model, document, data)
    table = _descriptor(simulator, manifests, sequence)
    descriptor(table)
    table_bytes = descriptor_bytes(dump(table))
    simulator.add_target("bundle", DESCRIPTOR, table_bytes)
    return tar(
        [
            Member.of("oci-layout", LAYOUT),
            *(Member.of(f"sealift/trust/{n}", d) for n, d in simulator.issue().items()),
            Member.of("sealift/bundle.json", table_bytes),
            *_withdrawn(simulator),
            Member.of("index.json", _index(table, index)),
            *_blobs(table, known),
        ]
    )


def _withdrawn(simulator: Simulator) -> list[Member]:
    data = simulator.withdrawn
    return [] if data is None else [Member.of("sealift/withdrawn.json", data)]


def _sign(simulator: Simulator, model: Forgery, document: dict[str, Any], data: bytes) -> None:
    parts = [p for p in (document.get("config"), *document.get("layers", ())) if p]
    sizes = {part["digest"]: part["size"] for part in parts}
    custom: dict[str, object] = {
        "mediaType": MANIFEST,
        "artifactType": MODEL,
        "licence": "",
        "seq": 1,
        "blob_count": len(sizes),
        "closure_bytes": len(data) + sum(sizes.values()),
    }
    model.custom(custom)
    simulator.add_target(model.signer, model.target, data, custom)


def _descriptor(
    simulator: Simulator,
    manifests: Sequence[tuple[Forgery, dict[str, Any], bytes, list[Artifact]]],
    sequence: int,
) -> dict[str, Any]:
    entries: list[dict[str, Any]] = []
    for model, _, data, attached in manifests:
        entry: dict[str, Any] = {
            "name": model.name,
            "target": model.target,
            "manifest": describe(MANIFEST, data),
        }
        if attached:
            entry["referrers"] = [artifact.described for artifact in attached]
        model.entry(entry)
        entries.append(entry)
    documents = [document for _, document, _, _ in manifests]
    artifacts = [artifact for *_, attached in manifests for artifact in attached]
    order = [
        *(entry["manifest"] for entry in entries),
        *(artifact.described for artifact in artifacts),
        *(document["config"] for document in documents if "config" in document),
        *(blob for a in artifacts for blob in (a.document["config"], *a.document["layers"])),
        *(layer for document in documents for layer in document.get("layers", ())),
    ]
    contents = {
        item["digest"]: {
            "digest": item["digest"],
            "size": item["size"],
            "encoding": "identity",
        }
        for item in order
    }
    return {
        "schemaVersion": 1,
        "id": hashlib.sha256(dump(entries)).hexdigest()[:32],
        "sequence": sequence,
        "issuedAt": f"{simulator.now:%Y-%m-%dT%H:%M:%SZ}",
        "publisher": "simulated",
        "tool": {"name": "simulator", "version": "1"},
        "models": entries,
        "contents": list(contents.values()),
        "requires": [],
        "volumes": [],
    }


def _index(table: Mapping[str, Any], edit: Edit) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [
            {
                **model["manifest"],
                "artifactType": MODEL,
                "annotations": {"org.opencontainers.image.ref.name": model["name"]},
            }
            for model in table.get("models", ())
        ],
    }
    edit(document)
    return dump(document)


def _blobs(table: Mapping[str, Any], known: Mapping[str, bytes]) -> list[Member]:
    found = []
    for item in table.get("contents", ()):
        data = known.get(item["digest"])
        if data is not None:
            member = Member.of(blob_name(item["digest"])[:100], data)
            size = item["size"]
            if isinstance(size, int) and 0 <= size < 2**64:
                member = replace(member, header=header(member.name, size))
            found.append(member)
    return found


def twin(simulator: Simulator) -> Simulator:
    """The same keys and the same state, so that an attack leaves the fixture's publisher alone."""
    other = copy(simulator)
    other.keys = dict(simulator.keys)
    other.roots = list(simulator.roots)
    other.signed = deepcopy(simulator.signed)
    other.encode = dict(simulator.encode)
    other.root = deepcopy(simulator.root)
    return other
