"""The head of a bundle: all that lies before the large blobs, and all that is settled there.

The checks, in order:

1. the first member is an OCI layout: else this is no bundle
2. the trust metadata leads from a pinned root to a fresh, complete, not older snapshot
3. the descriptor is the one that was signed
4. every model's manifest is the one that its publisher signed
5. every header, name, size and order is what the descriptor predicts; so is ``index.json``
6. what is carried and what is required are the closure of its models and of what refers to them,
   nothing more and nothing less; each is a model, or is about one and signed by its publisher
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import BinaryIO

from bundler import checks, supplements
from bundler.advisories.applying import signed_list
from bundler.archive.reader import ArchiveReader
from bundler.contents import Entry
from bundler.descriptor import BundleDescriptor, BundledModel
from bundler.reading import Customs, Front, TakeSmall, read_body, read_front, read_withdrawn
from bundler.trust.attesting import role_keys
from bundler.trust.names import BUNDLE_TARGET, model_target
from bundler.trust.staleness import STRICT, Allowance
from bundler.trust.verifier import (
    VerifiedTarget,
    VerifiedTrust,
    choose_anchor,
    verify_bundle_trust,
)
from registry.catalogue import Catalogue
from registry.digest import Digest
from registry.oci import Descriptor, Manifest
from registry.records import TrustState
from registry.reference import Reference
from schemas.errors import (
    ContentError,
    OutsideClosure,
    TrustError,
    TrustMissing,
)


@dataclass(frozen=True, slots=True)
class TrustedHead:
    """A head whose descriptor is believed (checks 1 to 3), with the reader behind it.

    Attributes:
        reader: Stands behind the descriptor.
        descriptor: Signed.
        trust: Whom it rests on.
        trusted_before: The state that the checks started from.
    """

    reader: ArchiveReader
    descriptor: BundleDescriptor
    trust: VerifiedTrust
    trusted_before: TrustState

    def read_rest(self, take: TakeSmall, beside: TakeSmall | None = None) -> Head:
        """Read index, manifests and configs (checks 4 to 6).

        Args:
            take: Given every manifest and config.
            beside: Given all that refers to models; None has ``take`` do that too.

        Raises:
            ContentError, TrustError: A check failed.
        """
        with advice():
            return _read_rest(self, take, beside)


@dataclass(frozen=True, slots=True)
class Head:
    """A head that passed all of its checks.

    Attributes:
        trusted: What was believed before.
        manifests: By digest.
        weights: Manifest digest to its weight layers.
        signers: Model to the role that signed for it.
        large: The entries that follow, in this file or in volumes.
        parity_table: ``sealift/parity.bin``, compared with its signed digest; None without parity.
        referrers: Manifests of what other tools check, by digest.
        bom: The bundle's bill of materials; empty where it has none.
        withdrawn: Its publisher's list of withdrawals; None before the first.
    """

    trusted: TrustedHead
    manifests: Mapping[Digest, Manifest]
    weights: Mapping[Digest, tuple[Descriptor, ...]]
    signers: Mapping[Reference, str]
    large: tuple[Entry, ...]
    parity_table: bytes | None = None
    referrers: Mapping[Digest, Manifest] = field(default_factory=dict)
    bom: bytes = field(default=b"", repr=False)
    withdrawn: bytes | None = field(default=None, repr=False)

    @property
    def descriptor(self) -> BundleDescriptor:
        """The signed description."""
        return self.trusted.descriptor

    def manifest_of(self, model: BundledModel) -> Manifest:
        """A model's manifest."""
        return self.manifests[model.manifest.digest]

    def blobs_of(self, model: BundledModel) -> tuple[Descriptor, ...]:
        """All that a model consists of, its manifest first, and all that refers to it."""
        refer = (blob for each, item in self.referrers_of(model) for blob in (each, *item.blobs))
        return (model.manifest, *self.manifest_of(model).blobs, *refer)

    def referrers_of(self, model: BundledModel) -> tuple[tuple[Descriptor, Manifest], ...]:
        """What other tools check of a model."""
        return tuple((each, self.referrers[each.digest]) for each in model.referrers)


def open_head(
    catalogue: Catalogue,
    source: BinaryIO,
    *,
    anchor: str | None,
    now: datetime,
    allowance: Allowance = STRICT,
) -> TrustedHead:
    """Read up to the descriptor and settle trust (checks 1 to 3).

    Args:
        catalogue: Whose pinned roots decide.
        source: The bundle, opened unbuffered, at its start; a pipe will do.
        anchor: Name of the pinned root to use; None takes the one that fits.
        now: The clock.
        allowance: What may have expired.

    Raises:
        ContentError, TrustError: A check failed.
        EnvironmentFault: It cannot be read.
    """
    with advice():
        front = read_front(source)
        return trust_front(catalogue, front, anchor=anchor, now=now, allowance=allowance)


def trust_front(
    catalogue: Catalogue,
    front: Front,
    *,
    anchor: str | None,
    now: datetime,
    allowance: Allowance = STRICT,
) -> TrustedHead:
    """Settle trust for what was read already (checks 2 and 3); as :func:`open_head`."""
    files, descriptor = front.trust_files, front.descriptor_bytes
    state = _state(catalogue, files, anchor)
    floor = catalogue.clock_floor()
    trust = verify_bundle_trust(state, files, now=now, floor=floor, allowance=allowance)
    _compare(trust.target(BUNDLE_TARGET), Digest.of(descriptor), len(descriptor))
    described = BundleDescriptor.from_bytes(descriptor)
    supplements.check(catalogue.supplements(state.anchor), trust.versions, described)
    return TrustedHead(front.reader, described, trust, state)


@contextmanager
def advice() -> Iterator[None]:
    """Every refusal says what to do next; where nobody knows better, this."""
    try:
        yield
    except (ContentError, TrustError) as error:
        if error.hint:
            raise
        raise type(error)(error.what, why=error.why, hint=checks.FROM_PUBLISHER) from error


def _state(catalogue: Catalogue, files: Mapping[str, bytes], name: str | None) -> TrustState:
    """The trusted state that the bundle's metadata must continue."""
    names = [anchor.name for anchor in catalogue.anchors()]
    if name is not None and name not in names:
        raise TrustMissing(
            f"no publisher {name!r} is trusted here",
            why=f"there are {', '.join(names)}" if names else "there is none at all",
            hint="Look at `bundle trust show`, or pin its root with `bundle trust init`",
        )
    states = [state for each in names if (state := catalogue.trust(each)) is not None]
    return choose_anchor(states, files, name)


def _compare(target: VerifiedTarget, digest: Digest, size: int) -> None:
    """See that a signed target has these bytes."""
    if (target.digest, target.size) != (digest, size):
        raise OutsideClosure(
            f"{target.path} is not the file that was signed",
            why=f"{digest.short} of {size} bytes, signed was {target.digest.short}",
            hint=checks.FROM_PUBLISHER,
        )


def _target(trust: VerifiedTrust, model: BundledModel) -> VerifiedTarget:
    if model.target != model_target(model.reference):
        raise OutsideClosure(
            f"{model.reference} points to another model's signature", why=model.target
        )
    target = trust.target(model.target)
    _compare(target, model.manifest.digest, model.manifest.size)
    return target


def _read_rest(head: TrustedHead, take: TakeSmall, beside: TakeSmall | None) -> Head:
    descriptor = head.descriptor
    targets = {model.reference: _target(head.trust, model) for model in descriptor.models}

    def check_customs(computed: Customs) -> None:
        for model in descriptor.models:
            signed = targets[model.reference].custom
            checks.check_custom(str(model.reference), signed, computed[model.manifest.digest])

    signers = {reference: target.role for reference, target in targets.items()}
    withdrawn = read_withdrawn(head.reader, signed_list(head.trust))
    keys = cache(lambda role: role_keys(head.trust.new_state.metadata, role))
    body = read_body(
        head.reader,
        descriptor,
        take,
        check_customs,
        lambda model: keys(signers[model.reference]),
        beside,
    )
    return Head(
        head,
        body.manifests,
        body.weights,
        signers,
        body.large,
        body.parity_table,
        body.referrers,
        body.bom,
        withdrawn,
    )
