"""Models of a publisher who has been silent for long: usable, and shown as stale."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from registry.staleness import stale_days
from registry.store import Store
from tests.support.bundle_simulator import forge
from tests.support.governed import DAY, START, desk
from tests.support.publisher_simulator import Simulator


def test_days_since_the_timestamp_expired(tmp_path: Path) -> None:
    publisher = Simulator(now=START)
    publisher.signed["timestamp"].expires = START + DAY
    site = desk(tmp_path / "home", publisher)
    site.bring(forge(publisher))
    with Store.open(site.home) as store:
        for now, wanted in (
            (datetime(1970, 1, 1, tzinfo=UTC), {}),  # the floor counts
            (START + DAY - timedelta(seconds=1), {}),
            (START + DAY, {"library": 0}),
            (START + 11 * DAY, {"library": 10}),
        ):
            assert stale_days(store.catalogue, now) == wanted
    assert site.models()
