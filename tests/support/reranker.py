"""A tiny reranker that a real engine runs, and the same arithmetic in NumPy as its oracle."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("what", "is", "a", "cat", "dog", "the", "capital", "of", "france", "paris", "an", "animal")
TOKENS = (*SPECIAL, *(f"\N{LOWER ONE EIGHTH BLOCK}{word}" for word in WORDS))
_WIDTH, _HEADS, _INNER, _CONTEXT = 32, 2, 64, 64
_EPSILON = 1e-12


@dataclass(frozen=True)
class Reranker:
    """A BERT of one layer with a classification head, and weights drawn from a seed.

    Attributes:
        path: Its GGUF file.
        weights: By the format's names.
    """

    path: Path
    weights: dict[str, Array]

    def tokens(self, query: str, text: str) -> list[int]:
        """What a reranker of this family sees."""
        words = {word: len(SPECIAL) + at for at, word in enumerate(WORDS)}

        def ids(words_of: str) -> list[int]:
            return [words.get(word, 1) for word in re.findall(r"\w+|[^\w\s]", words_of.lower())]

        return [2, *ids(query), 3, *ids(text), 3]

    def score(self, query: str, text: str) -> float:
        """What the model says of a pair, by NumPy."""
        w, tokens = self.weights, self.tokens(query, text)
        x = w["token_embd.weight"][tokens] + w["token_types.weight"][0]
        x = self._norm(x + w["position_embd.weight"][: len(tokens)], "token_embd_norm")
        x = self._norm(x + self._attention(x), "blk.0.attn_output_norm")
        inner = self._linear(x, "blk.0.ffn_up")
        inner = inner * 0.5 * (1 + np.tanh(0.7978845608 * (inner + 0.044715 * inner**3)))
        x = self._norm(x + self._linear(inner, "blk.0.ffn_down"), "blk.0.layer_output_norm")
        head = np.tanh(self._linear(x[:1], "cls"))
        return float(self._linear(head, "cls.output")[0, 0])

    def _attention(self, x: Array) -> Array:
        size = _WIDTH // _HEADS
        q, k, v = (
            self._linear(x, f"blk.0.attn_{name}").reshape(-1, _HEADS, size).transpose(1, 0, 2)
            for name in "qkv"
        )
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(size)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (shares / shares.sum(-1, keepdims=True)) @ v
        return self._linear(mixed.transpose(1, 0, 2).reshape(-1, _WIDTH), "blk.0.attn_output")

    def _linear(self, x: Array, name: str) -> Array:
        product: Array = x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
        return product

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + _EPSILON)
        normed: Array = scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
        return normed


def make_reranker(path: Path, seed: int = 7) -> Reranker:
    """Write one of about 60 KiB."""
    draw = np.random.default_rng(seed)

    def drawn(*shape: int) -> Array:
        return draw.normal(0, 0.5, shape).astype(np.float32)

    def bias(*shape: int) -> Array:
        return drawn(*shape) / np.float32(5)

    weights = {
        "token_embd.weight": drawn(len(TOKENS), _WIDTH),
        "token_types.weight": drawn(2, _WIDTH),
        "position_embd.weight": drawn(_CONTEXT, _WIDTH),
    }
    for name in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"):
        weights[f"{name}.weight"] = np.float32(1) + bias(_WIDTH)
        weights[f"{name}.bias"] = bias(_WIDTH)
    shapes = {f"blk.0.attn_{name}": (_WIDTH, _WIDTH) for name in ("q", "k", "v", "output")}
    shapes |= {"blk.0.ffn_up": (_INNER, _WIDTH), "blk.0.ffn_down": (_WIDTH, _INNER)}
    shapes |= {"cls": (_WIDTH, _WIDTH), "cls.output": (1, _WIDTH)}
    for name, shape in shapes.items():
        weights[f"{name}.weight"] = drawn(*shape)
        weights[f"{name}.bias"] = bias(shape[0])
    for name in ("position_embd", "blk.0.attn_q", "blk.0.attn_k", "cls"):
        weights[f"{name}.weight"] /= 4  # or one token, or a tanh, hides all the others
    _write(path, weights)
    return Reranker(path, weights)


def _write(path: Path, weights: dict[str, Array]) -> None:
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_type("model")
    writer.add_name("Tiny Reranker")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(_INNER)
    writer.add_block_count(1)
    writer.add_head_count(_HEADS)
    writer.add_layer_norm_eps(_EPSILON)
    writer.add_causal_attention(value=False)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(list(TOKENS))
    writer.add_token_types([3] * len(SPECIAL) + [1] * len(WORDS))
    writer.add_token_type_count(2)
    for name, number in (("padding", 0), ("unknown", 1), ("cls", 2), ("seperator", 3), ("mask", 4)):
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", number)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    for name, data in weights.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
