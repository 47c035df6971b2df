"""Keys in hardware, through PKCS#11: ECDSA on P-256 or P-384, by securesystemslib's HSM signer.

A key is named by a URI (RFC 7512)::

    pkcs11:token=Sealift%20root;id=%02?module-path=/usr/lib/softhsm/libsofthsm2.so

``token`` is the token's label, ``id`` the key's CKA_ID; both may be left out where there is but one
token, or the key is in PIV slot 9c. ``module-path`` is the driver; without it the environment's
``PYKCS11LIB`` is asked. A PIN never stands in the URI.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import HSMSigner, Key, Signature, Signer, SSlibKey

from schemas.errors import DependencyMissing, KeyUnavailable, UsageError

_SCHEME: Final = "pkcs11:"
_MODULE: Final = "PYKCS11LIB"  # where securesystemslib looks for the driver
_ID_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class TokenUri:
    """Where a key in hardware is found.

    Attributes:
        token: The token's label; None where there is but one.
        key: The key's id as a number; None for the default, PIV slot 9c.
        module: The driver's path; None leaves it to the environment.
    """

    token: str | None
    key: int | None
    module: str | None

    @classmethod
    def parse(cls, text: str) -> TokenUri:
        """Read a URI.

        Raises:
            UsageError: It is none, or has parts that are not used here.
        """
        if not text.startswith(_SCHEME) or len(text) > 1000 or not text.isascii():
            raise UsageError(f"{text[:40]!r} is no pkcs11: URI")
        path, _, query = text.removeprefix(_SCHEME).partition("?")
        fields = _fields(path, ";", ("token", "id", "type")) | _fields(query, "&", ("module-path",))
        key = unquote_to_bytes(fields["id"]) if "id" in fields else None
        if key is not None and (not 0 < len(key) <= _ID_BYTES or not key[0]):
            raise UsageError(
                "the key id in the pkcs11: URI cannot be used",
                why=f"it is of {len(key)} bytes, or begins with a zero byte",
                hint=f"Give the key an id of 1 to {_ID_BYTES} bytes, as 02",
            )
        module = unquote(fields["module-path"]) if "module-path" in fields else None
        if module is not None and not Path(module).is_absolute():
            raise UsageError("the module-path of the pkcs11: URI is not an absolute path")
        token = unquote(fields["token"]) if "token" in fields else None
        return cls(token, None if key is None else int.from_bytes(key), module)


def token_signer(text: str, pin: Callable[[str], bytes]) -> Signer:
    """The key that a URI names; its PIN is asked for at the first signature.

    Raises:
        UsageError: The URI is none.
        KeyUnavailable: No driver, token or key, a wrong PIN, or a key of another kind.
        DependencyMissing: The extra ``hsm`` is not installed.
    """
    uri = TokenUri.parse(text)
    name = f"token {uri.token}" if uri.token else "the token"
    known: list[str] = []

    def handler(_: str) -> str:
        if not known:
            known.append(pin(name).decode())
        return known[0]

    with _module(uri, name):
        # Public keys may be hidden until one has logged in.
        found, key = HSMSigner.import_(uri.key, uri.token, handler)
        signer = HSMSigner.from_priv_key_uri(found, key, handler)
    return _TokenKey(signer, uri, name)


class _TokenKey(Signer):
    """An HSM signer whose failures are told in our words."""

    def __init__(self, signer: HSMSigner, uri: TokenUri, name: str) -> None:
        self._signer = signer
        self._uri = uri
        self._name = name

    @property
    def public_key(self) -> SSlibKey:
        """Its public half."""
        return self._signer.public_key

    @classmethod
    def from_priv_key_uri(
        cls,
        priv_key_uri: str,
        public_key: Key,  # noqa: ARG003 - the base class's
        secrets_handler: Callable[[str], str] | None = None,  # noqa: ARG003
    ) -> Signer:
        """Not by this way: see :func:`token_signer`."""
        raise UsageError("a key in a token is opened by its pkcs11: URI", why=priv_key_uri[:80])

    def sign(self, payload: bytes) -> Signature:
        """Sign inside the token.

        Raises:
            KeyUnavailable: It was taken out, or the PIN is wrong.
        """
        with _module(self._uri, self._name):
            return self._signer.sign(payload)


@contextmanager
def _module(uri: TokenUri, name: str) -> Iterator[None]:
    """Point securesystemslib to the driver, and translate what it says."""
    try:
        from pkcs11.exceptions import PinIncorrect, PinLenRange, PinLocked, PKCS11Error
    except ImportError:
        raise DependencyMissing(
            "keys in hardware need one more package", hint="Install sealift[hsm]"
        ) from None
    before = os.environ.get(_MODULE)
    if uri.module is not None:
        os.environ[_MODULE] = uri.module
    try:
        yield
    except (PinIncorrect, PinLenRange, PinLocked):
        raise KeyUnavailable(
            f"the PIN of {name} is wrong",
            hint="Mind the retry counter: some tokens lock for good after three",
        ) from None
    except (PKCS11Error, UnsupportedLibraryError, ValueError, RuntimeError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise KeyUnavailable(
            f"cannot use the key in {name}",
            why=why,
            hint="Is it plugged in? Check token, id and module-path of the pkcs11: URI",
        ) from None
    finally:
        if before is None:
            os.environ.pop(_MODULE, None)
        else:
            os.environ[_MODULE] = before


def _fields(text: str, separator: str, known: tuple[str, ...]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for part in text.split(separator) if text else ():
        name, equals, value = part.partition("=")
        if name not in known or not equals or name in fields:
            raise UsageError(
                "the pkcs11: URI has a part that is not understood",
                why=name[:40],
                hint="Give token=…;id=… and ?module-path=…; PINs come from --pin-file",
            )
        fields[name] = value
    return fields
