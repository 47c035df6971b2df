"""Settings: defaults, then the file, then the environment."""

from __future__ import annotations

import contextlib
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import documents, limits, settings
from schemas.documents import Kind
from schemas.errors import MalformedDocument, StorageFailure, UsageError
from schemas.settings import FOR_EVER, Serve, load, parse_duration_ms


def configured(home: Path, text: str) -> dict[str, str]:
    (home / "config.toml").write_text(text, encoding="utf-8")
    return {"SEALIFT_HOME": str(home)}


def test_defaults() -> None:
    found = load({"HOME": "/home/somebody"})
    assert found.serve == Serve()
    assert found.home.is_absolute()
    assert found.home.name == "sealift"


def test_home_is_absolute_and_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert load({"SEALIFT_HOME": "~/x"}).home == tmp_path / "x"
    assert load({"SEALIFT_HOME": "x"}).home == tmp_path / "x"
    assert load({"SEALIFT_HOME": ""}).home.name == "sealift"


def test_the_file(tmp_path: Path) -> None:
    environ = configured(
        tmp_path,
        """
        schema_version = 1
        [serve]
        host = "[::1]:8080"
        keep_alive = "1h30m"
        load_timeout = 90
        num_parallel = 4
        max_loaded_models = 2
        max_queue = 10
        context_length = 8192
        num_threads = 3
        origins = ["http://intranet.example"]
        """,
    )
    assert load(environ).serve == Serve(
        host="[::1]:8080",
        keep_alive_ms=5_400_000,
        load_timeout_ms=90_000,
        num_parallel=4,
        max_loaded_models=2,
        max_queue=10,
        context_length=8192,
        num_threads=3,
        origins=("http://intranet.example",),
    )


def test_the_last_one_wins(tmp_path: Path) -> None:
    environ = configured(tmp_path, "[serve]\nnum_parallel = 2\nmax_queue = 7\n")
    assert load(environ).serve.num_parallel == 2
    environ["OLLAMA_NUM_PARALLEL"] = "3"
    assert load(environ).serve.num_parallel == 3
    environ["SEALIFT_NUM_PARALLEL"] = "4"
    assert load(environ).serve == Serve(num_parallel=4, max_queue=7)
    environ["SEALIFT_NUM_PARALLEL"] = ""
    assert load(environ).serve.num_parallel == 3


# A value that is not the default, for settings that take no "7".
OTHER = {
    "require_keys": "yes",
    "signed_only": "1",
    "verify_weights": "always",
    "audit": "prompts",
    "audit_bytes": "65536",
    "log_format": "json",
    "kv_cache_type": "q8_0",
    "flash_attention": "on",
    "split_mode": "row",
}


def test_every_setting_has_its_variable(tmp_path: Path) -> None:
    for field in fields(Serve):
        name = field.name.removesuffix("_ms").upper()
        for prefix in ("SEALIFT", "OLLAMA"):
            value = OTHER.get(field.name, "7")
            serve = load({"SEALIFT_HOME": str(tmp_path), f"{prefix}_{name}": value}).serve
            assert getattr(serve, field.name) != getattr(Serve(), field.name)


def test_every_setting_is_in_the_schema() -> None:
    known = documents.schema(Kind.CONFIG)["properties"]["serve"]["properties"]
    assert {field.name.removesuffix("_ms") for field in fields(Serve)} == known.keys()


def test_values_from_the_environment(tmp_path: Path) -> None:
    environ = {
        "SEALIFT_HOME": str(tmp_path),
        "OLLAMA_HOST": "127.0.0.2",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_ORIGINS": "http://a.example, http://b.example,",
        "SEALIFT_HOSTS": "a.example,*.b.example",
        "SEALIFT_REQUIRE_KEYS": "On",
        "SEALIFT_AUDIT_REDACT": "a{1,2}\n\n[0-9]+",
    }
    serve = load(environ).serve
    assert serve.host == "127.0.0.2:11434"
    assert serve.keep_alive_ms == FOR_EVER
    assert serve.origins == ("http://a.example", "http://b.example")
    assert serve.hosts == ("a.example", "*.b.example")
    assert serve.require_keys is True
    assert serve.audit_redact == ("a{1,2}", "[0-9]+")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SEALIFT_NUM_PARALLEL", "many"),
        ("SEALIFT_NUM_PARALLEL", "-1"),
        ("OLLAMA_NUM_PARALLEL", "0"),
        ("SEALIFT_NUM_THREADS", "1025"),
        ("SEALIFT_CONTEXT_LENGTH", "99999999999999999999"),
        ("OLLAMA_MAX_QUEUE", "1.5"),
        ("SEALIFT_KEEP_ALIVE", "soon"),
        ("SEALIFT_REQUIRE_KEYS", "maybe"),
        ("SEALIFT_HOSTS", "http://a.example"),
        ("SEALIFT_HOSTS", "*"),
        ("SEALIFT_AUDIT", "everything"),
        ("SEALIFT_AUDIT_FILES", "1"),
        ("SEALIFT_LOG_FORMAT", "xml"),
        ("SEALIFT_VERIFY_WEIGHTS", "never"),
        ("SEALIFT_LOAD_TIMEOUT", "5 minutes"),
    ],
)
def test_what_does_not_parse_is_named(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(UsageError, match=name):
        load({"SEALIFT_HOME": str(tmp_path), name: value})


@pytest.mark.parametrize(
    "text",
    [
        "[serve",
        "x = 1",
        "schema_version = 2",
        "serve = 5",
        "[serve]\nnum_parallel = 0",
        "[serve]\nnum_parallel = '4'",
        "[serve]\nhost = 11434",
        "[serve]\nkeep_alive = 'later'",
        "[serve]\norigins = 'http://a.example'",
        "[serve]\ntypo = 1",
        "[serve]\nmax_queue = 1.5",
        "[serve]\nmax_queue = 1979-05-27",
        "[serve]\nmax_queue = nan",
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(MalformedDocument):
        load(configured(tmp_path, text))


def test_a_file_in_no_encoding(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(MalformedDocument, match="not TOML"):
        load({"SEALIFT_HOME": str(tmp_path)})


def test_a_file_too_large(tmp_path: Path) -> None:
    with pytest.raises(MalformedDocument, match="too large"):
        load(configured(tmp_path, "#" * (limits.SETTINGS_BYTES + 1)))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(StorageFailure, match=r"config\.toml"):
        load({"SEALIFT_HOME": str(tmp_path)})


@given(st.text(max_size=60))
def test_any_text_is_settings_or_refused(text: str) -> None:
    try:
        document = tomllib.loads(text)
        documents.validate(Kind.CONFIG, document)
    except (ValueError, MalformedDocument):
        return
    assert document.keys() <= {"schema_version", "serve"}


# -- durations ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("500ms", 500),
        ("1m500ms", 60_500),
        ("90", 90_000),
        (90, 90_000),
        ("0", 0),
        (0, 0),
        (" 5m ", 300_000),
        ("-1", FOR_EVER),
        (-1, FOR_EVER),
        ("-5m", FOR_EVER),
        ("-1000", FOR_EVER),
    ],
)
def test_durations(value: str | int, expected: int) -> None:
    assert parse_duration_ms(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "m",
        "5x",
        "5m30",
        "m5",
        "1.5h",
        "5 m",
        "--1",
        "5mm",
        "\u0665m",
        "1e3",
        "9" * 65,
        "9" * 70 + "h",
        "5m\n5m",
        "5M",
    ],
)
def test_what_is_no_duration(value: str) -> None:
    with pytest.raises(UsageError, match="not a duration"):
        parse_duration_ms(value)


@given(
    st.lists(
        st.tuples(st.integers(0, 9999), st.sampled_from(["h", "m", "s", "ms"])),
        min_size=1,
        max_size=4,
    )
)
def test_durations_add_up(parts: list[tuple[int, str]]) -> None:
    unit = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
    text = "".join(f"{number}{name}" for number, name in parts)
    assert parse_duration_ms(text) == sum(number * unit[name] for number, name in parts)


@given(st.text(max_size=70))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert parse_duration_ms(text) >= FOR_EVER


def test_negative_is_for_ever() -> None:
    assert settings.FOR_EVER < 0
