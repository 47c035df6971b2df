"""LoRA adapters for the small text model of :mod:`tests.support.vision`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.support.vision import WIDTH

RANK = 4
INNER = 96


def write_adapter(
    path: Path, *, architecture: str = "llama", width: int = WIDTH, **changes: Any
) -> Path:
    """Write an adapter that changes much.

    Args:
        path: Where.
        architecture: Of the models that it is for.
        width: Of them.
        changes: ``type``, ``kind``, ``alpha`` instead of the right ones; ``names`` of the tensors.
    """
    rng = np.random.default_rng(7)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(changes.get("type", "adapter"))
    writer.add_string("adapter.type", changes.get("kind", "lora"))
    alpha = changes.get("alpha", 8.0)
    if isinstance(alpha, float):
        writer.add_float32("adapter.lora.alpha", alpha)
    else:
        writer.add_uint32("adapter.lora.alpha", alpha)
    for key in changes.get("keys", ()):
        writer.add_array(key, [1, 2])
    for block in range(2):
        for name in changes.get("names", ("ffn_down.weight",)):
            low = rng.normal(0, 1, (RANK, INNER)).astype(np.float32)
            high = rng.normal(0, 1, (width, changes.get("rank", RANK))).astype(np.float32)
            writer.add_tensor(f"blk.{block}.{name}.lora_a", low)
            if "lone" not in changes:
                writer.add_tensor(f"blk.{block}.{name}.lora_b", high)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
