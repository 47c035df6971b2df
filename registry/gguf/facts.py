"""What people and other formats want to know of a model, from its checked header.

Everything here is a pure function of the header. Names and licenses are free text by whoever made
the file: they come out as one bounded line of printable characters, safe to show.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from registry.gguf.tables import ValueType
from registry.gguf.types import GGUFArray, GGUFHeader, GGUFText, GGUFValue
from schemas.limits import GGUF_SHOWN_ITEMS

_SIZE_LABEL: Final = re.compile(r"(?:[0-9]{1,4}x)?[0-9]{1,6}(?:\.[0-9]{1,3})?[KMBTQ]")
_LINE_CHARS: Final = 200
_LANGUAGES: Final = 200
_POOLING_RANK: Final = 4  # llama.h, enum llama_pooling_type
_THINKING: Final = ("<think>", "enable_thinking", "reasoning_content", "<|channel|>")
_BLOCKS: Final = {"{{": "}}", "{%": "%}", "{#": "#}"}
_WORD: Final = re.compile(r"\btools\b")

Json = None | bool | int | float | str | list["Json"]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model in a few words.

    Attributes:
        name: ``general.name``, or empty.
        architecture: As the engine calls it; Ollama calls it the family.
        parameters: Elements of all tensors.
        parameter_size: ``parameters`` as Ollama prints them (``134.52M``, ``8.0B``).
        size_label: Parameter class (``135M``, ``8x7B``): ``general.size_label`` where that looks
            like one, else rounded from ``parameters``.
        quantization: Label of the file type (``Q4_K_M``), see `GGUFHeader.quantization`.
        context_length: Tokens, or None where the file does not say.
        embedding_length: Width of the hidden state, or None.
        block_count: Number of layers, or None.
        license: ``general.license``, or empty.
        languages: ``general.languages``.
        capabilities: As Ollama lists them: ``completion`` or ``embedding``, then ``tools`` and
            ``thinking`` as far as the chat template speaks of them. Of our own: ``rerank``.
        chat_template_sha256: Hex digest of the template's UTF-8 bytes, to tell a changed one; None
            where there is none.
    """

    name: str
    architecture: str
    parameters: int
    parameter_size: str
    size_label: str
    quantization: str
    context_length: int | None
    embedding_length: int | None
    block_count: int | None
    license: str
    languages: tuple[str, ...]
    capabilities: tuple[str, ...]
    chat_template_sha256: str | None


def model_facts(header: GGUFHeader) -> ModelFacts:
    """Gather the facts of a model."""
    label = header.size_label or ""
    template = header.chat_template
    digest = None if template is None else hashlib.sha256(template.encode()).hexdigest()
    return ModelFacts(
        name=one_line(header.name),
        architecture=header.architecture,
        parameters=header.parameter_count,
        parameter_size=parameter_size(header.parameter_count),
        size_label=label if _SIZE_LABEL.fullmatch(label) else rounded_size(header.parameter_count),
        quantization=header.quantization,
        context_length=header.context_length,
        embedding_length=header.embedding_length,
        block_count=header.block_count,
        license=one_line(header.license),
        languages=tuple(one_line(x) for x in header.strings("general.languages")[:_LANGUAGES]),
        capabilities=_capabilities(header),
        chat_template_sha256=digest,
    )


def model_info(header: GGUFHeader, *, verbose: bool = False) -> dict[str, Json]:
    """The metadata as Ollama's ``/api/show`` gives them in ``model_info``.

    Args:
        header: A checked header.
        verbose: Give long arrays and strings too; otherwise they are null.

    Returns:
        Keys in alphabetical order, with ``general.parameter_count`` added, without the name and the
        chat template, which the answer has elsewhere. Numbers that JSON cannot express are null.
    """
    shown: dict[str, GGUFValue] = {
        **header.metadata,
        "general.parameter_count": header.parameter_count,
    }
    hidden = {"general.name", "tokenizer.chat_template"}
    return {key: _json(shown[key], verbose=verbose) for key in sorted(shown.keys() - hidden)}


def parameter_size(count: int) -> str:
    """A number of parameters as Ollama prints it (its ``format.HumanNumber``).

    ``134515008`` gives ``134.52M``, ``8030261248`` gives ``8.0B``, ``7000000000`` gives ``7B``.
    """
    for unit, letter, digits in ((10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 0)):
        if count >= unit:
            return f"{count / unit:.{0 if count % unit == 0 else digits}f}{letter}"
    return str(count)


def one_line(text: str | None) -> str:
    """Free text from a file as one printable line of at most 200 characters."""
    flat = " ".join((text or "")[: 4 * _LINE_CHARS].split())
    flat = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in flat)
    return flat if len(flat) <= _LINE_CHARS else flat[: _LINE_CHARS - 1] + "…"


def rounded_size(count: int) -> str:
    """A parameter class as the GGUF naming convention has it: three digits at most."""
    for unit, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= unit:
            value = count / unit
            return (
                f"{value:.1f}".removesuffix(".0") + letter if value < 10 else f"{value:.0f}{letter}"
            )
    return str(count)


def _capabilities(header: GGUFHeader) -> tuple[str, ...]:
    pooling = header.metadata.get(f"{header.architecture}.pooling_type")
    if pooling is not None:
        return ("rerank",) if pooling == _POOLING_RANK else ("embedding",)
    return ("completion", *template_capabilities(header.chat_template or ""))


def template_capabilities(template: str) -> tuple[str, ...]:
    """Of ``tools`` and ``thinking``, what a chat template speaks of."""
    found = []
    if any(_WORD.search(code) for code in _template_code(template)):
        found.append("tools")
    if any(sign in template for sign in _THINKING):
        found.append("thinking")
    return tuple(found)


def _template_code(template: str) -> Iterator[str]:
    """The Jinja statements and expressions of a template; in linear time, whatever it holds."""
    at = 0
    while (start := template.find("{", at)) >= 0:
        mark = template[start : start + 2]
        closing = _BLOCKS.get(mark)
        if closing is None:
            at = start + 1
            continue
        end = template.find(closing, start + 2)
        if end < 0:
            return
        if mark != "{#":
            yield template[start + 2 : end]
        at = end + 2


def _json(value: GGUFValue, *, verbose: bool) -> Json:
    if isinstance(value, GGUFText):
        return value.text() if verbose else None
    if isinstance(value, GGUFArray):
        if value.count > GGUF_SHOWN_ITEMS and not verbose:
            return None
        if value.type is ValueType.STRING:
            return list(value.strings())
        return [_json(item, verbose=verbose) for item in value.values()]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
