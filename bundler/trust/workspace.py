"""The publisher's folder on disk: written whole, switched by one rename.

::

    FOLDER/
      keys/<role>.pem           private keys, encrypted, mode 0600
      metadata/<10 digits>/     one generation: publisher.json, withdrawn.json if something is
                                withdrawn, and every current metadata file
      lock                      held while something is signed

The generation with the highest number is current. A new one is written beside it under another
name, made durable, and renamed into place; only then may anything in it leave this host. So a crash
can lose a version that nobody saw, but never gives one version number to two different files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Final

from bundler.trust.keys import sync_folder
from registry.locks import lock_within
from registry.verify import storage_errors
from schemas import limits, strictjson
from schemas.errors import AlreadyExists, InvalidName, NotFound, StoreBusy, StoreDamaged

_STATE: Final = "publisher.json"
_WITHDRAWN: Final = "withdrawn.json"
_STATE_BYTES: Final = 64 * limits.KIB
_DIGITS: Final = 10
_KEPT: Final = 2  # generations: the current one and, for people, the one before


@dataclass(frozen=True, slots=True)
class Generation:
    """One complete state of the publisher's folder, keys aside.

    Attributes:
        name: The publisher's, for people.
        sequence: How many bundles were signed for.
        files: Metadata file name to bytes.
        withdrawn: The list of what is withdrawn, as it was signed; None before the first.
        first_keys: Role to the id of the key in its ``<role>.pem``, as far as that is known.
        key_names: Key id to what people call the key.
    """

    name: str
    sequence: int
    files: Mapping[str, bytes]
    withdrawn: bytes | None = None
    first_keys: Mapping[str, str] = field(default_factory=dict)
    key_names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= 255 or not self.name.isprintable():
            raise InvalidName("a publisher's name is 1 to 255 printable characters")


class Workspace:
    """Reads and replaces generations.

    Args:
        folder: An existing publisher's folder.

    Raises:
        NotFound: There is none.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if not self._metadata.is_dir():
            raise NotFound(
                f"there are no publishing keys in {folder}", hint="Make them with: bundle keys init"
            )

    @staticmethod
    @contextmanager
    def being_built(folder: Path) -> Iterator[Path]:
        """A new folder to fill, which takes its name only if the block ends well.

        Raises:
            AlreadyExists: There is a folder or file of that name.
            StorageFailure: Or :class:`~schemas.errors.StorageFull`: the disk's reason.
        """
        if os.path.lexists(folder):
            raise AlreadyExists(
                f"there is a publisher's folder already: {folder}",
                hint="Its keys may be in use; choose another folder or move it away",
            )
        with storage_errors(f"cannot make {folder}"):
            folder.parent.mkdir(parents=True, exist_ok=True)
            new = folder.parent / f".{folder.name}.{token_hex(8)}.new"
            try:
                new.mkdir(mode=0o700)
                (new / "keys").mkdir(mode=0o700)
                (new / "metadata").mkdir(mode=0o700)
                yield new
                sync_folder(new)
                new.rename(folder)  # fails on a folder that is not empty
                sync_folder(folder.parent)
            finally:
                shutil.rmtree(new, ignore_errors=True)

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._folder

    def key_path(self, role: str) -> Path:
        """Where the private key of a role lies, if it is kept here."""
        return self._folder / "keys" / f"{role}.pem"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from signing.

        Raises:
            StoreBusy: Another one signs at present.
        """
        with storage_errors(f"cannot lock {self._folder}"):
            fd = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not lock_within(fd, limits.STORE_LOCK_SECONDS):
                raise StoreBusy(
                    f"another process is signing in {self._folder}", hint="Wait until it is done"
                )
            yield
        finally:
            os.close(fd)

    def load(self) -> Generation:
        """Read the current generation.

        Raises:
            StoreDamaged: It is incomplete.
            MalformedDocument: Its ``publisher.json`` does not parse.
        """
        current = self._numbers()[-1:]
        if not current:
            raise StoreDamaged(f"{self._folder} holds no metadata", hint="Restore it from a backup")
        folder = self._generation(current[0])
        with storage_errors(f"cannot read {folder}"):
            files = {path.name: _read(path) for path in sorted(folder.iterdir())}
        if _STATE not in files:
            raise StoreDamaged(f"{folder} has no {_STATE}", hint="Restore it from a backup")
        state = strictjson.parse_object(files.pop(_STATE), what=_STATE, max_bytes=_STATE_BYTES)
        name, sequence = state.get("name"), state.get("sequence")
        if state.get("schemaVersion") != 1 or not isinstance(name, str):
            raise StoreDamaged(f"{folder / _STATE} is of an unknown kind")
        if not isinstance(sequence, int) or sequence < 0:
            raise StoreDamaged(f"{folder / _STATE} has no sequence")
        withdrawn = files.pop(_WITHDRAWN, None)
        first, key_names = (_texts(state, field, folder) for field in ("firstKeys", "keyNames"))
        return Generation(name, sequence, files, withdrawn, first, key_names)

    def commit(self, generation: Generation) -> None:
        """Make a generation the current one; durable when this returns.

        Raises:
            StoreBusy: Another process committed at the same moment.
            StorageFailure: Or :class:`~schemas.errors.StorageFull`: the disk's reason; nothing
                changed then.
        """
        numbers = self._numbers()
        target = self._generation((numbers[-1] if numbers else 0) + 1)
        new = self._metadata / f".{token_hex(8)}.new"
        with storage_errors(f"cannot write {new.parent}"):
            try:
                _write_generation(new, generation)
                try:
                    new.rename(target)
                except OSError:
                    if target.exists():
                        raise StoreBusy(f"another process is signing in {self._folder}") from None
                    raise
                sync_folder(self._metadata)
            finally:
                shutil.rmtree(new, ignore_errors=True)
        self._tidy()

    def _tidy(self) -> None:
        # Leftovers cost room and nothing else, so failing to remove them fails nothing.
        old = [self._generation(number) for number in self._numbers()[:-_KEPT]]
        with suppress(OSError):
            for path in [*old, *self._metadata.glob(".*.new")]:
                shutil.rmtree(path, ignore_errors=True)

    @property
    def _metadata(self) -> Path:
        return self._folder / "metadata"

    def _generation(self, number: int) -> Path:
        return self._metadata / f"{number:0{_DIGITS}d}"

    def _numbers(self) -> list[int]:
        with storage_errors(f"cannot read {self._metadata}"):
            found = [path.name for path in self._metadata.iterdir()]
        return sorted(int(name) for name in found if len(name) == _DIGITS and name.isdecimal())


def _write_generation(folder: Path, generation: Generation) -> None:
    state = {
        "schemaVersion": 1,
        "name": generation.name,
        "sequence": generation.sequence,
        "firstKeys": dict(generation.first_keys),
        "keyNames": dict(generation.key_names),
    }
    folder.mkdir(mode=0o700)
    files = {**generation.files, _STATE: strictjson.dumps(state)}
    if generation.withdrawn is not None:
        files[_WITHDRAWN] = generation.withdrawn
    for name, data in files.items():
        with (folder / name).open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    sync_folder(folder)


def _texts(state: Mapping[str, object], name: str, folder: Path) -> dict[str, str]:
    """An object of strings; folders of early releases have none."""
    found = state.get(name, {})
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise StoreDamaged(f"{folder / _STATE} has no {name} that could be read")
    return dict(found)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(limits.TUF_TARGETS_BYTES + 1)
    if len(data) > limits.TUF_TARGETS_BYTES:
        raise StoreDamaged(f"{path} is too large")
    return data
