"""Verbs of the isolated side, and those that only look."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bundler.cli.options import (
    AcceptFinding,
    AcceptLicence,
    AcceptStale,
    Approvals,
    Force,
    Key,
    Only,
    PassphraseFile,
    Paths,
    Publisher,
    Reason,
    RequestFile,
)
from schemas.cli import JsonFlag, Output, QuietFlag
from schemas.errors import UsageError

if TYPE_CHECKING:
    from bundler.policy.gate import Consent


def consent(
    licences: list[str] | None, findings: list[str] | None, reason: str, *, stale: bool
) -> Consent:
    """What the options say yes to.

    Raises:
        UsageError: Stale metadata without a reason, or the other way round.
    """
    from bundler.policy.gate import Consent

    if stale != bool(reason.strip()):
        raise UsageError(
            "--accept-stale and --reason go together", hint='Say why: --reason "courier was late"'
        )
    return Consent(tuple(licences or ()), tuple(findings or ()), reason.strip()[:500])


def import_(
    paths: Paths,
    only: Only = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Install what is complete, though volumes are missing."),
    ] = False,
    want_list: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Where to write what is lacking. [default: BUNDLE.want here]",
        ),
    ] = Path(),
    publisher: Publisher = None,
    accept_licence: AcceptLicence = None,
    accept_finding: AcceptFinding = None,
    accept_stale: AcceptStale = False,
    reason: Reason = "",
    request: RequestFile = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    approval: Approvals = None,
    force: Force = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Verify a bundle wholly, then install its models.

    Volumes may come in any order, from several sticks and in several sittings; interrupted, it goes
    on where it was. Where the site's policy wants a second operator: --request, then --approval.
    """
    from bundler import isolated
    from bundler.approval import files
    from bundler.files import check_output
    from bundler.importer import Wishes
    from bundler.passphrase import read_passphrase
    from bundler.policy.gate import Persons
    from bundler.rendering import approvals, transfers
    from schemas.settings import load

    out = Output(json=json, quiet=quiet)
    said = consent(accept_licence, accept_finding, reason, stale=accept_stale)
    said = replace(said, ask=approvals.ask_decision(out))
    asking = None
    if request is not None:
        check_output(request, overwrite=force)
        asking = files.requester(key, lambda: read_passphrase(passphrase_file))
    persons = Persons(files.read_approvals(approval or ()), asking)
    wishes = Wishes(publisher, tuple(only or ()), partial)
    ask = None if json or quiet or not out.interactive else transfers.ask_for_stick(paths)
    with out.progress() as meter:
        imported = isolated.import_paths(
            load().home,
            paths,
            wishes,
            meter,
            ask,
            want_list=want_list,
            consent=said,
            persons=persons,
        )
    if request is not None:
        written = files.write_request(request, imported.request, overwrite=force)
        approvals.requested(out, request, written)
    else:
        transfers.imported(out, imported)


def verify(
    paths: Paths,
    only: Only = None,
    publisher: Publisher = None,
    accept_stale: AcceptStale = False,
    reason: Reason = "",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Run every check that an import runs, and install nothing."""
    from bundler import isolated
    from bundler.importer import Wishes
    from bundler.rendering import transfers
    from schemas.settings import load

    out = Output(json=json, quiet=quiet)
    with out.progress() as meter:
        wishes = Wishes(publisher, tuple(only or ()))
        said = consent(None, None, reason, stale=accept_stale)
        verified = isolated.verify_paths(load().home, paths, wishes, meter, consent=said)
    transfers.verified(out, verified)


def inspect(paths: Paths, json: JsonFlag = False, quiet: QuietFlag = False) -> None:
    """Show what a bundle says that it holds. Nothing is verified, no store is touched.

    Give - to read it from standard input.
    """
    from bundler.inspecting import inspect_paths
    from bundler.rendering import questions

    questions.inspected(Output(json=json, quiet=quiet), inspect_paths(paths))


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A bundle, or the word store.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Likewise.")],
    publisher: Publisher = None,
    json: JsonFlag = False,
) -> None:
    """Show what turns A into B: models, blobs, and the bytes to carry.

    Each is a bundle's file or folder, or `store`. What cannot be verified here is compared too, and
    marked so. Differences do not change the exit code; see "same" in --json.
    """
    from bundler.comparing import compare
    from bundler.rendering import questions
    from schemas.settings import load

    questions.difference(Output(json=json), compare(load().home, before, after, publisher))


def export(
    paths: Paths,
    oci_layout: Annotated[
        Path, typer.Option("--oci-layout", metavar="DIR", help="The folder to make.")
    ],
    only: Only = None,
    publisher: Publisher = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace an OCI layout that is there.")
    ] = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Verify a bundle wholly, then write its models as a plain OCI image layout.

    For skopeo, oras and registries; encodings and volumes are gone in it. The store stays as it is.
    """
    from bundler.exporting import export_paths
    from bundler.importer import Wishes
    from bundler.rendering import questions
    from schemas.settings import load

    out = Output(json=json, quiet=quiet)
    wishes = Wishes(publisher, tuple(only or ()))
    with out.progress() as meter:
        result = export_paths(load().home, oci_layout, paths, wishes, meter, overwrite=force)
    questions.exported(out, result)
