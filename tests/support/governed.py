"""A site with rules of its own, and the persons who work there."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bundler.approval.documents import Request, approve
from bundler.importer import Imported, Verified, Wishes, import_bundle
from bundler.policy.gate import Consent, Gate, Persons
from bundler.policy.reading import load
from bundler.trust.dsse import PersonKey, make_key
from bundler.verifying import verify_bundle
from registry.store import Store
from schemas.render import Output
from tests.support.publisher_simulator import Simulator
from tests.support.site import new_site

START = datetime(2027, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Desk:
    """Where bundles are brought, under a policy and at any time of the clock."""

    home: Path

    def rule(self, text: str) -> None:
        """Put a policy into force."""
        (self.home / "policy.toml").write_text(f"schema_version = 1\n{text}", encoding="utf-8")

    def bring(
        self,
        bundle: bytes,
        *,
        clock: datetime = START,
        consent: Consent | None = None,
        persons: Persons | None = None,
        wishes: Wishes | None = None,
    ) -> Imported:
        """Import, at a time that the host's clock says."""
        path = self.home.with_name("brought.tar")
        path.write_bytes(bundle)
        with (
            Store.open(self.home) as store,
            Output(quiet=True).progress() as meter,
            path.open("rb", buffering=0) as source,
        ):
            gate = Gate(load(self.home), consent, persons)
            return import_bundle(
                store,
                source,
                {},
                wishes=wishes or Wishes(),
                now=clock,
                progress=meter,
                gate=gate,
            )

    def look(self, bundle: bytes, *, clock: datetime = START) -> tuple[Verified, Gate]:
        """Verify only; the gate tells what an import would ask."""
        path = self.home.with_name("looked-at.tar")
        path.write_bytes(bundle)
        with (
            Store.open(self.home) as store,
            Output(quiet=True).progress() as meter,
            path.open("rb", buffering=0) as source,
        ):
            gate = Gate(load(self.home), looking=True)
            found = verify_bundle(
                store, source, {}, wishes=Wishes(), now=clock, progress=meter, gate=gate
            )
            return found, gate

    def request(self, bundle: bytes, key: PersonKey, **how: Any) -> Request:
        """Have somebody ask for the approval of a bundle."""
        return Request.read(self.bring(bundle, persons=Persons(requester=key), **how).request)

    def floor(self) -> datetime | None:
        """The latest time that the site has acted at."""
        with Store.open(self.home) as store:
            return store.catalogue.clock_floor()

    def events(self, action: str) -> list[dict[str, Any]]:
        """What the audit log says of an action."""
        with Store.open(self.home) as store:
            entries = store.catalogue.audit_events()
            return [dict(e.event) for e in entries if e.event["action"] == action]

    def models(self) -> list[str]:
        """Names of what is installed."""
        with Store.open(self.home) as store:
            return sorted(str(record.reference) for record in store.catalogue.models())


def desk(home: Path, *publishers: Simulator) -> Desk:
    """A site that has pinned these publishers, and has no policy yet."""
    return Desk(new_site(home, *publishers).home)


def operators(*names: str) -> dict[str, PersonKey]:
    """Persons with a key each."""
    return {name: make_key("ecdsa-p256") for name in names}


def entries(persons: dict[str, PersonKey], required: int = 1, rest: str = "") -> str:
    """The part of a policy that names persons."""
    lines = ["[approval]", f"required = {required}", rest]
    for name, key in persons.items():
        public = base64.b64encode(key.public).decode()
        lines += ["[[operator]]", f'name = "{name}"', f'key = "{public}"']
    return "\n".join(lines)


def approvals(request: Request, keys: Sequence[PersonKey]) -> Persons:
    """The same persons, having approved."""
    return Persons(tuple(approve(request, key, START) for key in keys))
