"""What came with a model beside its weights: read from its layers, and written as layers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from registry.blobs import BlobStore
from registry.gguf import template_capabilities
from registry.oci import Descriptor
from registry.parts import Part, layers_of, part_layer, part_of
from runtime import gotemplate
from runtime.messages import Message
from runtime.modelfile import ROLES
from runtime.options import Options, parse_options
from schemas import limits
from schemas.errors import MalformedModel, SealiftError, UsageError

_SMALL: Final = (Part.TEMPLATE, Part.SYSTEM, Part.PARAMETERS, Part.MESSAGES, Part.LICENSE)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a Modelfile sets.

    Attributes:
        template: Jinja or Go's language; None for the model file's own.
        system: System text.
        parameters: By Ollama's names, as JSON has them.
        messages: Turns that precede every conversation.
        licenses: Texts or names.
        foreign: The model came with a Go template that does not parse, and is not in force.
    """

    template: str | None = None
    system: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    messages: tuple[Message, ...] = ()
    licenses: tuple[str, ...] = ()
    foreign: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))

    @property
    def options(self) -> Options:
        """The parameters as options of every request."""
        return parse_options(dict(self.parameters))

    def capabilities(self, own: tuple[str, ...]) -> tuple[str, ...]:
        """What the model can do: its template decides on tools and thinking.

        Args:
            own: By the model file's own template.
        """
        if self.template is None or "completion" not in own:
            return own
        kept = tuple(each for each in own if each not in ("tools", "thinking"))
        go = gotemplate.is_go(self.template)
        said = gotemplate.capabilities if go else template_capabilities
        return (*kept, *said(self.template))


NO_PARTS: Final = Parts()


@lru_cache(maxsize=512)
def read_parts(blobs: BlobStore, layers: tuple[Descriptor, ...]) -> Parts:
    """Read the small layers of a model; what was read once, by its digest, stays so.

    Raises:
        MalformedModel: One of them is not what it should be.
        ContentMismatch: One rotted, or is too large.
        NotFound: One is not in the store.
    """
    small = [layer for layer in layers if part_of(layer) in _SMALL]
    if len(small) > limits.PARTS:
        raise MalformedModel("the model has too many layers", why=f"over {limits.PARTS}")
    texts: dict[Part, list[str]] = {part: [] for part in _SMALL}
    for part in _SMALL:
        for layer in layers_of(small, part):
            texts[part].append(_text(blobs.read(layer.digest, limits.PART_BYTES), part))
    template = texts[Part.TEMPLATE][-1] if texts[Part.TEMPLATE] else None
    foreign = template is not None and not _understood(template)
    try:
        return Parts(
            template=None if foreign else template or None,
            system=texts[Part.SYSTEM][-1] if texts[Part.SYSTEM] else "",
            parameters=_parameters(texts[Part.PARAMETERS]),
            messages=_messages(texts[Part.MESSAGES]),
            licenses=tuple(texts[Part.LICENSE]),
            foreign=foreign,
        )
    except (ValueError, RecursionError, SealiftError) as error:
        raise MalformedModel("the model's settings do not parse", why=str(error)) from None


def write_parts(parts: Parts) -> list[tuple[Descriptor, bytes]]:
    """The same as layers with their bytes; equal parts give equal bytes."""
    found: list[tuple[Part, str]] = []
    if parts.template:
        found.append((Part.TEMPLATE, parts.template))
    if parts.system:
        found.append((Part.SYSTEM, parts.system))
    if parts.parameters:
        found.append((Part.PARAMETERS, _json(dict(parts.parameters))))
    if parts.messages:
        turns = [{"role": m.role, "content": m.content} for m in parts.messages]
        found.append((Part.MESSAGES, _json(turns)))
    written = [(part_layer(part, text.encode()), text.encode()) for part, text in found]
    for number, text in enumerate(parts.licenses, 1):
        data = text.encode()
        written.append((part_layer(Part.LICENSE, data, number), data))
    return written


def _understood(template: str) -> bool:
    """Whether a template can be in force; what is wrong with one in Jinja shows when it is used."""
    try:
        return not gotemplate.is_go(template) or bool(gotemplate.GoChat.parse(template))
    except UsageError:
        return False


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _text(data: bytes, part: Part) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedModel(f"the model's {part.value} is no UTF-8") from None


def _parameters(texts: Iterable[str]) -> dict[str, Any]:
    """All of them that this version knows; of those that say the same, the last."""
    merged: dict[str, Any] = {}
    for text in texts:
        value = json.loads(text)
        if not isinstance(value, dict):
            raise MalformedModel("parameters are no object")
        merged |= value
    if isinstance(merged.get("stop"), str):
        merged["stop"] = [merged["stop"]]
    parse_options(merged)
    return merged


def _messages(texts: Iterable[str]) -> tuple[Message, ...]:
    turns: list[Message] = []
    for text in texts:
        value = json.loads(text)
        if not isinstance(value, list) or len(value) > limits.PART_MESSAGES:
            raise MalformedModel("messages are no list, or too many")
        for entry in value:
            role = entry.get("role") if isinstance(entry, dict) else None
            content = entry.get("content") if isinstance(entry, dict) else None
            if role not in ROLES or not isinstance(content, str):
                raise MalformedModel("a message has no role or content")
            turns.append(Message(role, content))
    return tuple(turns)
