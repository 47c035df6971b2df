"""From a file to a model and its contexts."""

from __future__ import annotations

import ctypes
from typing import Any, Final

import llama_cpp.llama_cpp as lib

from runtime.engine.llama.log import LOG
from runtime.engine.llama.vocabulary import Vocabulary
from runtime.engine.threads import physical_cores
from runtime.messages import WorkerSpec
from schemas.errors import LoadFailed

_VALUE_BYTES: Final = 256
lib.llama_backend_init()


class Model:
    """A loaded model; its contexts come and go.

    Args:
        spec: What to load and how.

    Raises:
        LoadFailed: The engine refuses it.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        parameters = lib.llama_model_default_params()
        parameters.n_gpu_layers = spec.num_gpu
        parameters.load_mode = lib.LLAMA_LOAD_MODE_MMAP
        self.pointer = lib.llama_model_load_from_file(spec.model_path.encode(), parameters)
        if not self.pointer:
            raise load_failed("the engine refuses the model")
        if lib.llama_model_has_encoder(self.pointer) or not lib.llama_model_has_decoder(
            self.pointer
        ):
            self.close()
            raise LoadFailed("the model does not generate text", why="it has no plain decoder")
        self.vocabulary = Vocabulary(self.pointer)

    @property
    def template(self) -> str | None:
        """The chat template that the model brings along."""
        source = lib.llama_model_chat_template(self.pointer, None)
        return source.decode("utf-8", "replace") if source else None

    @property
    def bytes(self) -> int:
        """Size of the weights."""
        return int(lib.llama_model_size(self.pointer))

    @property
    def pooling(self) -> str:
        """How the model makes one vector of many; empty if it was made to generate text."""
        architecture = self.value("general.architecture")
        return self.value(f"{architecture}.pooling_type")

    def value(self, key: str) -> str:
        """A value of the model's metadata as text; empty if there is none, or a long one."""
        buffer = ctypes.create_string_buffer(_VALUE_BYTES)
        size = lib.llama_model_meta_val_str(self.pointer, key.encode(), buffer, _VALUE_BYTES)
        return buffer.value.decode("utf-8", "replace") if 0 <= size < _VALUE_BYTES else ""

    def context_parameters(self) -> Any:
        """What all contexts have in common."""
        threads = self.spec.num_threads if self.spec.num_threads > 0 else physical_cores()
        parameters = lib.llama_context_default_params()
        parameters.n_threads = threads
        parameters.n_threads_batch = threads
        parameters.kv_unified = True
        parameters.swa_full = False
        return parameters

    def context(self, parameters: Any) -> Any:
        """A context.

        Raises:
            LoadFailed: It does not fit in memory.
        """
        context = lib.llama_init_from_model(self.pointer, parameters)
        if not context:
            raise load_failed("the model's context does not fit")
        return context

    def close(self) -> None:
        """Free the model; no context of it may be left."""
        if self.pointer:
            lib.llama_model_free(self.pointer)
        self.pointer = None


def load_failed(what: str) -> LoadFailed:
    """With llama.cpp's reasons."""
    return LoadFailed(
        what,
        why=LOG.why(),
        hint="Check the model with `sealift show`, or give it less context.",
    )
