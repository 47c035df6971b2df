"""Projectors (mmproj): files that make embeddings of pictures for a model that lies beside them.

The engine (llama.cpp, ``tools/mtmd/clip.cpp``) divides by what such a header says, and takes memory
by it. So the measures are checked here:

1. ``general.architecture`` is ``clip``, and ``clip.has_vision_encoder`` is true.
2. The projector's type is a short printable string.
3. Measures of the vision encoder are UINT32 and within bounds; heads divide the width, unless
   their own is given.
4. Mean and deviation of pixels are arrays of at least three FLOAT32.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Final

from registry.gguf.tables import ValueType
from registry.gguf.types import GGUFArray, GGUFHeader
from registry.gguf.window import refuse
from schemas import limits

ARCHITECTURE: Final = "clip"
_VISION: Final = "clip.vision."
_TYPE_CHARS: Final = frozenset(string.ascii_lowercase + string.digits + "_-.")
_TYPE_LENGTH: Final = 40
# What must be there, and at most how large it is.
_MEASURES: Final = {
    "image_size": limits.PROJECTOR_SIDE,
    "patch_size": limits.PROJECTOR_SIDE,
    "embedding_length": limits.PROJECTOR_WIDTH,
    "attention.head_count": limits.PROJECTOR_WIDTH,
    "block_count": limits.MODEL_LAYERS,
}
_OTHERS: Final = ("feed_forward_length", "projection_dim")  # of some kinds 0


@dataclass(frozen=True, slots=True)
class ProjectorFacts:
    """A projector in a few words.

    Attributes:
        kind: As the engine calls it (``mlp``, ``gemma3``, ``qwen2vl_merger`` …).
        parameters: Elements of all tensors.
        file: Which of the model's weight files it is, from 0.
    """

    kind: str
    parameters: int
    file: int = 0


def is_projector(header: GGUFHeader) -> bool:
    """Whether a header is that of a projector, good or bad."""
    return header.text("general.architecture") == ARCHITECTURE


def check_projector(header: GGUFHeader) -> None:
    """Run checks 1 to 4.

    Raises:
        MalformedModel: One of them failed.
    """
    if header.metadata.get("clip.has_vision_encoder") is not True:
        raise refuse("it is a projector, but not for images")
    kind = _kind(header)
    if not 0 < len(kind) <= _TYPE_LENGTH or not _TYPE_CHARS.issuperset(kind):
        raise refuse("the projector does not say of which type it is")
    for name, most in _MEASURES.items():
        found = _measure(header, name)
        if not 0 < found <= most:
            raise refuse(f"{_VISION}{name} is {found}; 1 to {most} make sense")
    for name in _OTHERS:
        if _measure(header, name) > limits.PROJECTOR_WIDTH:
            raise refuse(f"{_VISION}{name} is over {limits.PROJECTOR_WIDTH}")
    if _measure(header, "patch_size") > _measure(header, "image_size"):
        raise refuse("the projector's patches are larger than its images")
    heads, own = _measure(header, "attention.head_count"), _measure(header, "attention.head_dim")
    if not own and _measure(header, "embedding_length") % heads:
        raise refuse("the projector's heads do not divide its width")
    for name in ("image_mean", "image_std"):
        value = header.metadata.get(_VISION + name)
        if not isinstance(value, GGUFArray) or value.type is not ValueType.FLOAT32:
            raise refuse(f"{_VISION}{name} is not an array of FLOAT32")
        if value.count < 3:
            raise refuse(f"{_VISION}{name} has {value.count} items, not 3")


def projector_facts(header: GGUFHeader) -> ProjectorFacts:
    """Gather the facts of a projector."""
    return ProjectorFacts(_kind(header), header.parameter_count)


def projector_bytes(header: GGUFHeader) -> int:
    """Main memory that a projector takes: weights, the buffers of a picture, the picture itself.

    Where the resolution follows the picture, the largest take up to ten times what ``image_size``
    says.
    """
    weights = sum(tensor.size_bytes for tensor in header.tensors)
    patches = (_measure(header, "image_size") // _measure(header, "patch_size")) ** 2
    width, inner = _measure(header, "embedding_length"), _measure(header, "feed_forward_length")
    buffers = patches * (_STREAMS * width + 2 * inner) * _FLOAT
    times = _LARGEST if _kind(header).startswith(_DYNAMIC) else _TILES
    return weights + times * buffers + _DECODED * limits.IMAGE_PIXELS


_FLOAT: Final = 4
_STREAMS: Final = 8  # hidden states that live at one time
_TILES: Final = 2
_LARGEST: Final = 10
_DYNAMIC: Final = (
    *("qwen", "pixtral", "lightonocr", "kimi", "glm4v", "glm5v", "mimovl", "dots", "paddleocr"),
    *("youtuvl", "hunyuan", "exaone", "minimax", "step3", "ling3", "lfm2", "gemma4", "muse"),
)
_DECODED: Final = 6  # bytes per pixel: three colours, once for the decoder and once copied


def _kind(header: GGUFHeader) -> str:
    return header.text("clip.projector_type") or header.text("clip.vision.projector_type") or ""


def _measure(header: GGUFHeader, name: str) -> int:
    key = _VISION + name
    if key not in header.types:
        return 0
    if header.types[key] is not ValueType.UINT32:
        raise refuse(f"{key} is {header.types[key].name}, not UINT32")
    return header.integer(key) or 0
