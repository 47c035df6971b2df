"""What the commands of the connected side do, behind one function each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bundler.archive import layout
from bundler.archive.codec import Compression
from bundler.chunking import Chunking
from bundler.chunks.shelf import IndexShelf
from bundler.clock import now
from bundler.create import Created, create_bundle, create_to_pipe
from bundler.estimating import whole
from bundler.files import check_output, write_file
from bundler.forms import Form, check_pipe
from bundler.inventory import Inventory, WantList
from bundler.pipes import PIPE, standard_output
from bundler.readiness import check_names, check_outputs, check_room
from bundler.reports import read_inventory, read_wanted
from bundler.scanning.models import explained, refuse_unusual, scan_sources
from bundler.sizes import parse_size
from bundler.sources import FoundModel, LocalModel, SourceFile, examine, hashed
from bundler.trust.fingerprint import parse_fingerprint
from bundler.trust.keyring import Secrets
from bundler.trust.names import member_name, publisher_role
from bundler.trust.publisher import Publisher
from registry.digest import Digest
from registry.verify import storage_errors
from schemas.errors import InvalidName, NotFound, UsageError
from schemas.render import Meter

_MOST_VERSIONS: Final = 9_999_999_999  # as in tuf-metadata.v1.schema.json


def workspace(home: Path) -> Path:
    """The publisher's folder under ``$SEALIFT_HOME``."""
    return home / "publisher"


def init(
    home: Path,
    name: str,
    namespaces: Sequence[str],
    key_type: str,
    passphrase: Callable[[], bytes],
    offline: Path | None = None,
) -> Publisher:
    """Make the workspace.

    Raises:
        AlreadyExists: There is one.
        InvalidName, UsageError: A namespace or key type that is none.
    """
    for namespace in namespaces:
        check_namespace(namespace)
    return Publisher.init(
        workspace(home),
        name=name,
        namespaces=namespaces,
        passphrase=passphrase(),
        key_type=key_type,
        offline=offline,
    )


def open_publisher(home: Path) -> Publisher:
    """Open the workspace.

    Raises:
        NotFound: There is none yet.
    """
    return Publisher.open(workspace(home))


def add_namespace(home: Path, namespace: str, secrets: Secrets) -> Publisher:
    """Make a key for one more namespace.

    Raises:
        AlreadyExists: It has one already.
        InvalidName: It is no namespace.
        KeyUnavailable: The passphrase is wrong.
    """
    publisher = open_publisher(home)
    check_namespace(namespace)
    publisher.add_namespace(namespace, secrets)
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


def form(compression: str, volume_size: str | None, *, overwrite: bool, parity: int = 0) -> Form:
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
    size = parse_size(volume_size) if volume_size else None
    return Form(mode, size, overwrite, parity=parity)


def site_key(text: str | None) -> Digest | None:
    """The fingerprint of a site's key, as typed."""
    return None if text is None else parse_fingerprint(text)


def for_site(
    form: Form, against: Path | None, want: Path | None, site: str | None
) -> tuple[Form, Inventory | WantList | None]:
    """The same form for what one site holds; and the site's report.

    Args:
        form: What is known so far.
        against: The site's inventory; a hostile file.
        want: The site's want-list; a hostile file.
        site: Fingerprint of the site's key, as typed; without it, only consistency is checked.

    Raises:
        UsageError: Both are given.
        MalformedDocument, BadSignature, FingerprintMismatch: A file that is not believed.
    """
    if against is not None and want is not None:
        raise UsageError(
            "--against and --want exclude each other", hint="What is wanted travels whole"
        )
    if against is not None:
        inventory = read_inventory(against, site_key(site))
        return replace(form, held=inventory.blobs), inventory
    return form, None if want is None else read_wanted(want, site_key(site))


def countersigned(form: Form, paths: Sequence[Path]) -> Form:
    """The same form with sites' countersigned checkpoints.

    Raises:
        MalformedDocument, BadSignature: A file that is none.
    """
    from bundler.evidencing import read_countersignature

    found = tuple(read_countersignature(path).document() for path in paths)
    return replace(form, countersigned=found)


def create(
    home: Path,
    sources: Sequence[str],
    names: Sequence[str],
    output: Path,
    *,
    form: Form,
    passphrase: Callable[[], Secrets | bytes],
    progress: Meter,
    wanted: WantList | None = None,
) -> Created:
    """Resolve sources and bundle them; see :func:`bundler.create.create_bundle`.

    Args:
        home: Whose publisher signs.
        sources: As typed.
        names: As typed: none, or one per source.
        output: The bundle; ``-`` is standard output.
        form: How it is to be written.
        passphrase: Called once, after everything else that can fail early has been checked.
        progress: Told of the bytes.
        wanted: Take only models that have a blob of this list, to send it after an earlier bundle.

    Raises:
        NotFound: None of them has; or nothing was ever withdrawn, and no models are given.
        MalformedModel: A model that must not reach an engine; with a strict form, an unusual one.
        UsageError: The numbers of sources and names differ, or the output is one of the sources.
    """
    _check_number(sources, names)
    publisher = open_publisher(home)
    if form.advisories_only:
        check_advisories(publisher, sources)
    if output == PIPE:
        check_pipe(form)
        standard_output().close()  # a terminal is refused before anything is read
    else:
        check_outputs(output, form, 0)
        _keep_sources(sources, output)
    with explained(sources):
        found = [] if form.advisories_only else found_models(sources, names)
    findings = scan_sources(found)
    if form.strict:
        refuse_unusual(findings)
    if output != PIPE and wanted is None:  # else nobody knows yet what will travel
        check_room(found, output, form)
    secret = passphrase()
    publisher.check_ready([model.reference for model in found], secret, now())
    chunking = Chunking(IndexShelf(workspace(home) / "chunks"), form.held)
    models = [hashed(model, chunking, progress, lambda f: _cut(f, form)) for model in found]
    if wanted is not None:
        models = _only_wanted(models, wanted)
        form = replace(form, compression=Compression.NONE, supplements=wanted.bundle)
    if output == PIPE:
        with standard_output() as pipe, TemporaryDirectory(prefix="sealift-") as spool:
            created = create_to_pipe(
                publisher,
                models,
                pipe,
                Path(spool),
                form=form,
                passphrase=secret,
                now=now(),
                progress=progress,
            )
            return replace(created, findings=findings)
    created = create_bundle(
        publisher,
        models,
        output,
        form=form,
        passphrase=secret,
        now=now(),
        progress=progress,
    )
    return replace(created, findings=findings)


def check_advisories(publisher: Publisher, sources: Sequence[str]) -> None:
    """See that there is something to send where no models are.

    Raises:
        UsageError: Models are given too.
        NotFound: Nothing was ever withdrawn.
    """
    if sources:
        raise UsageError("--advisories-only takes no models", hint="Leave one of them out")
    if publisher.withdrawn is None:
        raise NotFound("nothing was withdrawn yet", hint="See `bundle withdraw --help`")


def _cut(file: SourceFile, form: Form) -> int | None:
    """Into segments of how many bytes a file will be cut, if it will travel as it is."""
    if form.piece is None or file.size <= form.piece or form.held:
        return None
    return None if whole(file, form).encoded else form.piece


def found_models(sources: Sequence[str], names: Sequence[str]) -> list[FoundModel]:
    """Find the models that were typed; only their headers are read.

    Args:
        sources: As typed.
        names: As typed: none, or one per source.

    Raises:
        UsageError: The numbers of sources and names differ, or two models have one name.
        SealiftError: As :func:`bundler.sources.examine`.
    """
    _check_number(sources, names)
    given: Sequence[str | None] = names or [None] * len(sources)
    found = [examine(s, n) for s, n in zip(sources, given, strict=True)]
    check_names(found)
    return found


def _check_number(sources: Sequence[str], names: Sequence[str]) -> None:
    if names and len(names) != len(sources):
        raise UsageError(
            f"{len(sources)} models and {len(names)} names were given",
            hint="Give one --name per model, in the same order, or none",
        )


def _only_wanted(models: Sequence[LocalModel], wanted: WantList) -> list[LocalModel]:
    """Those that have a wanted file."""
    found = {(blob.digest, blob.size) for model in models for blob in model.blobs}
    chosen = [
        model
        for model in models
        if any(wanted.blobs.get(blob.digest) == blob.size for blob in model.blobs)
    ]
    if missing := sorted(digest for digest, _ in wanted.blobs.items() - found):
        raise NotFound(
            f"{len(missing)} of {len(wanted.blobs)} wanted blobs are in none of these models",
            why=", ".join(digest.short for digest in missing[:10]),
            hint="Give the model files that the site is supposed to hold, older versions too",
        )
    return chosen


def check_namespace(namespace: str) -> None:
    """See that the role's file name fits into a bundle, whatever its version becomes.

    Raises:
        InvalidName: It does not, or the namespace is none.
    """
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
            if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
                raise UsageError(
                    f"{output} lies in a model's folder", hint="Write to another folder"
                )
