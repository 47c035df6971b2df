"""GGUF headers that passed the checks of `registry.gguf`, and are odd all the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bundler.scanning.findings import Finding, Severity, bounded
from bundler.scanning.hidden import hidden_characters
from bundler.scanning.template import scan_template
from registry.gguf import GGUFArray, GGUFHeader, GGUFText
from schemas import limits

_TEMPLATE: Final = "tokenizer.chat_template"
_HEADER: Final = "GGUF header"
# Whole tokenizers of other tools, which some converters put in beside the engine's own.
_LONG_TEXTS: Final = frozenset(
    {"tokenizer.huggingface.json", "tokenizer.ggml.precompiled_charsmap"}
)
_ODD_TYPES: Final = frozenset({"I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K"})
_TENSOR_CHARS: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
)
_USUAL_ALIGNMENT: Final = 32
_CODE_KEYS: Final = ("auto_map", "trust_remote_code", "custom_code")


def scan_header(header: GGUFHeader) -> tuple[Finding, ...]:
    """Say what is unusual about a model file, its chat templates included.

    Args:
        header: Checked by :func:`registry.gguf.read_header`.

    Returns:
        At most :data:`~bundler.scanning.findings.MOST` findings, the worst first.
    """
    return bounded((*_templates(header), *_metadata(header), *_tensors(header)))


def _templates(header: GGUFHeader) -> Iterator[Finding]:
    keys = [key for key in header.metadata if key == _TEMPLATE or key.startswith(f"{_TEMPLATE}.")]
    if len(keys) > limits.SCAN_TEMPLATES:
        yield Finding(
            Severity.DANGER,
            "gguf-templates",
            _HEADER,
            f"has {len(keys)} chat templates, at most {limits.SCAN_TEMPLATES} are looked through",
        )
        return
    for key in keys:
        name = key.removeprefix(_TEMPLATE).removeprefix(".")
        where = f"chat template {name}" if name else "chat template"
        yield from scan_template(header.text(key) or "", where)


def _metadata(header: GGUFHeader) -> Iterator[Finding]:
    if header.version != 3:
        yield _info("gguf-version", f"is of version {header.version}; 3 is usual")
    if header.alignment != _USUAL_ALIGNMENT:
        yield _info("gguf-alignment", f"aligns to {header.alignment} bytes; 32 is usual")
    if len(header.metadata) > limits.SCAN_GGUF_KEYS:
        yield _warn("gguf-keys", f"has {len(header.metadata)} keys; usual are 20 to 200")
    if header.data_offset > limits.SCAN_GGUF_HEADER_BYTES:
        yield _warn("gguf-size", f"takes {header.data_offset} bytes; the largest usual ones 15 MiB")
    for key, value in header.metadata.items():
        if any(word in key for word in _CODE_KEYS):
            yield _warn("gguf-code", f"{key!r} speaks of code that some loaders run")
        if isinstance(value, GGUFArray):
            if value.count > limits.SCAN_GGUF_ITEMS and not key.startswith("tokenizer."):
                yield _warn("gguf-array", f"{key!r} has {value.count} items")
        elif isinstance(value, str | GGUFText) and not key.startswith(_TEMPLATE):
            yield from _text(key, value)


def _text(key: str, value: str | GGUFText) -> Iterator[Finding]:
    size = len(value.raw) if isinstance(value, GGUFText) else len(value)
    if size > limits.SCAN_GGUF_TEXT and key not in _LONG_TEXTS:
        yield _warn("gguf-text", f"{key!r} has a text of {size} characters")
    elif isinstance(value, str) and key not in _LONG_TEXTS:
        yield from hidden_characters(value, f"{_HEADER}, {key}")


def _tensors(header: GGUFHeader) -> Iterator[Finding]:
    odd = [tensor for tensor in header.tensors if tensor.type in _ODD_TYPES]
    if odd:
        yield _warn(
            "gguf-tensor-type",
            f"{len(odd)} tensors have a type that no model uses, such as {odd[0].name!r}:"
            f" {odd[0].type}",
        )
    names = [t.name for t in header.tensors if not _TENSOR_CHARS.issuperset(t.name)]
    if names:
        yield _warn("gguf-tensor-name", f"{len(names)} tensors have odd names, as {names[0]!r}")


def _info(code: str, detail: str) -> Finding:
    return Finding(Severity.INFO, code, _HEADER, detail)


def _warn(code: str, detail: str) -> Finding:
    return Finding(Severity.WARN, code, _HEADER, detail)
