"""Who may ask, how much, and what is kept of it: around every request, in one place.

Nothing here waits: keys are looked up in memory, counting is arithmetic, lines are queued.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from aiohttp import hdrs, web

from registry.digest import Digest
from registry.staging import make_folder
from registry.verify import storage_errors
from runtime.access.keyfile import KeyRing, path_of
from runtime.access.keys import ApiKey
from runtime.access.ratelimit import Limiter, Rates
from runtime.access.roles import ASKING, MANAGING, RUNNING, Role, roles_for
from runtime.access.tls import Identity
from runtime.server import guard
from runtime.server.audit import AuditLog, Redactor
from runtime.server.backend import Backend
from runtime.server.listening import IPAddress, check_exposure
from runtime.server.metrics import Metrics
from runtime.server.record import Record, Texts
from schemas import limits
from schemas.errors import KeyRequired, RateLimited, RoleMissing, SealiftError, ServerBusy
from schemas.settings import Serve, Settings

_LOG: Final = logging.getLogger("sealift.server")
_SOON: Final = timedelta(days=21)
_API_KEY: Final = "X-Api-Key"
_UNKNOWN: Final = "unmatched"  # the route of a path that there is not
_STRANGERS: Final = ("key", "host", "origin")  # why those are turned away who have no key
_REASONS: Final[tuple[tuple[type[SealiftError], str], ...]] = (
    (KeyRequired, "key"),
    (RoleMissing, "role"),
    (RateLimited, "rate"),
    (ServerBusy, "busy"),
)


@dataclass(slots=True, eq=False)
class Governance:
    """The rules of one server, and their books.

    Attributes:
        settings: How to serve.
        keys: As they are now; None where there is no home to have them in.
        required: Whether a key is needed.
        hosts: Names that ``Host`` may have beside loopback's.
        addresses: Whether it may be any IP address: the server listens beyond loopback.
        audit: None where no log of requests is kept.
        certificate_expires: UTC; None without TLS.
        metrics: What is counted.
        limiter: Who had how much.
        proofs: When each model last made a token, by the monotonic clock.
    """

    settings: Serve = field(default_factory=Serve)
    keys: KeyRing | None = None
    required: bool = False
    hosts: tuple[str, ...] = ()
    addresses: bool = False
    audit: AuditLog | None = None
    certificate_expires: datetime | None = None
    metrics: Metrics = field(default_factory=Metrics)
    limiter: Limiter = field(default_factory=lambda: Limiter(time.monotonic))
    proofs: dict[Digest, float] = field(default_factory=dict)
    _prefix: str = field(default_factory=lambda: secrets.token_hex(4))
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def start(self) -> None:
        """Begin to write what is kept; once threads may be started."""
        if self.audit is not None:
            self.audit.start()
        if self.required and self.keys is not None and not self.keys.keys.usable(_now()):
            _LOG.warning("API keys are required and there are none: sealift apikey create")
        left = self.certificate_expires - _now() if self.certificate_expires else None
        if left is not None and left < _SOON:
            _LOG.warning("the certificate expires in %d days", left // timedelta(days=1))

    def begin(self, request: web.Request) -> Record:
        """Open a request's account."""
        resource = request.match_info.route.resource
        keeps_texts = self.audit is not None and self.settings.audit == "prompts"
        return Record(
            id=f"{self._prefix}-{next(self._numbers):06x}",
            method=request.method,
            route=resource.canonical if resource is not None else _UNKNOWN,
            client=request.remote or "",
            metrics=self.metrics,
            limiter=self.limiter,
            model_rates=Rates(
                self.settings.model_requests_per_minute, self.settings.model_tokens_per_minute
            ),
            proofs=self.proofs,
            texts=Texts() if keeps_texts else None,
        )

    def stranger(self, request: web.Request, record: Record) -> str:
        """What is wrong with the host or origin of a request; empty if nothing is."""
        host = request.headers.get(hdrs.HOST)
        if not guard.allowed_host(host, self.hosts, addresses=self.addresses):
            record.rejected = "host"
            return "this Host is not served here"
        if not self.allows_origin(request):
            record.rejected = "origin"
            return "this Origin is not allowed"
        return ""

    def allows_origin(self, request: web.Request) -> bool:
        """Whether the page that sent a request, if one did, may."""
        origin = request.headers.get(hdrs.ORIGIN)
        return guard.allowed_origin(origin, self.settings.origins) or guard.same_origin(
            origin, request.headers.get(hdrs.HOST)
        )

    def admit(self, request: web.Request, record: Record) -> None:
        """See whether whoever asks may, and has not had enough for now.

        Raises:
            KeyRequired: The request has no key that is in force.
            RoleMissing: Its key is not for this.
            RateLimited: Its key has had enough.
        """
        wanted = roles_for(record.route)
        record.key = self._key(request)
        if self.required and wanted:
            _check_role(record.key, wanted)
        if wanted is ASKING and request.method == hdrs.METH_POST:
            self.limiter.admit(_bucket(record.key), self._rates(record.key), _name(record.key))

    def demand(self, request: web.Request, roles: frozenset[Role]) -> None:
        """Insist on one of these roles for what the route alone does not ask for.

        Raises:
            KeyRequired, RoleMissing: The request's key, if it has one, is not for this.
        """
        if self.required:
            _check_role(self._key(request), roles)

    def end(self, record: Record) -> None:
        """Close a request's account: count it, and log it where that is due."""
        record.settle()
        self.limiter.charge(_bucket(record.key), self._rates(record.key), record.tokens)
        if self.audit is not None and self._matters(record):
            self.audit.add(record.entry())

    def _matters(self, record: Record) -> bool:
        """Whether the log keeps a request: one that asks a model, changes one, or was refused.

        Of strangers some per minute: who has no key must not be able to fill the log, and so wash
        out of it what others did.
        """
        if record.rejected in _STRANGERS:
            try:
                self.limiter.admit(_STRANGERS[0], Rates(requests=limits.AUDIT_STRANGERS))
            except RateLimited:
                return False
            return True
        wanted = roles_for(record.route)
        asks = wanted is ASKING and record.method == hdrs.METH_POST
        return bool(record.rejected) or asks or wanted in (MANAGING, RUNNING)

    def _key(self, request: web.Request) -> ApiKey | None:
        if self.keys is None:
            return None
        now = _now()
        scheme, _, bearer = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        presented = (
            bearer.strip() if scheme.lower() == "bearer" else "",
            request.headers.get(_API_KEY, "").strip(),
        )
        found = (self.keys.keys.find(text, now) for text in presented if text)
        return next((key for key in found if key is not None), None)

    def _rates(self, key: ApiKey | None) -> Rates:
        requests, tokens = self.settings.requests_per_minute, self.settings.tokens_per_minute
        if key is not None and key.requests_per_minute is not None:
            requests = key.requests_per_minute
        if key is not None and key.tokens_per_minute is not None:
            tokens = key.tokens_per_minute
        return Rates(requests, tokens)


GOVERNANCE: Final = web.AppKey("governance", Governance)


def govern(settings: Settings, address: IPAddress, identity: Identity | None) -> Governance:
    """Make the rules of a server that listens there; before its sandbox closes.

    Raises:
        UsageError: Others could ask without a key, or read along; a pattern is none.
        StorageFailure: The log of requests cannot be written.
    """
    serve = settings.serve
    with storage_errors(f"cannot use {settings.home}"):
        make_folder(path_of(settings.home).parent)
    ring = KeyRing(settings.home)
    ring.refresh()
    check_exposure(address, identity, ring)
    metrics = Metrics()
    audit = None
    if serve.audit != "off":
        audit = AuditLog(
            settings.home,
            size=serve.audit_bytes,
            files=serve.audit_files,
            redact=Redactor(serve.audit_redact),
            lost=metrics.lost,
        )
    names = (*map(str.lower, serve.hosts), *(identity.names if identity else ()))
    return Governance(
        serve,
        keys=ring,
        required=serve.require_keys or not address.is_loopback,
        hosts=names,
        addresses=not address.is_loopback,
        audit=audit,
        metrics=metrics,
        certificate_expires=identity.expires if identity else None,
    )


def reason_of(error: SealiftError) -> str:
    """Why a request was turned away, for counters; empty where it was taken and failed."""
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), "")


def follow_keys(
    backend: Backend, ring: KeyRing
) -> Callable[[web.Application], AsyncIterator[None]]:
    """A context of the application in which keys are read again whenever they change."""

    async def following(_: web.Application) -> AsyncIterator[None]:
        async def follow() -> None:
            while True:
                await asyncio.sleep(limits.KEYS_RELOAD_SECONDS)
                await backend.run(ring.refresh)

        task = asyncio.create_task(follow(), name="keys")
        yield
        task.cancel()
        await asyncio.wait((task,))

    return following


def _check_role(key: ApiKey | None, wanted: frozenset[Role]) -> None:
    if key is None:
        raise KeyRequired(
            "an API key is required",
            hint="Send Authorization: Bearer KEY; sealift apikey create makes one",
        )
    if key.roles.isdisjoint(wanted):
        lacking = min(role.value for role in wanted if role is not Role.ADMIN or wanted == RUNNING)
        raise RoleMissing(f"the key {key.name} may not do this", why=f"it lacks the role {lacking}")


def _bucket(key: ApiKey | None) -> str:
    return key.id if key is not None else "-"


def _name(key: ApiKey | None) -> str:
    return f"key {key.name}" if key is not None else "requests without a key"


def _now() -> datetime:
    return datetime.now(UTC)
