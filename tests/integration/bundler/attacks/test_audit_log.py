"""Attacks on what a site wrote down: by somebody with the store's files, and by somebody with all.

Each forger edits the catalogue of a copy as SQLite lets anybody do who may write the file. Where
they have the site's key too, they sign anew. Every edit must be found, and the entry named.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bundler.evidence import checkpoints
from bundler.trust.site import site_key
from registry import merkle
from registry.auditlog import AuditLog
from registry.digest import Digest
from schemas.errors import AuditBroken, NotABundle, StoreDamaged, TruncatedBundle
from tests.support.publisher_simulator import Simulator
from tests.support.site import Outcome, Site, new_site

TRIGGERS = (
    "audit_log_keeps",
    "audit_log_stays",
    "audit_nodes_keep",
    "audit_nodes_stay",
    "audit_checkpoints_keep",
    "audit_checkpoints_stay",
)
SIZE = 8  # entries of the log under attack


class Forger:
    """Somebody with write access to a site's catalogue.

    Attributes:
        site: Whose it is.
        db: The catalogue, with the triggers that keep honest programs honest taken off.
    """

    def __init__(self, site: Site, db: sqlite3.Connection) -> None:
        self.site = site
        self.db = db
        for trigger in TRIGGERS:
            db.execute(f"DROP TRIGGER {trigger}")

    def entries(self) -> list[bytes]:
        return [row[0] for row in self.db.execute("SELECT document FROM audit_log ORDER BY seq")]

    def put(self, entries: list[bytes]) -> None:
        """Let the log have these entries, without a gap."""
        self.db.execute("DELETE FROM audit_log")
        rows = [(number, entry) for number, entry in enumerate(entries, 1)]
        self.db.executemany("INSERT INTO audit_log VALUES (?, 0, ?)", rows)
        self.db.execute(
            "UPDATE sqlite_sequence SET seq = ? WHERE name = 'audit_log'", (len(entries),)
        )

    def rebuild_tree(self) -> None:
        """Let the tree follow from the entries that are there now."""
        self.db.execute("DELETE FROM audit_nodes")
        peaks, nodes = merkle.Peaks(), []
        for entry in self.entries():
            nodes += peaks.append(merkle.leaf_hash(entry))
        self.db.executemany("INSERT INTO audit_nodes VALUES (?, ?)", enumerate(nodes))

    def sign_again(self) -> None:
        """With the site's key: every checkpoint anew, for the tree that is there now."""
        key = site_key(self.site.home, create=False)
        log = AuditLog(lambda sql, *values: self.db.execute(sql, values))
        sizes = self.db.execute("SELECT size FROM audit_checkpoints WHERE own = 1").fetchall()
        self.db.execute("DELETE FROM audit_checkpoints WHERE own = 1")
        for size in sorted({min(row[0], log.size) for row in sizes}):
            fresh = checkpoints.make(key, size, log.root(size))
            self.db.execute(
                "INSERT OR REPLACE INTO audit_checkpoints VALUES (?, ?, ?, 1, ?, ?, 0)",
                (fresh.size, fresh.signer, fresh.root, fresh.public, fresh.note),
            )

    def edit(self, index: int, **changes: Any) -> None:
        """Change an entry, and nothing else."""
        document = json.loads(self.entries()[index]) | changes
        data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        self.db.execute("UPDATE audit_log SET document = ? WHERE seq = ?", (data, index + 1))


@pytest.fixture(scope="module")
def pristine(publisher: Simulator, tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, Path]:
    """A site with a log of eight entries; and a checkpoint that was carried out at the sixth.

    0 trust.init, 1 and 2 refusals, 3 inventory.export, 4 to 7 refusals.
    """
    folder = tmp_path_factory.mktemp("log")
    home, carried, bad = (
        new_site(folder / "home", publisher),
        folder / "carried.json",
        folder / "bad.tar",
    )
    bad.write_bytes(b"no bundle" * 1000)

    def refuse_two() -> None:
        for _ in range(2):
            assert home.bundle("import", bad).code == NotABundle.exit_code

    refuse_two()
    assert home.bundle("inventory", "export", "-o", folder / "inventory.json").code == 0
    refuse_two()
    assert home.bundle("audit", "checkpoint", "-o", carried).code == 0
    refuse_two()
    assert home.audit_entries() == SIZE
    assert verify(home).code == 0
    return home, carried


@contextmanager
def forger(site: Site) -> Iterator[Forger]:
    """Somebody gets at the catalogue; what they leave is what the site finds."""
    with closing(sqlite3.connect(site.home / "catalog.db", isolation_level=None)) as db:
        yield Forger(site, db)


def verify(site: Site, *argv: object) -> Outcome:
    return site.bundle("audit", "verify", *argv, "--json")


def findings(site: Site, *argv: object) -> list[tuple[str, int, int]]:
    """What the command finds: it must find something, and say so by its exit code."""
    outcome = verify(site, *argv)
    assert outcome.code == AuditBroken.exit_code, outcome
    assert outcome.error["code"] == AuditBroken.code
    found = outcome.document["findings"]
    assert found[0]["what"] in outcome.error["why"]
    return [(each["kind"], each["first"], each["last"]) for each in found]


@pytest.fixture
def target(pristine: tuple[Site, Path], tmp_path: Path) -> Site:
    return pristine[0].copy(tmp_path / "home")


@pytest.fixture
def carried(pristine: tuple[Site, Path]) -> Path:
    return pristine[1]


# -- with the catalogue alone ---------------------------------------------------------------------


@pytest.mark.parametrize("index", range(SIZE))
def test_an_entry_changed(target: Site, index: int) -> None:
    with forger(target) as bad:
        bad.edit(index, actor="somebody else")
    assert ("changed", index, index) in findings(target)


def test_who_did_it_exchanged_in_two_entries(target: Site) -> None:
    with forger(target) as bad:
        bad.edit(2, uid=1)
        bad.edit(5, uid=1)
    assert findings(target)[:2] == [("changed", 2, 2), ("changed", 5, 5)]


@pytest.mark.parametrize("index", range(SIZE))
def test_an_entry_removed(target: Site, index: int) -> None:
    with forger(target) as bad:
        bad.db.execute("DELETE FROM audit_log WHERE seq = ?", (index + 1,))
    assert ("removed", index, index) in findings(target)


def test_an_entry_removed_and_the_gap_closed(target: Site) -> None:
    with forger(target) as bad:
        kept = bad.entries()
        del kept[3]
        bad.put(kept)
    assert ("removed", 3, 3) in findings(target)


def test_an_entry_inserted(target: Site) -> None:
    with forger(target) as bad:
        kept = bad.entries()
        kept.insert(3, kept[2].replace(b"refused", b"done"))
        bad.put(kept)
    assert ("inserted", 3, 3) in findings(target)


def test_an_entry_appended_without_the_tree(target: Site) -> None:
    with forger(target) as bad:
        bad.put([*bad.entries(), bad.entries()[2]])
    assert ("inserted", SIZE, SIZE) in findings(target)


def test_two_entries_exchanged(target: Site) -> None:
    with forger(target) as bad:
        kept = bad.entries()
        kept[1], kept[5] = kept[5], kept[1]
        bad.put(kept)
    found = findings(target)
    assert {1, 5} <= {place for _, first, last in found for place in (first, last)}


def test_an_entry_moved(target: Site) -> None:
    with forger(target) as bad:
        kept = bad.entries()
        kept.insert(6, kept.pop(2))
        bad.put(kept)
    assert ("moved", 2, 6) in findings(target)


def test_the_last_entries_cut_off(target: Site) -> None:
    with forger(target) as bad:
        bad.db.execute("DELETE FROM audit_log WHERE seq > 6")
    assert ("removed", 6, 7) in findings(target)


def test_the_last_entries_cut_off_with_their_tree(target: Site) -> None:
    with forger(target) as bad:
        bad.put(bad.entries()[:6])
        bad.rebuild_tree()
    assert ("removed", 6, 7) in findings(target)


def test_the_last_entries_cut_off_with_tree_and_checkpoints(target: Site) -> None:
    """Receipts are left that no entry tells of."""
    with forger(target) as bad:
        bad.put(bad.entries()[:6])
        bad.rebuild_tree()
        bad.db.execute("DELETE FROM audit_checkpoints WHERE size > 6")
    assert [kind for kind, _, _ in findings(target)] == ["receipt", "receipt"]


def test_sqlites_own_count_tells_of_what_was_cut_off(target: Site) -> None:
    with forger(target) as bad:
        bad.put(bad.entries()[:6])
        bad.rebuild_tree()
        bad.db.execute("DELETE FROM audit_checkpoints WHERE size > 6")
        bad.db.execute("UPDATE sqlite_sequence SET seq = 8 WHERE name = 'audit_log'")
    assert ("removed", 6, 7) in findings(target)


def test_an_entry_changed_and_the_tree_rebuilt(target: Site) -> None:
    with forger(target) as bad:
        bad.edit(3, actor="somebody else")
        bad.rebuild_tree()
    (kind, first, last), *_ = findings(target)
    assert kind == "rewritten"
    assert first <= 3 <= last
    assert last - first <= 1  # there is a checkpoint with every import


def test_the_log_emptied(target: Site) -> None:
    with forger(target) as bad:
        bad.put([])
        bad.rebuild_tree()
    assert ("removed", 0, SIZE - 1) in findings(target)


def test_a_node_of_the_tree_changed(target: Site) -> None:
    with forger(target) as bad:
        place = merkle.position(1, 1)
        bad.db.execute("UPDATE audit_nodes SET hash = zeroblob(32) WHERE position = ?", (place,))
    assert ("tree", 2, 3) in findings(target)


def test_the_tree_torn(target: Site) -> None:
    with forger(target) as bad:
        bad.db.execute("DELETE FROM audit_nodes WHERE position >= 5")
    assert findings(target)


def test_a_torn_tree_lets_nothing_in(
    target: Site, good: bytes, stick: Callable[[bytes], Path]
) -> None:
    """What cannot be recorded is not done; a refusal stays a refusal, and says so."""
    with forger(target) as bad:
        place = merkle.position(0, SIZE - 1)
        bad.db.execute("DELETE FROM audit_nodes WHERE position = ?", (place,))
        bad.db.execute("DELETE FROM audit_nodes WHERE position > ?", (place,))
    before = target.snapshot()
    accepted = target.bundle("import", stick(good), "--json")
    assert accepted.code == StoreDamaged.exit_code
    refused = target.bundle("import", stick(good[:-5000]), "--json")
    assert refused.code == TruncatedBundle.exit_code
    assert "could not be recorded" in refused.error["hint"]
    assert target.snapshot() == before


def test_a_checkpoint_removed(target: Site) -> None:
    with forger(target) as bad:
        bad.db.execute("DELETE FROM audit_checkpoints WHERE size = 3")
    assert findings(target) == [("checkpoint", 2, 2)]


def test_a_checkpoint_signed_by_another_key(target: Site, tmp_path: Path) -> None:
    stranger = site_key(tmp_path)
    with forger(target) as bad:
        log = AuditLog(lambda sql, *values: bad.db.execute(sql, values))
        fresh = checkpoints.make(stranger, 4, log.root(4))
        bad.db.execute(
            "INSERT INTO audit_checkpoints VALUES (?, ?, ?, 1, ?, ?, 0)",
            (fresh.size, fresh.signer, fresh.root, fresh.public, fresh.note),
        )
    assert findings(target) == [("checkpoint", 4, 4)]
    assert verify(target, "--former-key", stranger.fingerprint.hex).code == 0


def test_a_checkpoint_that_contradicts_its_row(target: Site) -> None:
    with forger(target) as bad:
        bad.db.execute("UPDATE audit_checkpoints SET size = 4 WHERE size = 3")
    assert ("checkpoint", 4, 4) in findings(target)


def test_a_checkpoint_with_a_broken_signature(target: Site) -> None:
    with forger(target) as bad:
        bad.db.execute(
            "UPDATE audit_checkpoints SET note = (SELECT CAST(substr(CAST(a.note AS TEXT), 1,"
            " instr(CAST(a.note AS TEXT), char(10, 10))) || substr(CAST(b.note AS TEXT),"
            " instr(CAST(b.note AS TEXT), char(10, 10)) + 1) AS BLOB) FROM audit_checkpoints AS a,"
            " audit_checkpoints AS b WHERE a.size = 3 AND b.size = 2) WHERE size = 3"
        )
    assert ("checkpoint", 3, 3) in findings(target)


def test_a_receipt_changed(target: Site) -> None:
    with forger(target) as bad:
        changed = bad.db.execute(
            "UPDATE receipts SET document = CAST(replace(CAST(document AS TEXT),"
            " 'not-a-bundle', 'bad-signature') AS BLOB)"
            " WHERE json_extract(CAST(document AS TEXT), '$.log.size') = 2"
        )
        assert changed.rowcount == 1
    assert findings(target) == [("receipt", 2, 2)]


def test_a_receipt_removed(target: Site) -> None:
    with forger(target) as bad:
        bad.db.execute(
            "DELETE FROM receipts WHERE json_extract(CAST(document AS TEXT), '$.log.size') = 2"
        )
    assert findings(target) == [("receipt", 2, 2)]


def test_a_receipt_with_anothers_signature(target: Site) -> None:
    with forger(target) as bad:
        bad.db.execute(
            "UPDATE receipts SET signature = (SELECT signature FROM receipts AS o"
            " WHERE json_extract(CAST(o.document AS TEXT), '$.log.size') = 1)"
            " WHERE json_extract(CAST(document AS TEXT), '$.log.size') = 2"
        )
    assert findings(target) == [("receipt", 2, 2)]


def test_a_receipt_that_is_no_json(target: Site) -> None:
    with forger(target) as bad:
        bad.db.execute(
            "UPDATE receipts SET document = x'00'"
            " WHERE json_extract(CAST(document AS TEXT), '$.log.size') = 2"
        )
    assert ("receipt", 2, 2) in findings(target)


def test_a_sound_site_goes_on_after_an_edit_was_found(target: Site, tmp_path: Path) -> None:
    """Evidence of an edit does not stop the work, nor does more work hide it."""
    with forger(target) as bad:
        bad.edit(3, actor="somebody else")
    junk = tmp_path / "junk.tar"
    junk.write_bytes(b"no bundle" * 1000)
    assert target.bundle("import", junk).code == 12
    assert ("changed", 3, 3) in findings(target)


# -- with the site's key too ----------------------------------------------------------------------


def rewrite(bad: Forger) -> None:
    """Everything anew: the site itself cannot tell."""
    bad.edit(3, subject="something else")
    bad.rebuild_tree()
    bad.sign_again()


def test_with_the_sites_key_nothing_is_left_to_see_inside(target: Site) -> None:
    """Said plainly: this is what countersignatures are for."""
    with forger(target) as bad:
        rewrite(bad)
    assert verify(target).code == 0


def test_a_checkpoint_that_was_carried_out_shows_it(target: Site, carried: Path) -> None:
    assert verify(target, "--against", carried).code == 0
    with forger(target) as bad:
        rewrite(bad)
    (kind, first, last), *_ = findings(target, "--against", carried)
    assert kind == "rewritten"
    assert first <= 3 <= last


def test_a_cut_log_is_shorter_than_what_was_carried_out(target: Site, carried: Path) -> None:
    with forger(target) as bad:
        bad.db.execute("DELETE FROM receipts")
        bad.put(bad.entries()[:4])
        bad.rebuild_tree()
        bad.sign_again()
    found = findings(target, "--against", carried)
    assert ("removed", 4, 5) in found


def test_a_carried_checkpoint_of_another_site_is_not_compared(
    target: Site, site: Site, tmp_path: Path
) -> None:
    other = site.copy(tmp_path / "other")
    carried = tmp_path / "other.json"
    assert other.bundle("audit", "checkpoint", "-o", carried).code == 0
    found = findings(target, "--against", carried)
    assert [kind for kind, _, _ in found] == ["checkpoint"]


def test_the_sites_key_replaced(target: Site) -> None:
    """A new key cannot pass for the one that signed before."""
    key = target.home / "site" / "key.pem"
    key.unlink()
    site_key(target.home)
    found = findings(target)
    assert {kind for kind, _, _ in found} == {"checkpoint", "receipt"}


def test_digest_of_a_receipt_is_that_of_the_entry(target: Site) -> None:
    shown = target.bundle("audit", "show", "--json").document["entries"]
    with closing(sqlite3.connect(target.home / "catalog.db")) as db:
        for entry in shown:
            if entry["action"] == "import":
                ((document,),) = db.execute(
                    "SELECT document FROM receipts WHERE id = ?", (entry["detail"]["receipt"],)
                ).fetchall()
                assert entry["detail"]["digest"] == str(Digest.of(document))
