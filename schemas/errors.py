"""The one error tree. Every failure that can reach a person is one of these.

::

    SealiftError
    ├── UsageError              the request itself is wrong
    │   ├── InvalidName         a reference, digest, role or option that does not parse
    │   ├── NotFound            a model, blob, bundle or file that is not there
    │   ├── AlreadyExists       would overwrite what somebody may need
    │   ├── UnsupportedRequest  understood, but this model or build cannot do it
    │   ├── PromptTooLong       more tokens than the model's context holds
    │   ├── KeyRequired         the server wants an API key, and this is none that it knows
    │   └── RoleMissing         this API key may not do that
    ├── ContentError            bytes are not what they claim to be
    │   ├── ContentMismatch     wrong digest, too short or too long
    │   ├── NotABundle          the file is something else
    │   ├── TruncatedBundle     the archive ends too early
    │   ├── IncompleteBundle    volumes have yet to come
    │   ├── BlobsMissing        a differential bundle needs blobs that are not here
    │   ├── MalformedArchive    a tar header, order, padding or name that no bundle has
    │   ├── MalformedDocument   JSON that fails the strict parser or its schema
    │   └── MalformedModel      a model file that must not reach an engine
    ├── TrustError              well-formed, but not to be believed
    │   ├── TrustMissing        no pinned root for it
    │   ├── FingerprintMismatch the root is not the one the paper says
    │   ├── BadSignature        unsigned, below threshold or by the wrong key
    │   ├── ExpiredMetadata     signed once, no longer valid
    │   ├── RollbackDetected    older than what this site already trusts
    │   ├── OutsideClosure      content that nobody signed for
    │   ├── KeyUnavailable      a private key or its passphrase is missing or wrong
    │   ├── PolicyRefused       signed and sound, but this site's policy says no, or not yet
    │   ├── ModelWithdrawn      its publisher or this site took it back
    │   └── AuditBroken         the audit log is not what was signed about it
    ├── RemoteError             another machine failed or refused
    │   ├── RemoteUnavailable   nobody answers
    │   └── RemoteRefused       somebody answered no
    ├── EnvironmentFault        this machine cannot do it now
    │   ├── StorageFull         no space, quota or file-size limit
    │   ├── StorageFailure      any other failed read, write or permission
    │   ├── StoreBusy           another process holds the store
    │   ├── StoreDamaged        the store contradicts itself
    │   ├── SandboxUnavailable  the kernel cannot confine a process; nothing runs unconfined
    │   └── DependencyMissing   an optional part is not installed
    └── ServingFault            the runtime could not answer
        ├── ServerBusy          the queue is full
        ├── RateLimited         too many requests or tokens within a minute
        ├── WorkerFailed        the worker of this model died
        ├── LoadFailed          the engine refused the model
        ├── DoesNotFit          the model needs more memory than there is
        └── Cancelled           stopped on request

``code`` is stable and meant for scripts; ``exit_code`` is what the commands return;
``http_status`` is what the servers answer. A command's exit code 1 is kept for a defect of ours,
130 for an interrupt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class SealiftError(Exception):
    """Root of the tree.

    Args:
        what: What happened, one line, lower case, no full stop.
        why: The cause, as far as it is known.
        hint: What to do next, as one imperative sentence.
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        self.what = _one_line(what)
        self.why = _one_line(why)
        self.hint = _one_line(hint)
        super().__init__(self.line())

    def line(self) -> str:
        """The one line that a person sees: what, why, what next."""
        text = f"{self.what}: {self.why}" if self.why else self.what
        return f"{text}. {self.hint}" if self.hint else text

    def document(self) -> dict[str, object]:
        """The same for scripts (``--json``): code, exit code, what, why, hint."""
        return {
            "code": self.code,
            "exitCode": self.exit_code,
            "what": self.what,
            "why": self.why,
            "hint": self.hint,
        }


def _one_line(text: str) -> str:
    """Flatten and bound a message: parts of it may come from hostile input."""
    flat = "".join(c if c.isprintable() else "?" for c in text.replace("\n", " "))
    return flat if len(flat) <= _MESSAGE_CHARS else flat[: _MESSAGE_CHARS - 1] + "…"


_MESSAGE_CHARS = 600


class UsageError(SealiftError):
    code, exit_code, http_status = "usage", 2, 400


class InvalidName(UsageError):
    code, exit_code, http_status = "invalid-name", 3, 400


class NotFound(UsageError):
    code, exit_code, http_status = "not-found", 4, 404


class AlreadyExists(UsageError):
    code, exit_code, http_status = "already-exists", 5, 409


class UnsupportedRequest(UsageError):
    code, exit_code, http_status = "unsupported", 6, 400


class PromptTooLong(UsageError):
    code, exit_code, http_status = "prompt-too-long", 7, 400


class KeyRequired(UsageError):
    code, exit_code, http_status = "key-required", 8, 401


class RoleMissing(UsageError):
    code, exit_code, http_status = "role-missing", 9, 403


class ContentError(SealiftError):
    code, exit_code, http_status = "content", 10, 400


class ContentMismatch(ContentError):
    code, exit_code, http_status = "content-mismatch", 11, 400


class NotABundle(ContentError):
    code, exit_code, http_status = "not-a-bundle", 12, 400


class TruncatedBundle(ContentError):
    code, exit_code, http_status = "truncated-bundle", 13, 400


class IncompleteBundle(ContentError):
    code, exit_code, http_status = "incomplete-bundle", 17, 400


class BlobsMissing(ContentError):
    """A differential bundle needs what the store has not: ``blobs``, digest to size in bytes."""

    code, exit_code, http_status = "blobs-missing", 18, 400

    def __init__(
        self, what: str, *, why: str = "", hint: str = "", blobs: Mapping[Any, int] | None = None
    ) -> None:
        super().__init__(what, why=why, hint=hint)
        self.blobs = dict(blobs or {})


class MalformedArchive(ContentError):
    code, exit_code, http_status = "malformed-archive", 14, 400


class MalformedDocument(ContentError):
    code, exit_code, http_status = "malformed-document", 15, 400


class MalformedModel(ContentError):
    code, exit_code, http_status = "malformed-model", 16, 400


class TrustError(SealiftError):
    code, exit_code, http_status = "trust", 20, 403


class TrustMissing(TrustError):
    code, exit_code, http_status = "trust-missing", 21, 403


class FingerprintMismatch(TrustError):
    code, exit_code, http_status = "fingerprint-mismatch", 22, 403


class BadSignature(TrustError):
    code, exit_code, http_status = "bad-signature", 23, 403


class ExpiredMetadata(TrustError):
    code, exit_code, http_status = "expired-metadata", 24, 403


class RollbackDetected(TrustError):
    code, exit_code, http_status = "rollback-detected", 25, 403


class OutsideClosure(TrustError):
    code, exit_code, http_status = "outside-closure", 26, 403


class KeyUnavailable(TrustError):
    code, exit_code, http_status = "key-unavailable", 27, 403


class PolicyRefused(TrustError):
    code, exit_code, http_status = "policy-refused", 28, 403


class ModelWithdrawn(TrustError):
    code, exit_code, http_status = "model-withdrawn", 29, 403


class AuditBroken(TrustError):
    code, exit_code, http_status = "audit-broken", 60, 403


class RemoteError(SealiftError):
    code, exit_code, http_status = "remote", 30, 502


class RemoteUnavailable(RemoteError):
    code, exit_code, http_status = "remote-unavailable", 31, 502


class RemoteRefused(RemoteError):
    code, exit_code, http_status = "remote-refused", 32, 502


class EnvironmentFault(SealiftError):
    code, exit_code, http_status = "environment", 40, 500


class StorageFull(EnvironmentFault):
    code, exit_code, http_status = "storage-full", 41, 507


class StorageFailure(EnvironmentFault):
    code, exit_code, http_status = "storage-failure", 42, 500


class StoreBusy(EnvironmentFault):
    code, exit_code, http_status = "store-busy", 43, 503


class StoreDamaged(EnvironmentFault):
    code, exit_code, http_status = "store-damaged", 44, 500


class SandboxUnavailable(EnvironmentFault):
    code, exit_code, http_status = "sandbox-unavailable", 45, 500


class DependencyMissing(EnvironmentFault):
    code, exit_code, http_status = "dependency-missing", 46, 501


class ServingFault(SealiftError):
    code, exit_code, http_status = "serving", 50, 500


class ServerBusy(ServingFault):
    code, exit_code, http_status = "server-busy", 51, 503


class RateLimited(ServingFault):
    """More than a limit of ``unit`` ("requests" or "tokens"); free again in ``seconds``."""

    code, exit_code, http_status = "rate-limited", 55, 429

    def __init__(
        self, what: str, *, why: str = "", hint: str = "", unit: str = "", seconds: float = 1.0
    ) -> None:
        super().__init__(what, why=why, hint=hint)
        self.unit = unit
        self.seconds = seconds


class WorkerFailed(ServingFault):
    code, exit_code, http_status = "worker-failed", 52, 500


class LoadFailed(ServingFault):
    code, exit_code, http_status = "load-failed", 53, 500


class DoesNotFit(ServingFault):
    code, exit_code, http_status = "does-not-fit", 56, 500


class Cancelled(ServingFault):
    code, exit_code, http_status = "cancelled", 54, 499
