"""From a file to a model and its contexts."""

from __future__ import annotations

import ctypes
from typing import Any, Final

import llama_cpp.llama_cpp as lib

from registry.gguf import read_header_file
from runtime.engine.llama.log import LOG
from runtime.engine.llama.vocabulary import Vocabulary
from runtime.engine.threads import physical_cores
from runtime.messages import WorkerSpec
from schemas.errors import LoadFailed, SealiftError

_VALUE_BYTES: Final = 256
_CACHE_TYPES: Final = {  # ggml.h, enum ggml_type
    "f16": 1,
    "q4_0": 2,
    "q8_0": 8,
}
_FLASH: Final = {
    "auto": lib.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": lib.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": lib.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}
_SPLITS: Final = {
    "none": lib.LLAMA_SPLIT_MODE_NONE,
    "layer": lib.LLAMA_SPLIT_MODE_LAYER,
    "row": lib.LLAMA_SPLIT_MODE_ROW,
}
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
        parameters.main_gpu = spec.main_gpu
        parameters.split_mode = _SPLITS[spec.split_mode]
        self._shares = _shares(spec.tensor_split)  # held: the parameters only point to it
        parameters.tensor_split = self._shares
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
        self._adapter = self._adapted(spec.adapter_path) if spec.adapter_path else None

    @property
    def template(self) -> str | None:
        """The chat template that the model brings along."""
        return self.template_named(None)

    def template_named(self, name: str | None) -> str | None:
        """One of several templates; None for the chat template itself."""
        source = lib.llama_model_chat_template(self.pointer, name.encode() if name else None)
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
        parameters.type_k = parameters.type_v = _CACHE_TYPES[self.spec.kv_type]
        parameters.flash_attn_type = _FLASH[self.spec.flash_attention]
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
        if self._adapter is not None:
            adapters = (lib.llama_adapter_lora_p_ctypes * 1)(self._adapter)
            if lib.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0)):
                raise load_failed("the model's adapter cannot be applied")
        return context

    def _adapted(self, path: str) -> Any:
        """The adapter, which lives as long as the model.

        Raises:
            LoadFailed: It is for another model.
            MalformedModel: Its header is not what the engine may see.
        """
        try:
            header = read_header_file(path, adapter=True)
            if header.text("general.architecture") != self.value("general.architecture"):
                raise LoadFailed("the adapter is for a model of another architecture")
            adapter = lib.llama_adapter_lora_init(self.pointer, path.encode())
            if not adapter:
                raise load_failed("the engine refuses the adapter")
        except SealiftError:
            self.close()
            raise
        return adapter

    def close(self) -> None:
        """Free the model; no context of it may be left."""
        if self.pointer:
            lib.llama_model_free(self.pointer)
        self.pointer = None


def _shares(text: str) -> Any:
    """The accelerators' shares as the engine wants them, one for each that there could be."""
    shares = [float(share) for share in text.split(",") if share]
    most = lib.llama_max_devices()
    return (ctypes.c_float * most)(*shares[:most]) if shares else None


def load_failed(what: str) -> LoadFailed:
    """With llama.cpp's reasons."""
    return LoadFailed(
        what,
        why=LOG.why(),
        hint="Check the model with `sealift show`, or give it less context.",
    )
