"""Host and Origin checks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.server.guard import allowed_host, allowed_origin, is_preflight, same_origin


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "localhost",
        "LOCALHOST:11434",
        "127.0.0.1:80",
        "127.8.9.1",
        "[::1]:11434",
        "a.localhost",
    ],
)
def test_hosts_that_mean_this_machine(host: str | None) -> None:
    assert allowed_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:11434",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.168.1.4",
        "0.0.0.0",  # noqa: S104 - a header, not a socket
        "[::",
        "localhost@evil.example",
        "evil.example#localhost",
    ],
)
def test_hosts_that_do_not(host: str) -> None:
    assert not allowed_host(host)


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "http://localhost",
        "https://127.0.0.1:3000",
        "http://[::1]:8080",
        "HTTP://LOCALHOST:5173",
        "app://obsidian.md",
        "chrome-extension://abc",
    ],
)
def test_allowed_origins(origin: str | None) -> None:
    assert allowed_origin(origin, ("app://obsidian.md", "chrome-extension://*"))


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://evil.example",
        "https://localhost.evil.example",
        "file://localhost",
        "app://obsidian.md.evil",
        "http://[::",
    ],
)
def test_refused_origins(origin: str) -> None:
    assert not allowed_origin(origin, ("app://obsidian.md",))


@given(st.text(max_size=40))
def test_any_header_is_decided(text: str) -> None:
    assert allowed_host(text) in (True, False)
    assert allowed_origin(text, ("http://a*",)) in (True, False)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("models.example", True),
        ("MODELS.example.:443", True),
        ("a.lab.example:1", True),
        ("a.b.lab.example", True),
        ("lab.example", False),
        ("evil-lab.example", False),
        ("models.example.evil", False),
        ("localhost", True),
        ("192.0.2.7:443", False),
    ],
)
def test_hosts_that_the_site_names(host: str, allowed: bool) -> None:
    assert allowed_host(host, ("models.example", "*.lab.example")) is allowed


@pytest.mark.parametrize("host", ["192.0.2.7", "[2001:db8::1]:443", "10.0.0.1:8443"])
def test_addresses_where_they_count(host: str) -> None:
    assert not allowed_host(host)
    assert allowed_host(host, addresses=True)
    assert not allowed_host("evil.example", addresses=True)


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("https://models.example", "models.example", True),
        ("https://Models.example:8443", "models.example:8443", True),
        ("https://models.example", "models.example:8443", False),
        ("https://a.models.example", "models.example", False),
        ("app://models.example", "models.example", False),
        ("null", "null", False),
        (None, "models.example", False),
        ("https://models.example", None, False),
    ],
)
def test_pages_of_the_server_itself(origin: str | None, host: str | None, same: bool) -> None:
    assert same_origin(origin, host) is same


def test_preflights() -> None:
    headers = {"Origin": "https://a", "Access-Control-Request-Method": "POST"}
    assert is_preflight("OPTIONS", headers)
    assert not is_preflight("POST", headers)
    assert not is_preflight("OPTIONS", {"Origin": "https://a"})
