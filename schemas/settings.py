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
_TRUTH: Final = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(
    ("0", "false", "no", "off"), False
)
# Ollama's variable is a truth.
_FLASH: Final = {"1": "on", "true": "on", "0": "off", "false": "off"}
_SEPARATORS: Final = {"audit_redact": "\n"}  # a comma may be part of an expression
_DURATION: Final = re.compile(r"(-?)((?:[0-9]+(?:ms|s|m|h))+)")


@dataclass(frozen=True, slots=True)
class Serve:
    """How ``sealift serve`` behaves.

    Attributes:
        host: ``address:port`` to listen on; beyond loopback only with TLS and API keys.
        keep_alive_ms: How long an idle model stays loaded; negative: for ever.
        load_timeout_ms: Longest time for a model to load.
        num_parallel: Sequences decoded together, per model.
        max_loaded_models: 0 means 3.
        max_queue: Requests waiting at once, over all models.
        context_length: Tokens; 0 means 4096, capped to what the model was trained for.
        num_threads: 0 means one per physical core.
        origins: Browser origins allowed beside loopback's own.
        hosts: Names that ``Host`` may have beside loopback's and the certificate's; ``*.x`` is any
            name under ``x``.
        tls_cert: PEM file with the certificate chain; needed for any address but loopback.
        tls_key: PEM file with its private key, without a passphrase.
        require_keys: Whether API keys are needed on loopback too; elsewhere they always are.
        requests_per_minute: Of one API key, where the key itself says nothing; 0: unlimited.
        tokens_per_minute: Prompt and output tokens likewise.
        model_requests_per_minute: Of all keys together, for one model; 0: unlimited.
        model_tokens_per_minute: Prompt and output tokens likewise.
        signed_only: Whether only models are served that a trusted publisher has signed.
        verify_weights: When a model's file is hashed again as it is loaded: ``off``, ``first``
            (once, and again after it changed) or ``always``.
        ready_model: The model that ``/readyz`` has to get a token from; empty: none.
        audit: What the log of requests keeps: ``off``, ``requests``, or ``prompts`` and answers
            too.
        audit_bytes: Size at which that log goes on in a new file.
        audit_files: How many of its files are kept.
        audit_redact: Regular expressions; what they find in prompts and answers is not kept.
        log_format: Lines on standard error: ``text`` or ``json``.
        kv_cache_type: Of keys and values: ``f16``, ``q8_0`` (half of it) or ``q4_0`` (a quarter).
        flash_attention: ``on``, ``off``, or ``auto``: where the engine can.
        num_gpu: Layers on accelerators, where a request does not say; -1: as many as there are.
        main_gpu: Which accelerator holds everything if ``split_mode`` is ``none``.
        split_mode: How a model lies on several accelerators: ``none``, ``layer`` or ``row``.
        tensor_split: Their shares, as in ``3,1``; empty: by their free memory.
        max_memory: MiB of main memory that all models may take together; 0: what there is.
        prompt_cache: MiB per model for prompts whose place another one took, and never more than
            its context takes; 0: none.
        mirror: This site's own registry, for pull and push; empty: nothing connects to anything.
        mirror_ca: PEM file with the authorities to trust for it; empty: the system's.
        mirror_login: File with ``user:password`` for it; empty: none.
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
    hosts: tuple[str, ...] = ()
    tls_cert: str = ""
    tls_key: str = ""
    require_keys: bool = False
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    model_requests_per_minute: int = 0
    model_tokens_per_minute: int = 0
    signed_only: bool = False
    verify_weights: str = "first"
    ready_model: str = ""
    audit: str = "requests"
    audit_bytes: int = 16 * limits.MIB
    audit_files: int = 8
    audit_redact: tuple[str, ...] = ()
    log_format: str = "text"
    kv_cache_type: str = "f16"
    flash_attention: str = "auto"
    num_gpu: int = -1
    main_gpu: int = 0
    split_mode: str = "layer"
    tensor_split: str = ""
    max_memory: int = 0
    prompt_cache: int = 512
    mirror: str = ""
    mirror_ca: str = ""
    mirror_login: str = ""


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
    if serve.kv_cache_type != "f16" and serve.flash_attention == "off":
        raise UsageError(
            f"kv_cache_type {serve.kv_cache_type} needs flash attention",
            hint="Set flash_attention to auto, or kv_cache_type to f16",
        )
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
    for key, value in table.items():
        if isinstance(value, list):
            table[key] = tuple(value)
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
    if field == "flash_attention":
        text = _FLASH.get(text.lower(), text)
    try:
        if field.endswith("_ms"):
            return parse_duration_ms(text)
        value = _of_type(type(getattr(Serve(), field)), text, _SEPARATORS.get(field, ","))
    except (ValueError, KeyError, UsageError):
        raise UsageError(f"{key}={text[:64]!r} does not parse") from None
    from schemas.documents import Kind, validate

    try:
        plain = list(value) if isinstance(value, tuple) else value
        validate(Kind.CONFIG, {"serve": {field: plain}})
    except MalformedDocument as error:
        raise UsageError(f"{key} is out of range", why=error.why) from None
    return value


def _of_type(kind: type, text: str, separator: str) -> object:
    """Read an environment variable as a setting of this type."""
    if kind is tuple:
        return tuple(part.strip() for part in text.split(separator) if part.strip())
    if kind is bool:
        return _TRUTH[text.strip().lower()]
    return int(text) if kind is int else text
