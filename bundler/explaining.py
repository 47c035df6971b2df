"""``bundle trust explain``: whom a bundle rests on, what was checked, and how it could be a lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Final

from bundler.clock import now
from bundler.descriptor import BundleDescriptor
from bundler.files import open_regular
from bundler.finding import find_bundle
from bundler.head import Head, advice, trust_front
from bundler.importer import Wishes, withdrawals_at
from bundler.isolated import verify_paths
from bundler.policy.gate import Gate
from bundler.policy.model import Policy
from bundler.policy.reading import load
from bundler.reading import Front, read_front
from bundler.trust import names
from bundler.trust.chart import Chart, ChartedRole, draw, root_threshold
from bundler.trust.clock import ReferenceTime, reference_time
from bundler.volumes import look
from registry.digest import Digest
from registry.records import Anchor
from registry.store import Store
from schemas.errors import (
    ContentError,
    IncompleteBundle,
    OutsideClosure,
    PolicyRefused,
    SealiftError,
    TrustError,
)
from schemas.render import Meter

# As in bundler.head (1 to 6) and bundler.importer (7 to 9).
CHECKS: Final = (
    "the file is a bundle",
    "the metadata lead from the pinned root to a fresh, complete, not older snapshot",
    "the description of the bundle is the one that was signed",
    "every model's manifest is the one that its publisher signed",
    "every header, name, size and order is what the description predicts",
    "what is carried is the closure of its models and what refers to them, no more, no less",
    "every segment and every blob is what its digest says",
    "every weight file may reach an engine",
    "the archive ends where it should",
)
_HEAD: Final = 6


class State(Enum):
    """What became of a check."""

    HOLDS = "holds"
    FAILED = "failed"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Check:
    """One numbered check.

    Attributes:
        number: As the code numbers them, from 1.
        words: What it says.
        state: What became of it.
    """

    number: int
    words: str
    state: State


@dataclass(frozen=True, slots=True)
class ExplainedModel:
    """One model of the bundle.

    Attributes:
        name: Its reference.
        target: What is signed.
        role: Who signed it; empty where nothing is believed.
        manifest: Digest of its manifest.
        blobs: File name (or what it is), digest and size of what the manifest names.
    """

    name: str
    target: str
    role: str
    manifest: Digest
    blobs: tuple[tuple[str, Digest, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a bundle is believed here, or why it is not.

    Attributes:
        chart: Who signs what.
        sequence: Its number, as it says.
        publisher: Its publisher's name, as it says.
        models: What it brings; with their signers only where they are believed.
        checks: All nine.
        doubt: Why it is not believed; None where it is, as far as was checked.
        anchor: The pinned publisher that it rests on; None where it rests on none.
        pinned: Version of the root that was pinned.
        known: The newest root that this site knew before.
        time: What was taken for now, and why.
        policy: In force here.
        refused: Why the policy would not let it in; None where it would, or where nothing is known.
        withdrawn: What is withdrawn of its models, and by whom; a line each.
        lies: What would have to happen for it to be a lie.
    """

    chart: Chart
    sequence: int
    publisher: str
    models: tuple[ExplainedModel, ...]
    checks: tuple[Check, ...]
    time: ReferenceTime
    policy: Policy
    doubt: SealiftError | None = None
    anchor: Anchor | None = None
    pinned: int = 0
    known: ChartedRole | None = None
    refused: SealiftError | None = None
    withdrawn: tuple[str, ...] = ()
    lies: tuple[str, ...] = field(default=())

    @property
    def believed(self) -> bool:
        """Whether nothing that was checked failed."""
        return self.doubt is None


def explain_paths(
    home: Path, paths: Sequence[Path], publisher: str | None, progress: Meter, *, full: bool
) -> Explanation:
    """Explain a bundle; nothing is installed, nothing recorded.

    Args:
        home: Whose pinned roots and policy count.
        paths: As for :func:`bundler.isolated.import_paths`; no pipe.
        publisher: Name of the pinned root that it must rest on; None takes the one that fits.
        progress: Told of each blob's bytes, with ``full``.
        full: Read the payload too (checks 7 to 9).

    Raises:
        IncompleteBundle: Volumes are missing, with ``full``.
        NotABundle, MalformedArchive, MalformedDocument: So broken that there is nothing to tell.
        EnvironmentFault: It cannot be read.
    """
    media = look(paths)
    path, _ = find_bundle(media)
    gate = Gate(load(home), looking=True)
    with ExitStack() as stack:
        store = stack.enter_context(Store.open(home))
        source = stack.enter_context(open_regular(path))
        with advice():
            front = read_front(source)
            chart = draw(front.trust_files)
            descriptor = BundleDescriptor.from_bytes(front.descriptor_bytes)
        found = _judge(store, front, publisher, now(), gate)
        time = reference_time(now(), store.catalogue.clock_floor())
    if full and found.doubt is None:
        try:
            verify_paths(home, paths, Wishes(publisher), progress)
            found.passed = len(CHECKS)
        except IncompleteBundle:
            raise
        except PolicyRefused as error:
            # The second door is behind the last byte, the first one before the payload.
            found.passed = _HEAD if found.refused is not None else len(CHECKS)
            found.refused = error
        except (ContentError, TrustError) as error:
            found.doubt = error
    head = found.head
    return Explanation(
        chart,
        descriptor.sequence,
        descriptor.publisher,
        _models(descriptor, head),
        tuple(_checks(found)),
        time,
        gate.policy,
        found.doubt,
        found.anchor,
        found.pinned,
        found.known,
        found.refused,
        found.withdrawn,
        tuple(_lies(chart, found, head)),
    )


@dataclass(slots=True)
class _Found:
    """What came out so far."""

    passed: int = 1
    doubt: SealiftError | None = None
    head: Head | None = None
    anchor: Anchor | None = None
    pinned: int = 0
    known: ChartedRole | None = None
    refused: SealiftError | None = None
    withdrawn: tuple[str, ...] = ()


def _judge(
    store: Store, front: Front, publisher: str | None, moment: datetime, gate: Gate
) -> _Found:
    """Run checks 2 to 6, and ask the policy what can be asked before the payload is read."""
    found = _Found()
    try:
        with advice():
            trusted = trust_front(
                store.catalogue,
                front,
                anchor=publisher,
                now=moment,
                allowance=gate.allowance(),
            )
            found.passed = 3
            head = trusted.read_rest(gate.claims.watch(lambda _: None))
    except (ContentError, TrustError) as error:
        found.doubt = error
        if found.passed == 1 and isinstance(error, OutsideClosure):
            found.passed = 2
        return found
    wanted = Wishes().wanted(head.descriptor)
    try:
        with advice():
            applied = withdrawals_at(store, head, wanted)
    except TrustError as error:
        # A list that tells an older or another history: not to go back is part of check 2.
        found.doubt, found.passed = error, 1
        return found
    found.withdrawn = tuple(f"{name.shortest} is {it.line()}" for name, it in applied.found.items())
    found.passed, found.head = _HEAD, head
    state = trusted.trusted_before
    found.anchor = next(a for a in store.catalogue.anchors() if a.name == state.anchor)
    found.pinned = min(state.roots)
    found.known = root_threshold(state.roots[max(state.roots)])
    try:
        gate.first(store, head, applied.kept(wanted))
    except (ContentError, TrustError) as error:
        found.refused = error
    return found


def _checks(found: _Found) -> Iterator[Check]:
    """Those up to ``passed`` hold, the next one failed where something did."""
    failed = found.doubt is not None
    for number, words in enumerate(CHECKS, 1):
        if number <= found.passed:
            state = State.HOLDS
        else:
            state = State.FAILED if failed else State.NOT_RUN
            failed = False
        yield Check(number, words, state)


def _models(descriptor: BundleDescriptor, head: Head | None) -> tuple[ExplainedModel, ...]:
    models = []
    for each in descriptor.models:
        role = ""
        blobs: tuple[tuple[str, Digest, int], ...] = ()
        if head is not None:
            role = head.signers[each.reference]
            manifest = head.manifest_of(each)
            blobs = (
                ("config", manifest.config.digest, manifest.config.size),
                *((_title(b.annotations), b.digest, b.size) for b in manifest.layers),
            )
        models.append(
            ExplainedModel(str(each.reference), each.target, role, each.manifest.digest, blobs)
        )
    return tuple(models)


def _title(annotations: Mapping[str, str]) -> str:
    return annotations.get("org.cncf.model.filepath", "file")


def _lies(chart: Chart, found: _Found, head: Head | None) -> Iterator[str]:
    """What would have to happen; from the thresholds that this very bundle names."""
    if head is None or found.known is None or found.anchor is None:
        yield "nothing has to happen: what is not believed may say anything"
        return
    roles = chart.roles
    online = " and ".join(_keys(roles[r]) for r in _VOUCHING if r in roles)
    for role in sorted(set(head.signers.values())):
        mine = [str(r) for r, signer in head.signers.items() if signer == role]
        shown = ", ".join(mine[:3]) + (f" and {len(mine) - 3} more" if len(mine) > 3 else "")
        yield f"to bring another model as {shown}: {_keys(roles[role])}, and {online}"
        yield f"or, in place of those of {role}: {_keys(roles[roles[role].parent])}"
    yield (
        f"or {_keys(found.known)} as root v{found.known.version} names them, the newest that this"
        " site knew before: who holds them decides about all other keys"
    )
    pinned = f"{found.anchor.added:%Y-%m-%d}"
    yield (
        f"or the fingerprint that {found.anchor.name} was pinned by on {pinned}"
        f" was not the publisher's (root v{found.pinned})"
    )
    if names.TIMESTAMP in roles:
        yield (
            "to hide that there are newer bundles: whoever carries the sticks can hold them back"
            f" until {roles[names.TIMESTAMP].expires:%Y-%m-%d}; then this one is too old to import"
        )
    yield (
        "or a publisher who signs what is not true, a weakness in SHA-256 or in the signatures, or"
        " a machine or a program here that is not what it should be: no check of a bundle finds"
        " that"
    )
    for keyid, holders in chart.shared().items():
        yield f"note that one key, {keyid[:12]}, stands for {', '.join(holders)}"


_VOUCHING: Final = (names.BUNDLE_ROLE, names.SNAPSHOT, names.TIMESTAMP)


def _keys(role: ChartedRole) -> str:
    plural = "key" if len(role.keyids) == 1 else "keys"
    many = "the" if (role.threshold, len(role.keyids)) == (1, 1) else f"{role.threshold} of the"
    count = "" if len(role.keyids) == 1 else f" {len(role.keyids)}"
    return f"{many}{count} {role.role} {plural}"
