"""The documents that cross a boundary, each with its versioned JSON Schema (2020-12).

Each is validated when it is written and when it is read, by the same schema; what fails is never
written, and never believed.
"""

from __future__ import annotations

from enum import Enum
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from schemas import limits, strictjson
from schemas.errors import MalformedDocument

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator


class Kind(Enum):
    """A document type: its schema file's stem and its largest size in bytes."""

    BUNDLE = ("bundle-descriptor.v1", limits.DESCRIPTOR_BYTES)
    RECEIPT_V1 = ("receipt.v1", limits.DESCRIPTOR_BYTES)  # from before receipts were signed
    RECEIPT = ("receipt.v2", limits.REPORT_BYTES)
    AUDIT_EVENT_V1 = ("audit-event.v1", limits.MIB)  # in the log from before it was a tree
    AUDIT_EVENT = ("audit-event.v2", limits.MIB)
    CONFIG = ("config.v1", limits.SETTINGS_BYTES)
    MODEL_CONFIG = ("model-config.v1", limits.CONFIG_BYTES)
    REPORT = ("report.v1", limits.REPORT_BYTES)
    INVENTORY = ("inventory.v1", limits.REPORT_BYTES)
    WANT_LIST = ("want-list.v1", limits.REPORT_BYTES)
    WITHDRAWN = ("withdrawn.v1", limits.WITHDRAWN_BYTES)
    CHECKPOINT = ("checkpoint.v1", limits.REPORT_BYTES)
    AUDIT_EXPORT = ("audit-export.v1", limits.REPORT_BYTES)
    AUDIT_PROOF = ("audit-proof.v1", limits.PROOF_BYTES)
    COUNTERSIGNATURE = ("countersignature.v1", limits.NOTE_BYTES * 2)
    POLICY = ("policy.v1", limits.SETTINGS_BYTES)
    APPROVAL_REQUEST = ("approval-request.v1", limits.REQUEST_BYTES)
    APPROVAL = ("approval.v1", limits.APPROVAL_BYTES)
    SIGN_REQUEST = ("sign-request.v1", limits.SIGN_REQUEST_BYTES)
    SIGSTORE_BUNDLE = ("sigstore-bundle.v1", limits.ATTESTATION_BYTES)
    STATEMENT = ("in-toto-statement.v1", limits.ATTESTATION_BYTES)
    MODEL_BOM = ("model-bom.v1", limits.ATTESTATION_BYTES)
    API_KEYS = ("api-keys.v1", limits.API_KEYS_BYTES)
    BUNDLE_BOM = ("bundle-bom.v1", limits.BUNDLE_BOM_BYTES)

    def __init__(self, stem: str, max_bytes: int) -> None:
        self.stem = stem
        self.max_bytes = max_bytes

    @property
    def title(self) -> str:
        """For messages: ``bundle descriptor v1``."""
        return self.stem.replace("-", " ").replace(".", " ")


def load(kind: Kind, data: bytes) -> dict[str, Any]:
    """Parse strictly, then validate.

    Raises:
        MalformedDocument: With the path of the first fault inside the document.
    """
    document = strictjson.parse_object(data, what=kind.title, max_bytes=kind.max_bytes)
    validate(kind, document)
    return document


def dump(kind: Kind, document: dict[str, Any]) -> bytes:
    """Validate, then serialise deterministically (see :func:`schemas.strictjson.dumps`)."""
    validate(kind, document)
    return strictjson.dumps(document)


def validate(kind: Kind, document: object) -> None:
    """Check a parsed document against its schema.

    Raises:
        MalformedDocument: With the path of the first fault.
    """
    from jsonschema_rs import ValidationError

    try:
        _validator(kind).validate(document)
    except ValidationError as error:
        where = "/".join(str(part) for part in error.instance_path) or "top level"
        raise MalformedDocument(
            f"{kind.title} does not follow its schema", why=f"{where}: {error.message}"
        ) from None
    except ValueError as error:  # a value that JSON has not, as TOML's dates
        raise MalformedDocument(
            f"{kind.title} does not follow its schema", why=str(error)
        ) from None


def schema(kind: Kind) -> dict[str, Any]:
    """The JSON Schema itself, as published."""
    text = resources.files("schemas").joinpath(f"files/{kind.stem}.schema.json").read_bytes()
    return strictjson.parse_object(text, what=kind.stem, max_bytes=limits.MIB)


@cache
def _validator(kind: Kind) -> Draft202012Validator:
    from jsonschema_rs import Draft202012Validator

    return Draft202012Validator(schema(kind), validate_formats=True)
