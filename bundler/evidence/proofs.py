"""Proofs about the audit log that anybody can check who knows the site's fingerprint; no store.

An inclusion proof shows that an entry is in the log of a checkpoint; a consistency proof, that this
log continues an earlier one. Both are logarithmic in size: 20 hashes for a million entries.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bundler.evidence import checkpoints
from bundler.evidence.coding import decode, encode, public_key
from registry import merkle
from registry.digest import Digest
from schemas import documents
from schemas.documents import Kind
from schemas.errors import BadSignature, FingerprintMismatch, MalformedDocument, NotFound

if TYPE_CHECKING:
    from registry.records import Checkpoint
    from registry.store import Store


@dataclass(frozen=True, slots=True)
class Proven:
    """What a proof that holds shows.

    Attributes:
        site: Fingerprint of the site's key.
        size: Entries of the log that the checkpoint tells of.
        root: Of the tree over them.
        index: Of the entry that is in it; None in a consistency proof.
        entry: The entry, where the proof brings it.
        since: Entries of the earlier log; None in an inclusion proof.
        hashes: How many hashes the proof has.
    """

    site: Digest
    size: int
    root: bytes
    index: int | None = None
    entry: bytes | None = None
    since: int | None = None
    hashes: int = 0


def prove_entry(store: Store, index: int, *, entry: bool) -> bytes:
    """Prove that an entry is in the log, up to the newest checkpoint.

    Args:
        store: Of the site.
        index: Of the entry, from 0 on.
        entry: Whether to bring it along; it may hold names, and a person's words.

    Raises:
        NotFound: There is no such entry, or no checkpoint after it.
        StoreDamaged: The log is.
    """
    with store.catalogue.view():
        log = store.catalogue.audit
        newest = _newest(store, index + 1)
        document: dict[str, Any] = {
            "index": index,
            "leaf": encode(log.leaf(index)),
            "path": [encode(each) for each in log.inclusion(index, newest.size)],
        }
        if entry:
            ((_, data),) = log.rows(index, index + 1)
            document["entry"] = encode(data)
    return _write(newest, {"inclusion": document})


def prove_continuation(store: Store, size: int) -> bytes:
    """Prove that the log of the newest checkpoint continues that of an earlier size.

    Raises:
        NotFound: There is no such size, or no checkpoint after it.
        StoreDamaged: The log is.
    """
    with store.catalogue.view():
        log = store.catalogue.audit
        newest = _newest(store, size)
        path = [encode(each) for each in log.consistency(size, newest.size)]
        return _write(
            newest,
            {"consistency": {"size": size, "root": encode(log.root(size)), "path": path}},
        )


def verify(data: bytes, site: Digest | None = None) -> Proven:
    """Check a proof's file; hostile.

    Args:
        data: The file.
        site: Fingerprint of the site's key, known from before. Without it the proof shows only
            what whoever has the named key signed.

    Raises:
        MalformedDocument: Anything but exactly a proof.
        FingerprintMismatch: Another site's.
        BadSignature: The signature is wrong, or the proof does not hold.
    """
    document = documents.load(Kind.AUDIT_PROOF, data)
    if _render(document) != data:
        raise MalformedDocument("the proof is not in its one form")
    public = public_key(document["publicKey"])
    head = checkpoints.read(document["checkpoint"].encode())
    if site is not None and Digest.of(public) != site:
        raise FingerprintMismatch(
            "the proof is of another site",
            why=f"its key is {Digest.of(public).short}, expected {site.short}",
        )
    head.check_site(public)
    if "inclusion" in document:
        return _included(document["inclusion"], head)
    told = document["consistency"]
    path = [decode(each) for each in told["path"]]
    if not merkle.continues(told["size"], head.size, path, decode(told["root"]), head.root):
        raise _broken("the log does not continue the earlier one")
    return Proven(head.site, head.size, head.root, since=told["size"], hashes=len(path))


def _included(told: dict[str, Any], head: checkpoints.Head) -> Proven:
    leaf, path = decode(told["leaf"]), [decode(each) for each in told["path"]]
    entry = decode(told["entry"]) if "entry" in told else None
    if entry is not None and merkle.leaf_hash(entry) != leaf:
        raise _broken("the entry is not the one whose hash it names")
    if not merkle.includes(leaf, told["index"], head.size, path, head.root):
        raise _broken(f"entry {told['index']} is not in the log as it claims")
    return Proven(
        head.site, head.size, head.root, index=told["index"], entry=entry, hashes=len(path)
    )


def _broken(why: str) -> BadSignature:
    return BadSignature(
        "the proof does not hold", why=why, hint="Have it made again; if it stays so, ask the site"
    )


def _newest(store: Store, size: int) -> Checkpoint:
    newest = store.catalogue.audit.newest_checkpoint(own=True)
    if newest is None or newest.size < size:
        raise NotFound(
            f"no checkpoint covers {size} entries yet",
            hint="Make one with: sealift audit checkpoint",
        )
    return newest


def _write(newest: Checkpoint, what: dict[str, Any]) -> bytes:
    return _render(
        {
            "schemaVersion": 1,
            "publicKey": base64.b64encode(newest.public).decode(),
            "checkpoint": newest.note.decode(),
            **what,
        }
    )


def _render(document: dict[str, Any]) -> bytes:
    documents.validate(Kind.AUDIT_PROOF, document)
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True).encode() + b"\n"
