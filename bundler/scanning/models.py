"""A whole model: its weights, and every file beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import BinaryIO

from bundler.files import open_regular
from bundler.scanning.files import scan_file
from bundler.scanning.findings import Finding, bounded
from bundler.scanning.header import scan_header
from bundler.sources import FoundModel
from registry import gguf, oci
from registry.oci import Descriptor
from registry.reference import Reference

_GGUF = b"GGUF"


def scan_layer(source: BinaryIO, size: int, name: str) -> tuple[Finding, ...]:
    """Say what is unusual about one file of a model.

    Args:
        source: Seekable, stands anywhere; of a very large file that is no GGUF, its start will do.
        size: Bytes of the whole file.
        name: For the findings, and for what its ending says.

    Raises:
        MalformedModel: It is a GGUF that may not reach an engine.
        StorageFailure: It cannot be read.
    """
    source.seek(0)
    magic = source.read(len(_GGUF))
    source.seek(0)
    if magic == _GGUF:
        return scan_header(gguf.read_header(source, size))
    return scan_file(source, size, name)


def layer_name(layer: Descriptor) -> str:
    """What a layer's file is called."""
    return layer.annotations.get(oci.FILEPATH) or layer.digest.short


def scan_sources(models: Iterable[FoundModel]) -> dict[Reference, tuple[Finding, ...]]:
    """Scan models that are to be bundled.

    Raises:
        MalformedModel, NotFound, StorageFailure: A file cannot be read, or never should be.
    """
    found: dict[Reference, tuple[Finding, ...]] = {}
    for model in models:
        each: list[Finding] = []
        for item in model.files:
            with open_regular(item.path) as file:
                each += scan_layer(file, item.size, item.name)
        found[model.reference] = bounded(each)
    return found


def lines(found: Mapping[Reference, Iterable[Finding]]) -> list[str]:
    """For people: one line per finding, with the model's name."""
    return [f"{name.shortest}: {each.line()}" for name, some in found.items() for each in some]
