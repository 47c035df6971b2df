"""``bundle keys``: what signs on the connected side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bundler.cli.options import PassphraseFile
from schemas.cli import JsonFlag, Output, new_app

app = new_app("Keys of the connected side, which sign what goes into bundles.")


@app.command("init")
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
    from bundler import connected
    from bundler.passphrase import new_passphrase
    from bundler.rendering import keys
    from schemas.settings import load

    publisher = connected.init(
        load().home,
        name,
        namespace or ["library"],
        key_type,
        lambda: new_passphrase(passphrase_file),
    )
    keys.publisher(Output(json=json), publisher)


@app.command("show")
def keys_show(json: JsonFlag = False) -> None:
    """Show the root's place and fingerprint, and what may be signed."""
    from bundler import connected
    from bundler.rendering import keys
    from schemas.settings import load

    keys.publisher(Output(json=json), connected.open_publisher(load().home))


@app.command("root")
def keys_root(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to.")],
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace the output.")] = False,
    json: JsonFlag = False,
) -> None:
    """Write the root that isolated sites pin with `bundle trust init`."""
    from bundler import connected
    from bundler.rendering import keys
    from schemas.settings import load

    publisher = connected.export_root(load().home, output, overwrite=force)
    keys.exported_root(Output(json=json), publisher, output)


@app.command("add-namespace")
def keys_add_namespace(
    namespace: Annotated[str, typer.Argument(help="As in NAMESPACE/model:tag.")],
    passphrase_file: PassphraseFile = None,
    json: JsonFlag = False,
) -> None:
    """Make a key for another namespace."""
    from bundler import connected
    from bundler.passphrase import read_passphrase
    from bundler.rendering import keys
    from schemas.settings import load

    publisher = connected.add_namespace(
        load().home, namespace, lambda: read_passphrase(passphrase_file)
    )
    keys.publisher(Output(json=json), publisher)
