"""Archives that were changed on their way, by somebody without keys. One flaw each."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import (
    ContentMismatch,
    MalformedArchive,
    MalformedDocument,
    NotABundle,
    OutsideClosure,
    TruncatedBundle,
)
from tests.support.bundle_simulator import BLOCK, Member, members, tar, ustar
from tests.support.site import Site, check_refused

Stick = Callable[[bytes], Path]

LAST = -1
MANIFEST = -3
TRUST = 3
ARCHIVE = (MalformedArchive, NotABundle)


def at(bundle: bytes, index: int, *new: Member) -> bytes:
    """The bundle with members put in before one of its own."""
    whole = members(bundle)
    index %= len(whole) + 1
    return tar([*whole[:index], *new, *whole[index:]])


def instead(bundle: bytes, index: int, *new: Member) -> bytes:
    """The bundle with one member replaced."""
    whole = members(bundle)
    index %= len(whole)
    return tar([*whole[:index], *new, *whole[index + 1 :]])


def test_the_simulators_tar_is_the_one_that_others_read(good: bytes, stick: Stick) -> None:
    path = stick(good)
    listed = subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True)
    with tarfile.open(path) as archive:
        assert archive.getnames() == listed.stdout.split() == [m.name for m in members(good)]
    assert tar(members(good)) == good


NAMES = [
    "../evil",
    "sealift/trust/../../evil.json",
    "blobs/sha256/../../../evil",
    "/etc/cron.d/evil",
    "//evil",
    "./oci-layout",
    "sealift/trust//1.root.json",
    "sealift/trust/",
    "sealift/trust/.json",
    "sealift/trust/1..json",
    "sealift/trust/01.root.json",
    "sealift/trust/0.root.json",
    "sealift/trust/1.ROOT.json",
    "sealift/trust/Timestamp.json",
    "sealift/trust/1.root.JSON",
    "sealift/trust/1.root.json ",
    "sealift/trust/1.root.json\n",
    "sealift/trust/1.r\u00f6ot.json",
    "sealift/trust/99999999999.root.json",
    "SEALIFT/bundle.json",
    "sealift\\trust\\1.root.json",
    "C:evil",
    "CON",
    "\x1b]0;owned\x07",
    "oci-layout",
    "index.json",
    "blobs/sha256/" + "0" * 64,
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_name_that_no_bundle_has(name: str, site: Site, good: bytes, stick: Stick) -> None:
    check_refused(site, stick(at(good, TRUST, Member.of(name, b"{}"))), MalformedArchive)
    check_refused(site, stick(at(good, len(members(good)), Member.of(name))), MalformedArchive)


@pytest.mark.parametrize("index", [TRUST, 8, MANIFEST, LAST])
def test_name_continued_in_the_prefix_field(
    index: int, site: Site, good: bytes, stick: Stick
) -> None:
    old = members(good)[index]
    for prefix in ("..", "/", "x", "sealift/trust", "a" * 155):
        new = replace(old, header=ustar(old.name, len(old.data), prefix=prefix))
        check_refused(site, stick(instead(good, index, new)), MalformedArchive)


def test_name_longer_than_any_header_has(site: Site, good: bytes, stick: Stick) -> None:
    """It follows the grammar, and fits only with the prefix field, which we never write."""
    header = ustar("1." + "a" * 93, 0, prefix="sealift/trust")
    long = Member("long", b"", header.replace(b"a" * 93, b"a" * 88 + b".json"), b"")
    fixed = replace(long, header=ustar("1." + "a" * 88 + ".json", 0, prefix="sealift/trust"))
    check_refused(site, stick(at(good, TRUST, fixed)), MalformedArchive)


KINDS = {
    "hard-link": b"1",
    "symbolic-link": b"2",
    "character-device": b"3",
    "block-device": b"4",
    "folder": b"5",
    "fifo": b"6",
    "contiguous": b"7",
    "old-regular": b"\0",
    "pax": b"x",
    "pax-global": b"g",
    "pax-solaris": b"X",
    "gnu-long-name": b"L",
    "gnu-long-link": b"K",
    "gnu-sparse": b"S",
    "gnu-folder": b"D",
    "gnu-multi-volume": b"M",
    "gnu-volume-label": b"V",
    "vendor": b"A",
    "unknown": b"\xff",
}


@pytest.mark.parametrize("kind", KINDS)
def test_member_that_is_no_regular_file(kind: str, site: Site, good: bytes, stick: Stick) -> None:
    flag = KINDS[kind]
    link = Member.of("sealift/trust/2.root.json", kind=flag, link="../../../etc/passwd")
    for index in (TRUST, MANIFEST, len(members(good))):
        check_refused(site, stick(at(good, index, link)), MalformedArchive)
    for index in (0, TRUST, 8, LAST):
        changed = members(good)[index].with_header(kind=flag)
        check_refused(site, stick(instead(good, index, changed)), *ARCHIVE)


@pytest.mark.parametrize(
    "record",
    [
        b"12 size=10\n",
        b"20 path=../../evil\n",
        b"21 linkpath=/etc/pw\n",
        b"29 GNU.sparse.realsize=1000\n",
        b"0 size=10\n",
        b"99999999999999 size=10\n",
        b"garbage",
    ],
)
def test_pax_record_before_a_member(record: bytes, site: Site, good: bytes, stick: Stick) -> None:
    """Where two readers disagree on a size, one sees members that the other does not."""
    for kind in (b"x", b"g"):
        pax = Member.of("././@PaxHeader", record, kind=kind)
        for index in (0, TRUST, LAST):
            check_refused(site, stick(at(good, index, pax)), *ARCHIVE)


SIZES = {
    "negative-octal": b"-0000000001\0",
    "base-256-one": b"\x80" + bytes(10) + b"\x01",
    "base-256-negative": b"\xff" * 12,
    "base-256-huge": b"\x80" + b"\xff" * 11,
    "largest-octal": b"77777777777\0",
    "not-octal": b"99999999999\0",
    "text": b"zzzzzzzzzzz\0",
    "nothing": bytes(12),
    "blanks": b" " * 12,
    "leading-blank": b" 0000000001\0",
    "ends-without-nul": b"000000000010",
    "underscore": b"0000000_010\0",
}


@pytest.mark.parametrize("size", SIZES)
def test_size_field_in_another_way(size: str, site: Site, good: bytes, stick: Stick) -> None:
    for index in (0, TRUST, 8, LAST):
        changed = members(good)[index].with_header(size_field=SIZES[size])
        check_refused(site, stick(instead(good, index, changed)), *ARCHIVE)


@pytest.mark.parametrize("step", [-1, 1, 512, 1 << 20])
def test_size_too_small_or_too_large(step: int, site: Site, good: bytes, stick: Stick) -> None:
    for index, old in enumerate(members(good)):
        size = len(old.data) + step
        changed = old.with_header(size=size)
        kinds = (*ARCHIVE, TruncatedBundle, MalformedDocument, ContentMismatch, OutsideClosure)
        check_refused(site, stick(instead(good, index, changed)), *kinds)


FIELDS: list[dict[str, Any]] = [
    {"mode": 0o4755},
    {"mode": 0},
    {"uid": 1000},
    {"gid": 1000},
    {"mtime": 1},
    {"user": "root"},
    {"group": "root"},
    {"link": "x"},
    {"devmajor": 1},
    {"devminor": 1},
    {"magic": b"ustar  \0"},
    {"magic": bytes(8)},
    {"magic": b"ustar\x0001"},
    {"tail": b"x"},
]


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_header_field_that_no_reader_looks_at(
    fields: dict[str, Any], site: Site, good: bytes, stick: Stick
) -> None:
    for index in (0, TRUST, 8, LAST):
        changed = members(good)[index].with_header(**fields)
        check_refused(site, stick(instead(good, index, changed)), *ARCHIVE)


def test_wrong_checksum_in_a_header(site: Site, good: bytes, stick: Stick) -> None:
    for index, old in enumerate(members(good)):
        for checksum in (b"000000\0 ", b"        ", b"7777777\0", bytes(8)):
            header = old.header[:148] + checksum + old.header[156:]
            changed = replace(old, header=header)
            check_refused(site, stick(instead(good, index, changed)), *ARCHIVE)


def test_every_member_missing_in_turn(site: Site, good: bytes, stick: Stick) -> None:
    kinds = (*ARCHIVE, TruncatedBundle)
    for index in range(len(members(good))):
        check_refused(site, stick(instead(good, index)), *kinds)


def test_every_member_twice_in_turn(site: Site, good: bytes, stick: Stick) -> None:
    for index, old in enumerate(members(good)):
        check_refused(site, stick(at(good, index, old)), MalformedArchive)


def test_neighbours_exchanged_in_turn(site: Site, good: bytes, stick: Stick) -> None:
    """Trust files may come in any order, for nothing hangs on it; nothing else may."""
    whole = members(good)
    trust = range(1, 8)
    for index in range(len(whole) - 1):
        other = list(whole)
        other[index : index + 2] = reversed(other[index : index + 2])
        if index in trust and index + 1 in trust:
            assert site.bundle("verify", stick(tar(other))).code == 0
        else:
            check_refused(site, stick(tar(other)), *ARCHIVE)


def test_member_that_nobody_signed_for(site: Site, good: bytes, stick: Stick) -> None:
    extra = Member.of("blobs/sha256/" + "ab" * 32, b"payload")
    for index in (9, 10, MANIFEST, LAST, len(members(good))):
        check_refused(site, stick(at(good, index, extra)), MalformedArchive)


def test_trust_file_that_nobody_names(site: Site, good: bytes, stick: Stick) -> None:
    for name in ("1.evil.json", "2.root.json", "2.targets.json", "9.snapshot.json"):
        extra = Member.of(f"sealift/trust/{name}", members(good)[1].data)
        kinds = (MalformedArchive, MalformedDocument)
        check_refused(site, stick(at(good, TRUST, extra)), *kinds)


def test_more_trust_files_than_any_bundle_has(site: Site, good: bytes, stick: Stick) -> None:
    many = [Member.of(f"sealift/trust/{n}.evil.json", b"{}") for n in range(1, 1100)]
    check_refused(site, stick(at(good, TRUST, *many)), MalformedArchive)


def test_trust_file_larger_than_any_is_not_read(site: Site, good: bytes, stick: Stick) -> None:
    huge = Member.of("sealift/trust/2.root.json").with_header(size=5_000_001)
    error = check_refused(site, stick(at(good, TRUST, huge)), MalformedArchive)
    assert "5000001" in error["why"]


@pytest.mark.parametrize("index", range(13))
def test_data_of_one_member_replaced(index: int, site: Site, good: bytes, stick: Stick) -> None:
    old = members(good)[index]
    for data in (b"", b"{}", old.data[:-1], old.data + b" ", old.data[::-1], bytes(len(old.data))):
        outcome = site.bundle("import", stick(instead(good, index, old.with_data(data))), "--json")
        assert 10 <= outcome.code < 30, (data, outcome)
    same_size = replace(old, data=bytes(len(old.data)))
    kinds = (*ARCHIVE, MalformedDocument, ContentMismatch, OutsideClosure)
    check_refused(site, stick(instead(good, index, same_size)), *kinds)


def test_blobs_exchanged_under_their_names(site: Site, good: bytes, stick: Stick) -> None:
    whole = members(good)
    config, weights = whole[-2], whole[-1]
    lied = tar([*whole[:-1], replace(weights, data=weights.data[::-1])])
    error = check_refused(site, stick(lied), ContentMismatch)
    assert weights.name.rpartition("/")[2][:12] in error["what"]
    other = bytes([config.data[0] ^ 1]) + config.data[1:]
    lied = tar([*whole[:-2], replace(config, data=other), weights])
    check_refused(site, stick(lied), ContentMismatch)


@pytest.mark.parametrize("index", range(13))
def test_filling_after_a_member_is_not_zero(
    index: int, site: Site, good: bytes, stick: Stick
) -> None:
    old = members(good)[index]
    if not old.filling:  # the model of the fixture fills its last block
        assert len(old.data) % BLOCK == 0
        return
    for filling in (b"\x01" + old.filling[1:], old.filling[:-1] + b"\x80"):
        changed = replace(old, filling=filling)
        check_refused(site, stick(instead(good, index, changed)), *ARCHIVE)


def test_anything_after_the_end(site: Site, good: bytes, stick: Stick) -> None:
    for more in (b"\0", b"x", bytes(BLOCK), bytes(20 * BLOCK), good, b"PK\x05\x06" + bytes(18)):
        check_refused(site, stick(good + more), MalformedArchive)


def test_end_mark_holds_something(site: Site, good: bytes, stick: Stick) -> None:
    for place in (1, BLOCK - 1, BLOCK, 2 * BLOCK - 1):
        changed = bytearray(good)
        changed[-place] = 1
        check_refused(site, stick(bytes(changed)), MalformedArchive)


def test_other_blocking_factor(site: Site, good: bytes, stick: Stick) -> None:
    body = b"".join(member.raw for member in members(good))
    check_refused(site, stick(body), TruncatedBundle)
    check_refused(site, stick(body + bytes(BLOCK)), TruncatedBundle)
