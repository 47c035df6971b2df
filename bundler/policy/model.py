"""The rules of a site, as values; and what they are asked about.

Pure: no file, no clock, no store.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, IntEnum
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Final

from registry.digest import Digest
from registry.reference import Reference

# name ::= [a-z0-9] [a-z0-9._-]{0,63}, of publishers and operators: no two look alike or differ in
# case only
SITE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
DEFAULTS: Final = "built-in defaults"
EMPTY: Final = Digest.of(b"")


class Verdict(IntEnum):
    """What a rule says; the worst one counts."""

    ALLOW = 0
    CONFIRM = 1
    REFUSE = 2

    @classmethod
    def named(cls, text: str) -> Verdict:
        """``allow``, ``confirm`` or ``refuse``."""
        return cls[text.upper()]

    @property
    def word(self) -> str:
        """As the policy file has it."""
        return self.name.lower()


class Acceptance(Enum):
    """What ``--accept-stale`` may excuse."""

    NEVER = "never"
    FRESHNESS = "freshness"
    ALL_BUT_ROOT = "all-but-root"


class Action(Enum):
    """What a second operator may have to approve."""

    IMPORT = "import"
    ACCEPT_STALE = "accept-stale"
    SET_TIME = "set-time"


@dataclass(frozen=True, slots=True)
class PublisherRule:
    """Which names a publisher may bring.

    Attributes:
        anchor: What the site calls it.
        names: Patterns of model names.
        fingerprint: Of the root that must be pinned under that name; None for any.
    """

    anchor: str
    names: tuple[str, ...]
    fingerprint: Digest | None = None

    def covers(self, name: Reference) -> bool:
        """Whether a model's name fits one of the patterns."""
        texts = (str(name), name.repository)
        return any(fnmatchcase(text, pattern) for text in texts for pattern in self.names)


@dataclass(frozen=True, slots=True)
class LicenceRules:
    """SPDX ids by what is done with them.

    Attributes:
        listed: Id, as SPDX writes it, to verdict.
        others: For ids in no list.
        unknown: For models that name no licence.
    """

    listed: Mapping[str, Verdict] = field(default_factory=dict, hash=False)
    others: Verdict = Verdict.ALLOW
    unknown: Verdict = Verdict.ALLOW

    def __post_init__(self) -> None:
        object.__setattr__(self, "listed", MappingProxyType(dict(self.listed)))


@dataclass(frozen=True, slots=True)
class ModelRules:
    """What a model may be.

    Attributes:
        formats: Of weight files.
        architectures: None for all.
        max_bytes: Of one model, config and manifest included; None for any.
        max_bundle_bytes: Of all models of a bundle; None for any.
    """

    formats: tuple[str, ...] = ("gguf", "safetensors")
    architectures: tuple[str, ...] | None = None
    max_bytes: int | None = None
    max_bundle_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class StaleRules:
    """How late a bundle may come.

    Attributes:
        grace: For which expired timestamp and snapshot metadata still count.
        accept: What a person with a reason may excuse beyond that.
    """

    grace: timedelta = timedelta(0)
    accept: Acceptance = Acceptance.FRESHNESS


@dataclass(frozen=True, slots=True)
class Operator:
    """A person who may ask and approve.

    Attributes:
        name: One person has one name, and any number of keys.
        key: SubjectPublicKeyInfo, DER.
    """

    name: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ApprovalRules:
    """The rule of two, or more, persons.

    Attributes:
        required: Persons beside the one who asks; 0 for none.
        actions: What they are needed for.
        valid: How long a request may be answered and used.
        operators: Who they are.
    """

    required: int = 0
    actions: frozenset[Action] = frozenset(Action)
    valid: timedelta = timedelta(days=7)
    operators: tuple[Operator, ...] = ()

    def needed(self, action: Action) -> int:
        """How many persons must approve an action."""
        return self.required if action in self.actions else 0

    def person(self, key: bytes) -> str | None:
        """Whose key it is; None for a stranger's."""
        return next((each.name for each in self.operators if each.key == key), None)


_SEVERITIES: Final = MappingProxyType(
    {"info": Verdict.ALLOW, "warn": Verdict.ALLOW, "danger": Verdict.CONFIRM}
)


@dataclass(frozen=True, slots=True)
class ScanRules:
    """What the scan of a model may find.

    Attributes:
        codes: Kind of finding to verdict; goes before the severity.
        severities: Severity to verdict; one that is not named here is refused.
    """

    codes: Mapping[str, Verdict] = field(default_factory=dict, hash=False)
    severities: Mapping[str, Verdict] = field(default_factory=lambda: _SEVERITIES, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "codes", MappingProxyType(dict(self.codes)))
        object.__setattr__(self, "severities", MappingProxyType({**_SEVERITIES, **self.severities}))

    def verdict(self, code: str, severity: str) -> Verdict:
        """What to do about a finding."""
        by_severity = self.severities.get(severity, Verdict.REFUSE)
        return self.codes.get(code, by_severity)


@dataclass(frozen=True, slots=True)
class Policy:
    """All rules of a site. Without a file: these defaults.

    Attributes:
        publishers: None of them: a namespace belongs to whoever brought it first.
        licences: See there, as the others.
        models: What a model may be.
        stale: How late a bundle may come.
        approval: Who else must agree.
        scan: What the scan may find.
        digest: SHA-256 of the file; of no bytes without one. Approvals hang on it.
        source: Where the rules come from, for people.
    """

    publishers: tuple[PublisherRule, ...] = ()
    licences: LicenceRules = LicenceRules()
    models: ModelRules = ModelRules()
    stale: StaleRules = StaleRules()
    approval: ApprovalRules = ApprovalRules()
    scan: ScanRules = ScanRules()
    digest: Digest = EMPTY
    source: str = DEFAULTS


@dataclass(frozen=True, slots=True)
class Found:
    """Something that a scan found.

    Attributes:
        code: Its kind, stable.
        severity: How bad.
        where: The blob's digest, or a model's name.
        detail: For people.
    """

    code: str
    severity: str
    where: str
    detail: str


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model when the policy is asked.

    Attributes:
        name: Its reference.
        licences: SPDX expressions: as signed, as its config and as its file say. Each must pass.
        formats: Of its weights, likewise.
        architectures: Likewise.
        size: Bytes, all blobs together.
        manifest: Its digest.
    """

    name: Reference
    licences: tuple[str, ...]
    formats: tuple[str, ...]
    architectures: tuple[str, ...]
    size: int
    manifest: Digest


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a bundle when the policy is asked.

    Attributes:
        anchor: Name of the pinned publisher.
        fingerprint: Of the pinned root.
        models: Those that are to be installed.
        size: Bytes of all of them; a blob that several share counts once.
        owners: Namespace to fingerprint of whoever brought it first.
        findings: Of the scan.
    """

    anchor: str
    fingerprint: Digest
    models: tuple[ModelFacts, ...]
    size: int
    owners: Mapping[str, Digest] = field(default_factory=dict, hash=False)
    findings: tuple[Found, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says about one thing.

    Attributes:
        verdict: Allowed, to be confirmed or refused.
        rule: Which part of the policy: ``publisher``, ``licence``, ``format``, ``architecture``,
            ``size`` or ``scan``.
        subject: A model's name, or the bundle.
        item: What a person confirms: a licence's id, a finding's code; else empty.
        detail: Why, in words.
    """

    verdict: Verdict
    rule: str
    subject: str
    item: str
    detail: str

    def document(self) -> dict[str, str]:
        """For ``--json``, requests and receipts."""
        return {
            "verdict": self.verdict.word,
            "rule": self.rule,
            "subject": self.subject,
            "item": self.item,
            "detail": self.detail,
        }
