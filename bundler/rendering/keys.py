"""What ``bundle keys`` shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from bundler.advisories.lists import WithdrawnList
from bundler.clock import rfc3339
from bundler.keyholding import Changed
from bundler.trust import names
from bundler.trust.health import RoleHealth, State
from bundler.trust.publisher import Publisher
from bundler.trust.requests import Review
from bundler.trust.wording import Statement, statements
from schemas.render import Output

_SHORT: Final = 16  # digits of a key id, for people
_ENTRIES: Final = 100  # withdrawals that are shown; --json of `bundle withdraw --list` has all


def publisher(out: Output, result: Publisher) -> None:
    """``bundle keys``."""
    out.fields(
        [
            ("publisher", result.name),
            ("signs for", ", ".join(result.namespaces)),
            ("fingerprint", result.fingerprint.hex),
        ]
    )
    out.note("Next: `bundle keys root -o root.json`; tell its fingerprint by another way.")
    out.result(
        {
            "name": result.name,
            "namespaces": list(result.namespaces),
            "rootFingerprint": str(result.fingerprint),
        }
    )


def exported_root(out: Output, result: Publisher, path: Path) -> None:
    """``bundle keys root``."""
    out.line(f"wrote        {path}")
    out.line(f"fingerprint  {result.fingerprint.hex}")
    out.result({"path": str(path), "rootFingerprint": str(result.fingerprint)})


def generated(out: Output, keyid: str, private: Path, public: Path) -> None:
    """``bundle keys generate``."""
    out.fields([("private", private), ("public", public), ("key id", keyid)])
    out.note(f"Pass on {public.name}, and tell the key id by another way.")
    out.result({"private": str(private), "public": str(public), "keyId": keyid})


def listed(out: Output, roles: Sequence[RoleHealth]) -> None:
    """``bundle keys list``."""
    rows = (
        (
            "" if number else role.role,
            "" if number else f"{role.threshold} of {len(role.keys)}",
            key.keyid[:_SHORT],
            key.scheme.removeprefix("ecdsa-sha2-"),
            key.name,
            key.place or "elsewhere",
        )
        for role in roles
        for number, key in enumerate(role.keys)
    )
    out.table(("ROLE", "MUST SIGN", "KEY", "TYPE", "NAME", "PRIVATE KEY"), rows)
    out.result([_role(role, None) for role in roles])


def status(out: Output, roles: Sequence[RoleHealth], now: datetime) -> bool:
    """``bundle keys status``.

    Returns:
        Whether nothing is near its end.
    """
    rows = []
    for role in roles:
        days = role.days_left(now)
        state = "with every bundle" if role.renewed else _words(role)
        rows.append(
            (
                role.role,
                role.version or "-",
                "-" if role.expires is None else rfc3339(role.expires),
                "-" if days is None else days,
                f"{role.at_hand} of {role.threshold}",
                state,
            )
        )
    headers = ("ROLE", "VERSION", "EXPIRES", "DAYS", "KEYS HERE", "STATE")
    out.table(headers, rows, right=("VERSION", "DAYS"))
    near = [role for role in roles if role.state is not State.FRESH]
    advise(out, roles)
    out.result({"soon": bool(near), "roles": [_role(role, now) for role in roles]})
    return not near


def advise(out: Output, roles: Sequence[RoleHealth]) -> None:
    """Warn of what is near its end."""
    for role in roles:
        if role.state is not State.FRESH and role.expires is not None:
            verb = "expired" if role.state is State.EXPIRED else "expires"
            out.warn(
                f"{role.role} {verb} on {role.expires:%Y-%m-%d};"
                f" renew it with: bundle keys renew {role.role}"
            )


def changed(out: Output, done: Changed) -> None:
    """Whatever changes keys, thresholds or publishers."""
    _statements(out, statements(done.review))
    if done.request is not None:
        out.line(f"wrote {done.request}")
        out.note("Next: key holders run `bundle sign add`, then you `bundle sign finish`.")
    elif done.committed:
        out.note("The next bundle carries it to the sites.")
    else:
        out.note("Nothing was changed.")
    out.result(
        {
            **_review(done.review),
            "committed": done.committed,
            "request": None if done.request is None else str(done.request),
        }
    )


def reviewed(out: Output, result: Review) -> None:
    """``bundle sign show``."""
    _heading(out, result)
    _statements(out, statements(result))
    _withdrawals(out, result)
    out.result(_review(result))


def about_to_sign(out: Output, result: Review) -> None:
    """``bundle sign add``, before the key is opened: on standard error, whatever else is said."""
    out.note("You are about to sign:")
    _heading(out, result)
    _statements(out, statements(result))
    _withdrawals(out, result)


def cosigned(out: Output, result: Review, roles: Sequence[str], path: Path) -> None:
    """``bundle sign add``, afterwards."""
    out.line(f"signed  {', '.join(roles)}")
    out.line(f"wrote   {path}")
    lacking = ", ".join(f"{role} {count}" for role, count in result.missing.items())
    out.note(f"Signatures still missing: {lacking}." if lacking else "It is complete.")
    out.result({**_review(result), "signed": list(roles), "path": str(path)})


def finished(out: Output, result: Review) -> None:
    """``bundle sign finish``."""
    _statements(out, statements(result))
    out.note("The next bundle carries it to the sites.")
    out.result({**_review(result), "committed": True})


def publishers(out: Output, roles: Sequence[RoleHealth], models: Mapping[str, int]) -> None:
    """``bundle publisher list``."""
    rows = []
    for role in roles:
        expires = "-" if role.expires is None else rfc3339(role.expires)
        must = "retired" if role.retired else f"{role.threshold} of {len(role.keys)}"
        short = ", ".join(key.keyid[:_SHORT] for key in role.keys)
        namespace = names.namespace_of(role.role) or role.role
        here = f"{role.at_hand} of {len(role.keys)}"
        rows.append((namespace, must, models[role.role], expires, here, short))
    headers = ("NAMESPACE", "MUST SIGN", "MODELS", "EXPIRES", "KEYS HERE", "KEYS")
    out.table(headers, rows, right=("MODELS",))
    out.result([{**_role(role, None), "models": models[role.role]} for role in roles])


def _heading(out: Output, result: Review) -> None:
    out.fields(
        [
            ("publisher", f"{result.request.publisher} (as the request says)"),
            ("known root", result.anchor.hex),
        ]
    )


def _withdrawals(out: Output, result: Review) -> None:
    """What a proposed list withdraws: whoever signs it signs all of it."""
    if result.request.withdrawn is None:
        return
    found = WithdrawnList.parse(result.request.withdrawn).entries
    for entry in reversed(found[-_ENTRIES:]):
        what = entry.subject or ", ".join(digest.short for digest in entry.digests)
        out.line(f"  withdrawal {entry.number}: {entry.action.word} {what}: {entry.reason}")
    if len(found) > _ENTRIES:
        out.line(f"  and {len(found) - _ENTRIES} earlier ones")


def _statements(out: Output, found: Sequence[Statement]) -> None:
    for each in found:
        lacks = f", {each.missing} more needed" if each.missing else ""
        plural = "" if each.signed == 1 else "s"
        out.line(
            f"{each.role} version {each.version}, valid until {rfc3339(each.expires)},"
            f" {each.signed} signature{plural}{lacks}:"
        )
        for change in each.changes:
            out.line(f"  {change}")


def _words(role: RoleHealth) -> str:
    return f"{role.state.value}, retired" if role.retired else role.state.value


def _review(result: Review) -> dict[str, Any]:
    return {
        "publisher": result.request.publisher,
        "knownRoot": str(result.anchor),
        "complete": not result.missing,
        "roles": [
            {
                "role": each.role,
                "version": each.version,
                "expires": rfc3339(each.expires),
                "signatures": each.signed,
                "missing": each.missing,
                "changes": list(each.changes),
                "keyIds": list(result.asked[each.role].keyids),
            }
            for each in statements(result)
        ],
    }


def _role(role: RoleHealth, now: datetime | None) -> dict[str, Any]:
    return {
        "role": role.role,
        "threshold": role.threshold,
        "version": role.version,
        "expires": None if role.expires is None else rfc3339(role.expires),
        **({} if now is None else {"daysLeft": role.days_left(now)}),
        "withEveryBundle": role.renewed,
        "retired": role.retired,
        "state": role.state.value,
        "keys": [
            {
                "id": key.keyid,
                "scheme": key.scheme,
                "name": key.name or None,
                "place": key.place or None,
            }
            for key in role.keys
        ],
    }
