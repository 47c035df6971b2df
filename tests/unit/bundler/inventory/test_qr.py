"""A report as QR codes: any order, some twice; what is missing or misread is named."""

from __future__ import annotations

import random
import struct
import zlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.inventory import export_want_list, qr, read_want_list
from registry.digest import Digest
from schemas import limits
from schemas.errors import MalformedDocument, UnsupportedRequest

NOW = datetime(2026, 8, 1, 12, tzinfo=UTC)
ALPHANUMERIC = set("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:")


def made(folder: Path, count: int) -> bytes:
    blobs = {Digest.of(b"%d" % n): n * 12345 for n in range(count)}
    return export_want_list(folder, "ab" * 16, 7, blobs, now=NOW)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return made(tmp_path_factory.mktemp("home"), 60)


@given(seed=st.integers(0, 2**32), version=st.integers(6, 40))
def test_frames_in_any_order_and_some_twice(report: bytes, seed: int, version: int) -> None:
    frames = qr.frames(report, version=version)
    assert set("".join(frames)) <= ALPHANUMERIC
    shuffled = [*frames, *frames[::3], "", "  \n"]
    random.Random(seed).shuffle(shuffled)
    assert qr.join(shuffled) == report
    assert qr.join(f"QR-Code:{frame}\r\n" for frame in frames) == report


@pytest.mark.parametrize("version", [6, 9, 10, 26, 27, 40])
def test_a_frame_fits_its_code(report: bytes, version: int) -> None:
    import segno

    for frame in qr.frames(report, version=version):
        code = segno.make_qr(frame, mode="alphanumeric", error="l", boost_error=False)
        assert int(code.version) <= version
    full = qr.frames(report, version=version)[0]
    if len(qr.frames(report, version=version)) > 1:
        assert segno.make_qr(full, mode="alphanumeric", error="l").version == version


def test_missing_frames_are_named(report: bytes) -> None:
    frames = qr.frames(report, version=6)
    assert qr.Joiner().missing == []
    joiner = qr.Joiner()
    for frame in frames[:1] + frames[2:-1]:
        assert joiner.add(frame)
        assert not joiner.add(frame)
    assert joiner.missing == [2, len(frames)]
    with pytest.raises(MalformedDocument) as caught:
        joiner.data()
    assert caught.value.why == f"2, {len(frames)} of {len(frames)} are missing"
    assert not joiner.complete
    joiner.add(frames[1])
    joiner.add(frames[-1])
    assert joiner.data() == report


def test_nothing_scanned() -> None:
    with pytest.raises(MalformedDocument, match="there is none"):
        qr.join([])


def test_many_missing_frames_are_cut_short(report: bytes) -> None:
    frames = qr.frames(report, version=6)
    with pytest.raises(MalformedDocument, match="more of"):
        qr.join(frames[:1])


@given(position=st.integers(0, 10**6), character=st.sampled_from(sorted(ALPHANUMERIC)))
def test_a_misread_character_is_seen(report: bytes, position: int, character: str) -> None:
    frame = qr.frames(report, version=10)[0]
    at = position % len(frame)
    wrong = frame[:at] + character + frame[at + 1 :]
    joiner = qr.Joiner()
    if wrong == frame:
        return
    with pytest.raises(MalformedDocument):
        joiner.add(wrong)
    assert not joiner.missing


def test_frames_of_two_reports(report: bytes, tmp_path: Path) -> None:
    other = made(tmp_path, 61)
    joiner = qr.Joiner()
    joiner.add(qr.frames(report, version=10)[0])
    with pytest.raises(MalformedDocument, match="of another report"):
        joiner.add(qr.frames(other, version=10)[1])
    with pytest.raises(MalformedDocument, match="of another report"):
        joiner.add(qr.frames(report, version=12)[1])


@pytest.mark.parametrize(
    "text", ["https://example.com", "SEALIFT/1/", "SEALIFT/2/0/1/1/0/A", "x" * 5000]
)
def test_other_codes_are_refused(text: str) -> None:
    with pytest.raises(MalformedDocument):
        qr.join([text])


def framed(packed: bytes) -> list[str]:
    """A series around any bytes, as an attacker would make it."""
    import hashlib

    series = hashlib.sha256(packed).hexdigest()[:16].upper()
    return [qr._frame(series, 1, 1, packed)]


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"not zlib",
        zlib.compress(b""),
        zlib.compress(b"\0\0\0\0\0\0"),
        zlib.compress(b"\xff\xff\0"),
        zlib.compress(struct.pack(">HHH", 0, 0, 2) + b"\xff\xff"),
        zlib.compress(bytes(limits.REPORT_BYTES + 1)),
        zlib.compress(b"x") + b"more",
        zlib.compress(b"x")[:-1],
    ],
)
def test_any_other_content_is_refused(packed: bytes) -> None:
    with pytest.raises(MalformedDocument):
        qr.join(framed(packed or b"\0"))


def test_only_reports_become_codes(report: bytes) -> None:
    for data in (b"hello", report + b"\n", report.replace(b"What", b"Who,")):
        with pytest.raises(MalformedDocument):
            qr.frames(data)


def test_the_report_still_verifies_after_the_journey(tmp_path: Path) -> None:
    data = made(tmp_path, 3)
    frames = qr.frames(data)
    assert len(frames) == 1
    assert len(read_want_list(qr.join(frames)).blobs) == 3


def test_how_large_codes_are_in_a_terminal(report: bytes) -> None:
    assert qr.version_for(80, 40) == 13
    assert qr.version_for(200, 30) == 8
    assert qr.version_for(500, 500) == 40
    with pytest.raises(UnsupportedRequest, match="too small"):
        qr.version_for(80, 20)
    for columns, rows in ((80, 40), (120, 50), (80, 22)):
        frame = qr.frames(report, version=qr.version_for(columns, rows))[0]
        lines = qr.terminal(frame, colour=False).splitlines()
        assert len(lines) <= rows
        assert max(map(len, lines)) <= columns
        assert set("".join(lines)) <= set(" ▀▄█")
    assert qr.terminal(frame).startswith("\x1b[97;40m")


def test_a_picture(report: bytes) -> None:
    picture = qr.png(qr.frames(report)[0], scale=3)
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", picture[16:24])
    assert width == height == (117 + 8) * 3


def test_too_many_codes(monkeypatch: pytest.MonkeyPatch, report: bytes) -> None:
    monkeypatch.setattr(limits, "QR_FRAMES", 2)
    with pytest.raises(UnsupportedRequest, match="too large for QR codes"):
        qr.frames(report, version=6)
    for version in (3, 41):
        with pytest.raises(UnsupportedRequest):
            qr.frames(report, version=version)
