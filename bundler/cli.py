"""The ``bundle`` command, also ``sealift bundle``: verbs parse, call one function, render."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Optional

import typer

from schemas.cli import JsonFlag, Output, QuietFlag, new_app, run

app = new_app("Carry AI models across an air gap, and prove what arrived.")
keys = new_app("Keys of the connected side, which sign what goes into bundles.")
trust = new_app("Publishers that the isolated side trusts, by the fingerprint of their root.")
app.add_typer(keys, name="keys")
inventory = new_app("What an isolated site holds, carried back for smaller bundles.")
app.add_typer(trust, name="trust")
app.add_typer(inventory, name="inventory")

PassphraseFile = Annotated[
    Optional[Path],  # noqa: UP045 - Typer evaluates it
    typer.Option(
        "--passphrase-file",
        envvar="SEALIFT_PASSPHRASE_FILE",
        metavar="FILE",
        help="Its first line opens the private keys; asked for on a terminal if not given.",
    ),
]
Publisher = Annotated[
    Optional[str],  # noqa: UP045 - Typer evaluates it
    typer.Option("--publisher", metavar="NAME", help="Trust only this pinned publisher for it."),
]
Paths = Annotated[
    list[Path],
    typer.Argument(metavar="BUNDLE…", help="Bundle, head, volumes, or the folder they lie in."),
]
Only = Annotated[
    Optional[list[str]],  # noqa: UP045 - Typer evaluates it
    typer.Option("--only", metavar="PATTERN", help="Only models like library/smollm2:*."),
]

Site = Annotated[
    Optional[str],  # noqa: UP045 - Typer evaluates it
    typer.Option("--site", metavar="SHA256", help="Believe it only of the site with this key."),
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace the output.")]


def main() -> int:
    """Entry point of the ``bundle`` script."""
    return run(app, name="bundle")


@app.command()
def create(
    sources: Annotated[list[str], typer.Argument(metavar="MODEL…", help="GGUF files.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The bundle, or its head; - is a pipe."
        ),
    ],
    name: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer evaluates it
        typer.Option("--name", "-n", metavar="NAME", help="One per model, in the same order."),
    ] = None,
    volume_size: Annotated[
        Optional[str],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="SIZE", help="Write volumes of at most this: 3900M, 25G."),
    ] = None,
    compression: Annotated[str, typer.Option(help="auto, none or max.")] = "auto",
    parity: Annotated[
        int,
        typer.Option(
            metavar="M", min=0, help="Add M volumes, so that any M may get lost or damaged."
        ),
    ] = 0,
    check_media: Annotated[
        bool, typer.Option("--check-media", help="Read it back past the page cache at once.")
    ] = False,
    against: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="INVENTORY", help="Leave out what this site holds; send deltas."),
    ] = None,
    want: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="LIST", help="Send what a site lacked for an earlier bundle."),
    ] = None,
    site: Site = None,
    passphrase_file: PassphraseFile = None,
    force: Force = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Sign models and write them into one bundle file, or a head and volumes for sticks.

    Interrupted, the same command goes on where it was.
    """
    from bundler import connected, render, upkeep
    from bundler.inventory import WantList
    from bundler.passphrase import read_passphrase
    from schemas.settings import load

    out = Output(json=json, quiet=quiet)
    form = connected.form(compression, volume_size, overwrite=force, parity=parity)
    form, report = connected.for_site(form, against, want, site)
    if report is not None:
        render.believed(out, report, known=site is not None)
    with out.progress() as meter:
        created = connected.create(
            load().home,
            sources,
            name or [],
            output,
            form=form,
            wanted=report if isinstance(report, WantList) else None,
            passphrase=lambda: read_passphrase(passphrase_file),
            progress=meter,
        )
        checked = None
        if check_media and str(output) != "-":
            checked = upkeep.check_paths([created.path, *created.volumes], meter)
    # Into a pipe goes nothing but the bundle.
    with redirect_stdout(sys.stderr) if str(output) == "-" else nullcontext():
        render.created(out, created, checked)


@app.command("check-media")
def check_media_(paths: Paths, json: JsonFlag = False, quiet: QuietFlag = False) -> None:
    """Read a bundle back from its stick, past the page cache, and compare every byte.

    Finds bad spots, and media that lie about their size. Give the head, and what lies there.
    """
    from bundler import render, upkeep

    out = Output(json=json, quiet=quiet)
    with out.progress() as meter:
        checked = upkeep.check_paths(paths, meter)
    render.checked_media(out, checked)


@app.command()
def repair(
    paths: Paths,
    output: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option("--output", "-o", metavar="DIR", help="Where to. [default: in place]"),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Only say what is damaged.")] = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Make lost and damaged volumes again from parity volumes.

    An import does so by itself; this is for a stick that travels on.
    """
    from bundler import render, upkeep

    out = Output(json=json, quiet=quiet)
    with out.progress() as meter:
        repaired = upkeep.repair_paths(paths, output, meter, dry_run=dry_run)
    render.repaired(out, repaired, dry_run=dry_run)


@app.command("import")
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
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Verify a bundle wholly, then install its models.

    Volumes may come in any order, from several sticks and in several sittings; interrupted, it goes
    on where it was.
    """
    from bundler import isolated, render
    from bundler.importer import Wishes
    from schemas.settings import load

    out = Output(json=json, quiet=quiet)
    wishes = Wishes(publisher, tuple(only or ()), partial)
    ask = None if json or quiet or not out.interactive else render.ask_for_stick(paths)
    with out.progress() as meter:
        imported = isolated.import_paths(
            load().home, paths, wishes, meter, ask, want_list=want_list
        )
    render.imported(out, imported)


@app.command()
def verify(
    paths: Paths,
    only: Only = None,
    publisher: Publisher = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Run every check that an import runs, and install nothing."""
    from bundler import isolated, render
    from bundler.importer import Wishes
    from schemas.settings import load

    out = Output(json=json, quiet=quiet)
    with out.progress() as meter:
        wishes = Wishes(publisher, tuple(only or ()))
        verified = isolated.verify_paths(load().home, paths, wishes, meter)
    render.verified(out, verified)


@app.command()
def inspect(paths: Paths, json: JsonFlag = False, quiet: QuietFlag = False) -> None:
    """Show what a bundle says that it holds. Nothing is verified, no store is touched.

    Give - to read it from standard input.
    """
    from bundler import answers
    from bundler.inspecting import inspect_paths

    answers.inspected(Output(json=json, quiet=quiet), inspect_paths(paths))


@app.command()
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
    from bundler import answers
    from bundler.comparing import compare
    from schemas.settings import load

    answers.difference(Output(json=json), compare(load().home, before, after, publisher))


@app.command()
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
    from bundler import answers
    from bundler.exporting import export_paths
    from bundler.importer import Wishes
    from schemas.settings import load

    out = Output(json=json, quiet=quiet)
    wishes = Wishes(publisher, tuple(only or ()))
    with out.progress() as meter:
        result = export_paths(load().home, oci_layout, paths, wishes, meter, overwrite=force)
    answers.exported(out, result)


@app.command()
def plan(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="MODEL…|BUNDLE…", help="Models to bundle, or a bundle to import."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Models: where it would go.")
    ] = Path(),
    name: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer evaluates it
        typer.Option("--name", "-n", metavar="NAME", help="Models: one per model."),
    ] = None,
    volume_size: Annotated[
        Optional[str],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="SIZE", help="Models: volumes of at most this: 3900M, 25G."),
    ] = None,
    compression: Annotated[str, typer.Option(help="Models: auto, none or max.")] = "auto",
    against: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="INVENTORY", help="Models: leave out what this site holds."),
    ] = None,
    site: Site = None,
    only: Only = None,
    publisher: Publisher = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Say what a transfer costs before anything moves: bytes, disk, minutes.

    Given models, what `bundle create` would cost and what the far side will need; given a bundle,
    what `bundle import` would. Speed is measured with a few MiB; nothing else is written.
    """
    from bundler import answers, connected, planning
    from bundler.importer import Wishes
    from schemas.settings import load

    form = connected.form(compression, volume_size, overwrite=True)
    form, _ = connected.for_site(form, against, None, site)
    wishes = Wishes(publisher, tuple(only or ()))
    out = Output(json=json, quiet=quiet)
    with out.progress() as meter:
        result = planning.plan(load().home, sources, name or [], output, form, wishes, meter)
    answers.planned(out, result)


@keys.command("init")
def keys_init(
    name: Annotated[str, typer.Option(help="The publisher's name, for people.")] = "publisher",
    namespace: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer evaluates it
        typer.Option(help="Namespaces to sign for; may be repeated. [default: library]"),
    ] = None,
    key_type: Annotated[str, typer.Option(help="ecdsa-p256, or ed25519.")] = "ecdsa-p256",
    passphrase_file: PassphraseFile = None,
    json: JsonFlag = False,
) -> None:
    """Make the keys and the root that isolated sites will pin."""
    from bundler import connected, render
    from bundler.passphrase import new_passphrase
    from schemas.settings import load

    publisher = connected.init(
        load().home,
        name,
        namespace or ["library"],
        key_type,
        lambda: new_passphrase(passphrase_file),
    )
    render.publisher(Output(json=json), publisher)


@keys.command("show")
def keys_show(json: JsonFlag = False) -> None:
    """Show the root's place and fingerprint, and what may be signed."""
    from bundler import connected, render
    from schemas.settings import load

    render.publisher(Output(json=json), connected.open_publisher(load().home))


@keys.command("root")
def keys_root(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to.")],
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace the output.")] = False,
    json: JsonFlag = False,
) -> None:
    """Write the root that isolated sites pin with `bundle trust init`."""
    from bundler import connected, render
    from schemas.settings import load

    publisher = connected.export_root(load().home, output, overwrite=force)
    render.exported_root(Output(json=json), publisher, output)


@keys.command("add-namespace")
def keys_add_namespace(
    namespace: Annotated[str, typer.Argument(help="As in NAMESPACE/model:tag.")],
    passphrase_file: PassphraseFile = None,
    json: JsonFlag = False,
) -> None:
    """Make a key for another namespace."""
    from bundler import connected, render
    from bundler.passphrase import read_passphrase
    from schemas.settings import load

    publisher = connected.add_namespace(
        load().home, namespace, lambda: read_passphrase(passphrase_file)
    )
    render.publisher(Output(json=json), publisher)


@trust.command("init")
def trust_init(
    root: Annotated[Path, typer.Option(metavar="FILE", help="The publisher's root.json.")],
    fingerprint: Annotated[
        str, typer.Option(metavar="SHA256", help="From paper or telephone, not from the stick.")
    ],
    name: Annotated[str, typer.Option(help="What to call it here.")] = "publisher",
    json: JsonFlag = False,
) -> None:
    """Pin a publisher's root: from now on its bundles are believed here."""
    from bundler import isolated, render
    from schemas.settings import load

    render.anchor(Output(json=json), isolated.pin(load().home, root, fingerprint, name))


@trust.command("show")
def trust_show(
    name: Annotated[Optional[str], typer.Argument(help="Only this one.")] = None,  # noqa: UP045
    json: JsonFlag = False,
) -> None:
    """Show which publishers are trusted, and how fresh what they said last is."""
    from bundler import isolated, render
    from schemas.settings import load

    render.anchors(Output(json=json), isolated.anchors(load().home, name))


trust.command("list", hidden=True)(trust_show)


@trust.command("remove")
def trust_remove(
    name: Annotated[str, typer.Argument(help="As `bundle trust show` lists it.")],
    dry_run: Annotated[bool, typer.Option(help="Only say what would be forgotten.")] = False,
    json: JsonFlag = False,
) -> None:
    """Stop trusting a publisher. Installed models stay."""
    from bundler import isolated, render
    from schemas.settings import load

    state = isolated.unpin(load().home, name, dry_run=dry_run)
    render.unpinned(Output(json=json), state, dry_run=dry_run)


@inventory.command("export")
def inventory_export(
    output: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option("--output", "-o", metavar="FILE", help="Where to. [default: shown only]"),
    ] = None,
    qr: Annotated[
        bool, typer.Option("--qr", help="Show it as QR codes, one after another.")
    ] = False,
    qr_png: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="DIR", help="Write its QR codes as pictures."),
    ] = None,
    least_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Leave smaller blobs out; they travel anyway.")
    ] = "0",
    force: Force = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Write what this site holds, signed by its own key, to be carried back."""
    from bundler import connected, render, reports
    from schemas.settings import load

    exported = reports.export_inventory(
        load().home,
        output,
        qr_png,
        least_size=connected.parse_size(least_size),
        overwrite=force,
    )
    render.exported_inventory(Output(json=json, quiet=quiet), exported, codes=qr)


@inventory.command("show")
def inventory_show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An inventory, or a want-list.")],
    site: Site = None,
    json: JsonFlag = False,
) -> None:
    """Verify an inventory or a want-list, and show all of it."""
    from bundler import connected, render, reports

    render.report(Output(json=json), reports.read_report(file, connected.site_key(site)))


@inventory.command("join")
def inventory_join(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Texts of the QR codes, one per line.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to.")],
    force: Force = False,
    json: JsonFlag = False,
) -> None:
    """Put a report together again from its scanned QR codes, in any order."""
    from bundler import render, reports

    render.report(Output(json=json), reports.join(files, output, overwrite=force))
