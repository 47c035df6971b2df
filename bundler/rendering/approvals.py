"""What ``bundle approve``, ``bundle operator`` and requests show, and what they ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bundler.approval.documents import Request
from bundler.approval.files import NewOperator
from bundler.policy.model import Action, Decision
from bundler.trust.fingerprint import in_groups
from registry.digest import Digest
from schemas.errors import UsageError
from schemas.render import Output, bytes_text, complain


def ask_decision(out: Output) -> Callable[[Decision], bool] | None:
    """Asks a person at the terminal; None where nobody can be asked."""
    if out.json or out.quiet or not out.interactive:
        return None

    def ask(decision: Decision) -> bool:
        complain(f"{decision.subject}: {decision.detail}.")
        return _yes(f"This site's policy wants you to confirm the {decision.rule}. Accept? [y/N] ")

    return ask


def confirm_approval(out: Output, request: Request, *, yes: bool) -> None:
    """Show a request in words, and ask whether it is approved.

    Raises:
        UsageError: It is not; or nobody can be asked.
    """
    for line in words(request):
        out.line(line)
    if yes:
        return
    if out.json or not out.interactive:
        raise UsageError("nobody is here to approve it", hint="Read it, then run it with --yes")
    if not _yes("Approve all of this with your key? [y/N] "):
        raise UsageError("not approved", hint="Nothing was signed")


def words(request: Request) -> list[str]:
    """A request as a person reads it before signing."""
    document = request.document
    lines = [
        f"request   {request.id[:12]}, for {request.action.value}",
        (
            f"asked by  {document['requester']['name']}, key {Digest.of(request.key).short},"
            f" on {document['requestedAt']}"
        ),
        (
            f"counts    until {document['expiresAt']}, at the site with key {request.site.short},"
            f" under policy {request.policy.short}"
        ),
    ]
    if document["reason"]:
        lines.append(f"reason    {document['reason']}")
    if request.action is Action.SET_TIME:
        time = document["time"]
        return [
            *lines,
            f"You approve that the site's clock floor sinks from {time['from']} to {time['to']}:",
            "  what expired in between would be believed again.",
        ]
    return [*lines, *_import_words(document)]


def _import_words(document: Mapping[str, Any]) -> list[str]:
    bundle = document["bundle"]
    lines = [
        (
            f"You approve the import of bundle {bundle['sequence']} ({bundle['id'][:12]}) of"
            f" {bundle['publisher']!r}, made {bundle['issuedAt']}:"
        ),
        f"  trusted as {bundle['anchor']}, root {in_groups(Digest.parse(bundle['root']))}",
        f"  descriptor {Digest.parse(bundle['descriptor']).hex}",
    ]
    for model in document["models"]:
        licences = ", ".join(model["licences"]) or "no licence named"
        lines.append(
            f"  installs {model['name']}  {Digest.parse(model['manifest']).short}"
            f"  {bytes_text(model['bytes'])}  {licences}"
        )
    lines += [
        f"  although {role['role']} v{role['version']} expired on {role['expired']} ({role['how']})"
        for role in document["stale"]
    ]
    lines += [f"  although {each['subject']}: {each['detail']}" for each in document["confirmed"]]
    lines += [
        f"  the scan found {each['severity']} at {each['where']}: {each['detail']}"
        for each in document["findings"]
    ]
    return lines


def requested(out: Output, path: Path, request: Request) -> None:
    """A request was written; nothing else was done."""
    for line in words(request):
        out.line(line)
    out.line(f"wrote     {path}")
    out.note("Nothing was changed yet. Next: another operator runs `bundle approve` on that file.")
    out.result({"request": str(path), "id": request.id, "document": dict(request.document)})


def approved(out: Output, path: Path, request: Request, key: Digest) -> None:
    """``bundle approve``."""
    out.line(f"approved with key {key.short}; wrote {path}")
    out.note("Bring it to the site, and give it with --approval.")
    out.result({"approval": str(path), "request": request.id, "key": str(key)})


def operator(out: Output, made: NewOperator) -> None:
    """``bundle operator keygen``."""
    out.line(f"wrote  {made.path}")
    out.line(f"key    {made.fingerprint.hex}")
    out.line("")
    for line in made.policy_lines():
        out.line(line)
    out.note("The lines above go into the site's policy.toml; the file stays with its owner.")
    out.result(
        {
            "name": made.name,
            "path": str(made.path),
            "fingerprint": str(made.fingerprint),
            "policy": "\n".join(made.policy_lines()),
        }
    )


def _yes(question: str) -> bool:
    try:
        return input(question).strip().lower() in {"y", "yes"}
    except EOFError:
        return False
