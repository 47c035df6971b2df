"""What the commands of the connected side do, behind one function each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bundler.clock import now
from bundler.create import Created, create_bundle
from bundler.files import check_output, new_file
from bundler.sources import resolve
from bundler.trust.publisher import Publisher
from schemas.errors import UsageError
from schemas.render import Meter


def workspace(home: Path) -> Path:
    """The publisher's folder under ``$SEALIFT_HOME``."""
    return home / "publisher"


def init(
    home: Path, name: str, namespaces: Sequence[str], key_type: str, passphrase: Callable[[], bytes]
) -> Publisher:
    """Make the workspace.

    Raises:
        AlreadyExists: There is one.
        InvalidName, UsageError: A namespace or key type that is none.
    """
    return Publisher.init(
        workspace(home),
        name=name,
        namespaces=namespaces,
        passphrase=passphrase(),
        key_type=key_type,
    )


def open_publisher(home: Path) -> Publisher:
    """Open the workspace.

    Raises:
        NotFound: There is none yet.
    """
    return Publisher.open(workspace(home))


def export_root(home: Path, output: Path, *, overwrite: bool) -> Publisher:
    """Write the newest root into a file.

    Raises:
        AlreadyExists: The file is there and ``overwrite`` is not set.
    """
    publisher = open_publisher(home)
    check_output(output, overwrite=overwrite)
    with new_file(output) as file:
        file.write(publisher.root_bytes)
    return publisher


def create(
    home: Path,
    sources: Sequence[str],
    names: Sequence[str],
    output: Path,
    *,
    passphrase: Callable[[], bytes],
    overwrite: bool,
    progress: Meter,
) -> Created:
    """Resolve sources and bundle them; see :func:`bundler.create.create_bundle`.

    Args:
        home: Whose publisher signs.
        sources: As typed.
        names: As typed: none, or one per source.
        output: The bundle.
        passphrase: Called once, after everything else that can fail early has been checked.
        overwrite: Whether the output may exist.
        progress: Told of the bytes.

    Raises:
        UsageError: The numbers of sources and names differ.
    """
    if names and len(names) != len(sources):
        raise UsageError(
            f"{len(sources)} models and {len(names)} names were given",
            hint="Give one --name per model, in the same order, or none",
        )
    publisher = open_publisher(home)
    check_output(output, overwrite=overwrite)
    secret = passphrase()
    wanted: Sequence[str | None] = names or [None] * len(sources)
    models = [resolve(s, n, progress) for s, n in zip(sources, wanted, strict=True)]
    return create_bundle(
        publisher,
        models,
        output,
        passphrase=secret,
        now=now(),
        overwrite=overwrite,
        progress=progress,
    )
