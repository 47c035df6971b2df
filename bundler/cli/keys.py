"""``bundle keys``: what signs on the connected side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bundler.cli.options import Force, PassphraseFile
from bundler.cli.signing import (
    DryRun,
    KeyPassphraseFile,
    KeyType,
    PinFile,
    Request,
    SignWith,
    Threshold,
    options,
    secrets,
)
from schemas.cli import JsonFlag, Output, new_app

Role = Annotated[
    str, typer.Argument(metavar="ROLE", help="root, targets, timestamp…; see `bundle keys list`.")
]

app = new_app("Keys of the connected side, which sign what goes into bundles.")


@app.command("init")
def keys_init(
    name: Annotated[str, typer.Option(help="The publisher's name, for people.")] = "publisher",
    namespace: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer evaluates it
        typer.Option(help="Namespaces to sign for; may be repeated. [default: library]"),
    ] = None,
    key_type: Annotated[str, typer.Option(help="ecdsa-p256, or ed25519.")] = "ecdsa-p256",
    offline: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option(
            metavar="DIR", help="Keep the keys of root and targets there, on a stick say."
        ),
    ] = None,
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
        offline,
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
    sign_with: SignWith = None,
    key_passphrase_file: KeyPassphraseFile = None,
    pin_file: PinFile = None,
    json: JsonFlag = False,
) -> None:
    """Make a key for another namespace; the same as `bundle publisher add`, without a key."""
    from bundler import connected
    from bundler.rendering import keys
    from schemas.settings import load

    opens = secrets(passphrase_file, sign_with, key_passphrase_file, pin_file)
    publisher = connected.add_namespace(load().home, namespace, opens)
    keys.publisher(Output(json=json), publisher)


@app.command("generate")
def keys_generate(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to.")],
    key_type: KeyType = "ecdsa-p256",
    passphrase_file: PassphraseFile = None,
    json: JsonFlag = False,
) -> None:
    """Make a key pair for a co-signer or a publisher; FILE.pub is what others need."""
    from bundler import keyholding
    from bundler.passphrase import new_passphrase
    from bundler.rendering import keys

    key = keyholding.generate(output, key_type, lambda: new_passphrase(passphrase_file))
    keys.generated(Output(json=json), key.keyid, output, keyholding.public_path(output))


@app.command("list")
def keys_list(json: JsonFlag = False) -> None:
    """List all roles, which keys may sign them, and where those are."""
    from datetime import timedelta

    from bundler import keyholding
    from bundler.rendering import keys
    from schemas.settings import load

    keys.listed(Output(json=json), keyholding.health(load().home, timedelta()))


@app.command("status")
def keys_status(
    days: Annotated[int, typer.Option(min=0, max=3650, help="What counts as soon.")] = 60,
    after: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="BUNDLE", help="See that this bundle is not newer than the keys."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Say what runs out when. Exit code 24 if something does soon, or has."""
    from datetime import timedelta

    from bundler import keyholding
    from bundler.clock import now
    from bundler.rendering import keys
    from schemas.errors import ExpiredMetadata
    from schemas.settings import load

    roles = keyholding.health(load().home, timedelta(days=days), after)
    if not keys.status(Output(json=json), roles, now()):
        raise typer.Exit(ExpiredMetadata.exit_code)


@app.command("recover")
def keys_recover(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The newest that was made.")],
    json: JsonFlag = False,
) -> None:
    """Bring keys out of an old backup up to date, so that no version is given out twice."""
    from bundler import keyholding
    from bundler.rendering import keys
    from schemas.settings import load

    keys.publisher(Output(json=json), keyholding.recover(load().home, bundle))


@app.command("add")
def keys_add(
    role: Role,
    key: Annotated[
        Optional[str],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="PUBLIC", help="Public key file or pkcs11: URI. [default: a new one]"),
    ] = None,
    name: Annotated[str, typer.Option(help="What people call the key.")] = "",
    threshold: Threshold = None,
    key_type: KeyType = "ecdsa-p256",
    passphrase_file: PassphraseFile = None,
    sign_with: SignWith = None,
    key_passphrase_file: KeyPassphraseFile = None,
    pin_file: PinFile = None,
    request: Request = None,
    dry_run: DryRun = False,
    force: Force = False,
    json: JsonFlag = False,
) -> None:
    """Let one more key sign a role."""
    from bundler import keyholding
    from bundler.rendering import keys
    from schemas.settings import load

    how = options(
        passphrase_file,
        sign_with,
        key_passphrase_file,
        pin_file,
        request,
        dry_run=dry_run,
        force=force,
    )
    done = keyholding.add(load().home, role, key, name, key_type, how, threshold)
    keys.changed(Output(json=json), done)


@app.command("revoke")
def keys_revoke(
    role: Role,
    keyid: Annotated[str, typer.Argument(metavar="KEYID", help="Its first digits will do.")],
    threshold: Threshold = None,
    passphrase_file: PassphraseFile = None,
    sign_with: SignWith = None,
    key_passphrase_file: KeyPassphraseFile = None,
    pin_file: PinFile = None,
    request: Request = None,
    dry_run: DryRun = False,
    force: Force = False,
    json: JsonFlag = False,
) -> None:
    """Take a key's right to sign a role. Its file here is deleted."""
    from bundler import keyholding
    from bundler.rendering import keys
    from schemas.settings import load

    how = options(
        passphrase_file,
        sign_with,
        key_passphrase_file,
        pin_file,
        request,
        dry_run=dry_run,
        force=force,
    )
    keys.changed(Output(json=json), keyholding.revoke(load().home, role, keyid, how, threshold))


@app.command("rotate")
def keys_rotate(
    role: Role,
    key_id: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="KEYID", help="Which go. [default: those that are kept here]"),
    ] = None,
    key: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer evaluates it
        typer.Option(metavar="PUBLIC", help="What comes: public key files or pkcs11: URIs."),
    ] = None,
    key_type: KeyType = "ecdsa-p256",
    passphrase_file: PassphraseFile = None,
    sign_with: SignWith = None,
    key_passphrase_file: KeyPassphraseFile = None,
    pin_file: PinFile = None,
    request: Request = None,
    dry_run: DryRun = False,
    force: Force = False,
    json: JsonFlag = False,
) -> None:
    """Put new keys in the place of old ones: yearly, or when one may have been stolen."""
    from bundler import keyholding
    from bundler.rendering import keys
    from schemas.settings import load

    how = options(
        passphrase_file,
        sign_with,
        key_passphrase_file,
        pin_file,
        request,
        dry_run=dry_run,
        force=force,
    )
    done = keyholding.rotate(load().home, role, key_id or (), key or (), key_type, how)
    keys.changed(Output(json=json), done)


@app.command("threshold")
def keys_threshold(
    role: Role,
    count: Annotated[int, typer.Argument(metavar="N", min=1, max=64, help="How many must sign.")],
    passphrase_file: PassphraseFile = None,
    sign_with: SignWith = None,
    key_passphrase_file: KeyPassphraseFile = None,
    pin_file: PinFile = None,
    request: Request = None,
    dry_run: DryRun = False,
    force: Force = False,
    json: JsonFlag = False,
) -> None:
    """Say how many keys must sign a role."""
    from bundler import keyholding
    from bundler.rendering import keys
    from schemas.settings import load

    how = options(
        passphrase_file,
        sign_with,
        key_passphrase_file,
        pin_file,
        request,
        dry_run=dry_run,
        force=force,
    )
    keys.changed(Output(json=json), keyholding.set_threshold(load().home, role, count, how))


@app.command("renew")
def keys_renew(
    roles: Annotated[list[str], typer.Argument(metavar="ROLE…", help="As in `keys list`.")],
    passphrase_file: PassphraseFile = None,
    sign_with: SignWith = None,
    key_passphrase_file: KeyPassphraseFile = None,
    pin_file: PinFile = None,
    request: Request = None,
    dry_run: DryRun = False,
    force: Force = False,
    json: JsonFlag = False,
) -> None:
    """Sign roles again before they expire, with keys that `bundle create` has not at hand."""
    from bundler import keyholding
    from bundler.rendering import keys
    from schemas.settings import load

    how = options(
        passphrase_file,
        sign_with,
        key_passphrase_file,
        pin_file,
        request,
        dry_run=dry_run,
        force=force,
    )
    keys.changed(Output(json=json), keyholding.renew(load().home, roles, how))
