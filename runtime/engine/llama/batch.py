"""Rows of tokens to decode."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
import numpy.typing as npt


class Batch:
    """A ``llama_batch`` on NumPy arrays of our own, so that rows are filled by slices."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.token = np.zeros(rows, dtype=np.int32)
        self.position = np.zeros(rows, dtype=np.int32)
        self.sequence = np.zeros(rows, dtype=np.int32)
        self.wanted = np.zeros(rows, dtype=np.int8)
        self._counts = np.ones(rows, dtype=np.int32)
        self._pointers = self.sequence.ctypes.data + 4 * np.arange(rows, dtype=np.uintp)
        self._whole = self._view(0, rows)

    def view(self, start: int, end: int) -> Any:
        """Rows ``start`` to ``end`` as llama.cpp takes them; good until the next call."""
        if start:
            return self._view(start, end)
        self._whole.n_tokens = end
        return self._whole

    def _view(self, start: int, end: int) -> Any:
        def at(array: npt.NDArray[Any], kind: Any) -> Any:
            return ctypes.cast(array.ctypes.data + start * array.itemsize, ctypes.POINTER(kind))

        return lib.llama_batch(
            n_tokens=end - start,
            token=at(self.token, ctypes.c_int32),
            embd=None,
            pos=at(self.position, ctypes.c_int32),
            n_seq_id=at(self._counts, ctypes.c_int32),
            seq_id=at(self._pointers, ctypes.POINTER(ctypes.c_int32)),
            logits=at(self.wanted, ctypes.c_int8),
        )
