"""An inventory off the screen: what the terminal shows is read by a barcode library, as by a phone."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import zxingcpp

from bundler.inventory import qr, read
from tests.support.bundle_simulator import Forgery, forge, twin
from tests.support.publisher_simulator import Simulator
from tests.support.site import Site
from tests.support.terminal import Terminal

ROWS, COLUMNS = 24, 80
PIXELS = 6  # a side of a module on a screen
BRIGHT_ON_BLACK = re.compile(r"\x1b\[97;40m([ \u2580\u2584\u2588]*)\x1b\[0m")
HALVES = {" ": (0, 0), "\u2580": (255, 0), "\u2584": (0, 255), "\u2588": (255, 255)}


def screen(shown: str) -> tuple[np.ndarray, int]:
    """What a camera sees of the code: a bitmap; and how many lines it takes."""
    lines = BRIGHT_ON_BLACK.findall(shown)
    assert max(map(len, lines)) <= COLUMNS
    rows = [[HALVES[c][half] for c in line] for line in lines for half in (0, 1)]
    bitmap = np.array(rows, np.uint8).repeat(PIXELS, 0).repeat(PIXELS, 1)
    around = np.zeros((bitmap.shape[0] + 40, bitmap.shape[1] + 200), np.uint8)  # a dark terminal
    around[20:-20, 100:-100] = bitmap
    return around, len(lines)


def test_codes_in_a_small_terminal(publisher: Simulator, site: Site, tmp_path: Path) -> None:
    """80 by 24: each code fits beside its two lines of text, and all of them give the report."""
    target = site.copy(tmp_path / "home")
    bundle = tmp_path / "models.tar"
    bundle.write_bytes(forge(twin(publisher), Forgery()))
    assert target.bundle("import", bundle).code == 0
    output = tmp_path / "site.inventory"
    terminal = Terminal(
        {**os.environ, "SEALIFT_HOME": str(target.home)},
        *("bundle", "inventory", "export", "--qr", "-o", str(output)),
        size=(ROWS, COLUMNS),
    )
    texts: list[str] = []
    total = 0
    while not texts or len(texts) < total:
        shown = terminal.expect("QR code ")
        total = int(terminal.expect("\n").split("of")[1])
        picture, lines = screen(shown)
        assert lines + 2 <= ROWS
        found = zxingcpp.read_barcodes(picture)
        assert [each.format.name for each in found] == ["QRCode"]
        texts.append(found[0].text)
        if len(texts) < total:
            terminal.expect("press Enter.")
            terminal.type("\n")
    terminal.expect("wrote")
    assert terminal.end() == 0
    assert total > 1
    assert qr.join(texts) == output.read_bytes()
    assert [str(model.reference) for model in read(output.read_bytes()).models] == [
        "library/tiny:1"
    ]
