"""A whole model: its weights, and every file beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from bundler.files import open_regular
from bundler.scanning.files import scan_file
from bundler.scanning.findings import Finding, Severity, bounded
from bundler.scanning.header import scan_header
from bundler.sources import FoundModel
from registry import gguf, oci
from registry.oci import Descriptor
from registry.reference import Reference
from schemas.errors import MalformedModel

_GGUF: Final = b"GGUF"
_NEVER: Final = frozenset({"file-pickle", "file-program"})
_SHOWN: Final = 3  # findings in one message


def scan_layer(source: BinaryIO, size: int, name: str) -> tuple[Finding, ...]:
    """Say what is unusual about one file of a model.

    Args:
        source: Seekable, stands anywhere; of a very large file that is no GGUF, its start will do.
        size: Bytes of the whole file.
        name: For the findings, and for what its ending says.

    Raises:
        MalformedModel: It is a GGUF that may not reach an engine.
        StorageFailure: It cannot be read.
    """
    source.seek(0)
    magic = source.read(len(_GGUF))
    source.seek(0)
    if magic == _GGUF:
        return scan_header(gguf.read_header(source, size, projectors=True))
    return scan_file(source, size, name)


def checked_layer(source: BinaryIO, size: int, name: str) -> tuple[Finding, ...]:
    """As :func:`scan_layer`, and no policy lets code pass that runs when a file is loaded.

    Raises:
        MalformedModel: It is a pickle or a program; or as :func:`scan_layer`.
    """
    found = scan_layer(source, size, name)
    for each in found:
        if each.code in _NEVER:
            raise MalformedModel(
                f"{name} is not taken",
                why=f"it {each.detail}",
                hint="Take the model as GGUF or safetensors",
            )
    return found


def layer_name(layer: Descriptor) -> str:
    """What a layer's file is called."""
    return layer.annotations.get(oci.FILEPATH) or layer.digest.short


def scan_sources(models: Iterable[FoundModel]) -> dict[Reference, tuple[Finding, ...]]:
    """Scan models that are to be bundled.

    Raises:
        MalformedModel, NotFound, StorageFailure: A file cannot be read, or never should be.
    """
    found: dict[Reference, tuple[Finding, ...]] = {}
    for model in models:
        each: list[Finding] = []
        for item in model.files:
            with open_regular(item.path) as file:
                each += checked_layer(file, item.size, item.name)
        found[model.reference] = bounded(each)
    return found


def scan_paths(paths: Iterable[Path]) -> dict[str, tuple[Finding, ...]]:
    """Scan files, and those in folders, by their names; links in folders are passed over.

    Raises:
        NotFound, UsageError, StorageFailure: One cannot be read.
    """
    found: dict[str, tuple[Finding, ...]] = {}
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        for each in inside if not path.is_dir() else filter(_is_plain, inside):
            with open_regular(each) as file:
                try:
                    found[str(each)] = scan_layer(file, each.stat().st_size, each.name)
                except MalformedModel as error:
                    detail = error.why or error.what
                    found[str(each)] = (
                        Finding(Severity.DANGER, "gguf-malformed", each.name, detail),
                    )
    return found


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def refuse_unusual(found: Mapping[Reference, Iterable[Finding]]) -> None:
    """See that a scan found nothing unusual.

    Raises:
        MalformedModel: It did.
    """
    refuse_unusual_files({name.shortest: some for name, some in found.items()})


def refuse_unusual_files(found: Mapping[str, Iterable[Finding]]) -> None:
    """As :func:`refuse_unusual`, by the files' names."""
    said = [
        f"{name}: {each.line()}"
        for name, some in found.items()
        for each in some
        if each.severity > Severity.INFO
    ]
    if said:
        raise MalformedModel(
            "the scan found something unusual",
            why="; ".join(said[:_SHOWN]),
            hint="Look at it; leave --strict out if it is as it should be",
        )


@contextmanager
def explained(sources: Iterable[str]) -> Iterator[None]:
    """Where a source is refused, say what it is instead of what it is not.

    Raises:
        MalformedModel: As the block did, in better words where a scan has them.
    """
    try:
        yield
    except MalformedModel as error:
        for source in sources:
            dangers = _dangers(Path(source))
            if dangers:
                raise MalformedModel(
                    f"{source} is not bundled",
                    why=f"it {dangers[0].detail}",
                    hint="Take the model as GGUF or safetensors",
                ) from error
        raise


def _dangers(path: Path) -> tuple[Finding, ...]:
    if not path.is_file():
        return ()
    with open_regular(path) as file:
        found = scan_file(file, path.stat().st_size, path.name)
    return tuple(each for each in found if each.severity is Severity.DANGER)
