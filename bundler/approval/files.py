"""What the commands do about requests, approvals and operators' keys, behind one function each."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundler.approval.documents import Request, approve
from bundler.clock import now
from bundler.files import check_output, open_regular, write_file
from bundler.policy.model import SITE_NAME
from bundler.trust import keys
from bundler.trust.dsse import PersonKey, load_key, make_key
from registry.digest import Digest
from registry.verify import storage_errors
from schemas import limits
from schemas.errors import InvalidName, UsageError


@dataclass(frozen=True, slots=True)
class NewOperator:
    """A person's fresh key.

    Attributes:
        name: Of the person.
        path: Of the private key.
        public: SubjectPublicKeyInfo, DER.
    """

    name: str
    path: Path
    public: bytes

    @property
    def fingerprint(self) -> Digest:
        """What the requests and receipts call the key."""
        return Digest.of(self.public)

    def policy_lines(self) -> list[str]:
        """What goes into the site's ``policy.toml``."""
        text = base64.b64encode(self.public).decode()
        return ["[[operator]]", f'name = "{self.name}"', f'key = "{text}"']


def keygen(name: str, output: Path, key_type: str, passphrase: Callable[[], bytes]) -> NewOperator:
    """Make a key for an operator, encrypted.

    Raises:
        InvalidName: A bad name or type.
        AlreadyExists: There is such a file.
        KeyUnavailable: No passphrase.
    """
    if not SITE_NAME.fullmatch(name):
        raise InvalidName(
            f"{name[:64]!r} cannot name an operator",
            hint="Use up to 64 of a-z, 0-9, dot, dash and underscore",
        )
    check_output(output, overwrite=False)
    key = make_key(key_type)
    keys.save(output, key.signer, passphrase())
    return NewOperator(name, output, key.public)


def requester(key: Path | None, passphrase: Callable[[], bytes]) -> PersonKey:
    """The key of the one who asks for approvals.

    Raises:
        UsageError: None was given.
        KeyUnavailable: It cannot be opened.
    """
    if key is None:
        raise UsageError(
            "a request is signed by the one who asks",
            hint="Give --key YOURKEY, made by `bundle operator keygen`",
        )
    return load_key(key, passphrase())


def read_approvals(paths: Sequence[Path]) -> tuple[bytes, ...]:
    """Read approval files; what they say is checked later.

    Raises:
        NotFound, UsageError, StorageFailure: One cannot be read.
    """
    if len(paths) > limits.APPROVALS:
        raise UsageError(f"{len(paths)} approvals are too many")
    return tuple(_read(path, limits.APPROVAL_BYTES) for path in paths)


def read_request(path: Path) -> Request:
    """Read a request and check its signature.

    Raises:
        MalformedDocument, BadSignature: It is none, or a forged one.
    """
    return Request.read(_read(path, limits.REQUEST_BYTES))


def write_request(path: Path, data: bytes, *, overwrite: bool) -> Request:
    """Write a request that was made."""
    check_output(path, overwrite=overwrite)
    write_file(path, data)
    return Request.read(data)


def approve_request(
    request: Request, key: PersonKey, beside: Path, output: Path | None, *, overwrite: bool
) -> Path:
    """Write the approval of a request.

    Args:
        request: What is approved.
        key: Of the one who approves.
        beside: The request's file.
        output: Where to; None makes a name from the request's and the key's.
        overwrite: Whether a file may be there.

    Raises:
        PolicyRefused: It is the key of the one who asks.
    """
    data = approve(request, key, now())
    path = output or beside.with_name(f"{beside.name}.{key.fingerprint.short}.approval")
    check_output(path, overwrite=overwrite)
    write_file(path, data)
    return path


def _read(path: Path, most: int) -> bytes:
    with open_regular(path) as file, storage_errors(f"cannot read {path}"):
        data = bytearray()
        while len(data) <= most and (more := file.read(most + 1 - len(data))):
            data += more
    return bytes(data)
