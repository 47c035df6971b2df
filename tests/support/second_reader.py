"""A second reader of bundles, from docs/bundle-format.md alone: nothing of ours is imported.

It believes everything (§4 is left out) and shows that the rest of the document is enough.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

BLOCK = 512
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
SUFFIX = {
    "identity": "",
    "zstd": ".zst",
    "zstd-planes2": ".zp2",
    "zstd-planes4": ".zp4",
    "delta": ".delta",
}
LITERALS = {0: "identity", 1: "zstd", 2: "zstd-planes2", 4: "zstd-planes4"}


def header(name: str, size: int) -> bytes:
    """§2."""
    block = name.encode().ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2
    block += b"%011o\0" % size + b"00000000000\0" + b" " * 8 + b"0" + bytes(100)
    block += b"ustar\x0000" + bytes(64) + b"0000000\0" * 2 + bytes(167)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


class Tar:
    """Reads members that are predicted."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.position = 0

    def take(self, count: int) -> bytes:
        data = self.file.read(count)
        assert len(data) == count
        self.position += count
        return data

    def member(self, name: str, size: int) -> bytes:
        assert self.take(BLOCK) == header(name, size)
        data = self.take(size)
        assert not any(self.take(-size % BLOCK))
        return data

    def unknown(self) -> tuple[str, bytes]:
        """A member of §3 whose size cannot be known."""
        block = self.take(BLOCK)
        name = block[:100].rstrip(b"\0").decode()
        size = int(block[124:135], 8)
        assert block == header(name, size)
        data = self.take(size)
        assert not any(self.take(-size % BLOCK))
        return name, data

    def end(self) -> None:
        rest = self.file.read()
        assert len(rest) >= 2 * BLOCK
        assert not any(rest)
        assert (self.position + len(rest)) % 10240 == 0


def read_bundle(
    path: Path, held: Mapping[str, bytes] | None = None
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The descriptor, and every blob by its digest; of ``held`` the far side has copies."""
    with path.open("rb") as file:
        tar = Tar(file)
        assert tar.member("oci-layout", len(LAYOUT)) == LAYOUT
        withdrawn: dict[str, Any] | None = None
        while True:
            name, data = tar.unknown()
            if name == "sealift/bundle.json":
                break
            if name.endswith(".advisories.json"):
                withdrawn = json.loads(data)["signed"]["targets"].get("advisories/withdrawn.json")
            assert re.fullmatch(r"sealift/trust/([0-9]+\.)?[a-z0-9-]+\.json", name)
        descriptor = json.loads(data)
        if withdrawn is not None:
            data = tar.member("sealift/withdrawn.json", withdrawn["length"])
            assert withdrawn["hashes"]["sha256"] == hashlib.sha256(data).hexdigest()
        index = _index(descriptor)
        assert tar.member("index.json", len(index)) == index
        if bom := descriptor.get("bom"):
            data = tar.member("sealift/bom.cdx.json", bom["size"])
            assert bom["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
        stored = dict(_small(tar, descriptor))
        if not descriptor["volumes"]:
            for entry in descriptor["contents"][len(stored) :]:
                size = sum(segment["size"] for segment in _segments(entry))
                stored[entry["digest"]] = tar.member(_name(entry), size)
        tar.end()
    for number, volume in enumerate(descriptor["volumes"], 1):
        _read_volume(path, descriptor, number, volume["parts"], stored)
    return descriptor, {
        e["digest"]: _decode(e, stored[e["digest"]], held or {}) for e in descriptor["contents"]
    }


def _index(descriptor: dict[str, Any]) -> bytes:
    """§6."""
    manifests = [
        {
            **model["manifest"],
            "artifactType": "application/vnd.cncf.model.manifest.v1+json",
            "annotations": {"org.opencontainers.image.ref.name": model["name"]},
        }
        for model in descriptor["models"]
    ]
    media_type = "application/vnd.oci.image.index.v1+json"
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _small(tar: Tar, descriptor: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Manifests, then what they name: of models the config, of referrers all."""
    models = descriptor["models"]
    manifests = {model["manifest"]["digest"]: model["manifest"] for model in models}
    referrers = {each["digest"]: model for model in models for each in model.get("referrers", ())}
    small: set[str] = set()
    for entry in descriptor["contents"]:
        if entry["digest"] not in manifests.keys() | referrers.keys() | small:
            return
        data = tar.member(_name(entry), entry["size"])
        if entry["digest"] in manifests:
            small.add(json.loads(data)["config"]["digest"])
        elif entry["digest"] in referrers:
            document = json.loads(data)
            subject = referrers[entry["digest"]]["manifest"]["digest"]
            assert document["subject"]["digest"] == subject
            small |= {each["digest"] for each in (document["config"], *document["layers"])}
        yield entry["digest"], data


def _read_volume(
    head: Path,
    descriptor: dict[str, Any],
    number: int,
    parts: list[list[int]],
    stored: dict[str, bytes],
) -> None:
    """§9."""
    label = {"bundle": descriptor["id"], "kind": "data", "number": number, "schemaVersion": 1}
    expected = json.dumps(label, separators=(",", ":")).encode()
    with head.with_name(f"{head.stem}.v{number:03}.tar").open("rb") as file:
        tar = Tar(file)
        assert tar.member("sealift/volume.json", len(expected)) == expected
        for which, first, count in parts:
            entry = descriptor["contents"][which]
            segments = _segments(entry)
            name = _name(entry)
            if count < len(segments):
                name = f"sealift/parts/{entry['digest'].removeprefix('sha256:')}.{first:06}"
            size = sum(segment["size"] for segment in segments[first : first + count])
            digest = entry["digest"]
            stored[digest] = stored.get(digest, b"") + tar.member(name, size)
        tar.end()


def _segments(entry: dict[str, Any]) -> list[dict[str, Any]]:
    whole = [{"size": entry["size"], "digest": entry["digest"]}]
    found: list[dict[str, Any]] = entry.get("segments", whole)
    return found


def _name(entry: dict[str, Any]) -> str:
    """§7."""
    plain = "blobs/" + entry["digest"].replace(":", "/")
    suffix = SUFFIX[entry["encoding"]]
    return f"sealift/{plain}{suffix}" if suffix else plain


def _decode(entry: dict[str, Any], stored: bytes, held: Mapping[str, bytes]) -> bytes:
    """§7."""
    segments = []
    position = 0
    for segment in _segments(entry):
        data = stored[position : position + segment["size"]]
        position += segment["size"]
        assert "sha256:" + hashlib.sha256(data).hexdigest() == segment["digest"]
        segments.append(data)
    if entry["encoding"] == "delta":
        blob = _rebuild(entry, segments, [held[base] for base in entry["bases"]])
    else:
        piece = entry.get("piece", entry["size"])
        blob = _join(entry["encoding"], segments, entry["size"], piece)
    assert len(blob) == entry["size"]
    assert "sha256:" + hashlib.sha256(blob).hexdigest() == entry["digest"]
    return blob


def _join(encoding: str, segments: list[bytes], size: int, piece: int) -> bytes:
    """§7."""
    blob = b""
    for data in segments:
        raw = data
        if encoding != "identity":
            expected = min(piece, size - len(blob))
            raw = zstandard.ZstdDecompressor().decompress(data, max_output_size=expected)
            assert len(raw) == expected
            raw = _merge(raw, {"zstd-planes2": 2, "zstd-planes4": 4}.get(encoding, 1))
        blob += raw
    return blob


def _rebuild(entry: dict[str, Any], segments: list[bytes], bases: list[bytes]) -> bytes:
    """§8."""
    recipe, *rest = segments
    magic, size, literal_size, count, encoding, zero, operations = struct.unpack_from(
        ">16sQQHBBI", recipe
    )
    assert (magic, zero) == (b"sealift recipe\0\1", 0)
    assert (size, count) == (entry["size"], len(bases))
    assert len(recipe) == 40 + 20 * operations
    literals = _join(LITERALS[encoding], rest, literal_size, 8 << 20)
    assert len(literals) == literal_size
    blob, position = b"", 0
    for base, offset, length in struct.iter_unpack(">IQQ", recipe[40:]):
        if base == 0:
            assert offset == 0
            blob += literals[position : position + length]
            position += length
        else:
            assert offset + length <= len(bases[base - 1])
            blob += bases[base - 1][offset : offset + length]
    assert position == literal_size
    return blob


def _merge(data: bytes, planes: int) -> bytes:
    each = len(data) // planes
    elements = zip(*(data[i * each : (i + 1) * each] for i in range(planes)), strict=True)
    return bytes(byte for element in elements for byte in element) + data[each * planes :]
