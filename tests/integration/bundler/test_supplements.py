"""Top-ups come before the bundle that they top up, and are newer. That must open nothing else.

The attacker chooses which of the publisher's bundles reach the site, and in which order. Some keys
of his were taken back.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bundler.importer import Wishes
from bundler.isolated import import_paths, verify_paths
from registry.store import Store
from schemas.errors import ModelWithdrawn, RollbackDetected, SealiftError
from schemas.render import Output
from tests.support.bundle_simulator import Forgery, digest, dump, twin
from tests.support.publisher_simulator import Simulator
from tests.support.site import Site, check_sound
from tests.support.sticks import carry, weights

OLDER = "a" * 32  # the bundle that is topped up, of version 2
ANOTHER = "b" * 32  # one of the same time that the site has not seen
A, B = weights(1), weights(2)


class Line:
    """What a publisher wrote, in its order: another bundle, the older one, its top-up, a newer one."""

    def __init__(self, publisher: Simulator, folder: Path) -> None:
        self.folder = folder
        self.line = twin(publisher)

    def write(
        self, name: str, *models: Forgery, bundle_id: str, supplements: str | None = None
    ) -> Path:
        """Each is of the next version."""
        self.line.bump()

        def edit(document: dict[str, object]) -> None:
            if supplements is not None:
                document["supplements"] = supplements

        carried = carry(
            twin(self.line),
            *models,
            descriptor=edit,
            bundle_id=bundle_id,
            sequence=self.line.signed["timestamp"].version,
        )
        path = self.folder / f"{name}.tar"
        path.write_bytes(carried.head)
        return path


@pytest.fixture
def line(publisher: Simulator, tmp_path: Path) -> Line:
    return Line(publisher, tmp_path)


@pytest.fixture
def target(site: Site, tmp_path: Path) -> Site:
    return site.copy(tmp_path / "home")


def bring(site: Site, path: Path) -> None:
    with Output(quiet=True).progress() as meter:
        import_paths(site.home, [path], Wishes(), meter)


def refused(site: Site, path: Path) -> SealiftError:
    """By both commands, as a rollback; no model has changed."""
    before = site.models()
    for command in (verify_paths, import_paths):
        with Output(quiet=True).progress() as meter, pytest.raises(RollbackDetected) as caught:
            command(site.home, [path], Wishes(), meter)
    assert site.models() == before
    return caught.value


def manifest(site: Site, name: str) -> str:
    with Store.open(site.home) as store:
        return next(
            str(record.descriptor.digest)
            for record in store.catalogue.models()
            if str(record.reference) == name
        )


def test_older_bundle_comes_after_its_top_up(line: Line, target: Site) -> None:
    older = line.write("older", Forgery("library/a:1", A), bundle_id=OLDER)
    top_up = line.write("topup", Forgery("library/b:1", B), bundle_id="c" * 32, supplements=OLDER)
    bring(target, top_up)
    bring(target, top_up)
    bring(target, older)
    bring(target, older)
    bring(target, top_up)
    assert check_sound(target.home) == ["library/a:1", "library/b:1"]


def test_no_other_bundle_of_that_time_comes_in(line: Line, target: Site) -> None:
    """Rollback: without the top-up's floor it would only have to be newer than the site's state."""
    another = line.write("another", Forgery("library/a:1", B), bundle_id=ANOTHER)
    older = line.write("older", Forgery("library/a:1", A), bundle_id=OLDER)
    between = line.write("between", Forgery("library/b:2", A), bundle_id="d" * 32)
    top_up = line.write("topup", Forgery("library/b:1", B), bundle_id="c" * 32, supplements=OLDER)
    bring(target, top_up)
    for path in (another, between):
        assert "a top-up came with" in refused(target, path).why
    bring(target, older)
    for path in (another, between):
        refused(target, path)
    assert check_sound(target.home) == ["library/a:1", "library/b:1"]


def test_older_bundle_does_not_turn_names_back(line: Line, target: Site) -> None:
    """A tag that the top-up has set to a newer model stays."""
    older = line.write("older", Forgery("library/a:1", A), bundle_id=OLDER)
    top_up = line.write("topup", Forgery("library/a:1", B), bundle_id="c" * 32, supplements=OLDER)
    bring(target, top_up)
    newer = manifest(target, "library/a:1")
    assert "would turn library/a:1 back" in refused(target, older).what
    assert manifest(target, "library/a:1") == newer


def test_top_up_with_a_newer_root_holds_nothing_open(line: Line, target: Site) -> None:
    """Keys may have been taken back: what they signed must not come in through the gap."""
    older = line.write("older", Forgery("library/a:1", A), bundle_id=OLDER)
    line.line.rotate("timestamp")
    top_up = line.write("topup", Forgery("library/b:1", B), bundle_id="c" * 32, supplements=OLDER)
    bring(target, top_up)
    refused(target, older)
    assert target.models() == ["library/b:1"]


def test_older_top_up_lowers_no_floor(line: Line, target: Site) -> None:
    """Two top-ups for one bundle, the newer one first; and one for another bundle."""
    older = line.write("older", Forgery("library/a:1", A), bundle_id=OLDER)
    first = line.write("first", Forgery("library/b:1", B), bundle_id="c" * 32, supplements=OLDER)
    between = line.write("between", Forgery("library/b:2", A), bundle_id="d" * 32)
    second = line.write("second", Forgery("library/b:3", B), bundle_id="e" * 32, supplements=OLDER)
    bring(target, second)
    refused(target, first)
    refused(target, between)
    bring(target, older)
    refused(target, between)


def test_gap_closes_with_the_next_bundle(line: Line, target: Site) -> None:
    """And no freeze: whatever is newer than the top-up advances all versions, for good."""
    older = line.write("older", Forgery("library/a:1", A), bundle_id=OLDER)
    top_up = line.write("topup", Forgery("library/b:1", B), bundle_id="c" * 32, supplements=OLDER)
    newest = line.write("newest", Forgery("library/b:2", A), bundle_id="d" * 32)
    bring(target, top_up)
    bring(target, newest)
    with Store.open(target.home) as store:
        assert store.catalogue.supplements("simulated") == []
    refused(target, older)
    refused(target, top_up)


def test_top_up_of_another_publisher_opens_nothing(
    line: Line, publisher: Simulator, tmp_path: Path
) -> None:
    """The floor and the exception are the publisher's own."""
    from tests.support.site import new_site, simulator

    other = simulator()
    site = new_site(tmp_path / "two", publisher, other)
    older = line.write("older", Forgery("library/a:1", A), bundle_id=OLDER)
    newer = line.write("newer", Forgery("library/a:2", B), bundle_id=ANOTHER)
    bring(site, newer)
    foreign = Line(other, tmp_path)
    top_up = foreign.write("foreign", Forgery("acme/b:1", B), bundle_id="c" * 32, supplements=OLDER)
    bring(site, top_up)
    refused(site, older)


def test_older_bundle_brings_no_withdrawn_model(line: Line, target: Site) -> None:
    """The top-up's list of withdrawals holds, though its versions are not taken over."""
    older = line.write("older", Forgery("library/a:1", A), bundle_id=OLDER)
    forged = Forgery("library/a:1", A)
    entry = {
        "number": 1,
        "at": "2026-12-01T00:00:00Z",
        "action": "block",
        "digests": [digest(forged.manifest_bytes(dump(forged.manifest_document())))],
        "subject": "library/a:1",
        "reason": "it lies",
    }
    line.line.withdraw(dump({"schemaVersion": 1, "entries": [entry]}))
    top_up = line.write("topup", Forgery("library/b:1", B), bundle_id="c" * 32, supplements=OLDER)
    bring(target, top_up)
    assert target.bundle("import", older).code == ModelWithdrawn.exit_code
    assert check_sound(target.home) == ["library/b:1"]
