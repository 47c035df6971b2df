"""Opening ``catalog.db``: SQLite, WAL, foreign keys on, migrated to this program's schema."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from registry.auditlog import take_in
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import (
    NotFound,
    SealiftError,
    StorageFailure,
    StorageFull,
    StoreBusy,
    StoreDamaged,
)

APPLICATION_ID: Final = 0x5EA11F70  # in the file's header: tells ours from any other database
MIGRATIONS: Final = Path(__file__).with_name("migrations")

_TREE: Final = "_audit_tree"  # the script after which the audit log's tree is built
_RETRY_SECONDS: Final = 0.01
_CACHE_KIB: Final = 32 * 1024  # at most; SQLite's 2 MiB make each blob of a large import dearer
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NUMBERED: Final = re.compile(r"([0-9]{4})_[a-z0-9_]+\.sql")
_DAMAGED: Final = frozenset(
    {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT}
)
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


def microseconds(moment: datetime) -> int:
    """Since 1970-01-01 UTC, of an aware time."""
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    """The inverse of :func:`microseconds`."""
    return _EPOCH + timedelta(microseconds=value)


def rfc3339(moment: datetime) -> str:
    """``2026-11-23T15:33:00Z``: UTC, whole seconds."""
    # Not strftime: glibc's %Y does not fill up the years before 1000.
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def now() -> int:
    """The clock, in microseconds."""
    return microseconds(datetime.now(UTC))


@contextmanager
def database_errors(what: str) -> Iterator[None]:
    """Translate the errors of SQLite.

    Args:
        what: What was being done, as in ``"cannot read the catalogue"``.

    Raises:
        StoreBusy: Another process writes for too long.
        StorageFull: No space left.
        StoreDamaged: Not a database, corrupt, or contradicting itself.
        StorageFailure: Any other failure of the file or the engine.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extended part
        why = str(error)
        if code in _BUSY:
            raise StoreBusy(what, why=why, hint="Wait for the other command and retry") from error
        if code == sqlite3.SQLITE_FULL:
            raise StorageFull(what, why=why, hint="Free some space and run it again") from error
        if code in _DAMAGED:
            raise StoreDamaged(what, why=why, hint="Run sealift doctor") from error
        hint = "Check the disk, its free space and the permissions of the store"
        raise StorageFailure(what, why=why, hint=hint) from error


def connect(path: Path, *, create: bool = True) -> sqlite3.Connection:
    """Open and, where needed, create or migrate the database.

    The connection is in autocommit mode and may be used by any thread, one at a time.

    Raises:
        NotFound: There is none and ``create`` is False.
        StoreDamaged: It is no catalogue, or one of a newer Sealift.
        StoreBusy: Another process writes for too long.
        StorageFailure: It cannot be opened.
    """
    if not create and not path.exists():
        raise NotFound(f"no catalogue at {path}")
    with database_errors(f"cannot open {path}"):
        connection = sqlite3.connect(
            path,
            timeout=limits.STORE_LOCK_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            _prepare(connection, path)
        except (sqlite3.Error, SealiftError):
            connection.close()
            raise
        return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN")  # one view: another process may be creating it right now
    version, owner = _pragma(connection, "user_version"), _pragma(connection, "application_id")
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    connection.execute("COMMIT")
    wanted = migrations()
    if owner != APPLICATION_ID and (owner, version, tables) != (0, 0, 0):
        raise StoreDamaged(f"{path} is not a catalogue of Sealift")
    if version > len(wanted):
        raise StoreDamaged(
            f"{path} was written by a newer Sealift",
            why=f"schema {version}, this one knows {len(wanted)}",
            hint="Use that version, or another SEALIFT_HOME",
        )
    if version < len(wanted):
        _enter_wal(connection)
        _migrate(connection, wanted)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")  # a commit survives a power cut
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging; SQLite does not wait for other openers here, so we do."""
    deadline = time.monotonic() + limits.STORE_LOCK_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in _BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(_RETRY_SECONDS)


def migrations() -> list[Path]:
    """The numbered scripts in order: the n-th leads from schema n - 1 to n.

    Raises:
        StoreDamaged: The installation lacks one.
    """
    with storage_errors("cannot list the migrations"):
        found = sorted(p for p in MIGRATIONS.iterdir() if _NUMBERED.fullmatch(p.name))
    if not found or [int(p.name[:4]) for p in found] != list(range(1, len(found) + 1)):
        raise StoreDamaged("the installation lacks a migration", hint="Install Sealift again")
    return found


def _migrate(connection: sqlite3.Connection, scripts: list[Path]) -> None:
    """Apply what is missing, all of it in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for number, script in enumerate(scripts, start=1):
            # Read again inside the transaction: another process may have been first.
            if number > _pragma(connection, "user_version"):
                for statement in statements(script.read_text(encoding="utf-8")):
                    connection.execute(statement)
                if script.stem.endswith(_TREE):
                    take_in(lambda sql, *values: connection.execute(sql, values))
                connection.execute(f"PRAGMA user_version = {number}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        _check_references(connection)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _check_references(connection: sqlite3.Connection) -> None:
    broken = connection.execute("PRAGMA foreign_key_check").fetchone()
    if broken is not None:
        raise StoreDamaged("a migration left dangling rows", why=f"table {broken[0]}")


def statements(script: str) -> Iterator[str]:
    """Split a script; ``executescript`` would commit before each."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
