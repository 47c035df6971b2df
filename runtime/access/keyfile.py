"""The file of API keys, ``$SEALIFT_HOME/access/keys.json``: written whole, followed by servers."""

from __future__ import annotations

import logging
import os
import secrets
import stat
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from registry.staging import make_folder, sync_folder
from registry.store import Store
from registry.verify import storage_errors
from runtime.access.keys import ApiKey, KeySet
from schemas import limits
from schemas.documents import Kind, dump, load
from schemas.errors import AlreadyExists, NotFound, SealiftError, UsageError

FOLDER: Final = "access"
_NAME: Final = "keys.json"
_LOG: Final = logging.getLogger("sealift.access")
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Stamp = tuple[int, int, int, int]


def path_of(home: Path) -> Path:
    """Where the keys of a site are."""
    return home / FOLDER / _NAME


def read(home: Path) -> list[ApiKey]:
    """All keys, the oldest first; none where there is no file.

    Raises:
        UsageError: It is no regular file, or others may write it.
        MalformedDocument: It does not follow its schema.
        StorageFailure: It cannot be read.
    """
    path = path_of(home)
    with storage_errors(f"cannot read {path}"):
        try:
            descriptor = os.open(path, _READ)
        except FileNotFoundError:
            return []
        with os.fdopen(descriptor, "rb") as file:
            _check(path, os.fstat(descriptor))
            data = file.read(limits.API_KEYS_BYTES + 1)
    return [ApiKey.from_document(each) for each in load(Kind.API_KEYS, data)["keys"]]


def _check(path: Path, status: os.stat_result) -> None:
    why = ""
    if not stat.S_ISREG(status.st_mode):
        why = "it is no file"
    elif status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid()):
        why = "others could write it"
    if why:
        hint = f"Make it a file of this user's, with chmod 600 {path}"
        raise UsageError(f"{path} is not used", why=why, hint=hint)


def add(store: Store, record: ApiKey) -> None:
    """Keep a new key, and note it in the audit log.

    Raises:
        AlreadyExists: A key of this name is in force.
        UsageError: There are ``API_KEYS`` already.
    """
    with store.lock():
        keys = read(store.home)
        if any(key.name == record.name and key.in_force(record.created) for key in keys):
            raise AlreadyExists(
                f"there is a key named {record.name}", hint="Revoke it first, or take another name"
            )
        if len(keys) >= limits.API_KEYS:
            keys = [key for key in keys if key.in_force(record.created)]
        if len(keys) >= limits.API_KEYS:
            raise UsageError(f"there are {limits.API_KEYS} keys already")
        _write(store.home, [*keys, record])
        _note(store, "apikey.create", record)


def revoke(store: Store, which: str, *, dry_run: bool = False) -> ApiKey:
    """End a key for good; a server takes note within ``KEYS_RELOAD_SECONDS``.

    Args:
        store: Of the site.
        which: Its name or its id.
        dry_run: Only look it up.

    Raises:
        NotFound: No key in force has this name or id.
    """
    now = datetime.now(UTC)
    with store.lock():
        keys = read(store.home)
        found = next((k for k in keys if which in (k.name, k.id) and k.in_force(now)), None)
        if found is None:
            raise NotFound(f"no key {which[:64]!r} is in force", hint="See sealift apikey list")
        if not dry_run:
            ended = replace(found, revoked=now)
            _write(store.home, [ended if key is found else key for key in keys])
            _note(store, "apikey.revoke", found)
    return found


def _note(store: Store, action: str, record: ApiKey) -> None:
    roles = " ".join(sorted(role.value for role in record.roles))
    event = store.audit_event(action, record.name, {"id": record.id, "roles": roles})
    with store.catalogue.transaction() as tx:
        tx.add_audit_event(event)


def _write(home: Path, keys: Iterable[ApiKey]) -> None:
    data = dump(Kind.API_KEYS, {"schemaVersion": 1, "keys": [key.document() for key in keys]})
    path = path_of(home)
    partial = path.with_name(f".{_NAME}.{secrets.token_hex(4)}.partial")
    with storage_errors(f"cannot write {path}"):
        make_folder(path.parent)
        try:
            with os.fdopen(os.open(partial, _WRITE, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)


class KeyRing:
    """The keys as they are now, for a server that runs on while they change.

    A file that cannot be read or believed counts as one without keys: nobody is let in by a state
    that nobody can see any more.

    Args:
        home: ``$SEALIFT_HOME``.

    Attributes:
        keys: As they were last read.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._stamp: Stamp | None = None
        self.keys = KeySet()

    def refresh(self) -> bool:
        """Read the file again if it has changed; touches the disk.

        Returns:
            Whether the keys were read.
        """
        stamp = self._look()
        if stamp == self._stamp:
            return False
        try:
            self.keys = KeySet(read(self._home))
        except SealiftError as error:
            self.keys = KeySet()
            _LOG.error("no API key counts: %s", error.line())
        self._stamp = stamp
        return True

    def _look(self) -> Stamp | None:
        try:
            found = path_of(self._home).lstat()
        except OSError:
            return None
        return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
