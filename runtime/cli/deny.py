"""What this site itself does not serve, and what it lets out of quarantine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from runtime.cli.models import DryRunFlag, ModelName, open_store
from schemas.cli import JsonFlag, Output, new_app
from schemas.errors import UsageError

if TYPE_CHECKING:
    from registry.digest import Digest
    from registry.store import Store

app = new_app("Models that this site does not serve, whatever their publisher says.")
quarantine = new_app("Models that wait for somebody here to look at them.")

_Subject = Annotated[
    str, typer.Argument(metavar="MODEL|DIGEST", help="A model in the store, or sha256:…")
]
_Reason = Annotated[str, typer.Option(metavar="TEXT", help="In one line; it is recorded.")]
_REASON_CHARS = 500


@app.command("add")
def deny_add(subject: _Subject, reason: _Reason = "", *, json: JsonFlag = False) -> None:
    """Deny a model, or whatever holds a blob, from now on: at import, at load, in the mirror."""
    text = _checked(reason)
    with open_store() as store:
        label, digests = _digests(store, subject)
        for digest in digests:
            store.deny(digest, label, text)
    _told(Output(json=json), "denied", label, digests)


@app.command("remove")
def deny_remove(subject: _Subject, reason: _Reason = "", *, json: JsonFlag = False) -> None:
    """Take a model or blob off the deny list."""
    text = _checked(reason)
    with open_store() as store:
        label, digests = _digests(store, subject)
        for digest in digests:
            store.allow(digest, text)
    _told(Output(json=json), "no longer denied", label, digests)


@app.command("list")
def deny_list(*, json: JsonFlag = False) -> None:
    """List what this site denies, the oldest first."""
    output = Output(json=json)
    with open_store() as store:
        denied = store.catalogue.withdrawals.denied()
    rows = (
        (each.label or "-", each.digest.short, f"{each.at:%Y-%m-%d}", each.actor, each.reason)
        for each in denied
    )
    output.table(("NAME", "DIGEST", "SINCE", "BY", "REASON"), rows)
    output.result(
        {
            "denied": [
                {
                    "name": each.label,
                    "digest": str(each.digest),
                    "at": each.at.isoformat(),
                    "by": each.actor,
                    "reason": each.reason,
                }
                for each in denied
            ]
        }
    )


@quarantine.command("list")
def quarantine_list(*, json: JsonFlag = False) -> None:
    """List every model that something is withdrawn of, and what follows from it."""
    output = Output(json=json)
    with open_store() as store:
        found = store.catalogue.withdrawals.all()
        names = {
            record.reference.shortest: found[record.descriptor.digest]
            for record in store.catalogue.models()
            if record.descriptor.digest in found
        }
    for name, each in names.items():
        output.line(f"{name} is {each.line()}")
    output.result({"models": [{"name": name, **each.document()} for name, each in names.items()]})


@quarantine.command("release")
def quarantine_release(
    model: ModelName,
    reason: _Reason = "",
    *,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Let a model be served again, until its publisher speaks of it once more."""
    from registry.reference import Reference

    text = _checked(reason)
    reference = Reference.from_user(model)
    output = Output(json=json)
    with open_store() as store:
        found = store.releasable(reference) if dry_run else store.release(reference, text)
    output.line(f"{'would release' if dry_run else 'released'} {model}: it was {found.line()}")
    output.result({"model": model, "released": not dry_run, **found.document()})


def _digests(store: Store, subject: str) -> tuple[str, tuple[Digest, ...]]:
    """A digest as it is; of a model in the store, its manifest's and its weights'."""
    from registry.digest import Digest
    from registry.oci import WEIGHT_RAW
    from registry.reference import Reference
    from schemas.errors import NotFound

    if subject.startswith("sha256:"):
        return "", (Digest.parse(subject),)
    reference = Reference.from_user(subject)
    record = store.catalogue.resolve(reference)
    if record is None:
        raise NotFound(
            f"model '{reference.shortest}' not found", hint="Give a digest of what is not here yet"
        )
    weights = [x.digest for x in record.manifest.layers if x.media_type == WEIGHT_RAW]
    return str(record.reference), (record.descriptor.digest, *weights)


def _checked(reason: str) -> str:
    text = reason.strip()
    if not text or not text.isprintable() or len(text) > _REASON_CHARS:
        raise UsageError("no reason was given", hint="Say why with --reason, in one line")
    return text


def _told(output: Output, what: str, label: str, digests: tuple[Digest, ...]) -> None:
    for digest in digests:
        output.line(f"{what}: {label or 'digest'}  {digest}")
    output.result({"name": label, "digests": [str(digest) for digest in digests]})
