"""Documents about models: Ollama's ``tags``, ``ps`` and ``show``, OpenAI's ``models``. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from registry.digest import Digest
from registry.gguf import GGUFHeader, model_info
from registry.withdrawals import Withdrawal
from runtime.leases import Loaded
from runtime.modelfile import Instruction, render
from runtime.models import Model
from runtime.options import Options
from runtime.server.body import Fields
from runtime.server.ollama import timestamp
from runtime.server.requests import parse_model

# What "expires_at" says of a model that stays for ever: clients insist on a date.
NEVER: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_LONG_LINE: Final = 30  # column of the values in "parameters", as Ollama lays them out


def details(model: Model) -> dict[str, Any]:
    """Ollama's ``details`` object."""
    facts = model.facts
    family = facts.get("architecture") or ""
    return {
        "parent_model": _parent(model),
        "format": "gguf",
        "family": family,
        "families": [*([family] if family else []), *(["clip"] if model.projector else [])],
        "parameter_size": facts.get("parameter_size") or "",
        "quantization_level": facts.get("quantization") or "",
        "context_length": facts.get("context_length") or 0,
        "embedding_length": facts.get("embedding_length") or 0,
    }


def _parent(model: Model) -> str:
    """What a model was made from here; its file or mirror is no model."""
    made = model.made
    return made.source if made is not None and made.how == "created" else ""


def tags(models: Iterable[Model]) -> dict[str, Any]:
    """``GET /api/tags``."""
    return {
        "models": [
            {
                **_identity(model),
                "modified_at": timestamp(model.modified),
                "size": model.size,
                "details": details(model),
                "capabilities": list(model.capabilities),
                **_mark(model.withdrawal),
                **_made(model),
            }
            for model in models
        ]
    }


def ps(loaded: Iterable[Loaded], withdrawn: Mapping[Digest, Withdrawal]) -> dict[str, Any]:
    """``GET /api/ps``; ``size`` is memory: weights and key/value cache."""
    return {
        "models": [
            {
                **_identity(entry.model),
                "size": entry.ready.model_bytes + entry.ready.kv_bytes,
                "details": details(entry.model),
                "expires_at": timestamp(entry.expires or NEVER),
                "size_vram": entry.ready.device_bytes,
                "context_length": entry.ready.context_length,
                "running": entry.running,
                "waiting": entry.waiting,
                **_mark(withdrawn.get(entry.model.digest)),
            }
            for entry in loaded
        ]
    }


def _mark(withdrawal: Withdrawal | None) -> dict[str, Any]:
    return {} if withdrawal is None else {"withdrawn": withdrawal.document()}


def _made(model: Model) -> dict[str, Any]:
    return {} if model.made is None else {"made": model.made.document()}


def _identity(model: Model) -> dict[str, Any]:
    return {"name": model.name, "model": model.name, "digest": model.digest.hex}


def show(
    model: Model,
    header: GGUFHeader,
    *,
    verbose: bool,
    system: str | None,
    options: Options,
    projector: GGUFHeader | None = None,
) -> dict[str, Any]:
    """``POST /api/show``.

    Args:
        model: From the catalogue.
        header: Of its GGUF file, read anew.
        verbose: Give long arrays and the tensor table too.
        system: Shown instead of the model's own.
        options: Shown over the model's own.
        projector: Header of its projector, if it has one.
    """
    shown_options = options.over(model.options)
    document: dict[str, Any] = {
        "license": model.license,
        "modelfile": _modelfile(model, shown_options, system),
        "parameters": _parameters(shown_options),
        "template": model.template or header.chat_template or "",
        "details": details(model),
        "model_info": model_info(header, verbose=verbose),
        "capabilities": list(model.capabilities),
        "modified_at": timestamp(model.modified),
        **_mark(model.withdrawal),
        **_made(model),
    }
    if projector is not None:
        document["projector_info"] = model_info(projector, verbose=verbose)
    if model.foreign_template:
        document["note"] = "the Go template that came with this model is not in force"
    if system or model.system:
        document["system"] = system or model.system
    if model.messages:
        document["messages"] = [{"role": m.role, "content": m.content} for m in model.messages]
    if verbose:
        document["tensors"] = [
            {"name": tensor.name, "type": tensor.type, "shape": list(tensor.dims)}
            for tensor in header.tensors
        ]
    return {key: value for key, value in document.items() if value != ""}


def parse_show(body: dict[str, Any]) -> Fields:
    """The body of ``/api/show``, its model's name under ``model`` whatever key it came by.

    Raises:
        UsageError: It names none.
    """
    fields = Fields(body)
    name, _ = parse_model(fields.text("model") or fields.text("name"))
    return Fields({**body, "model": name})


def _values(options: Options) -> list[tuple[str, Any]]:
    return sorted({**options.sampling, **options.runner}.items())


def _parameters(options: Options) -> str:
    lines = []
    for name, value in _values(options):
        for each in value if isinstance(value, tuple) else (value,):
            text = f'"{each}"' if isinstance(each, str) else f"{each}"
            lines.append(f"{name:<{_LONG_LINE}} {text}")
    return "\n".join(lines)


def _modelfile(model: Model, options: Options, system: str | None) -> str:
    head = (
        '# Modelfile generated by "sealift show"\n'
        "# To build a new Modelfile based on this, replace FROM with:\n"
        f"# FROM {model.name}\n\n"
    )
    sources = (model.weights, model.projector)
    lines = [Instruction("from", str(path)) for path in sources if path is not None]
    if model.adapter is not None:
        lines.append(Instruction("adapter", str(model.adapter)))
    if model.template:
        lines.append(Instruction("template", model.template))
    if system or model.system:
        lines.append(Instruction("system", system or model.system))
    for name, value in _values(options):
        values = value if isinstance(value, tuple) else (value,)
        lines.extend(Instruction("parameter", f"{each}", name) for each in values)
    if model.license:
        lines.append(Instruction("license", model.license))
    lines.extend(Instruction("message", m.content, m.role) for m in model.messages)
    return head + render(lines)


def openai_model(model: Model) -> dict[str, Any]:
    """OpenAI's model object."""
    return {
        "id": model.name,
        "object": "model",
        "created": int(model.modified.timestamp()),
        "owned_by": model.reference.namespace,
    }


def openai_models(models: Iterable[Model]) -> dict[str, Any]:
    """``GET /v1/models``."""
    return {"object": "list", "data": [openai_model(model) for model in models]}
