"""TLS for the server: its files checked as they are, and read before the sandbox is closed."""

from __future__ import annotations

import os
import ssl
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from registry.verify import storage_errors
from schemas import limits
from schemas.errors import KeyUnavailable, MalformedDocument, NotFound, UsageError

_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Identity:
    """What the server shows itself by.

    Attributes:
        context: For the listening side; TLS 1.2 and newer.
        names: Of the certificate, lower case: DNS names, with ``*.`` where it has them.
        expires: When the certificate does, UTC.
    """

    context: ssl.SSLContext
    names: tuple[str, ...]
    expires: datetime


def load_identity(certificate: str, key: str) -> Identity:
    """Read certificate chain and private key.

    The key's permissions are held to PostgreSQL's rule: it is ours and closed to group and others,
    or root's and closed to others.

    Args:
        certificate: PEM file, the server's own certificate first.
        key: PEM file, without a passphrase.

    Raises:
        UsageError: Only one of them is given, or others may read the key.
        NotFound, StorageFailure: A file cannot be read.
        MalformedDocument: The certificate is none.
        KeyUnavailable: The key is none, has a passphrase, or belongs to another certificate.
    """
    if not (certificate and key):
        raise UsageError(
            "TLS needs a certificate and its key",
            hint="Set both tls_cert and tls_key",
        )
    chain_path, key_path = Path(certificate).expanduser(), Path(key).expanduser()
    chain = _read(chain_path, secret=False)
    _read(key_path, secret=True)
    names, expires = _facts(chain, chain_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(chain_path, key_path, _no_passphrase)
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise KeyUnavailable(
            f"the key {key_path} does not fit {chain_path}",
            why=str(reason).replace("_", " ").lower(),
            hint="Give the certificate's own key, without a passphrase",
        ) from None
    return Identity(context, names, expires)


def _no_passphrase() -> str:
    """OpenSSL would ask at the terminal."""
    raise ValueError("it has a passphrase")


def _read(path: Path, *, secret: bool) -> bytes:
    with storage_errors(f"cannot read {path}"):
        try:
            descriptor = os.open(path, _READ)
        except FileNotFoundError:
            raise NotFound(f"there is no file {path}", hint="Check tls_cert and tls_key") from None
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{path} is not a regular file")
            if secret:
                _check_private(path, status)
            data = file.read(limits.TLS_FILE_BYTES + 1)
    if len(data) > limits.TLS_FILE_BYTES:
        raise MalformedDocument(f"{path} is too large")
    return data


def _check_private(path: Path, status: os.stat_result) -> None:
    closed_to = 0o027 if status.st_uid == 0 else 0o077  # postgresql.org/docs: "ssl_key_file"
    if status.st_uid not in (0, os.geteuid()):
        raise UsageError(f"the key {path} is not used", why="it belongs to another user")
    if stat.S_IMODE(status.st_mode) & closed_to:
        raise UsageError(
            f"the key {path} is not used",
            why=f"others can read it (mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f"Run chmod {'640' if status.st_uid == 0 else '600'} {path}",
        )


def _facts(chain: bytes, path: Path) -> tuple[tuple[str, ...], datetime]:
    """Names and end of the first certificate."""
    from cryptography import x509  # some 30 ms that a server on loopback need not take

    try:
        certificate = x509.load_pem_x509_certificates(chain)[0]
    except (ValueError, IndexError):
        raise MalformedDocument(f"{path} is no certificate", hint="Give it in PEM form") from None
    expires = certificate.not_valid_after_utc
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = extension.value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    except ValueError:
        raise MalformedDocument(f"the names in {path} do not parse") from None
    return tuple(name.lower() for name in names), expires
