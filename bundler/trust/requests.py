"""Co-signing by file: metadata that goes from key holder to key holder until enough have signed.

A request holds what is valid now and what shall be valid next. Every holder sees the difference in
words, computed from what is valid and verified, before the key is opened. Nothing in a request is
believed for its own sake: signatures are checked along the root chain from a root that the holder
knows, and by the publisher's folder once more when it takes the result in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Targets

from bundler.trust import envelope, names
from bundler.trust.envelope import Envelope
from bundler.trust.keyring import Secrets
from bundler.trust.publisher import Publisher
from bundler.trust.repository import Repository
from bundler.trust.roles import RoleKeys
from registry.digest import Digest
from schemas import documents
from schemas.documents import Kind
from schemas.errors import (
    KeyUnavailable,
    MalformedDocument,
    StoreDamaged,
    TrustMissing,
    UsageError,
)


@dataclass(frozen=True, slots=True)
class SignRequest:
    """See ``schemas/files/sign-request.v1.schema.json``.

    Attributes:
        publisher: For people.
        base: What holds now, file name to bytes.
        proposed: What shall hold, with the signatures made so far.
        withdrawn: The list that proposed advisories sign; None if it stays.
        key_names: Key id to what people call the key.
    """

    publisher: str
    base: Mapping[str, bytes] = field(repr=False)
    proposed: Mapping[str, bytes] = field(repr=False)
    withdrawn: bytes | None = field(default=None, repr=False)
    key_names: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_bytes(cls, data: bytes) -> SignRequest:
        """Parse and validate; no signature is looked at.

        Raises:
            MalformedDocument: It does not follow the schema.
        """
        document = documents.load(Kind.SIGN_REQUEST, data)
        withdrawn = document.get("withdrawn")
        return cls(
            document["publisher"],
            {name: text.encode() for name, text in document["base"].items()},
            {name: text.encode() for name, text in document["proposed"].items()},
            None if withdrawn is None else withdrawn.encode(),
            document.get("keyNames", {}),
        )

    def to_bytes(self) -> bytes:
        """The file.

        Raises:
            MalformedDocument: It would be larger than is read again.
        """
        document: dict[str, Any] = {
            "schemaVersion": 1,
            "publisher": self.publisher,
            "base": {name: data.decode() for name, data in self.base.items()},
            "proposed": {name: data.decode() for name, data in self.proposed.items()},
            "keyNames": dict(self.key_names),
        }
        if self.withdrawn is not None:
            document["withdrawn"] = self.withdrawn.decode()
        data = documents.dump(Kind.SIGN_REQUEST, document)
        if len(data) > Kind.SIGN_REQUEST.max_bytes:
            raise MalformedDocument("the request is too large", hint="Ask for fewer roles at once")
        return data


@dataclass(frozen=True, slots=True)
class Asked:
    """A role of a request, and whose signatures it has and needs.

    Attributes:
        item: The proposed metadata.
        before: What holds now; None for a new role.
        wanted: Who must sign; for a root, its predecessor's keys and its own.
        missing: How many more signatures it needs at least.
    """

    item: Envelope
    before: Envelope | None
    wanted: tuple[RoleKeys, ...]
    missing: int

    @property
    def keyids(self) -> tuple[str, ...]:
        """Ids of all keys that may sign it."""
        return tuple(dict.fromkeys(keyid for each in self.wanted for keyid in each.keyids))

    @property
    def open_keyids(self) -> tuple[str, ...]:
        """Those of them that have not signed it yet."""
        return tuple(keyid for keyid in self.keyids if keyid not in self.item.signers)


@dataclass(frozen=True, slots=True)
class Review:
    """A request after all that can be checked without the publisher's folder.

    Attributes:
        request: What was reviewed.
        anchor: Fingerprint of the root that connects it with what the holder knows.
        asked: Role to what is asked, root and targets first.
    """

    request: SignRequest
    anchor: Digest
    asked: Mapping[str, Asked]

    @property
    def missing(self) -> dict[str, int]:
        """Role to how many signatures are missing still; complete roles are left out."""
        return {role: each.missing for role, each in self.asked.items() if each.missing}


class Known(Protocol):
    """What a key holder knows of the publisher."""

    def __call__(self, roots: Mapping[int, bytes]) -> Digest:
        """Find a known root in a chain, and return its fingerprint.

        Raises:
            TrustError: There is none.
        """


def known_fingerprint(fingerprint: Digest) -> Known:
    """By a root's fingerprint, from paper."""

    def look(roots: Mapping[int, bytes]) -> Digest:
        if fingerprint not in map(Digest.of, roots.values()):
            raise TrustMissing(
                "the request comes from another publisher",
                why=f"none of its roots has the fingerprint {fingerprint.short}",
                hint="Compare the fingerprint with the publisher's, by another way",
            )
        return fingerprint

    return look


def known_roots(own: Mapping[int, bytes]) -> Known:
    """By the roots that the holder's own folder has."""

    def look(roots: Mapping[int, bytes]) -> Digest:
        if roots.get(1) != own[1]:
            raise TrustMissing(
                "the request comes from another publisher",
                why="its first root is not that of the publisher's folder here",
                hint="Give --fingerprint or --root if you sign for somebody else",
            )
        if any(roots.get(number) != data for number, data in own.items()):
            raise UsageError(
                "the request does not follow the newest root here",
                why=f"which is v{max(own)}",
                hint="Have the request made and signed again",
            )
        return Digest.of(own[max(own)])

    return look


def propose(
    publisher: str,
    before: Mapping[str, bytes],
    after: Mapping[str, bytes],
    withdrawn: bytes | None,
    key_names: Mapping[str, str],
) -> SignRequest:
    """A request for the difference between two sets of metadata files.

    Raises:
        UsageError: There is none.
    """
    proposed = {name: data for name, data in after.items() if name not in before}
    if not proposed:
        raise UsageError("there is nothing to be signed", why="it is signed already")
    changed = {names.parse_member(name)[0] for name in proposed} | {names.ROOT, names.TARGETS}
    base = {name: data for name, data in before.items() if names.parse_member(name)[0] in changed}
    return SignRequest(publisher, base, proposed, withdrawn, key_names)


def review(request: SignRequest, known: Known) -> Review:
    """Check everything about a request but whether it is what its holder wants.

    Args:
        request: A hostile file.
        known: What ties it to a publisher.

    Raises:
        TrustMissing: It is not of that publisher.
        BadSignature: What holds now is not signed, or a signature made so far is wrong.
        MalformedDocument: A file in it is not in the one accepted form, has parts that could not
            be shown, or does not follow what it is to replace.
    """
    try:
        base = Repository(request.base, whole=False)
        after = Repository({**request.base, **request.proposed}, whole=False)
    except StoreDamaged:
        raise MalformedDocument("the request lacks roots or the targets metadata") from None
    anchor = known({n: item.data for n, item in base.roots.items()})
    base.check_signed()
    asked = {}
    for name in request.proposed:
        role, version = names.parse_member(name)
        if role in asked or name in request.base:
            raise MalformedDocument("the request has a role twice", why=role)
        asked[role] = _asked(role, version or 0, base, after)
    _check_withdrawn(request, after)
    first = [role for role in (names.ROOT, names.TARGETS) if role in asked]
    rest = [role for role in asked if role not in first]
    return Review(request, anchor, {role: asked[role] for role in (*first, *sorted(rest))})


def _asked(role: str, version: int, base: Repository, after: Repository) -> Asked:
    before, item = base.find(role), after.find(role)
    if item is None or role in (names.TIMESTAMP, names.SNAPSHOT, names.BUNDLE_ROLE):
        raise MalformedDocument(f"{role} is not signed by requests")
    if version != (before.version if before else 0) + 1:
        raise MalformedDocument(
            f"the request does not follow what holds now: {item.title}",
            why=f"there is {before.title}" if before else "there is none yet",
            hint="Have the request made again",
        )
    if item.signed.unrecognized_fields:
        raise MalformedDocument(
            f"{item.title} has a part that this release does not know",
            why=", ".join(map(str, item.signed.unrecognized_fields))[:80],
            hint="Nobody should sign what cannot be shown",
        )
    if role not in (names.ROOT, names.TARGETS, *after.delegated):
        raise MalformedDocument(f"nobody delegates to {role}")
    if role == names.TARGETS:
        _check_delegations(after)
    wanted = after.wanted(role)
    after.check_signatures_so_far(role)
    return Asked(item, before, wanted, after.missing(role))


def _check_delegations(after: Repository) -> None:
    """Delegations are told by name and keys alone, so all else about them must be as always."""
    delegations = after.newest(names.TARGETS).payload(Targets).delegations
    for role, found in ((delegations.roles if delegations else None) or {}).items():
        if not found.terminating or tuple(found.paths or ()) not in (
            names.role_paths(role),
            names.retired_paths(role),
        ):
            raise MalformedDocument(
                f"the request delegates to {role} what is never delegated to it",
                why=", ".join(found.paths or ())[:80],
                hint="Nobody should sign this",
            )
    if names.ADVISORIES in after.delegated[1:]:
        raise MalformedDocument("the request puts another role before that for withdrawals")


def _check_withdrawn(request: SignRequest, after: Repository) -> None:
    entry = after.targets_of(names.ADVISORIES).get(names.WITHDRAWN_TARGET)
    if request.withdrawn is None:
        before = Repository(request.base, whole=False).targets_of(names.ADVISORIES)
        same = entry == before.get(names.WITHDRAWN_TARGET)
    else:
        digest = Digest.of(request.withdrawn)
        same = entry is not None and Digest("sha256", entry.hashes["sha256"]) == digest
    if not same:
        raise MalformedDocument("the request does not hold the list of withdrawals that it signs")


def add_signature(reviewed: Review, signer: Signer) -> tuple[SignRequest, tuple[str, ...]]:
    """Sign what a key may sign.

    Args:
        reviewed: What its holder has seen.
        signer: The key.

    Returns:
        The request with the signatures; the roles that were signed.

    Raises:
        KeyUnavailable: It may sign nothing of it, or has done so already.
    """
    keyid = signer.public_key.keyid
    proposed = dict(reviewed.request.proposed)
    done = []
    for role, asked in reviewed.asked.items():
        if keyid not in asked.keyids or keyid in asked.item.signers:
            continue
        metadata: Metadata[Any] = Metadata.from_bytes(asked.item.data)
        envelope.add_signature(metadata, signer)
        proposed[names.member_name(role, asked.item.version)] = metadata.to_bytes()
        done.append(role)
    if not done:
        signed = any(keyid in asked.item.signers for asked in reviewed.asked.values())
        raise KeyUnavailable(
            f"key {keyid[:16]} {'has signed this already' if signed else 'may sign none of this'}",
            hint="Others must sign: " + ", ".join(reviewed.missing or ["nobody"]),
        )
    return replace(reviewed.request, proposed=proposed), tuple(done)


def merge(requests: Sequence[SignRequest]) -> SignRequest:
    """Gather the signatures of several copies of one request.

    Raises:
        UsageError: They are not copies of one request.
    """
    first = requests[0]
    for other in requests[1:]:
        same = (other.base, other.withdrawn, other.proposed.keys())
        if same != (first.base, first.withdrawn, first.proposed.keys()):
            raise UsageError("these are not copies of one request")
    merged = {}
    for name, data in first.proposed.items():
        role, version = names.parse_member(name)
        metadata: Metadata[Any] = envelope.read(role, data, version=version).metadata
        for other in requests[1:]:
            more = envelope.read(role, other.proposed[name], version=version).metadata
            if more.signed_bytes != metadata.signed_bytes:
                raise UsageError("these are not copies of one request", why=name)
            for keyid, signature in more.signatures.items():
                metadata.signatures.setdefault(keyid, signature)
        merged[name] = metadata.to_bytes()
    return replace(first, proposed=merged)


def finish(publisher: Publisher, requests: Sequence[SignRequest]) -> Review:
    """Take in what was co-signed; the next bundle carries it. No key is needed.

    Args:
        publisher: Whose folder asked.
        requests: Copies of one request, each with some of the signatures.

    Returns:
        What was taken in.

    Raises:
        KeyUnavailable: Signatures are missing still.
        UsageError: They are not copies of one request; or the folder has changed meanwhile.
        TrustError: A signature is wrong, or the request is another publisher's.
        MalformedDocument: A file in it is not in the one accepted form.
        StoreBusy: Another process is signing.
        StorageFailure: Or :class:`~schemas.errors.StorageFull`; nothing was changed then.
    """
    merged = merge(requests)
    with publisher.signing(Secrets(_no_key)) as opened:
        repository = opened.repository
        reviewed = review(merged, known_roots({n: r.data for n, r in repository.roots.items()}))
        for role, asked in reviewed.asked.items():
            now = repository.find(role)
            if (now and now.data) != (asked.before and asked.before.data):
                raise UsageError(
                    f"{role} has changed since the request was made",
                    why=f"the folder has {now.title}" if now else "it is gone",
                    hint="Have the request made and signed again",
                )
        check_complete(reviewed.missing)
        gone = {
            names.member_name(role, asked.before.version)
            for role, asked in reviewed.asked.items()
            if asked.before and role != names.ROOT
        }
        kept = {name: data for name, data in opened.generation.files.items() if name not in gone}
        opened.repository = Repository({**kept, **merged.proposed})
        opened.repository.check_signed()
        opened.commit(withdrawn=merged.withdrawn, key_names=merged.key_names)
    return reviewed


def _no_key() -> bytes:
    raise KeyUnavailable("no key is needed to finish a request")


def check_complete(missing: Mapping[str, int]) -> None:
    """See that no signature is missing any more.

    Raises:
        KeyUnavailable: One is.
    """
    if missing:
        raise KeyUnavailable(
            "the request has too few signatures",
            why=", ".join(f"{role} needs {count} more" for role, count in missing.items()),
            hint="Let the other key holders run: bundle sign add",
        )
