"""What the commands of the connected side do, behind one function each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bundler.archive import layout
from bundler.archive.codec import Compression
from bundler.chunking import Chunking
from bundler.chunks.shelf import IndexShelf
from bundler.clock import now
from bundler.create import Created, Form, create_bundle
from bundler.files import check_output, write_file
from bundler.sources import resolve
from bundler.trust.names import member_name, publisher_role
from bundler.trust.publisher import Publisher
from bundler.workbench import is_placing, sweep
from registry.verify import storage_errors
from schemas.errors import InvalidName, UsageError
from schemas.render import Meter

_SIZE: Final = re.compile(r"([0-9]{1,15})([KMGTkmgt]?)(i?)B?")
_MOST_VERSIONS: Final = 9_999_999_999  # as in tuf-metadata.v1.schema.json


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
    for namespace in namespaces:
        _check_namespace(namespace)
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


def add_namespace(home: Path, namespace: str, passphrase: Callable[[], bytes]) -> Publisher:
    """Make a key for one more namespace.

    Raises:
        AlreadyExists: It has one already.
        InvalidName: It is no namespace.
        KeyUnavailable: The passphrase is wrong.
    """
    publisher = open_publisher(home)
    _check_namespace(namespace)
    publisher.add_namespace(namespace, passphrase())
    return publisher


def export_root(home: Path, output: Path, *, overwrite: bool) -> Publisher:
    """Write the newest root into a file.

    Raises:
        AlreadyExists: The file is there and ``overwrite`` is not set.
    """
    publisher = open_publisher(home)
    check_output(output, overwrite=overwrite)
    write_file(output, publisher.root_bytes)
    return publisher


def form(compression: str, volume_size: str | None, *, overwrite: bool) -> Form:
    """How a bundle is to be written, as typed.

    Raises:
        UsageError: A word or size that is none.
    """
    try:
        mode = Compression(compression)
    except ValueError:
        raise UsageError(
            f"{compression!r} is no compression", hint="Give auto, none or max"
        ) from None
    return Form(mode, parse_size(volume_size) if volume_size else None, overwrite)


def parse_size(text: str) -> int:
    """Bytes in ``3900M`` or ``25G``: powers of 1000, as sticks are sold; ``Mi`` is 1024².

    Raises:
        UsageError: Anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text[:40]!r} is not a size", hint="Write 3900M, 25G or 64Mi")
    base = 1024 if match[3] else 1000
    power = "KMGT".index(match[2].upper()) + 1 if match[2] else 0
    return int(match[1]) * int(base**power)


def create(
    home: Path,
    sources: Sequence[str],
    names: Sequence[str],
    output: Path,
    *,
    form: Form,
    passphrase: Callable[[], bytes],
    progress: Meter,
) -> Created:
    """Resolve sources and bundle them; see :func:`bundler.create.create_bundle`.

    Args:
        home: Whose publisher signs.
        sources: As typed.
        names: As typed: none, or one per source.
        output: The bundle.
        form: How it is to be written.
        passphrase: Called once, after everything else that can fail early has been checked.
        progress: Told of the bytes.

    Raises:
        UsageError: The numbers of sources and names differ, or the output is one of the sources.
    """
    if names and len(names) != len(sources):
        raise UsageError(
            f"{len(sources)} models and {len(names)} names were given",
            hint="Give one --name per model, in the same order, or none",
        )
    publisher = open_publisher(home)
    sweep(output)
    check_output(output, overwrite=form.overwrite or is_placing(output))
    _keep_sources(sources, output)
    secret = passphrase()
    wanted: Sequence[str | None] = names or [None] * len(sources)
    chunking = Chunking(IndexShelf(workspace(home) / "chunks"), form.held)
    models = [resolve(s, n, chunking, progress) for s, n in zip(sources, wanted, strict=True)]
    return create_bundle(
        publisher,
        models,
        output,
        form=form,
        passphrase=secret,
        now=now(),
        progress=progress,
    )


def _check_namespace(namespace: str) -> None:
    """A role's file name must fit into a bundle whatever its version becomes."""
    longest = layout.TRUST_FOLDER + member_name(publisher_role(namespace), _MOST_VERSIONS)
    if (excess := len(longest) - layout.NAME_BYTES) > 0:
        raise InvalidName(
            f"the namespace {namespace[:40]}… is too long",
            why=f"{len(namespace)} characters, allowed are {len(namespace) - excess}",
            hint="Choose a shorter one",
        )


def _keep_sources(sources: Sequence[str], output: Path) -> None:
    with storage_errors(f"cannot write {output}"):
        for source in map(Path, sources):
            if output.exists() and source.exists() and output.samefile(source):
                raise UsageError(
                    f"{output} is a model that is to be bundled", hint="Write to another file"
                )
