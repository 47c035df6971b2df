"""The API keys of this site's server: make, list, revoke."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from runtime.cli.models import DryRunFlag, open_store
from schemas.cli import JsonFlag, Output, new_app
from schemas.errors import InvalidName, UsageError

if TYPE_CHECKING:
    from runtime.access.roles import Role

app = new_app("Keys that programs and people use the server with.")

_DAY_MS: Final = 24 * 3600 * 1000
_Bound = Annotated[
    int | None,
    typer.Option(min=1, max=10**9, metavar="N", help="Instead of what the settings say."),
]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is; logs say it.")],
    role: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE", help="infer (default), models, metrics or admin; repeat it."),
    ] = None,
    *,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="After that long, as in 90d or 12h.")
    ] = None,
    requests_per_minute: _Bound = None,
    tokens_per_minute: _Bound = None,
    json: JsonFlag = False,
) -> None:
    """Make a key and print it, this once: only its hash is kept."""
    from registry.store import Store
    from runtime.access import keyfile
    from runtime.access.keys import new_key
    from schemas.settings import load

    now = datetime.now(UTC).replace(microsecond=0)
    key, record = new_key(
        name,
        _roles(role or ["infer"]),
        now=now,
        expires=None if expires is None else now + _span(expires),
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
    )
    with Store.open(load().home) as store:  # the first thing that is done on some sites
        keyfile.add(store, record)
    output = Output(json=json)
    output.line(key)
    output.note("Keep it now: it is not shown again. A running server knows it within a second.")
    output.result({"key": key, **_shown(record.document())})


@app.command("list")
def list_keys(*, json: JsonFlag = False) -> None:
    """List all keys, the oldest first; what is secret about them is not known here."""
    from runtime.access import keyfile
    from schemas.settings import load

    output = Output(json=json)
    now = datetime.now(UTC)
    keys = keyfile.read(load().home)
    rows = (
        (
            key.name,
            key.id,
            " ".join(sorted(role.value for role in key.roles)),
            f"{key.created:%Y-%m-%d}",
            f"{key.expires:%Y-%m-%d}" if key.expires else "never",
            "in force" if key.in_force(now) else "revoked" if key.revoked else "expired",
        )
        for key in keys
    )
    output.table(("NAME", "ID", "ROLES", "CREATED", "EXPIRES", "STATE"), rows)
    output.result({"keys": [{**_shown(k.document()), "inForce": k.in_force(now)} for k in keys]})


@app.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(metavar="NAME|ID", help="As sealift apikey list shows.")],
    *,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """End a key for good; a running server takes note within a second."""
    from runtime.access import keyfile

    with open_store() as store:
        found = keyfile.revoke(store, key, dry_run=dry_run)
    output = Output(json=json)
    output.line(f"{'would revoke' if dry_run else 'revoked'} {found.name} ({found.id})")
    output.result({"revoked": not dry_run, **_shown(found.document())})


def _shown(document: dict[str, object]) -> dict[str, object]:
    """Without the hash, which is of no use to anybody who should see this."""
    return {name: value for name, value in document.items() if name != "hash"}


def _roles(names: list[str]) -> list[Role]:
    from runtime.access.roles import Role

    known = {role.value: role for role in Role}
    for name in names:
        if name not in known:
            raise InvalidName(f"no such role: {name[:40]!r}", hint=f"Give {', '.join(known)}")
    return [known[name] for name in names]


def _span(text: str) -> timedelta:
    from schemas.settings import parse_duration_ms

    days = text.removesuffix("d")
    if text.endswith("d") and days.isascii() and days.isdecimal() and len(days) <= 5:
        milliseconds = int(days) * _DAY_MS
    else:
        milliseconds = parse_duration_ms(text)
    if milliseconds <= 0:
        raise UsageError(f"{text[:40]!r} is no time to come", hint="Write 90d or 12h")
    try:
        span = timedelta(milliseconds=milliseconds)
        _ = datetime.now(UTC) + span
    except OverflowError:
        raise UsageError(f"{text[:40]!r} is too long") from None
    return span
