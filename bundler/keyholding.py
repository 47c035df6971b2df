"""What the commands for keys, co-signers and publishers do, behind one function each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from bundler.chunking import Chunking
from bundler.chunks.shelf import IndexShelf
from bundler.clock import now
from bundler.connected import check_namespace, found_models, open_publisher, workspace
from bundler.descriptor import BundleDescriptor
from bundler.files import check_output, open_regular, write_file
from bundler.heading import to_be_signed
from bundler.modelpack import pack
from bundler.reading import read_front, read_withdrawn
from bundler.sources import hashed
from bundler.trust import keys, names
from bundler.trust.changing import Planner, Wish, change
from bundler.trust.claims import read_claims
from bundler.trust.fingerprint import parse_fingerprint
from bundler.trust.health import SOON, RoleHealth
from bundler.trust.keyring import TOKEN_SCHEME, KeyRing, Secrets
from bundler.trust.publisher import Publisher
from bundler.trust.recovering import recover as bring_up_to_date
from bundler.trust.recovering import signed_target
from bundler.trust.requests import (
    Known,
    Review,
    SignRequest,
    add_signature,
    finish,
    known_fingerprint,
    known_roots,
    review,
)
from bundler.trust.roles import RoleKeys
from registry.digest import Digest
from schemas import limits
from schemas.errors import ContentMismatch, NotFound, RollbackDetected, TrustMissing, UsageError
from schemas.render import Meter


@dataclass(frozen=True, slots=True)
class Options:
    """What all commands that change keys have in common.

    Attributes:
        secrets: Opens private keys.
        request: Where to write a request for co-signers; None to sign it all now.
        dry_run: Only say what would change.
        overwrite: Replace the request's file.
    """

    secrets: Secrets
    request: Path | None = None
    dry_run: bool = False
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Changed:
    """What a command changed, or would.

    Attributes:
        review: The change.
        committed: Whether it holds now.
        request: The request's file, if one was written.
    """

    review: Review
    committed: bool
    request: Path | None = None


def generate(output: Path, key_type: str, passphrase: Callable[[], bytes]) -> keys.PublicKey:
    """Make a key pair outside of any publisher's folder; the public half lies beside it.

    Raises:
        AlreadyExists: One of the two files is there.
        InvalidName: No such type.
        KeyUnavailable: The passphrase is empty.
    """
    signer = keys.generate(key_type)
    public = public_path(output)
    check_output(output, overwrite=False)
    check_output(public, overwrite=False)
    keys.save(output, signer, passphrase())
    write_file(public, keys.public_pem(signer.public_key))
    return signer.public_key


def public_path(private: Path) -> Path:
    """Where :func:`generate` puts the public half: ``alice.pem``, ``alice.pub``."""
    return private.with_suffix(".pub")


def health(home: Path, soon: timedelta = SOON, after: Path | None = None) -> list[RoleHealth]:
    """All roles of the publisher, their keys, and what runs out when.

    Args:
        home: Whose.
        soon: From when on an expiry is near.
        after: The newest bundle that left; the folder must not be older.

    Raises:
        RollbackDetected: The folder is older: it was restored from a backup.
    """
    publisher = open_publisher(home)
    if after is not None:
        check_not_behind(publisher, after)
    return publisher.health(now(), soon)


def check_not_behind(publisher: Publisher, bundle: Path) -> None:
    """See that the folder knows of a bundle, so that no version is given out a second time.

    Raises:
        TrustMissing: The bundle is another publisher's.
        RollbackDetected: The folder is older than the bundle.
    """
    with open_regular(bundle) as source:
        front = read_front(source)
    claims = read_claims(front.trust_files)
    first = Digest.of(publisher.roots[1])
    if not claims.roots or claims.roots[0].fingerprint != first:
        raise TrustMissing(f"{bundle.name} is another publisher's bundle")
    had = {role: version for role, (version, _) in claims.roles.items()}
    had[names.ROOT] = len(claims.roots)
    have = publisher.versions
    for role, version in had.items():
        if have.get(role, 0) < version:
            raise RollbackDetected(
                "the publisher's folder is older than a bundle that it signed",
                why=f"its {role} is v{have.get(role, 0)}, the bundle's v{version}",
                hint="Restore a newer backup; do not sign with this one",
            )


def recover(home: Path, bundle: Path) -> Publisher:
    """Bring a folder out of an old backup up to date.

    Args:
        home: Whose.
        bundle: The newest one that was made.

    Raises:
        TrustMissing: It is another publisher's.
        AlreadyExists: The folder is not older.
    """
    publisher = open_publisher(home)
    with open_regular(bundle) as source:
        front = read_front(source)
        members = front.trust_files
        descriptor = signed_target(members, names.BUNDLE_ROLE, names.BUNDLE_TARGET)
        if descriptor is None or descriptor[0] != Digest.of(front.descriptor_bytes):
            raise ContentMismatch("the bundle's descriptor is not the one that was signed")
        signed_list = signed_target(members, names.ADVISORIES, names.WITHDRAWN_TARGET)
        withdrawn = read_withdrawn(front.reader, signed_list)
    sequence = BundleDescriptor.from_bytes(front.descriptor_bytes).sequence
    bring_up_to_date(publisher, members, sequence, withdrawn)
    return publisher


def add(
    home: Path,
    role: str,
    source: str | None,
    name: str,
    key_type: str,
    options: Options,
    threshold: int | None = None,
) -> Changed:
    """Let one more key sign a role.

    Args:
        home: Whose.
        role: Which; ``advisories`` is made where there is none.
        source: A public key file or a pkcs11: URI; None makes a key here.
        name: What people call the key; may be empty.
        key_type: Of a key that is made.
        options: See there.
        threshold: The role's new threshold; None leaves it.
    """

    def plan(planner: Planner) -> None:
        key = _key(planner, role, source, key_type)
        if role == names.ADVISORIES and not planner.has(role):
            planner.delegate(role, RoleKeys((key,)))
        else:
            planner.add(role, key, name)
        if threshold is not None:
            planner.set_threshold(role, threshold)

    return _change(open_publisher(home), plan, options)


def revoke(
    home: Path, role: str, keyid: str, options: Options, threshold: int | None = None
) -> Changed:
    """Take a key's right to sign a role; its file here is deleted."""

    def plan(planner: Planner) -> None:
        planner.revoke(role, keyid)
        if threshold is not None:
            planner.set_threshold(role, threshold)

    return _change(open_publisher(home), plan, options)


def rotate(
    home: Path,
    role: str,
    old: Sequence[str],
    new: Sequence[str],
    key_type: str,
    options: Options,
) -> Changed:
    """Put new keys in the place of old ones.

    Args:
        home: Whose.
        role: Which.
        old: Beginnings of key ids; none stands for the keys that are kept here.
        new: Public key files or pkcs11: URIs; none makes as many as go, here.
        key_type: Of keys that are made.
        options: See there.

    Raises:
        UsageError: None of the role's keys is kept here, and none was named.
    """

    def plan(planner: Planner) -> None:
        gone = [planner.find_key(role, prefix) for prefix in old] or planner.here(role)
        if not gone:
            raise UsageError(f"no key of {role} is kept here", hint="Say which goes, with --key-id")
        sources: Sequence[str | None] = new or [None] * len(gone)
        planner.exchange(role, gone, [_key(planner, role, s, key_type) for s in sources])

    return _change(open_publisher(home), plan, options)


def set_threshold(home: Path, role: str, threshold: int, options: Options) -> Changed:
    """Say how many keys must sign a role."""
    return _change(
        open_publisher(home), lambda planner: planner.set_threshold(role, threshold), options
    )


def renew(home: Path, roles: Sequence[str], options: Options) -> Changed:
    """Sign roles again for the sake of their expiry."""

    def plan(planner: Planner) -> None:
        for role in roles:
            planner.renew(role)

    return _change(open_publisher(home), plan, options)


def add_publisher(
    home: Path,
    namespace: str,
    sources: Sequence[str],
    threshold: int,
    key_type: str,
    options: Options,
) -> Changed:
    """Let somebody sign for the models of a namespace.

    Args:
        home: Whose bundles will carry them.
        namespace: As in NAMESPACE/model:tag.
        sources: Their public keys, or pkcs11: URIs; none makes a key here.
        threshold: How many of them must sign.
        key_type: Of a key that is made.
        options: See there.
    """
    check_namespace(namespace)
    role = names.publisher_role(namespace)

    def plan(planner: Planner) -> None:
        given: Sequence[str | None] = sources or [None]
        found = tuple(_key(planner, role, source, key_type) for source in given)
        planner.delegate(role, RoleKeys(found, threshold))

    return _change(open_publisher(home), plan, options)


def rotate_publisher(
    home: Path,
    namespace: str,
    sources: Sequence[str],
    threshold: int | None,
    key_type: str,
    options: Options,
) -> Changed:
    """Put new keys in the place of all that a publisher has; what it signed for stays."""
    role = names.publisher_role(namespace)

    def plan(planner: Planner) -> None:
        given: Sequence[str | None] = sources or [None]
        new = [_key(planner, role, source, key_type) for source in given]
        planner.exchange(role, planner.keyids(role), new)
        planner.set_threshold(role, threshold or min(planner.threshold(role), len(new)))

    return _change(open_publisher(home), plan, options)


def retire_publisher(home: Path, namespace: str, options: Options) -> Changed:
    """Have a publisher sign for nothing from now on. Installed models stay installed."""
    role = names.publisher_role(namespace)
    return _change(open_publisher(home), lambda planner: planner.retire(role), options)


def publishers(home: Path) -> tuple[list[RoleHealth], dict[str, int]]:
    """Roles that sign for models, and for how many each does."""
    publisher = open_publisher(home)
    roles = [role for role in publisher.health(now()) if names.namespace_of(role.role)]
    return roles, {role.role: publisher.count_targets(role.role) for role in roles}


@dataclass(frozen=True, slots=True)
class Batch:
    """Several changes that are signed together; each text as typed.

    Attributes:
        add: ``ROLE=FILE`` or ``ROLE=URI``.
        revoke: ``ROLE=KEYID``.
        threshold: ``ROLE=N``.
        renew: Roles.
        models: Model files, whose publishers sign for them.
        names: None, or one per model.
    """

    add: Sequence[str] = ()
    revoke: Sequence[str] = ()
    threshold: Sequence[str] = ()
    renew: Sequence[str] = ()
    models: Sequence[str] = ()
    names: Sequence[str] = ()


def request(home: Path, batch: Batch, options: Options, progress: Meter) -> Changed:
    """Prepare changes, or the signing of models, for those who hold the keys.

    Raises:
        UsageError: A word that is none of these forms; or nothing to sign.
    """
    publisher = open_publisher(home)
    found = found_models(batch.models, batch.names) if batch.models else []
    chunking = Chunking(IndexShelf(workspace(home) / "chunks"), {})
    signed = [to_be_signed(pack(hashed(model, chunking, progress))) for model in found]

    def plan(planner: Planner) -> None:
        for role, source in map(_pair, batch.add):
            planner.add(role, _key(planner, role, source, keys.ECDSA_P256), _label(source))
        for role, keyid in map(_pair, batch.revoke):
            planner.revoke(role, keyid)
        for role, count in map(_pair, batch.threshold):
            planner.set_threshold(role, _number(count))
        for role in batch.renew:
            planner.renew(role)
        planner.sign_models(signed)

    return _change(publisher, plan, options)


def read_request(file: Path) -> SignRequest:
    """Read a request; nothing of it is believed yet.

    Raises:
        NotFound: There is no such file.
        MalformedDocument: It is none.
    """
    with open_regular(file) as source:
        data = bytearray()
        while len(data) <= limits.SIGN_REQUEST_BYTES and (block := source.read(limits.IO_CHUNK)):
            data += block
    return SignRequest.from_bytes(bytes(data))


def examine(home: Path, file: Path, root: Path | None, fingerprint: str | None) -> Review:
    """Check a request, so that it can be shown in words.

    Args:
        home: Its publisher's folder is believed, where nothing else is given.
        file: The request.
        root: A root file that its reader trusts.
        fingerprint: Of such a file, as typed from paper.

    Raises:
        TrustMissing: It is another publisher's; or nothing says whose it should be.
    """
    return review(read_request(file), _known(home, root, fingerprint))


def cosign(reviewed: Review, key: str, secrets: Secrets, output: Path) -> tuple[str, ...]:
    """Add one's signature to a request, in place.

    Args:
        reviewed: What was shown.
        key: A private key file, or a pkcs11: URI.
        secrets: Opens it.
        output: The file to write.

    Returns:
        The roles that were signed.

    Raises:
        KeyUnavailable: The key does not open, or may sign nothing of it.
    """
    ring = KeyRing(None, secrets)
    signer = ring.token(key) if key.startswith(TOKEN_SCHEME) else ring.open(Path(key))
    signed, roles = add_signature(reviewed, signer)
    write_file(output, signed.to_bytes())
    return roles


def finish_requests(home: Path, files: Sequence[Path]) -> Review:
    """Take in what was co-signed.

    Raises:
        KeyUnavailable: Signatures are missing still.
    """
    return finish(open_publisher(home), [read_request(file) for file in files])


def _change(publisher: Publisher, plan: Callable[[Planner], None], options: Options) -> Changed:
    if options.request is not None:
        check_output(options.request, overwrite=options.overwrite)
    wish = Wish.NOW if options.request is None else Wish.REQUEST
    wish = Wish.LOOK if options.dry_run else wish
    reviewed = change(publisher, plan, options.secrets, wish=wish)
    if wish is Wish.REQUEST and options.request is not None:
        write_file(options.request, reviewed.request.to_bytes())
    return Changed(reviewed, wish is Wish.NOW, options.request if wish is Wish.REQUEST else None)


def _key(planner: Planner, role: str, source: str | None, key_type: str) -> keys.PublicKey:
    if source is None:
        return planner.generate(role, key_type)
    if source.startswith(TOKEN_SCHEME):
        return planner.token(role, source)
    return keys.load_public(Path(source))


def _known(home: Path, root: Path | None, fingerprint: str | None) -> Known:
    if fingerprint is not None:
        return known_fingerprint(parse_fingerprint(fingerprint))
    if root is not None:
        with open_regular(root) as file:
            data = file.read(limits.TUF_ROOT_BYTES + 1)
        return known_fingerprint(Digest.of(data))
    with suppress(NotFound):
        return known_roots(open_publisher(home).roots)
    raise TrustMissing(
        "nothing says whose request this should be",
        why="there is no publisher's folder here",
        hint="Give --fingerprint SHA256 of the publisher's root, from paper, or --root FILE",
    )


def _pair(text: str) -> tuple[str, str]:
    role, equals, value = text.partition("=")
    if not equals or not role or not value:
        raise UsageError(f"{text[:80]!r} is not of the form ROLE=…")
    return role, value


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 3:
        raise UsageError(f"{text[:40]!r} is no number of signatures")
    return int(text)


def _label(source: str) -> str:
    """What people call a key, by its file: ``alice.pub``."""
    stem = "" if source.startswith(TOKEN_SCHEME) else Path(source).stem
    return stem if keys.is_name(stem) else ""
