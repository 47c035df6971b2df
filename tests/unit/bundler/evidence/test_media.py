"""Where files lie, as far as the system tells; never an error."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bundler.evidence import media as module
from bundler.evidence.attempt import host, tool_digest
from bundler.evidence.media import Medium, media


def test_a_file_by_its_name_and_size(tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    path.write_bytes(b"x" * 5)
    (found,) = media([path])
    assert (found.file, found.size) == ("b.tar", 5)
    assert found.document()["bytes"] == 5


def test_what_cannot_be_seen_is_left_out(tmp_path: Path) -> None:
    (found,) = media([tmp_path / "absent"])
    assert found.document() == {"file": "absent"}


def test_names_that_a_terminal_would_obey(tmp_path: Path) -> None:
    (found,) = media([tmp_path / "a\x1b[2Jb\nc"])
    assert found.file == "a?[2Jb?c"


def test_what_udev_and_the_device_say(tmp_path: Path) -> None:
    """A copy of what Linux shows of a stick; its device is the null device here."""
    number = Path("/dev/null").stat().st_rdev
    labels = tmp_path / "disk" / "by-label"
    labels.mkdir(parents=True)
    (labels / r"MY\x20STICK").symlink_to("/dev/null")
    usb = tmp_path / "devices" / "usb1" / "1-2"
    block = usb / "host0" / "block" / "sda" / "sda1"
    block.mkdir(parents=True)
    (usb / "serial").write_text("0123456789AB\n")
    sys_block = tmp_path / "block"
    sys_block.mkdir()
    (sys_block / f"{os.major(number)}:{os.minor(number)}").symlink_to(block)
    found = module._device(number, tmp_path / "disk", sys_block)
    assert found == ("MY STICK", "", "0123456789AB")
    assert module._device(number + 1, tmp_path / "disk", sys_block) == ("", "", "")
    assert Medium("b.tar", None, *found).document() == {
        "file": "b.tar",
        "label": "MY STICK",
        "serial": "0123456789AB",
    }


@given(st.text(max_size=300))
def test_any_label_is_bounded_and_printable(label: str) -> None:
    text = module._clean(module._unescaped(label))
    assert 0 < len(text) <= 255
    assert text.isprintable()


def test_the_tool_is_the_same_every_time() -> None:
    assert tool_digest() == tool_digest()
    assert host()
