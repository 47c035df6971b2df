"""``policy.toml``: found, read strictly, turned into rules.

Whatever is wrong with a file that is there stops the command: nobody falls back to milder rules
because of a typing error or a full disk.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from bundler.files import open_regular
from bundler.policy.licences import normal
from bundler.policy.model import (
    Acceptance,
    Action,
    ApprovalRules,
    LicenceRules,
    ModelRules,
    Operator,
    Policy,
    PublisherRule,
    ScanRules,
    StaleRules,
    Verdict,
)
from bundler.sizes import parse_size
from bundler.trust.fingerprint import parse_fingerprint
from registry.digest import Digest
from registry.verify import storage_errors
from schemas import documents, limits
from schemas.documents import Kind
from schemas.errors import MalformedDocument, PolicyRefused, SealiftError, UsageError

SYSTEM: Final = Path("/etc/sealift/policy.toml")
VARIABLE: Final = "SEALIFT_POLICY"
FILE: Final = "policy.toml"
_HINT: Final = "Correct it; see `sealift policy check`"


def find(
    home: Path, environ: Mapping[str, str] = os.environ, *, system: Path = SYSTEM
) -> Path | None:
    """Which file counts: the machine's, else ``$SEALIFT_POLICY``, else the one in ``home``.

    The administrator's file comes first, so that no user of the machine gets around it.

    Raises:
        PolicyRefused: ``$SEALIFT_POLICY`` names a file that is not there.
    """
    if os.path.lexists(system):
        return system
    if named := environ.get(VARIABLE):
        if not os.path.lexists(named):
            raise PolicyRefused(
                f"the site policy {named} is not there",
                why=f"{VARIABLE} names it",
                hint="Put it there, or unset the variable",
            )
        return Path(named)
    own = home / FILE
    return own if os.path.lexists(own) else None


def load(home: Path, environ: Mapping[str, str] = os.environ, *, system: Path = SYSTEM) -> Policy:
    """The policy of this site; the defaults where there is no file.

    Raises:
        PolicyRefused: There is a file, and it cannot be used. Nothing is let in then.
    """
    path = find(home, environ, system=system)
    if path is None:
        return Policy()
    try:
        return read(path)
    except PolicyRefused:
        raise
    except SealiftError as error:
        raise PolicyRefused(
            "the site policy cannot be used, so nothing is let in",
            why=f"{path}: {error.why or error.what}",
            hint=_HINT,
        ) from error


def read(path: Path) -> Policy:
    """One policy file.

    Raises:
        NotFound, UsageError, StorageFailure: It cannot be read, or others may write it.
        MalformedDocument: It is no TOML, has an unknown field, or contradicts itself.
    """
    with open_regular(path) as file, storage_errors(f"cannot read {path}"):
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & stat.S_IWOTH:
            raise UsageError(
                f"anybody may write the policy {path}", hint="Take that away: chmod o-w"
            )
        data = file.read(limits.SETTINGS_BYTES + 1)
    return parse(data, str(path))


def parse(data: bytes, source: str) -> Policy:
    """The rules in a policy file's bytes.

    Args:
        data: TOML, UTF-8.
        source: What to call it.

    Raises:
        MalformedDocument: See :func:`read`.
    """
    if len(data) > limits.SETTINGS_BYTES:
        raise MalformedDocument(f"{source} is too large")
    try:
        document: dict[str, Any] = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MalformedDocument(f"{source} is not TOML", why=str(error), hint=_HINT) from None
    documents.validate(Kind.POLICY, document)
    policy = Policy(
        publishers=tuple(_publisher(each) for each in document.get("publisher", ())),
        licences=_licences(document.get("licences", {})),
        models=_models(document.get("models", {})),
        stale=_stale(document.get("stale", {})),
        approval=_approval(document.get("approval", {}), document.get("operator", ())),
        scan=_scan(document.get("scan", {})),
        digest=Digest.of(data),
        source=source,
    )
    if wrong := contradictions(policy):
        raise MalformedDocument(f"{source} contradicts itself", why="; ".join(wrong), hint=_HINT)
    return policy


def contradictions(policy: Policy) -> list[str]:
    """What the schema cannot see: rules that cannot all be meant."""
    found = []
    rules = policy.approval
    persons = {operator.name for operator in rules.operators}
    if rules.required and len(persons) <= rules.required:
        found.append(
            f"approval.required is {rules.required}, but with the one who asks that takes"
            f" {rules.required + 1} operators and there are {len(persons)}"
        )
    keys = [operator.key for operator in rules.operators]
    if len(set(keys)) < len(keys):
        found.append("two operators have the same key")
    pins: dict[str, set[Digest]] = {}
    for rule in policy.publishers:
        if rule.fingerprint is not None:
            pins.setdefault(rule.anchor, set()).add(rule.fingerprint)
    found += [f"publisher {name} has two fingerprints" for name, p in pins.items() if len(p) > 1]
    models = policy.models
    if models.max_bytes and models.max_bundle_bytes and models.max_bytes > models.max_bundle_bytes:
        found.append("models.max_bytes is more than models.max_bundle_bytes")
    return found


def _publisher(table: Mapping[str, Any]) -> PublisherRule:
    pinned = table.get("fingerprint")
    return PublisherRule(
        table["anchor"],
        tuple(table["names"]),
        None if pinned is None else parse_fingerprint(pinned),
    )


def _licences(table: Mapping[str, Any]) -> LicenceRules:
    listed: dict[str, Verdict] = {}
    for verdict in Verdict:
        for text in table.get(verdict.word, ()):
            name = normal(text)
            if name in listed:
                raise MalformedDocument(
                    "the policy contradicts itself",
                    why=f"licence {name} is in two lists, {listed[name].word} and {verdict.word}"
                    if listed[name] is not verdict
                    else f"licence {name} is listed twice",
                    hint=_HINT,
                )
            listed[name] = verdict
    others = table.get("others", "allow" if not listed else "refuse")
    return LicenceRules(listed, Verdict.named(others), Verdict.named(table.get("unknown", others)))


def _models(table: Mapping[str, Any]) -> ModelRules:
    usual = ModelRules()
    architectures = table.get("architectures")
    return ModelRules(
        tuple(table.get("formats", usual.formats)),
        None if architectures is None else tuple(architectures),
        _size(table.get("max_bytes")),
        _size(table.get("max_bundle_bytes")),
    )


def _size(value: str | int | None) -> int | None:
    return parse_size(value) if isinstance(value, str) else value


def _stale(table: Mapping[str, Any]) -> StaleRules:
    usual = StaleRules()
    return StaleRules(
        timedelta(days=table.get("grace_days", 0)),
        Acceptance(table.get("accept", usual.accept.value)),
    )


def _approval(table: Mapping[str, Any], operators: Sequence[Mapping[str, Any]]) -> ApprovalRules:
    usual = ApprovalRules()
    return ApprovalRules(
        table.get("required", 0),
        frozenset(map(Action, table["actions"])) if "actions" in table else usual.actions,
        timedelta(days=table.get("valid_days", usual.valid.days)),
        tuple(Operator(each["name"], _key(each)) for each in operators),
    )


def _key(table: Mapping[str, Any]) -> bytes:
    from bundler.trust.dsse import check_public

    try:
        key = base64.b64decode(table["key"], validate=True)
        check_public(key)
    except (binascii.Error, SealiftError) as error:
        raise MalformedDocument(
            f"operator {table['name']} has no usable key",
            why=str(error),
            hint="Copy the line that `bundle operator keygen` showed",
        ) from None
    return key


def _scan(table: Mapping[str, Any]) -> ScanRules:
    return ScanRules(
        {code: Verdict.named(word) for code, word in table.get("code", {}).items()},
        {name: Verdict.named(word) for name, word in table.get("severity", {}).items()},
    )
