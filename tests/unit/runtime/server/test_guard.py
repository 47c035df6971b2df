"""Host and Origin checks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.server.guard import allowed_host, allowed_origin


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
