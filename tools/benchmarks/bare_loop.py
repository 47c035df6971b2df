"""The peer of the server: llama-cpp-python alone, in a process of its own.

``python bare_loop.py MODEL THREADS CONTEXT`` loads the model and then answers one JSON line with
one JSON line: ``{"how": "chat" or "low", "messages": […], "tokens": n}`` with ``{"seconds": s,
"first": s, "tokens": n, "text": "…"}``. Greedy, one sequence.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import llama_cpp
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

_BATCH = 512  # prompt tokens per step, llama-cpp-python's own default


def main() -> None:
    """Serve measurements until the input ends."""
    path, threads, context = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    llama = llama_cpp.Llama(
        path,
        n_ctx=context,
        n_batch=_BATCH,
        n_threads=threads,
        n_threads_batch=threads,
        n_gpu_layers=0,
        verbose=False,
    )
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        pieces = (_chat if wanted["how"] == "chat" else _low)(
            llama, wanted["messages"], wanted["tokens"]
        )
        print(json.dumps(_timed(pieces)), flush=True)


def _timed(pieces: Iterator[str]) -> dict[str, Any]:
    began = time.perf_counter()
    first = 0.0
    texts = []
    for piece in pieces:
        first = first or time.perf_counter() - began
        texts.append(piece)
    return {
        "seconds": time.perf_counter() - began,
        "first": first,
        "tokens": len(texts),
        "text": "".join(texts),
    }


def _chat(llama: llama_cpp.Llama, messages: list[Any], count: int) -> Iterator[str]:
    """The library's own chat; every chunk with content is one token, as it decodes one by one."""
    chunks: Any = llama.create_chat_completion(
        messages=messages, max_tokens=count, temperature=0.0, stream=True
    )
    for chunk in chunks:
        content = chunk["choices"][0]["delta"].get("content")
        if content is not None:
            yield content


def _low(llama: llama_cpp.Llama, messages: list[Any], count: int) -> Iterator[str]:
    """llama.cpp's own functions: decode, sample greedily, turn into text; nothing else."""
    context = llama.ctx
    vocabulary = llama_cpp.llama_model_get_vocab(llama.model)
    tokens = llama.tokenize(_prompt(llama, messages).encode(), add_bos=False, special=True)
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    reset: Any = llama.reset
    reset()  # the high-level object must not believe in what was cleared
    sampler = llama_cpp.llama_sampler_init_greedy()
    room = ctypes.create_string_buffer(256)
    batch: list[int] = list(tokens)
    try:
        for _ in range(count):
            for start in range(0, len(batch), _BATCH):
                part = batch[start : start + _BATCH]
                array = (llama_cpp.llama_token * len(part))(*part)
                if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(part))):
                    raise RuntimeError("llama_decode failed")
            token = llama_cpp.llama_sampler_sample(sampler, context, -1)
            if llama_cpp.llama_vocab_is_eog(vocabulary, token):
                return
            size = llama_cpp.llama_token_to_piece(vocabulary, token, room, 256, 0, True)
            yield room.raw[:size].decode(errors="replace")
            batch = [token]
    finally:
        llama_cpp.llama_sampler_free(sampler)


def _prompt(llama: llama_cpp.Llama, messages: list[Any]) -> str:
    def text(token: int) -> str:
        return llama.detokenize([token], special=True).decode()

    formatter = Jinja2ChatFormatter(
        template=llama.metadata["tokenizer.chat_template"],
        eos_token=text(llama.token_eos()),
        bos_token=text(llama.token_bos()),
    )
    return str(formatter(messages=messages).prompt)


if __name__ == "__main__":
    main()
