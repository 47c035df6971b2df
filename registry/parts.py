"""What the layers of a model are for, in both forms that this store serves.

A CNCF ModelPack manifest names files: what a Modelfile sets stands in small files of their own
under ``modelfile/``. Ollama's manifests have a media type for each. The blobs are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final

from registry import oci
from registry.modelpack import file_layer
from registry.oci import Descriptor


class Part(Enum):
    """What a layer holds; the values are the last words of Ollama's media types."""

    MODEL = "model"
    PROJECTOR = "projector"
    ADAPTER = "adapter"
    TEMPLATE = "template"
    SYSTEM = "system"
    PARAMETERS = "params"  # JSON object
    MESSAGES = "messages"  # JSON array
    LICENSE = "license"  # may come more than once


FOLDER: Final = "modelfile/"
_FILES: Final = {
    Part.TEMPLATE: f"{FOLDER}template.jinja",
    Part.SYSTEM: f"{FOLDER}system.txt",
    Part.PARAMETERS: f"{FOLDER}params.json",
    Part.MESSAGES: f"{FOLDER}messages.json",
}
_PARTS: Final = {path: part for part, path in _FILES.items()}
_LICENSE: Final = f"{FOLDER}license"
_SUFFIXES: Final = {part.value: part for part in Part}


def part_of(layer: Descriptor) -> Part | None:
    """What a layer is for; None for a file that the runtime has no use for."""
    if layer.media_type.startswith(oci.OLLAMA_LAYER):
        return _SUFFIXES.get(layer.media_type.removeprefix(oci.OLLAMA_LAYER))
    if layer.media_type == oci.WEIGHT_RAW:
        return Part.MODEL
    if layer.media_type not in (oci.WEIGHT_CONFIG_RAW, oci.DOC_RAW):
        return None
    path = layer.annotations.get(oci.FILEPATH, "")
    return Part.LICENSE if path.startswith(_LICENSE) else _PARTS.get(path)


def layers_of(layers: Iterable[Descriptor], part: Part) -> list[Descriptor]:
    """The layers that hold one part, in order."""
    return [layer for layer in layers if part_of(layer) is part]


def part_layer(part: Part, data: bytes, number: int = 1) -> Descriptor:
    """A ModelPack layer for a setting.

    Args:
        part: One of those under ``modelfile/``.
        data: Its bytes.
        number: Of a licence: from 1.
    """
    if part is Part.LICENSE:
        name = f"{_LICENSE}.txt" if number == 1 else f"{_LICENSE}-{number}.txt"
        return file_layer(oci.DOC_RAW, data, name)
    return file_layer(oci.WEIGHT_CONFIG_RAW, data, _FILES[part])
