"""The mirror as the server has it: made ready before the front-end confines itself."""

from __future__ import annotations

import base64
import ssl
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from runtime.mirror.address import MirrorAddress
from runtime.mirror.courier import Courier
from runtime.mirror.remote import Remote
from schemas import limits
from schemas.errors import StorageFailure, UsageError
from schemas.settings import Serve


@dataclass(slots=True)
class Mirror:
    """The mirror, the courier that reaches it, and the few threads that talk with it.

    Attributes:
        address: Where it is.
        courier: Connects.
        tls: For ``https``.
        authorization: The header's value; empty for none.
        pool: Threads for transfers; they may be busy for hours, so they are not the store's.
        running: Transfers under way.
    """

    address: MirrorAddress
    courier: Courier
    tls: ssl.SSLContext | None = None
    authorization: str = field(default="", repr=False)
    pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(limits.TRANSFERS, "mirror")
    )
    running: set[Remote] = field(default_factory=set)

    @classmethod
    def start(cls, settings: Serve) -> Self | None:
        """Make ready to reach the mirror; None where none is configured.

        To be called from the main thread, before confinement: it reads files, asks for the mirror's
        addresses and starts a process.

        Raises:
            UsageError: The address or the login file is not what it should be.
            EnvironmentFault: The courier cannot be started or confined.
        """
        if not settings.mirror:
            return None
        address = MirrorAddress.parse(settings.mirror)
        tls = _tls(settings.mirror_ca) if address.scheme == "https" else None
        login = _login(Path(settings.mirror_login)) if settings.mirror_login else ""
        return cls(address, Courier.start(address.resolve()), tls, login)

    def connect(self) -> Remote:
        """For one transfer."""
        return Remote(self.address, self.courier.dial, self.tls, self.authorization)

    def document(self) -> dict[str, Any]:
        """For ``sealift doctor --egress``: where to, and how the courier is confined."""
        return {"address": str(self.address), **self.courier.report}

    def close(self) -> None:
        """End all transfers, then the courier."""
        for remote in tuple(self.running):
            remote.abort()
        self.pool.shutdown(cancel_futures=True)
        self.courier.close()


def _tls(authorities: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authorities or None)
    except OSError as error:  # ssl.SSLError too
        raise UsageError(
            f"cannot read the setting mirror_ca, {authorities}", why=str(error)
        ) from None


def _login(path: Path) -> str:
    """``user:password`` in a file that is nobody else's business, as a Basic header (RFC 7617)."""
    try:
        with path.open("rb") as file:
            mode, data = path.stat().st_mode, file.read(limits.KIB + 1)
    except OSError as error:
        raise StorageFailure(f"cannot read {path}", why=str(error.strerror)) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(f"{path} can be read by others", hint=f"Run chmod 600 {path}")
    text = data.strip()
    if b":" not in text or len(data) > limits.KIB or b"\n" in text:
        raise UsageError(f"{path} is no login", hint="Write user:password into it, on one line")
    return f"Basic {base64.b64encode(text).decode()}"
