"""How the umbrella command shows models, figures and findings."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from schemas.render import Output, age_text, bytes_text, duration_text

if TYPE_CHECKING:
    from registry.digest import Digest
    from registry.records import ModelRecord
    from registry.reference import Reference
    from registry.withdrawals import Withdrawal
    from runtime.doctor import Finding
    from runtime.provenance import Made

_DETAIL_COLUMNS: Final = 63  # what the other columns of a finding leave of 80
_LICENSE_LINES: Final = 3
_ITEMS_SHOWN: Final = 3
_FOR_EVER_YEARS: Final = 20  # Ollama writes "for ever" as a moment far away
_DETAILS: Final = (
    ("architecture", "family"),
    ("parameters", "parameter_size"),
    ("context length", "context_length"),
    ("embedding length", "embedding_length"),
    ("quantization", "quantization_level"),
)


def model_table(
    output: Output,
    records: Sequence[ModelRecord],
    withdrawn: Mapping[Digest, Withdrawal],
    stale: Mapping[str, int],
    made: Mapping[Reference, Made],
) -> None:
    """``sealift list``; what is to be known of a model beside has a line of its own below."""
    rows = (
        (r.reference.shortest, r.descriptor.digest.short, bytes_text(r.size), age_text(r.modified))
        for r in records
    )
    output.table(("NAME", "ID", "SIZE", "MODIFIED"), rows)
    for record in records:
        if (found := withdrawn.get(record.descriptor.digest)) is not None:
            output.line(f"{record.reference.shortest} is {found.line()}")
        if record.reference in made:
            output.line(f"{record.reference.shortest} was {made[record.reference].line()}")
    for namespace in sorted(stale.keys() & {r.reference.namespace for r in records}):
        output.line(f"{namespace}: stale {stale[namespace]} days; import a newer bundle")


def running_table(output: Output, models: Iterable[Mapping[str, Any]]) -> None:
    """``sealift ps``: entries of ``/api/ps``."""
    models = list(models)
    rows = (
        (
            _text(m, "name"),
            _text(m, "digest").removeprefix("sha256:")[:12],
            bytes_text(_count(m, "size")),
            _processor(m),
            _count(m, "context_length"),
            _until(_text(m, "expires_at")),
        )
        for m in models
    )
    output.table(("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"), rows)
    for model in models:
        _withdrawn(output, model)


def model_page(output: Output, document: Mapping[str, Any], *, verbose: bool = False) -> None:
    """``sealift show``: an answer of ``/api/show``, with all that a verbose one has."""
    details = document.get("details")
    details = details if isinstance(details, dict) else {}
    info = document.get("model_info")
    info = info if isinstance(info, dict) else {}
    family = str(details.get("family", ""))
    digest = _text(document, "digest").removeprefix("sha256:")[:12]
    rows = [("name", document.get("name")), ("id", digest)]
    rows += [("size", bytes_text(_count(document, "size")) if "size" in document else None)]
    for label, key in _DETAILS:
        inside = f"{family}.{key}"  # where older servers tell the lengths
        rows.append((label, details.get(key) or info.get(inside)))
    made = document.get("made")
    if isinstance(made, dict):
        rows.append(("provenance", _made(made)))
    if "note" in document:
        rows.append(("note", document["note"]))
    if "stale_days" in document:
        rows.append(("stale", f"{_count(document, 'stale_days')} days"))
    _section(output, "Model", rows)
    sees = document.get("projector_info")
    if isinstance(sees, dict):
        _section(output, "Projector", _projector(sees))
    _withdrawn(output, document)
    _listing(output, "Capabilities", document.get("capabilities"))
    _listing(output, "Parameters", str(document.get("parameters") or "").splitlines())
    _listing(output, "System", str(document.get("system") or "").splitlines())
    licence = str(document.get("license") or "").strip().splitlines()
    shown = [line.strip() for line in licence if line.strip()][:_LICENSE_LINES]
    _listing(output, "License", [*shown, "…"] if len(licence) > _LICENSE_LINES else shown)
    if verbose:
        _section(output, "Metadata", ((key, _brief(value)) for key, value in info.items()))
        _section(output, "Tensors", _tensors(document.get("tensors")))


def _projector(info: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """What makes embeddings of pictures for a model."""
    yield "type", info.get("clip.projector_type") or info.get("clip.vision.projector_type")
    yield "parameters", info.get("general.parameter_count")
    for label, key in (("image size", "image_size"), ("embedding length", "embedding_length")):
        yield label, info.get(f"clip.vision.{key}")


def timings(output: Output, last: Mapping[str, Any]) -> None:
    """``--verbose``: the figures in the last line of an answer, in Ollama's words."""
    rows = [
        (f"{name} duration:", duration_text(nanoseconds / 1e9))
        for name in ("total", "load")
        if (nanoseconds := _count(last, f"{name}_duration"))
    ]
    for key, label in (("prompt_eval", "prompt eval"), ("eval", "eval")):
        count, nanoseconds = _count(last, f"{key}_count"), _count(last, f"{key}_duration")
        if count:
            rows.append((f"{label} count:", f"{count} tokens"))
        if nanoseconds:
            seconds = nanoseconds / 1e9
            rows.append((f"{label} duration:", duration_text(seconds)))
            rows.append((f"{label} rate:", f"{count / seconds:.2f} tokens/s"))
    for label, value in rows:
        output.note(f"{label:<22}{value}")


def _brief(value: object) -> str:
    """A value of the metadata; of a long list its beginning, as Ollama shows it."""
    if isinstance(value, list) and len(value) > _ITEMS_SHOWN:
        begun = ", ".join(map(str, value[:_ITEMS_SHOWN]))
        return f"[{begun}, ...+{len(value) - _ITEMS_SHOWN} more]"
    return str(value)


def _tensors(value: object) -> Iterable[tuple[str, str]]:
    for tensor in value if isinstance(value, list) else ():
        if isinstance(tensor, dict):
            shape = tensor.get("shape")
            dims = ", ".join(map(str, shape)) if isinstance(shape, list) else ""
            yield _text(tensor, "name"), f"{_text(tensor, 'type')}  [{dims}]"


def _section(output: Output, title: str, pairs: Iterable[tuple[str, object]]) -> None:
    output.line(f"  {title}")
    output.fields(pairs, indent=4)
    output.line()


def _listing(output: Output, title: str, lines: object) -> None:
    if isinstance(lines, list) and lines:
        output.line(f"  {title}")
        for line in lines:
            output.line(f"    {line}")
        output.line()


def _withdrawn(output: Output, model: Mapping[str, Any]) -> None:
    found = model.get("withdrawn")
    if isinstance(found, dict):
        by = _text(found, "by") or "a former publisher"
        output.line(
            f"{_text(model, 'name')}: {_text(found, 'action')} by {by}: {_text(found, 'reason')}"
        )


def _made(made: Mapping[str, Any]) -> str:
    source, how = _text(made, "source"), _text(made, "how")
    words = {"pulled": "pulled from", "uploaded": "made here from the file"}
    return f"{words.get(how, 'made here from')} {source}, signed by nobody"


def _processor(model: Mapping[str, Any]) -> str:
    size, on_gpu = _count(model, "size"), _count(model, "size_vram")
    if not on_gpu:
        return "100% CPU"
    share = 100 if on_gpu >= size else on_gpu * 100 // size
    return "100% GPU" if share == 100 else f"{100 - share}%/{share}% CPU/GPU"


def _until(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return ""
    if moment.tzinfo is None or moment.year > datetime.now(UTC).year + _FOR_EVER_YEARS:
        return "Forever"
    return "Stopping..." if moment <= datetime.now(UTC) else age_text(moment)


def _text(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    return value if isinstance(value, str) else ""


def _count(fields: Mapping[str, Any], key: str) -> int:
    value = fields.get(key)
    return value if isinstance(value, int) and value > 0 else 0


def finding(output: Output, found: Finding) -> None:
    """``sealift doctor``: one finding, with its hint on a line of its own."""
    first, *more = textwrap.wrap(found.detail, _DETAIL_COLUMNS) or [""]
    output.line(f"{found.verdict:<4}  {found.check:<9}  {first}")
    hint = textwrap.wrap(f"{found.hint}.", _DETAIL_COLUMNS) if found.hint else []
    for line in (*more, *hint):
        output.line(f"{'':17}{line}")


def egress(
    output: Output,
    who: str,
    processes: Sequence[Mapping[str, Any]],
    mirror: Mapping[str, Any],
    *,
    good: bool,
) -> None:
    """``sealift doctor --egress``: what was tried where, and what the kernel answered."""
    output.line(f"Asked: {who}.")
    if mirror:
        processes = [*processes, {"process": "courier", **mirror}]
    columns: dict[str, dict[str, str]] = {}
    for process in processes:
        kind = _text(process, "process")
        number = sum(name.startswith(kind) for name in columns)
        name = f"{kind} {number + 1}" if number else kind
        columns[name] = _outcomes(process)
        output.line(f"{name}: {_circumstances(process)}")
    ways = dict.fromkeys(way for outcomes in columns.values() for way in outcomes)
    rows = [(way, *(outcomes.get(way, "-") for outcomes in columns.values())) for way in ways]
    output.table(("WAY OUT", *(name.upper() for name in columns)), rows)
    if not good:
        output.line("SOMETHING CAN GET OUT, or nobody could try.")
    elif mirror:
        output.line(f"Nothing gets out, but to the mirror at {_text(mirror, 'address')}.")
    else:
        output.line("Nothing gets out.")


def _circumstances(process: Mapping[str, Any]) -> str:
    sandbox = process.get("sandbox")
    if not isinstance(sandbox, dict):
        return "the control; from here all must get out"
    whose = "fresh" if process.get("fresh") else _text(process, "model")
    layers = [_text(sandbox, "seccomp"), f"Landlock {_text(sandbox, 'landlock')}"]
    return "; ".join(filter(None, (whose, *layers, _text(sandbox, "namespace"))))


def _outcomes(process: Mapping[str, Any]) -> dict[str, str]:
    attempts = process.get("attempts")
    return {
        _text(a, "kind"): f"{_text(a, 'outcome')} {_text(a, 'errno')}"
        for a in (attempts if isinstance(attempts, list) else ())
        if isinstance(a, dict)
    }
