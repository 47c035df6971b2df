"""Settings: defaults, then ``$SEALIFT_HOME/config.toml``, then the environment. The last one wins.

Every serving setting is read from ``SEALIFT_<NAME>`` and, where Ollama has the same one, from its
``OLLAMA_<NAME>``; ours wins over theirs.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from schemas import limits
from schemas.errors import MalformedDocument, StorageFailure, UsageError

FOR_EVER: Final = -1
_UNIT_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_DURATION: Final = re.compile(r"(-?)((?:[0-9]+(?:ms|s|m|h))+)")


@dataclass(frozen=True, slots=True)
class Serve:
    """How ``sealift serve`` behaves.

    Attributes:
        host: ``address:port`` to listen on; loopback only.
        keep_alive_ms: How long an idle model stays loaded; negative: for ever.
        load_timeout_ms: Longest time for a model to load.
        num_parallel: Sequences decoded together, per model.
        max_loaded_models: 0 means 3.
        max_queue: Requests waiting at once, over all models.
        context_length: Tokens; 0 means 4096, capped to what the model was trained for.
        num_threads: 0 means one per physical core.
        origins: Browser origins allowed beside loopback's own.
    """

    host: str = "127.0.0.1:11434"
    keep_alive_ms: int = 300_000
    load_timeout_ms: int = 300_000
    num_parallel: int = 1
    max_loaded_models: int = 0
    max_queue: int = 512
    context_length: int = 0
    num_threads: int = 0
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one process.

    Attributes:
        home: ``$SEALIFT_HOME``, the folder of all state.
        serve: See :class:`Serve`.
    """

    home: Path
    serve: Serve = Serve()


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings of this process.

    Raises:
        MalformedDocument: The file is no TOML or does not follow its schema.
        UsageError: An environment variable has a value that does not parse.
    """
    home = Path(environ["SEALIFT_HOME"]) if environ.get("SEALIFT_HOME") else _default_home()
    home = home.expanduser().absolute()
    serve = _from_environment(_from_file(home / "config.toml"), environ)
    return Settings(home, serve)


def parse_duration_ms(value: str | int) -> int:
    """Milliseconds in ``5m``, ``1h30m``, ``500ms``; a bare number is seconds; negative: for ever.

    Raises:
        UsageError: Anything else.
    """
    text = str(value).strip()
    if re.fullmatch(r"-?[0-9]{1,12}", text):
        return max(int(text) * 1000, FOR_EVER)
    match = _DURATION.fullmatch(text) if len(text) <= 64 else None
    if match is None:
        raise UsageError(f"{text[:64]!r} is not a duration", hint="Write 5m, 1h30m, 90 or -1")
    if match[1]:
        return FOR_EVER
    return sum(int(n) * _UNIT_MS[u] for n, u in re.findall(r"([0-9]+)(ms|s|m|h)", match[2]))


def _default_home() -> Path:
    from platformdirs import user_data_path

    return user_data_path("sealift", appauthor=False)


def _from_file(path: Path) -> Serve:
    try:
        with path.open("rb") as file:
            data = file.read(limits.SETTINGS_BYTES + 1)
    except FileNotFoundError:
        return Serve()
    except OSError as error:
        raise StorageFailure(f"cannot read {path}", why=str(error.strerror)) from None
    if len(data) > limits.SETTINGS_BYTES:
        raise MalformedDocument(f"{path} is too large")
    from schemas.documents import Kind, validate

    try:
        document: dict[str, Any] = tomllib.loads(data.decode("utf-8"))
    except ValueError as error:
        raise MalformedDocument(f"{path} is not TOML", why=str(error)) from None
    validate(Kind.CONFIG, document)
    table = dict(document.get("serve", {}))
    for key in ("keep_alive", "load_timeout"):
        if key in table:
            table[f"{key}_ms"] = parse_duration_ms(table.pop(key))
    if "origins" in table:
        table["origins"] = tuple(table["origins"])
    return Serve(**table)


def _from_environment(serve: Serve, environ: Mapping[str, str]) -> Serve:
    changes: dict[str, Any] = {}
    for spec in fields(Serve):
        name = spec.name.removesuffix("_ms").upper()
        key = next((k for k in (f"SEALIFT_{name}", f"OLLAMA_{name}") if environ.get(k)), None)
        if key is not None:
            changes[spec.name] = _convert(key, spec.name, environ[key])
    return replace(serve, **changes)


def _convert(key: str, field: str, text: str) -> object:
    if field == "host":
        return text if ":" in text else f"{text}:11434"
    if field == "origins":
        return tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        if field.endswith("_ms"):
            return parse_duration_ms(text)
        value = int(text)
    except (ValueError, UsageError):
        raise UsageError(f"{key}={text[:64]!r} does not parse") from None
    from schemas.documents import Kind, validate

    try:
        validate(Kind.CONFIG, {"serve": {field: value}})
    except MalformedDocument as error:
        raise UsageError(f"{key} is out of range", why=error.why) from None
    return value
