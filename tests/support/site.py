"""An isolated site under attack: its store, what the command says there, what is left afterwards."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bundler.cli import app
from bundler.importer import Wishes
from bundler.isolated import import_paths, verify_paths
from bundler.trusting import pin
from schemas.cli import run
from schemas.errors import ContentError, IncompleteBundle, SealiftError, TrustError
from schemas.render import Output
from tests.support.publisher_simulator import Simulator


@dataclass(frozen=True)
class Outcome:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error document of ``--json``."""
        found: dict[str, Any] = json.loads(self.err)["error"]
        return found


@dataclass(frozen=True)
class Snapshot:
    """A store's content: every file by name, mode and digest; the catalogue by its rows.

    Attributes:
        files: All but those of ``evidence``.
        catalogue: Likewise.
        evidence: What every import leaves, a refused one too: receipts, the audit log with its
            tree and checkpoints, and the site's key, which signs them.
    """

    files: Mapping[str, tuple[int, str]]
    catalogue: str
    evidence: str

    @property
    def installed(self) -> tuple[Mapping[str, tuple[int, str]], str]:
        """All that a refused bundle must not change: everything but the evidence of it."""
        return self.files, self.catalogue

    @property
    def blobs(self) -> list[str]:
        """Digests of the blobs that are there, computed anew."""
        return sorted(d for name, (_, d) in self.files.items() if name.startswith("blobs/"))


@dataclass(frozen=True)
class Site:
    """A home with a store in it."""

    home: Path

    def bundle(self, *argv: object) -> Outcome:
        """Run the command in this process, through its one entry."""
        out, err = io.StringIO(), io.StringIO()
        with environment(SEALIFT_HOME=str(self.home)), redirect_stdout(out), redirect_stderr(err):
            code = run(app, [str(word) for word in argv], name="bundle")
        return Outcome(code, out.getvalue(), err.getvalue())

    def copy(self, home: Path) -> Site:
        """Another site in the same state."""
        shutil.copytree(self.home, home)
        return Site(home)

    def snapshot(self) -> Snapshot:
        return snapshot(self.home)

    def models(self) -> list[str]:
        """Names in the catalogue."""
        rows = self._rows(
            "SELECT r.name || ':' || t.tag FROM tags AS t JOIN repositories AS r"
            " ON r.id = t.repository ORDER BY 1"
        )
        return [row[0] for row in rows]

    def imports(self) -> int:
        """How many imports were accepted."""
        return int(self._rows("SELECT count(*) FROM imports WHERE verdict = 'accepted'")[0][0])

    def receipts(self) -> int:
        """How many receipts there are, of refusals too."""
        return int(self._rows("SELECT count(*) FROM receipts")[0][0])

    def audit_entries(self) -> int:
        """How many entries the audit log has."""
        return int(self._rows("SELECT count(*) FROM audit_log")[0][0])

    def _rows(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(self.home / "catalog.db")) as connection:
            return connection.execute(query).fetchall()


_EVIDENCE_TABLES = (
    "imports",
    "receipts",
    "audit_log",
    "audit_nodes",
    "audit_checkpoints",
    "sqlite_sequence",
)


def snapshot(home: Path) -> Snapshot:
    """Take stock of a store."""
    files: dict[str, tuple[int, str]] = {}
    evidence: list[str] = []
    for path in sorted(home.rglob("*")):
        name = str(path.relative_to(home))
        if name.startswith("catalog.db"):
            continue
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        if name == "site" or name.startswith("site/"):
            evidence.append(f"{name} {path.lstat().st_mode} {content}")
        else:
            files[name] = (path.lstat().st_mode, content)
    rows: list[str] = []
    with closing(sqlite3.connect(home / "catalog.db")) as connection:
        for row in connection.iterdump():
            inserted = row.startswith(tuple(f'INSERT INTO "{name}"' for name in _EVIDENCE_TABLES))
            (evidence if inserted or "sqlite_sequence" in row else rows).append(row)
    return Snapshot(files, "\n".join(rows), "\n".join(evidence))


def check_sound(home: Path) -> list[str]:
    """See that a store holds nothing half: every blob is what its name says, every row has its blob.

    Returns:
        Names of the models, each of which is complete.
    """
    for path in (home / "blobs").rglob("*"):
        if path.is_file():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    with closing(sqlite3.connect(home / "catalog.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        for digest, size in connection.execute("SELECT digest, size FROM blobs"):
            assert (home / "blobs" / digest.replace(":", "/")).stat().st_size == size
    return Site(home).models()


def simulator() -> Simulator:
    """A publisher whose metadata are fresh by the real clock."""
    return Simulator(now=datetime.now(UTC).replace(microsecond=0))


def new_site(home: Path, *publishers: Simulator) -> Site:
    """A site that has pinned these publishers."""
    for number, publisher in enumerate(publishers):
        root = home.with_name(f"{home.name}-{number}.root.json")
        root.write_bytes(publisher.root_bytes)
        fingerprint = str(publisher.state().fingerprint)
        pin(home, root, fingerprint, f"simulated-{number}" if number else "simulated")
    return Site(home)


def check_refused(site: Site, bundle: Path, *wanted: type[SealiftError]) -> dict[str, Any]:
    """``verify`` and ``import`` both refuse a file, for the same reason, and change nothing.

    But that the refusal of an import is recorded: in a receipt and an entry of the audit log.

    Straight to the functions behind the commands: what the commands themselves add is tested with
    few files, not with hundreds.

    Returns:
        The error's document.
    """
    before = site.snapshot()
    receipts, entries = site.receipts(), site.audit_entries()
    verified = refusal(verify_paths, site, bundle)
    assert site.snapshot() == before
    imported = refusal(import_paths, site, bundle)
    assert site.snapshot().installed == before.installed
    verdict = isinstance(imported, ContentError | TrustError)  # else nobody judged the bundle
    more = verdict and not isinstance(imported, IncompleteBundle)
    assert (site.receipts(), site.audit_entries()) == (receipts + more, entries + more)
    assert type(imported) in wanted, imported
    assert (type(verified), verified.what) == (type(imported), imported.what)
    error: dict[str, Any] = imported.document()
    check_line(error)
    return error


def refusal(command: Callable[..., object], site: Site, bundle: Path) -> SealiftError:
    """The error that a command ends with; any other exception is a defect and goes through."""
    try:
        with Output(quiet=True).progress() as meter:
            command(site.home, [bundle], Wishes(), meter)
    except SealiftError as error:
        return error
    raise AssertionError(f"{bundle} was accepted")


def check_line(error: Mapping[str, Any]) -> None:
    """What, why (where that is not the same) and what next; nothing that a terminal would obey."""
    assert error["what"], error
    assert error["hint"], error
    for part in (error["what"], error["why"], error["hint"]):
        assert part.isprintable()
        assert "Traceback" not in part


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
