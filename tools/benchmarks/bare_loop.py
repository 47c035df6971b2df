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
    # One for each, so that the loop does not clear what the chat keeps of its last prompt.
    loop = Loop(_load(path, threads, context))
    llama = _load(path, threads, context)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        messages, count = wanted["messages"], wanted["tokens"]
        low = wanted["how"] == "low"
        pieces = loop.answer(messages, count) if low else _chat(llama, messages, count)
        print(json.dumps(_timed(pieces)), flush=True)


def _load(path: str, threads: int, context: int) -> llama_cpp.Llama:
    return llama_cpp.Llama(
        path,
        n_ctx=context,
        n_batch=_BATCH,
        n_threads=threads,
        n_threads_batch=threads,
        n_gpu_layers=0,
        flash_attn=True,  # llama.cpp's own default, and the server's; the package's is off
        verbose=False,
    )


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


class Loop:
    """llama.cpp's own functions: decode, sample greedily, turn into text; nothing else.

    Args:
        llama: Its model and context are used, nothing of what it remembers.
    """

    def __init__(self, llama: llama_cpp.Llama) -> None:
        self._llama = llama
        self._last: list[int] = []

    def answer(self, messages: list[Any], count: int) -> Iterator[str]:
        """One token after the other."""
        context = self._llama.ctx
        vocabulary = llama_cpp.llama_model_get_vocab(self._llama.model)
        sampler = llama_cpp.llama_sampler_init_greedy()
        room = ctypes.create_string_buffer(256)
        batch = self._prompt(messages)
        try:
            for _ in range(count):
                self._decode(batch)
                token = llama_cpp.llama_sampler_sample(sampler, context, -1)
                if llama_cpp.llama_vocab_is_eog(vocabulary, token):
                    return
                size = llama_cpp.llama_token_to_piece(vocabulary, token, room, 256, 0, True)
                yield room.raw[:size].decode(errors="replace")
                batch = [token]
        finally:
            llama_cpp.llama_sampler_free(sampler)

    def _prompt(self, messages: list[Any]) -> list[int]:
        """What of the prompt is still to decode; the last one's beginning stays, as with others."""
        prompt = _prompt(self._llama, messages).encode()
        tokens = self._llama.tokenize(prompt, add_bos=False, special=True)
        common = 0
        for old, new in zip(self._last, tokens[:-1], strict=False):
            if old != new:
                break
            common += 1
        memory = llama_cpp.llama_get_memory(self._llama.ctx)
        llama_cpp.llama_memory_seq_rm(memory, 0, common, -1)
        self._last = tokens
        return tokens[common:]

    def _decode(self, batch: list[int]) -> None:
        for start in range(0, len(batch), _BATCH):
            part = batch[start : start + _BATCH]
            array = (llama_cpp.llama_token * len(part))(*part)
            one = llama_cpp.llama_batch_get_one(array, len(part))
            if llama_cpp.llama_decode(self._llama.ctx, one):
                raise RuntimeError("llama_decode failed")


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
