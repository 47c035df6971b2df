"""One byte changed, anywhere: always refused, never by an exception that is not ours."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bundler.importer import Wishes, import_bundle
from bundler.verifying import verify_bundle
from registry.store import Store
from schemas.errors import ContentError, TrustError
from schemas.render import Output
from tests.support.bundle_simulator import members
from tests.support.site import Site, check_line

NOW = datetime.now(UTC)
CHUNKS = 8


@pytest.fixture(scope="module")
def store(site: Site) -> Iterator[Store]:
    with Store.open(site.home) as store:
        yield store


def flipped(bundle: bytes, offset: int, mask: int) -> io.BytesIO:
    return io.BytesIO(
        bundle[:offset] + bytes([bundle[offset] ^ mask]) + bundle[offset + 1 :],
    )


def check_verify_refuses(store: Store, bundle: bytes, offset: int, mask: int) -> None:
    with Output(quiet=True).progress() as meter:
        try:
            source = flipped(bundle, offset, mask)
            verify_bundle(store, source, {}, wishes=Wishes(), now=NOW, progress=meter)
        except (ContentError, TrustError) as error:
            check_line(error.document())
            return
    raise AssertionError(f"byte {offset} may be changed by {mask:#04x}")


@given(place=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
@settings(max_examples=150)
@example(place=0.0, mask=1)
@example(place=0.9999999, mask=128)
def test_anywhere_in_an_import(
    store: Store, site: Site, good: bytes, place: float, mask: int
) -> None:
    before = site.snapshot()
    source = flipped(good, int(place * len(good)), mask)
    with Output(quiet=True).progress() as meter, pytest.raises((ContentError, TrustError)):
        import_bundle(store, source, {}, wishes=Wishes(), now=NOW, progress=meter)
    assert site.snapshot().installed == before.installed


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_byte_before_the_descriptor(store: Store, good: bytes, chunk: int) -> None:
    """All trust metadata: what an attacker reaches before anything is known to be signed."""
    end = good.index(b"sealift/bundle.json")
    check_each(store, good, range(chunk * end // CHUNKS, (chunk + 1) * end // CHUNKS))


def test_bytes_of_the_descriptor_and_behind(store: Store, good: bytes) -> None:
    """Thinned out, for each costs a whole verification; every one is tested at the reader."""
    check_each(store, good, range(good.index(b"sealift/bundle.json"), len(good), 37))


def check_each(store: Store, bundle: bytes, offsets: Iterable[int]) -> None:
    for offset in offsets:
        check_verify_refuses(store, bundle, offset, 1 << offset % 8)


def test_case_of_each_hexadecimal_digit_of_the_trust_files(store: Store, good: bytes) -> None:
    """Another spelling of the same number: the classic byte that nobody signed."""
    at = 0
    for member in members(good):
        if member.name.startswith("sealift/trust/"):
            begin = at + len(member.header)
            letters = [
                begin + i for i, c in enumerate(member.data) if chr(c) in "abcdef" and i % 5 == 0
            ]
            for offset in letters:
                check_verify_refuses(store, good, offset, 0x20)
        at += len(member.raw)
