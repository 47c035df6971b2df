"""What a well-formed header must mean before an engine may see the file.

The list goes on from `registry.gguf.parse`:

13. ``general.architecture`` is one that the engine knows.
14. The file is a model: no adapter or importance matrix, and no projector (mmproj) unless one is
    asked for; then `registry.gguf.projector` says what must hold, and nothing of this list. So does
    `registry.gguf.adapter` where an adapter is.
15. The file is the whole model, no part of a split one.
16. Token scores (FLOAT32 or INT32), token types (INT32) and merges (strings) are arrays of the
    right type, the first two as long as the vocabulary.
17. Special token ids are UINT32 and within the vocabulary.
18. Chat templates are strings.
"""

from __future__ import annotations

from typing import Final

from registry.gguf.adapter import check_adapter
from registry.gguf.projector import check_projector, is_projector
from registry.gguf.strings import TOKENS
from registry.gguf.tables import ARCHITECTURES, ValueType
from registry.gguf.types import GGUFArray, GGUFHeader
from registry.gguf.window import refuse

_OTHER_KINDS: Final = {
    "mmproj": "a projector for images or sound (mmproj), no model of its own",
    "adapter": "an adapter (LoRA), no model of its own",
    "imatrix": "an importance matrix for quantizing, no model",
}
# llama.cpp src/llama-vocab.cpp, special_token_types; "seperator" is the format's own spelling.
_SPECIAL: Final = tuple(
    f"tokenizer.ggml.{role}_token_id"
    for role in (
        *("bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "cls", "mask"),
        *("fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep"),
        *("prefix", "suffix", "middle"),
    )
)
# key → allowed types of its items, and whether there is one for each token. llama.cpp reads INT32
# scores as well as FLOAT32 ones.
_TOKEN_ARRAYS: Final = {
    TOKENS: (frozenset({ValueType.STRING}), True),
    "tokenizer.ggml.scores": (frozenset({ValueType.FLOAT32, ValueType.INT32}), True),
    "tokenizer.ggml.token_type": (frozenset({ValueType.INT32}), True),
    "tokenizer.ggml.merges": (frozenset({ValueType.STRING}), False),
}


def check_meaning(header: GGUFHeader, *, projectors: bool = False, adapter: bool = False) -> None:
    """Run checks 13 to 18.

    Args:
        header: To be checked.
        projectors: Whether it may be that of a projector.
        adapter: Whether it must be that of an adapter.

    Raises:
        MalformedModel: One of them failed.
    """
    if adapter:
        check_adapter(header)
        return
    if projectors and is_projector(header):
        check_projector(header)
        return
    _check_kind(header)
    _check_whole(header)
    _check_tokens(header)
    _check_special(header)
    for key, kind in header.types.items():  # 18
        is_template = key == "tokenizer.chat_template" or key.startswith("tokenizer.chat_template.")
        if is_template and kind is not ValueType.STRING:
            raise refuse(f"{key[:80]!r} is {kind.name}, not a string")


def _check_kind(header: GGUFHeader) -> None:  # 13, 14
    architecture = header.text("general.architecture")
    kind = header.text("general.type")
    if is_projector(header):
        kind = "mmproj"
    if kind in _OTHER_KINDS:
        raise refuse(f"it is {_OTHER_KINDS[kind]}", "Name the model's own file")
    if architecture is None:
        raise refuse("general.architecture is missing or no string")
    if architecture not in ARCHITECTURES:
        raise refuse(
            f"the engine does not know the architecture {architecture[:40]!r}",
            "Take a model of a known architecture, or a newer release of this program",
        )


def _check_whole(header: GGUFHeader) -> None:  # 15
    if "split.count" not in header.metadata:
        return
    count, number = header.integer("split.count"), header.integer("split.no")
    if header.types["split.count"] is not ValueType.UINT16 or count is None:
        raise refuse("split.count is not UINT16")
    if count > 1:
        part = "a part" if number is None else f"part {number + 1}"
        raise refuse(
            f"it is {part} of a model split into {count} files",
            "Join the parts with `llama-gguf-split --merge` and name the result",
        )


def _check_tokens(header: GGUFHeader) -> None:  # 16
    tokens = header.metadata.get(TOKENS)
    for key, (allowed, per_token) in _TOKEN_ARRAYS.items():
        value = header.metadata.get(key)
        if value is None:
            continue
        if not isinstance(value, GGUFArray) or value.type not in allowed:
            names = " or ".join(sorted(kind.name for kind in allowed))
            raise refuse(f"{key} is not an array of {names}")
        count = tokens.count if isinstance(tokens, GGUFArray) else 0
        if per_token and value.count != count:
            raise refuse(f"{key} has {value.count} items for {count} tokens")


def _check_special(header: GGUFHeader) -> None:  # 17
    size = header.vocabulary_size
    for key in _SPECIAL:
        value = header.metadata.get(key)
        if value is None:
            continue
        if header.types[key] is not ValueType.UINT32 or not isinstance(value, int):
            raise refuse(f"{key} is {header.types[key].name}, not UINT32")
        if value >= (size or 0):
            raise refuse(f"{key} is {value}, the vocabulary has {size or 0} tokens")
