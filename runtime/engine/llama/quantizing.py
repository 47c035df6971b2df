"""Weights in fewer bits: a GGUF file in, another one out."""

from __future__ import annotations

import ctypes
from typing import Final

import llama_cpp.llama_cpp as lib

from runtime.engine.llama.log import LOG
from runtime.messages import QuantizeSpec
from schemas import limits
from schemas.errors import LoadFailed

_ROWS_BYTES: Final = 256 * limits.MIB  # of a tensor at a time; the engine's own bound is 8 GiB


def quantize(spec: QuantizeSpec, threads: int) -> None:
    """Write the target from the source.

    Raises:
        LoadFailed: The engine refuses the source, or cannot write the target.
    """
    LOG.clear()
    lib.llama_backend_init()
    parameters = lib.llama_model_quantize_default_params()
    parameters.ftype = spec.file_type
    parameters.nthread = threads
    parameters.max_buf_size = _ROWS_BYTES
    code = lib.llama_model_quantize(
        spec.source_path.encode(), spec.target_path.encode(), ctypes.byref(parameters)
    )
    if code:
        raise LoadFailed("the engine cannot quantize the model", why=LOG.why())
