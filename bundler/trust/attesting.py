"""Publishers' keys for what other tools check: P-256, which all of these tools know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.metadata import Targets

from bundler.trust import envelope, names


@dataclass(frozen=True, slots=True)
class AttestationKey:
    """A key pair that signs for other tools.

    Attributes:
        public: Its public half.
        sign: Bytes to an ECDSA-Sig-Value in DER, over their SHA-256.
    """

    public: EllipticCurvePublicKey
    sign: Callable[[bytes], bytes]


def attestation_key(signer: Signer) -> AttestationKey | None:
    """A role's key as one for other tools; None for a key of another kind.

    A key that is at hand signs deterministically (RFC 6979), so that the same model gets the same
    bytes every time; one in hardware does as it does.
    """
    public = p256(str(signer.public_key.keyval["public"]))
    if public is None:
        return None
    if isinstance(signer, CryptoSigner):
        private = load_pem_private_key(signer.private_bytes, None)
        if isinstance(private, EllipticCurvePrivateKey):
            how = ECDSA(SHA256(), deterministic_signing=True)
            return AttestationKey(public, lambda data: private.sign(data, how))
    return AttestationKey(public, lambda data: bytes.fromhex(signer.sign(data).signature))


def role_keys(metadata: Mapping[str, bytes], role: str) -> tuple[EllipticCurvePublicKey, ...]:
    """The P-256 keys that may sign a role which targets metadata delegates to.

    Args:
        metadata: Role to bytes, verified already.
        role: As ``publisher-library``.
    """
    targets = envelope.read(names.TARGETS, metadata[names.TARGETS]).payload(Targets)
    if targets.delegations is None or role not in (targets.delegations.roles or {}):
        return ()
    wanted = targets.get_delegated_role(role)
    found = (p256(str(targets.get_key(keyid).keyval["public"])) for keyid in wanted.keyids)
    return tuple(key for key in found if key is not None)


def p256(pem: str) -> EllipticCurvePublicKey | None:
    """A P-256 public key out of PEM; None for anything else."""
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return key
    return None
