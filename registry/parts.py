"""What the layers of a model are for, in both forms that this store serves.

A CNCF ModelPack manifest names files: what a Modelfile sets stands in small files of their own
under ``modelfile/``. Ollama's manifests have a media type for each. The blobs are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final

from registry import oci
from registry.gotemplate import is_go
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
ADAPTER_FILE: Final = f"{FOLDER}adapter.gguf"
_GO_TEMPLATE: Final = f"{FOLDER}template.gotmpl"
_PARTS: Final = {path: part for part, path in _FILES.items()} | {_GO_TEMPLATE: Part.TEMPLATE}
_LICENSE: Final = f"{FOLDER}license"
_SUFFIXES: Final = {part.value: part for part in Part}


def part_of(layer: Descriptor) -> Part | None:
    """What a layer is for; None for a file that the runtime has no use for."""
    if layer.media_type.startswith(oci.OLLAMA_LAYER):
        return _SUFFIXES.get(layer.media_type.removeprefix(oci.OLLAMA_LAYER))
    if layer.media_type == oci.WEIGHT_RAW:
        own = layer.annotations.get(oci.FILEPATH) == ADAPTER_FILE
        return Part.ADAPTER if own else Part.MODEL
    if layer.media_type not in (oci.WEIGHT_CONFIG_RAW, oci.DOC_RAW):
        return None
    path = layer.annotations.get(oci.FILEPATH, "")
    return Part.LICENSE if path.startswith(_LICENSE) else _PARTS.get(path)


def layers_of(layers: Iterable[Descriptor], part: Part) -> list[Descriptor]:
    """The layers that hold one part, in order."""
    return [layer for layer in layers if part_of(layer) is part]


def weights_of(
    layers: Iterable[Descriptor], facts: Mapping[str, Any]
) -> tuple[Descriptor, Descriptor | None] | None:
    """The weights that a worker loads, and the projector beside them, if there is one.

    Args:
        layers: Of a model.
        facts: What is known of it: which of its weight files is a projector stands there.

    Returns:
        None where there is not one file of each kind at most.
    """
    found = weight_layers(layers)
    projector = None
    known = facts.get("projector")
    number = known.get("file") if isinstance(known, dict) else None
    if isinstance(number, int) and 0 <= number < len(found):
        projector = found.pop(number)
    return (found[0], projector) if len(found) == 1 else None


def weight_layers(layers: Iterable[Descriptor]) -> list[Descriptor]:
    """The layers that an engine could load: models, then what an Ollama manifest calls projectors.

    A ModelPack manifest tells no difference; the files do.
    """
    layers = list(layers)
    return [*layers_of(layers, Part.MODEL), *layers_of(layers, Part.PROJECTOR)]


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
    go = part is Part.TEMPLATE and is_go(data.decode("utf-8", "replace"))
    return file_layer(oci.WEIGHT_CONFIG_RAW, data, _GO_TEMPLATE if go else _FILES[part])
