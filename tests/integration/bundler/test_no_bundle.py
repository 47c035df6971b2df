"""Files that are no bundle, and bundles that are not whole."""

from __future__ import annotations

import gzip
import io
import os
import socket
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from bundler.importer import Wishes, import_bundle
from registry.store import Store
from schemas.errors import (
    NotABundle,
    NotFound,
    StorageFailure,
    TruncatedBundle,
    UsageError,
)
from schemas.render import Output
from tests.support.bundle_simulator import WEIGHTS, Member, boundaries, members, tar
from tests.support.site import Site, check_refused

Stick = Callable[[bytes], Path]


def zipped() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("oci-layout", "{}")
    return sink.getvalue()


NO_BUNDLES = {
    "empty": (b"", "it is empty"),
    "one-byte": (b"x", "does not start like one"),
    "random": (bytes(range(256)) * 40, "does not start like one"),
    "zeros": (bytes(20480), "does not start like one"),
    "text": (b"oci-layout\n" * 100, "does not start like one"),
    "gguf": (WEIGHTS, "GGUF model; bundle it first"),
    "gzip": (gzip.compress(b"x" * 5000), "it is gzip"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(600), "it is zstd"),
    "zip": (zipped(), "it is a zip file"),
    "other-tar": (tar([Member.of("README", b"hello")]), "it is some other tar"),
    "empty-tar": (tar([]), "does not start like one"),
    "layout-of-others": (tar([Member.of("oci-layout", b'{"imageLayoutVersion": "1.0.0"}\n')]), ""),
}


@pytest.mark.parametrize("name", NO_BUNDLES)
def test_another_kind_of_file_is_named_as_what_it_is(name: str, site: Site, stick: Stick) -> None:
    data, why = NO_BUNDLES[name]
    error = check_refused(site, stick(data), NotABundle)
    assert why in error["why"]


def test_only_the_first_bytes_of_a_large_file_are_read(site: Site, tmp_path: Path) -> None:
    large = tmp_path / "large.iso"
    with large.open("wb") as file:
        file.truncate(1 << 40)
    check_refused(site, large, NotABundle)


def test_what_is_no_regular_file_is_refused_without_waiting(site: Site, tmp_path: Path) -> None:
    fifo, link = tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to(fifo)
    check_refused(site, tmp_path, NotFound)  # a folder is looked into
    for path in (fifo, link, Path("/dev/zero"), Path("/dev/null")):
        assert "not a regular file" in check_refused(site, path, UsageError)["why"]


def test_socket_is_refused(site: Site, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        check_refused(site, tmp_path / "s", StorageFailure)


def test_missing_file_makes_no_store(site: Site, tmp_path: Path) -> None:
    for path in (tmp_path / "no", tmp_path / "no" / "such", tmp_path / "file" / "below"):
        check_refused(site, path, NotFound)
    nowhere = Site(tmp_path / "home")
    assert nowhere.bundle("import", tmp_path / "no").code == NotFound.exit_code
    assert not nowhere.home.exists()


def test_link_in_a_loop_and_endless_name_are_refused(site: Site, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    check_refused(site, loop, StorageFailure)
    check_refused(site, tmp_path / ("n" * 300), StorageFailure)


def test_bundle_behind_a_link_is_read(
    site: Site, stick: Stick, good: bytes, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(stick(good))
    assert site.bundle("verify", link).code == 0


def test_truncated_at_every_boundary(site: Site, good: bytes, stick: Stick) -> None:
    for end in boundaries(good)[1:-1]:
        assert "bundle" in check_refused(site, stick(good[:end]), TruncatedBundle)["what"]


def test_truncated_around_every_boundary_and_inside_every_member(site: Site, good: bytes) -> None:
    places = boundaries(good)
    inside = {(a + b) // 2 for a, b in pairwise(places)}
    around = {place + step for place in places for step in (-1, 1)}
    for end in sorted((inside | around) - {len(good)}):
        if 0 < end < len(good):
            check_stream_is_truncated(site, good[:end])


def test_truncated_and_filled_up_with_zeros(site: Site, good: bytes, stick: Stick) -> None:
    """What a recovery tool, or a stick that lost its cache, leaves."""
    for end in boundaries(good)[3:-4]:
        outcome = site.bundle("import", stick(good[:end] + bytes(len(good) - end)), "--json")
        assert 10 <= outcome.code < 30, outcome


def test_truncated_and_closed_again_as_a_valid_tar(site: Site, good: bytes, stick: Stick) -> None:
    """Python's tarfile reads each of these without a word."""
    whole = members(good)
    for count in range(1, len(whole)):
        check_refused(site, stick(tar(whole[:count])), TruncatedBundle)


def check_stream_is_truncated(site: Site, data: bytes) -> None:
    """A pipe's length is not known beforehand, so here the end shows where it is."""
    before = site.snapshot()
    receiver, sender = os.pipe()
    assert os.write(sender, data) == len(data)
    os.close(sender)
    with (
        os.fdopen(receiver, "rb", buffering=0) as source,
        Store.open(site.home) as store,
        Output(quiet=True).progress() as meter,
        pytest.raises(TruncatedBundle) as caught,
    ):
        import_bundle(store, source, {}, wishes=Wishes(), now=datetime.now(UTC), progress=meter)
    assert caught.value.hint
    assert site.snapshot().installed == before.installed
