"""One file of TUF metadata: bytes in, checked object out; and who signed it.

What is accepted is narrower than TUF: exactly one way to write a document, and no signature that
does not count. So there is no byte in a file that could change without somebody noticing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, Signer, SSlibKey
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from bundler.trust import names
from schemas import limits, strictjson
from schemas.errors import BadSignature, MalformedArchive, MalformedDocument, SealiftError

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator

Delegator: TypeAlias = Root | Targets
Payload: TypeAlias = Root | Timestamp | Snapshot | Targets
P = TypeVar("P", Root, Timestamp, Snapshot, Targets)

_SCHEMA: Final = "tuf-metadata.v1.schema.json"
_MAX_BYTES: Final = {
    names.ROOT: limits.TUF_ROOT_BYTES,
    names.TIMESTAMP: limits.TUF_TIMESTAMP_BYTES,
    names.SNAPSHOT: limits.TUF_SNAPSHOT_BYTES,
    names.TARGETS: limits.TUF_TARGETS_BYTES,
}


@dataclass(frozen=True, slots=True)
class Envelope:
    """A well-formed metadata file; nothing is said about its signatures yet.

    Attributes:
        role: Whose it is.
        data: The file's bytes.
        metadata: The same, parsed by python-tuf.
    """

    role: str
    data: bytes
    metadata: Metadata[Any]

    @property
    def signed(self) -> Payload:
        """The part that the signatures cover."""
        return cast("Payload", self.metadata.signed)

    def payload(self, kind: type[P]) -> P:
        """:attr:`signed`, of the type that the role's schema demanded."""
        signed = self.signed
        if not isinstance(signed, kind):
            raise MalformedDocument(f"{self.role} metadata is not of type {kind.type}")
        return signed

    @property
    def version(self) -> int:
        """From 1."""
        return self.signed.version

    @property
    def expires(self) -> datetime:
        """Invalid from this moment on, UTC."""
        return self.signed.expires

    @property
    def signers(self) -> tuple[str, ...]:
        """Key ids in the order of the signatures."""
        return tuple(self.metadata.signatures)

    @property
    def title(self) -> str:
        """For messages: ``targets v3``."""
        return f"{self.role} v{self.version}"


def role_type(role: str) -> str:
    """The type of a role's documents: delegated roles write targets metadata."""
    return role if role in names.TOP_LEVEL else names.TARGETS


def max_bytes(role: str) -> int:
    """The largest size of a role's file."""
    return _MAX_BYTES[role_type(role)]


def read(role: str, data: bytes, *, version: int | None = None) -> Envelope:
    """Parse a metadata file strictly.

    Args:
        role: Whose it must be; decides type and largest size.
        data: The file.
        version: Which version its name promises; None where the name has none.

    Raises:
        MalformedDocument: Too large, not strict JSON, not of the schema, written in any other way
            than ours, or with keys that are not what their ids say.
        MalformedArchive: Of another version than its name says.
    """
    what = f"{role} metadata"
    strict = strictjson.parse_object(data, what=what, max_bytes=max_bytes(role))
    _validate(role_type(role), strict, what)
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(data)
        canonical = metadata.to_bytes()
    except DeserializationError as error:
        raise MalformedDocument(f"{what} is not TUF metadata", why=str(error.__cause__)) from None
    if canonical != data:
        # Whatever TUF drops, reorders or spells differently is not covered by any signature.
        raise MalformedDocument(f"{what} is not in its one canonical form")
    envelope = Envelope(role, data, metadata)
    if version is not None and envelope.version != version:
        raise MalformedArchive(
            f"{names.member_name(role, version)} is misnamed", why=f"it holds {envelope.title}"
        )
    if isinstance(envelope.signed, Root | Targets):
        _check_keys(envelope.signed, what)
    return envelope


def check_signatures(
    envelope: Envelope, *delegators: Delegator, foreign: bool = False, enough: bool = True
) -> None:
    """Check every signature, and the threshold of every delegator.

    Args:
        envelope: Whose signatures.
        delegators: Each must be satisfied. A root has two: its predecessor and itself.
        foreign: Let signatures pass by keys that no delegator knows. Only for a root that is
            pinned by fingerprint, which may carry signatures of a predecessor that is not at hand.
        enough: False where more signatures are still to come.

    Raises:
        BadSignature: A wrong or stray signature, or too few.
    """
    payload = envelope.metadata.signed_bytes
    role = envelope.role
    valid: set[str] = set()
    known: dict[str, Key] = {}
    for delegator in delegators:
        known.update(_role_keys(delegator, role))
    for keyid, signature in envelope.metadata.signatures.items():
        key = known.get(keyid)
        if key is None:
            if foreign:
                continue
            raise BadSignature(
                f"{envelope.title} carries a signature by a key that may not sign it",
                why=f"key {keyid[:16]}",
            )
        try:
            key.verify_signature(signature, payload)
        except UnverifiedSignatureError:
            raise BadSignature(
                f"{envelope.title} carries a wrong signature",
                why=f"it does not verify with key {keyid[:16]}",
                hint="Fetch the bundle again; if it stays so, the bundle was tampered with",
            ) from None
        valid.add(keyid)
    for delegator in delegators if enough else ():
        wanted = delegator.get_delegated_role(role)
        count = len(valid.intersection(wanted.keyids))
        if count < wanted.threshold:
            raise BadSignature(
                f"{envelope.title} has too few signatures",
                why=f"{count} of {wanted.threshold} by keys that {delegator.type}"
                f" v{delegator.version} names",
            )


def add_signature(metadata: Metadata[Any], signer: Signer) -> None:
    """Sign, beside the signatures that are there.

    Raises:
        KeyUnavailable: The key is in hardware, which refuses or is gone.
    """
    try:
        metadata.sign(signer, append=True)
    except UnsignedMetadataError as error:
        if isinstance(error.__cause__, SealiftError):
            raise error.__cause__ from None
        raise


def delegations(targets: Signed) -> Iterator[str]:
    """Names of the roles that targets metadata delegates to, in order of precedence."""
    if isinstance(targets, Targets) and targets.delegations and targets.delegations.roles:
        yield from targets.delegations.roles


def _role_keys(delegator: Delegator, role: str) -> dict[str, Key]:
    wanted = delegator.get_delegated_role(role)
    return {keyid: delegator.get_key(keyid) for keyid in wanted.keyids}


def _check_keys(signed: Delegator, what: str) -> None:
    """Ids must be derived from keys: one key under two ids would count twice for a threshold."""
    if isinstance(signed, Root):
        keys, roles = signed.keys, list(signed.roles.values())
    elif signed.delegations is not None:
        keys, roles = signed.delegations.keys, list((signed.delegations.roles or {}).values())
    else:
        return
    for key in keys.values():
        if _canonical(key) != key:
            raise MalformedDocument(f"{what} has a key that is not what its id says")
    for role in roles:
        if not set(role.keyids) <= set(keys):
            raise MalformedDocument(f"{what} names a key that it does not hold")
        if role.threshold > len(role.keyids):
            raise MalformedDocument(f"{what} asks for more signatures than it names keys")


def _canonical(key: Key) -> SSlibKey | None:
    """The same public key as we would write it; None where it is no key at all."""
    public = str(key.keyval["public"])
    try:
        if key.keytype == "ed25519":
            return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)))
        return SSlibKey.from_crypto(load_pem_public_key(public.encode("utf-8")))
    except (ValueError, UnsupportedAlgorithm):
        return None


def _validate(kind: str, document: object, what: str) -> None:
    from jsonschema_rs import ValidationError

    try:
        _validator(kind).validate(document)
    except ValidationError as error:
        where = "/".join(str(part) for part in error.instance_path) or "top level"
        raise MalformedDocument(
            f"{what} does not follow its schema", why=f"{where}: {error.message}"
        ) from None


@cache
def _validator(kind: str) -> Draft202012Validator:
    from jsonschema_rs import Draft202012Validator

    text = resources.files("bundler.trust").joinpath(_SCHEMA).read_bytes()
    schema = strictjson.parse_object(text, what=_SCHEMA, max_bytes=limits.MIB)
    schema["$ref"] = f"#/$defs/{kind}"
    return Draft202012Validator(schema)
