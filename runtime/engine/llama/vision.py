"""Pictures through libmtmd: a projector beside the model, which makes embeddings of them.

Pictures are decoded by the library's own ``stb_image``, in this process, which can do nothing but
answer. Its helpers are not used for that: what they cannot decode they take for a film, and look
for a program to read it with.
"""

from __future__ import annotations

import base64
import ctypes
import weakref
from typing import Any, Final

import llama_cpp.llama_cpp as lib
import llama_cpp.mtmd_cpp as mtmd

from runtime.engine.llama.loading import Model, load_failed
from runtime.engine.llama.log import LOG
from runtime.engine.sight import Seen, check_png, names_of
from runtime.messages import Image
from schemas import limits
from schemas.errors import LoadFailed, UnsupportedRequest, UsageError

_TEXT: Final = 0  # mtmd.h, enum mtmd_input_chunk_type
_IMAGE: Final = 1
_COLOURS: Final = 3
_NO_CALLBACK: Final = mtmd.mtmd_helper_post_decode_callback()
_INT: Final = ctypes.POINTER(ctypes.c_int)
_load = mtmd._libmtmd.stbi_load_from_memory  # noqa: SLF001 - exported, without a binding
_load.argtypes = [ctypes.c_char_p, ctypes.c_int, _INT, _INT, _INT, ctypes.c_int]
_load.restype = ctypes.c_void_p
_measure = mtmd._libmtmd.stbi_info_from_memory  # noqa: SLF001
_measure.argtypes = [ctypes.c_char_p, ctypes.c_int, _INT, _INT, _INT]
_measure.restype = ctypes.c_int
_free = mtmd._libmtmd.stbi_image_free  # noqa: SLF001
_free.argtypes = [ctypes.c_void_p]
_free.restype = None
_reason = mtmd._libmtmd.stbi_failure_reason  # noqa: SLF001
_reason.argtypes = []
_reason.restype = ctypes.c_char_p


class Projector:
    """What looks at pictures for a model; a :class:`runtime.engine.sight.Eyes`.

    Args:
        model: Loaded.
        path: The projector's GGUF file.

    Raises:
        LoadFailed: The engine refuses it, or it does not fit the model.
    """

    def __init__(self, model: Model, path: str) -> None:
        mtmd.mtmd_helper_log_set(LOG.callback, ctypes.c_void_p(0))
        general = model.context_parameters()
        parameters = mtmd.mtmd_context_params_default()
        parameters.use_gpu = model.spec.num_gpu != 0
        parameters.print_timings = False
        parameters.n_threads = general.n_threads
        parameters.flash_attn_type = general.flash_attn_type
        self.pointer = mtmd.mtmd_init_from_file(path.encode(), model.pointer, parameters)
        if not self.pointer:
            raise load_failed("the engine refuses the model's projector")
        if not mtmd.mtmd_support_vision(self.pointer):
            self.close()
            raise LoadFailed("the model's projector is not for images")
        self._marker = mtmd.mtmd_get_marker(self.pointer)

    def close(self) -> None:
        """Free it."""
        if self.pointer:
            mtmd.mtmd_free(self.pointer)
        self.pointer = None

    def look(self, image: Image) -> list[list[int] | Seen]:
        """Decode a picture, and cut it as the model wants it.

        Raises:
            UsageError: It is damaged, or too large.
        """
        data = base64.b64decode(image.data)
        check_png(data)
        bitmap = _bitmap(data)
        chunks = mtmd.mtmd_input_chunks_init()
        owner = _Chunks(chunks)
        # The marker alone: of what a client wrote nothing comes near it.
        text = mtmd.mtmd_input_text(self._marker, len(self._marker), False, True)
        bitmaps = (ctypes.c_void_p * 1)(bitmap)
        try:
            code = mtmd.mtmd_tokenize(self.pointer, chunks, ctypes.byref(text), bitmaps, 1)
        finally:
            mtmd.mtmd_bitmap_free(bitmap)
        if code:
            raise UsageError("invalid image input", why="the model cannot take it")
        return [
            self._part(mtmd.mtmd_input_chunks_get(chunks, number), owner, data, number)
            for number in range(mtmd.mtmd_input_chunks_size(chunks))
        ]

    def _part(self, chunk: Any, owner: _Chunks, data: bytes, number: int) -> list[int] | Seen:
        kind = mtmd.mtmd_input_chunk_get_type(chunk)
        if kind == _TEXT:
            count = ctypes.c_size_t()
            tokens: Any = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
            return [int(token) for token in tokens[: count.value]]
        if kind != _IMAGE:
            raise UsageError("invalid image input", why="it is no picture")
        names = names_of(data, number, mtmd.mtmd_input_chunk_get_n_pos(chunk))
        rows = mtmd.mtmd_input_chunk_get_n_tokens(chunk)
        return Seen(names, rows, _Stretch(self, chunk, owner, rows))


class _Chunks:
    """Frees what ``mtmd_tokenize`` made, once nobody needs it any more."""

    def __init__(self, pointer: Any) -> None:
        weakref.finalize(self, mtmd.mtmd_input_chunks_free, pointer)


class _Stretch:
    """One stretch of a picture, to be encoded and decoded."""

    def __init__(self, projector: Projector, chunk: Any, owner: _Chunks, rows: int) -> None:
        self._projector = projector
        self._chunk = chunk
        self._owner = owner  # held: the chunk lies in it
        self._rows = rows

    def decode(
        self, context: Any, position: int, sequence: int, *, rows: int, together: int
    ) -> int:
        """Bring it into a sequence.

        Args:
            context: A ``llama_context``.
            position: Of its first position.
            sequence: Which.
            rows: Most rows in one call.
            together: Most rows that may look at each other.

        Returns:
            What ``llama_decode`` gave; -1 if it could not be encoded.

        Raises:
            UnsupportedRequest: Its rows look at each other, and are too many.
        """
        pointer = self._projector.pointer
        if self._rows > together and mtmd.mtmd_decode_use_non_causal(pointer, self._chunk):
            raise UnsupportedRequest(
                "the image takes too many tokens at once",
                why=f"{self._rows}, and {together} can be computed together",
                hint="Load the model with a larger num_batch and num_ctx",
            )
        if mtmd.mtmd_encode_chunk(pointer, self._chunk):
            return -1
        new = lib.llama_pos()
        return int(
            mtmd.mtmd_helper_decode_image_chunk(
                pointer,
                context,
                self._chunk,
                mtmd.mtmd_get_output_embd(pointer),
                position,
                sequence,
                rows,
                ctypes.byref(new),
                _NO_CALLBACK,
                None,
            )
        )


def _bitmap(data: bytes) -> Any:
    width, height, channels = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    sizes = (ctypes.byref(width), ctypes.byref(height), ctypes.byref(channels))
    if not _measure(data, len(data), *sizes):
        raise _unreadable()
    if width.value * height.value > limits.IMAGE_PIXELS:  # here its header was read anew
        raise UsageError("the image is too large")
    pixels = _load(data, len(data), *sizes, _COLOURS)
    if not pixels:
        raise _unreadable()
    try:
        shown = ctypes.cast(pixels, ctypes.POINTER(ctypes.c_uint8))
        return mtmd.mtmd_bitmap_init(width.value, height.value, shown)
    finally:
        _free(pixels)


def _unreadable() -> UsageError:
    why = (_reason() or b"it is damaged").decode("ascii", "replace")
    return UsageError("invalid image input", why=f"it cannot be decoded: {why}")
