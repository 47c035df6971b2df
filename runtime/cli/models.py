"""Commands on the store: list, show, cp, rm, gc. None of them needs a server."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.cli import JsonFlag, Output
from schemas.errors import NotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from registry.reference import Reference
    from registry.store import Store
    from runtime.models import Model

DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Only tell what would happen.")]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="As in library/smollm2:135m.")]


@contextmanager
def open_store() -> Iterator[Store]:
    """The store of ``$SEALIFT_HOME``."""
    from registry.store import Store
    from schemas.settings import load

    with Store.open(load().home, create=False) as store:
        yield store


def list_models(
    prefix: Annotated[
        str, typer.Argument(metavar="[PREFIX]", help="Only names that begin so.")
    ] = "",
    *,
    json: JsonFlag = False,
) -> None:
    """List the models in the store, the newest first."""
    from registry.staleness import stale_days
    from runtime.cli import render
    from runtime.provenance import Made

    output = Output(json=json)
    try:
        with open_store() as store:
            records = [
                record
                for record in store.catalogue.models()
                if record.reference.shortest.startswith(prefix.lower())
            ]
            withdrawn = store.catalogue.withdrawals.all()
            stale = stale_days(store.catalogue, datetime.now(UTC))
    except NotFound as nothing:
        records, withdrawn, stale = [], {}, {}
        output.note(f"{nothing.line()}.")
    found = ((r.reference, Made.of(r.facts)) for r in records)
    made = {reference: each for reference, each in found if each is not None}
    render.model_table(output, records, withdrawn, stale, made)
    output.result(
        {
            "models": [
                {
                    "name": r.reference.shortest,
                    "reference": str(r.reference),
                    "digest": str(r.descriptor.digest),
                    "size": r.size,
                    "modified_at": r.modified.isoformat(),
                    **(
                        {"withdrawn": withdrawn[r.descriptor.digest].document()}
                        if r.descriptor.digest in withdrawn
                        else {}
                    ),
                    **_stale(stale, r.reference),
                    **({"made": made[r.reference].document()} if r.reference in made else {}),
                }
                for r in records
            ]
        }
    )


def copy(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A model in the store.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Its second name.")],
    *,
    json: JsonFlag = False,
) -> None:
    """Give a model a second name. No bytes are copied."""
    from registry.reference import Reference

    names = Reference.from_user(source), Reference.from_user(target)
    output = Output(json=json)
    with open_store() as store:
        record = store.copy_model(*names)
    output.line(f"copied {names[0].shortest} to {record.reference.shortest}")
    digest = str(record.descriptor.digest)
    output.result({"name": record.reference.shortest, "digest": digest})


def remove(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Names to remove.")],
    *,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Remove models, and the bytes that no other model needs."""
    from registry.reference import Reference
    from schemas.render import bytes_text

    output = Output(json=json)
    references = list(dict.fromkeys(map(Reference.from_user, models)))
    removed = []
    with open_store() as store:
        for reference in references:  # all or none where a name is wrong
            if store.catalogue.resolve(reference) is None:
                raise NotFound(f"model '{reference.shortest}' not found", hint="See sealift list")
        for reference in references:
            freed = 0 if dry_run else store.remove_model(reference).bytes
            removed.append({"name": reference.shortest, "freed": freed})
            done = f"removed {reference.shortest}, {bytes_text(freed)} freed"
            output.line(f"would remove {reference.shortest}" if dry_run else done)
    output.result({"removed": removed, "dry_run": dry_run})


def collect(
    *,
    grace: Annotated[
        str, typer.Option(metavar="TIME", help="Keep what is younger, as in 24h or 30m.")
    ] = "24h",
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Remove blobs that no model needs any more."""
    from registry.gc import collect as collect_garbage
    from schemas.render import bytes_text
    from schemas.settings import parse_duration_ms

    milliseconds = parse_duration_ms(grace)
    if milliseconds < 0:
        raise UsageError("the grace time must not be negative", hint="Write 24h, or 0 for none")
    output = Output(json=json)
    with open_store() as store:
        report = collect_garbage(store, grace_seconds=milliseconds / 1000, dry_run=dry_run)
    for digest, size in report.removed:
        output.line(
            f"{'would remove' if dry_run else 'removed'} {digest.short}  {bytes_text(size)}"
        )
    verb = "would be freed" if dry_run else "freed"
    output.line(f"{bytes_text(report.bytes)} {verb}, {report.kept} blobs kept.")
    removed = [{"digest": str(digest), "size": size} for digest, size in report.removed]
    output.result({"removed": removed, "kept": report.kept, "dry_run": dry_run})


def show(
    model: ModelName,
    *,
    modelfile: Annotated[bool, typer.Option("--modelfile", help="Only its Modelfile.")] = False,
    template: Annotated[bool, typer.Option("--template", help="Only its chat template.")] = False,
    system: Annotated[bool, typer.Option("--system", help="Only its system message.")] = False,
    parameters: Annotated[bool, typer.Option("--parameters", help="Only its parameters.")] = False,
    licence: Annotated[bool, typer.Option("--license", help="Only its licence.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Metadata and tensors too.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Tell what is known of a model."""
    from registry.reference import Reference
    from registry.staleness import stale_days
    from runtime.cli import render
    from runtime.models import Models

    wanted = {
        "modelfile": modelfile,
        "template": template,
        "system": system,
        "parameters": parameters,
        "license": licence,
    }
    parts = [name for name, asked in wanted.items() if asked]
    if len(parts) > 1:
        raise UsageError("only one part can be shown", hint=f"Choose one of {', '.join(wanted)}")
    output, reference = Output(json=json), Reference.from_user(model)
    with open_store() as store:
        document = _shown(Models(store).get(reference), verbose=verbose)
        document |= _stale(stale_days(store.catalogue, datetime.now(UTC)), reference)
    if parts:
        output.text(str(document.get(parts[0]) or "").rstrip("\n"))
        output.result({parts[0]: document.get(parts[0])})
        return
    render.model_page(output, document, verbose=verbose)
    output.result(document)


def _stale(days: Mapping[str, int], reference: Reference) -> dict[str, int]:
    """For a document: how stale what the publisher said last is; nothing where it is fresh."""
    found = days.get(reference.namespace)
    return {} if found is None else {"stale_days": found}


def _shown(model: Model, *, verbose: bool) -> dict[str, Any]:
    """What ``/api/show`` answers, and which bytes it speaks of."""
    from registry.gguf import read_header_file
    from runtime.options import Options
    from runtime.server import listing

    header = read_header_file(model.weights)
    sees = read_header_file(model.projector, projectors=True) if model.projector else None
    document = listing.show(
        model, header, verbose=verbose, system=None, options=Options(), projector=sees
    )
    identity = {"name": model.name, "digest": str(model.digest), "size": model.size}
    return {**identity, **document}
