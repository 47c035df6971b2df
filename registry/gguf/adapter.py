"""Adapters (LoRA): files that change what the weights of a model beside them do.

The engine (llama.cpp, ``src/llama-adapter.cpp``) compares shapes with those of the model, and ends
the process over a value of the wrong type. So, before it may see one:

1. ``general.type`` is ``adapter``, ``adapter.type`` is ``lora``, and the architecture is known.
2. ``adapter.lora.alpha`` is a finite FLOAT32.
3. Tensors are pairs of matrices, ``….lora_a`` and ``….lora_b``, that can be multiplied. Those of
   experts are refused: the engine does not compare how many there are.
"""

from __future__ import annotations

import math
from typing import Final

from registry.gguf.tables import ARCHITECTURES, ValueType
from registry.gguf.types import GGUFHeader
from registry.gguf.window import refuse

_ALPHA: Final = "adapter.lora.alpha"
_HALVES: Final = (".lora_a", ".lora_b")
_EXPERTS: Final = "_exps"


def check_adapter(header: GGUFHeader) -> None:
    """Run checks 1 to 3.

    Raises:
        MalformedModel: One of them failed.
    """
    if header.text("general.type") != "adapter":
        raise refuse("it is no adapter (LoRA)", "Convert it with llama.cpp's convert_lora_to_gguf")
    if header.text("adapter.type") != "lora":
        raise refuse("it is an adapter, but no LoRA")
    if header.text("general.architecture") not in ARCHITECTURES:
        raise refuse("the engine does not know the adapter's architecture")
    if any(key.startswith("adapter.alora.") for key in header.metadata):
        raise refuse("it is an adapter that some words switch on (aLoRA), which is not supported")
    alpha = header.metadata.get(_ALPHA)
    typed = header.types.get(_ALPHA) is ValueType.FLOAT32
    if not typed or not isinstance(alpha, float) or not math.isfinite(alpha):
        raise refuse(f"{_ALPHA} is not a finite FLOAT32")
    _check_pairs(header)


def _check_pairs(header: GGUFHeader) -> None:
    found = {tensor.name: tensor.dims for tensor in header.tensors}
    if not found:
        raise refuse("the adapter has no tensors")
    for name, dims in found.items():
        half = name[-len(_HALVES[0]) :]
        if half not in _HALVES or len(dims) != 2 or _EXPERTS in name:
            raise refuse(f"tensor {name[:80]!r} is none that an adapter for this engine has")
        other = found.get(name.removesuffix(half) + _HALVES[half == _HALVES[0]])
        if other is None:
            raise refuse(f"tensor {name[:80]!r} has no other half")
        if half == _HALVES[0] and dims[1] != other[0]:
            raise refuse(f"tensor {name[:80]!r} does not fit its other half")
