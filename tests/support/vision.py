"""A model that sees: a small text model and a projector that fits it, with random weights.

What they answer means nothing, but it depends on every picture and every word.
"""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path

import gguf
import numpy as np

WIDTH = 64
IMAGE_TOKENS = 16  # of every picture: 4 by 4 patches
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_TOKENS = (
    *("<unk>", "<s>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"),
    *(f"<0x{byte:02X}>" for byte in range(256)),
)
_INNER = 96
_BLOCKS = 2
_HEADS = 4
_PATCH = 14


def write_text(
    path: Path,
    *,
    width: int = WIDTH,
    seed: int = 1,
    name: str = "Tiny Eyes",
    architecture: str = "llama",
) -> Path:
    """Write a text model of bytes that the engine runs: ``llama``, or ``qwen2vl`` with M-RoPE."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.4, shape).astype(np.float32)

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("model")
    writer.add_name(name)
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(2048)
    writer.add_embedding_length(width)
    writer.add_block_count(_BLOCKS)
    writer.add_feed_forward_length(_INNER)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    if architecture == "qwen2vl":
        writer.add_rope_dimension_sections([4, 2, 2, 0])
    else:
        writer.add_rope_dimension_count(width // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(_TOKENS))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(list(_TOKENS))
    writer.add_token_scores([0.0] * len(_TOKENS))
    writer.add_token_types([2, 3, 3, 3, 3, 3, *[6] * 256])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)
    writer.add_tensor("token_embd.weight", weights(len(_TOKENS), width))
    writer.add_tensor("output_norm.weight", np.ones(width, dtype=np.float32))
    writer.add_tensor("output.weight", weights(len(_TOKENS), width))
    for number in range(_BLOCKS):
        block = f"blk.{number}."
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}{norm}.weight", np.ones(width, dtype=np.float32))
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"{block}{part}.weight", weights(width, width))
            if architecture == "qwen2vl" and part != "attn_output":
                writer.add_tensor(f"{block}{part}.bias", np.zeros(width, dtype=np.float32))
        writer.add_tensor(f"{block}ffn_gate.weight", weights(_INNER, width))
        writer.add_tensor(f"{block}ffn_up.weight", weights(_INNER, width))
        writer.add_tensor(f"{block}ffn_down.weight", weights(width, _INNER))
    return _finish(writer, path)


def write_projector(path: Path, *, width: int = WIDTH, kind: str = "mlp", seed: int = 2) -> Path:
    """Write a projector for text models of that width.

    Args:
        path: Where.
        width: Of the text model.
        kind: ``mlp`` (LLaVA's: 16 tokens for a picture), ``gemma3`` (4, which look at each other),
            ``qwen2vl_merger`` (as many as the picture is large, in two dimensions).
        seed: Of the weights.
    """
    rng = np.random.default_rng(seed)
    own = 32

    def weights(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    patches = IMAGE_TOKENS
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    writer.add_name("Tiny Projector")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_bool("clip.has_vision_encoder", val=True)
    writer.add_string("clip.projector_type", kind)
    writer.add_bool("clip.use_gelu", val=True)
    numbers = {
        "embedding_length": own,
        "feed_forward_length": 2 * own,
        "block_count": 2,
        "projection_dim": width,
        "attention.head_count": 2,
        "image_size": 4 * _PATCH,
        "patch_size": _PATCH,
    }
    for key, number in numbers.items():
        writer.add_uint32(f"clip.vision.{key}", number)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    writer.add_tensor("v.patch_embd.weight", weights(own, 3, _PATCH, _PATCH))
    if kind == "qwen2vl_merger":
        writer.add_tensor("v.patch_embd.weight.1", weights(own, 3, _PATCH, _PATCH))
    else:
        writer.add_tensor("v.position_embd.weight", weights(patches, own))
    for number in range(2):
        block = f"v.blk.{number}."
        for norm in ("ln1", "ln2"):
            writer.add_tensor(f"{block}{norm}.weight", np.ones(own, dtype=np.float32))
            writer.add_tensor(f"{block}{norm}.bias", np.zeros(own, dtype=np.float32))
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            writer.add_tensor(f"{block}{part}.weight", weights(own, own))
            writer.add_tensor(f"{block}{part}.bias", np.zeros(own, dtype=np.float32))
        writer.add_tensor(f"{block}ffn_up.weight", weights(2 * own, own))
        writer.add_tensor(f"{block}ffn_down.weight", weights(own, 2 * own))
    if kind == "gemma3":
        writer.add_uint32("clip.vision.projector.scale_factor", 2)
        writer.add_tensor("mm.input_projection.weight", weights(own, width))
        writer.add_tensor("mm.soft_emb_norm.weight", np.ones(own, dtype=np.float32))
        return _finish(writer, path)
    merged = 4 * own if kind == "qwen2vl_merger" else own
    writer.add_tensor("mm.0.weight", weights(width, merged))
    writer.add_tensor("mm.0.bias", np.zeros(width, dtype=np.float32))
    writer.add_tensor("mm.2.weight", weights(width, width))
    writer.add_tensor("mm.2.bias", np.zeros(width, dtype=np.float32))
    return _finish(writer, path)


def _finish(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def picture(red: int, green: int, blue: int, size: int = 8) -> str:
    """A PNG of a colour that fades to the right, in base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    row = b"".join(bytes(c * x // size for c in (red, green, blue)) for x in range(size))
    parts = (
        chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)),
        chunk(b"IDAT", zlib.compress((b"\0" + row) * size)),
        chunk(b"IEND", b""),
    )
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(parts)).decode()


def grey_jpeg() -> str:
    """A JPEG of one grey block of 8 by 8, in base64: two codes of one bit, and both are used."""

    def segment(marker: int, data: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data

    one_code = bytes([1, *[0] * 15, 0])
    parts = (
        b"\xff\xd8",
        segment(0xDB, bytes([0, *[1] * 64])),
        segment(0xC0, struct.pack(">BHHB", 8, 8, 8, 1) + b"\1\x11\0"),
        segment(0xC4, b"\x00" + one_code),
        segment(0xC4, b"\x10" + one_code),
        segment(0xDA, b"\1\1\0\0\x3f\0"),
        b"\x3f",
        b"\xff\xd9",
    )
    return base64.b64encode(b"".join(parts)).decode()


RED = picture(255, 0, 0)
BLUE = picture(0, 0, 255)
