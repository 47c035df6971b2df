"""Opening the catalogue: created, migrated from every earlier schema, or refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from registry import database
from registry.catalogue import Catalogue
from registry.digest import Digest
from registry.reference import Reference
from schemas.errors import (
    NotFound,
    SealiftError,
    StorageFailure,
    StorageFull,
    StoreBusy,
    StoreDamaged,
)
from tests.store_models import snapshot, tiny

LATEST = len(database.migrations())


def schema(path: Path) -> list[tuple[str, str, str]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(
            "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type, name"
        ).fetchall()
    finally:
        connection.close()


def build(path: Path, version: int) -> None:
    """A catalogue as the Sealift of that schema version left it."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    for script in database.migrations()[:version]:
        connection.executescript(script.read_text(encoding="utf-8"))
    connection.execute(f"PRAGMA user_version = {version}")
    connection.execute(f"PRAGMA application_id = {database.APPLICATION_ID}")
    connection.commit()
    connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.db"


def use(path: Path) -> None:
    """Write and read a model."""
    model, name = tiny(), Reference.parse("acme/tiny:1")
    with Catalogue.open(path) as catalogue:
        with catalogue.transaction() as tx:
            for blob in model.manifest.blobs:
                tx.put_blob(blob)
            tx.put_manifest(name.repository, model.descriptor, model.manifest, None)
            tx.set_tag(name, model.descriptor.digest)
        assert [record.reference for record in catalogue.models()] == [name]


@pytest.mark.parametrize("version", range(LATEST + 1))
def test_migration_from_every_earlier_schema(path: Path, tmp_path: Path, version: int) -> None:
    fresh = tmp_path / "fresh.db"
    Catalogue.open(fresh).close()
    if version:
        build(path, version)
    use(path)
    assert schema(path) == schema(fresh)


def test_the_settings_that_durability_rests_on(path: Path) -> None:
    connection = database.connect(path)
    try:
        for pragma, value in [
            ("journal_mode", "wal"),
            ("synchronous", 2),
            ("foreign_keys", 1),
            ("user_version", LATEST),
            ("application_id", database.APPLICATION_ID),
        ]:
            assert connection.execute(f"PRAGMA {pragma}").fetchone() == (value,)
        tables = connection.execute("PRAGMA table_list").fetchall()
        assert all(strict for _, name, _, _, _, strict in tables if not name.startswith("sqlite_"))
    finally:
        connection.close()


def test_opening_again_changes_no_byte(path: Path) -> None:
    use(path)
    before = snapshot(path.parent)
    assert list(before) == ["catalog.db"]  # closed: no journal is left
    with Catalogue.open(path) as catalogue:
        assert catalogue.models()
    assert snapshot(path.parent) == before


def test_a_newer_schema_is_refused_untouched(path: Path) -> None:
    build(path, LATEST)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {LATEST + 1}")
    connection.close()
    before = snapshot(path.parent)
    with pytest.raises(StoreDamaged, match="newer Sealift") as caught:
        Catalogue.open(path)
    assert caught.value.hint
    assert snapshot(path.parent) == before


def test_a_foreign_database_is_refused_untouched(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE notes (text)")
    connection.close()
    before = snapshot(path.parent)
    with pytest.raises(StoreDamaged, match="not a catalogue"):
        Catalogue.open(path)
    assert snapshot(path.parent) == before


def test_another_programs_application_id_is_refused(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA application_id = 7")
    connection.close()
    with pytest.raises(StoreDamaged, match="not a catalogue"):
        Catalogue.open(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"not a database at all" * 100,
        lambda data: b"\x00" * len(data),
        lambda data: data[:100],
        lambda data: data[:4096] + b"\xff" * (len(data) - 4096),
    ],
    ids=["text", "zeros", "cut", "overwritten"],
)
def test_damage_is_one_clear_error(path: Path, damage: Callable[[bytes], bytes]) -> None:
    use(path)
    path.write_bytes(damage(path.read_bytes()))

    def work() -> None:
        with Catalogue.open(path) as catalogue:
            catalogue.models()

    with pytest.raises(StoreDamaged) as caught:
        work()
    assert "doctor" in caught.value.hint or "not a catalogue" in caught.value.what


def test_a_place_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StorageFailure):
        Catalogue.open(tmp_path / "absent" / "catalog.db")
    with pytest.raises(StorageFailure):
        Catalogue.open(tmp_path)


def test_only_using_creates_nothing(path: Path) -> None:
    with pytest.raises(NotFound):
        Catalogue.open(path, create=False)
    assert not path.exists()


def test_a_failed_migration_leaves_the_old_schema(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    for script in database.migrations():
        (scripts / script.name).write_bytes(script.read_bytes())
    use(path)
    before = schema(path)
    (scripts / f"{LATEST + 1:04}_broken.sql").write_text(
        "CREATE TABLE half (x INTEGER) STRICT;\nINSERT INTO absent VALUES (1);\n"
    )
    monkeypatch.setattr(database, "MIGRATIONS", scripts)
    with pytest.raises(StorageFailure):
        Catalogue.open(path)
    assert schema(path) == before
    (scripts / f"{LATEST + 1:04}_broken.sql").write_text(
        "INSERT INTO trust_roots VALUES ('nobody', 1, x'00');"
    )
    with pytest.raises(StoreDamaged, match="dangling"):
        Catalogue.open(path)
    assert schema(path) == before
    (scripts / f"{LATEST + 1:04}_broken.sql").write_text("CREATE TABLE later (x) ;")
    Catalogue.open(path).close()
    assert ("table", "later", "CREATE TABLE later (x)") in schema(path)
    monkeypatch.undo()
    with pytest.raises(StoreDamaged, match="newer"):
        Catalogue.open(path)


def test_a_gap_in_the_migrations_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0002_second.sql").touch()
    monkeypatch.setattr(database, "MIGRATIONS", tmp_path)
    with pytest.raises(StoreDamaged, match="lacks a migration"):
        database.migrations()


def test_statements_keep_triggers_whole() -> None:
    script = "-- a; b\nCREATE TABLE a (x);\nCREATE TRIGGER t BEFORE UPDATE ON a\nBEGIN\n  SELECT 1;\n  SELECT 2;\nEND;\n"
    found = list(database.statements(script))
    assert len(found) == 2
    assert found[1].rstrip().endswith("END;")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_BUSY, StoreBusy),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreBusy),
        (sqlite3.SQLITE_LOCKED, StoreBusy),
        (sqlite3.SQLITE_FULL, StorageFull),
        (sqlite3.SQLITE_CORRUPT, StoreDamaged),
        (sqlite3.SQLITE_NOTADB, StoreDamaged),
        (sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY, StoreDamaged),
        (sqlite3.SQLITE_IOERR_WRITE, StorageFailure),
        (sqlite3.SQLITE_READONLY, StorageFailure),
        (None, StorageFailure),
    ],
)
def test_sqlite_errors_are_translated(code: int | None, expected: type[SealiftError]) -> None:
    error = sqlite3.OperationalError("it says so")
    if code is not None:
        error.sqlite_errorcode = code
    with (
        pytest.raises(expected, match="cannot do it: it says so"),
        database.database_errors("cannot do it"),
    ):
        raise error


def test_digests_are_stored_as_text(path: Path) -> None:
    use(path)
    connection = sqlite3.connect(path)
    stored = [row[0] for row in connection.execute("SELECT digest FROM blobs")]
    connection.close()
    assert {Digest.parse(text) for text in stored} == tiny().digests
